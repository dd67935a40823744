//! A dockerd below the scratch directory, with the graph driver `fuse-overlayfs`.
//!
//! That driver runs the program `fuse-overlayfs` from PATH, here the program under test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::engine::Engine;
use crate::harness::{self, Background, Site};

/// The time limit for the first answer of dockerd.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A dockerd, and a client of it.
pub struct Docker {
    pub engine: Engine,
    daemon: Background,
}

impl Docker {
    /// Starts dockerd with the programs in `bin` first on PATH.
    pub fn start(site: &Site, bin: &str) -> Self {
        Self::start_with(site, bin, "fuse-overlayfs")
    }

    /// Starts dockerd with a graph driver.
    pub fn start_with(site: &Site, bin: &str, driver: &str) -> Self {
        let place = site.directory("docker");
        let socket = format!("unix://{place}/sock");
        let keys = format!("{{\"deprecated-key-path\": \"{place}/key.json\"}}");
        let config = site.write("docker/config", keys);
        let path = format!("{bin}:{}", std::env::var("PATH").expect("PATH"));
        let mut daemon = Command::new("dockerd");
        daemon.env("PATH", path).args(["--config-file", &config, "-H", &socket]);
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("-p", "pid")] {
            daemon.arg(option).arg(format!("{place}/{name}"));
        }
        daemon.args(["--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        daemon.args(["--ip-masq=false", "--bridge=none", "--storage-driver", driver]);
        daemon.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        let daemon = Background::start(&mut daemon, Path::new(&site.at("dockerd.log")));
        let variables = vec![
            ("DOCKER_HOST", socket),
            ("DOCKER_BUILDKIT", "0".to_owned()),
            ("DOCKER_CONFIG", format!("{place}/client")),
        ];
        let run_options = vec!["--network", "none"];
        let engine = Engine { program: "docker", variables, user: None, run_options };
        harness::until(START_LIMIT, || engine.call(&["info"]).is_ok());
        Self { engine, daemon }
    }

    /// The graph driver of dockerd.
    pub fn driver(&self) -> String {
        let info = self.engine.call(&["info", "--format", "{{json .}}"]).json();
        info["Driver"].as_str().unwrap_or_default().to_owned()
    }

    /// Stops dockerd.
    pub fn end(mut self) {
        self.daemon.end(Signal::TERM);
    }

    /// Kills dockerd; its containers continue.
    pub fn kill(mut self, site: &Site) {
        self.daemon.end(Signal::KILL);
        // The next dockerd would wait for the processes in these files.
        for name in ["docker/pid", "docker/exec/containerd/containerd.pid"] {
            if let Err(error) = std::fs::remove_file(site.at(name)) {
                println!("  {name}: {error}");
            }
        }
    }
}

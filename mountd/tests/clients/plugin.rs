//! `lamina serve` as the volume plugin of the engines of a scenario.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{self, Background, Done, Site};

/// Where dockerd looks for plugins.
const PLACE: &str = "/run/docker";
/// The socket of the plugin.
pub const SOCKET: &str = "/run/docker/plugins/lamina.sock";
/// How long the daemon may take to start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running daemon with the data root `root` of the scenario.
pub struct Plugin {
    root: String,
    runtime: String,
    log: String,
    metrics: String,
    process: Background,
}

impl Plugin {
    /// Starts the daemon. Its socket is at the usual path, in this mount namespace alone.
    pub fn start(site: &Site) -> Self {
        std::fs::create_dir_all(PLACE).expect("a directory");
        harness::call("mount", &["-t", "tmpfs", "plugins", PLACE]).expect();
        let [root, runtime, log, metrics] =
            ["root", "run", "serve.log", "metrics.sock"].map(|name| site.at(name));
        let process = Self::process(&root, &runtime, &log, &metrics);
        let mut plugin = Self { root, runtime, log, metrics, process };
        plugin.wait();
        plugin
    }

    fn process(root: &str, runtime: &str, log: &str, metrics: &str) -> Background {
        let mut command = Command::new(harness::program());
        command.env("LAMINA_RUNTIME_DIR", runtime).env_remove("LAMINA_ROOT");
        command.args(["serve", "--root", root, "--docker", SOCKET]);
        command.arg("--metrics").arg(format!("unix:{metrics}"));
        Background::start(&mut command, Path::new(log))
    }

    fn wait(&mut self) {
        let listens = || std::os::unix::net::UnixStream::connect(SOCKET).is_ok();
        assert!(harness::until(START_LIMIT, listens), "the plugin does not listen");
        assert!(self.process.is_running(), "the plugin ended");
    }

    /// Ends the daemon by a signal, and starts it again.
    pub fn restart(&mut self, signal: Signal) {
        self.process.end(signal);
        self.process = Self::process(&self.root, &self.runtime, &self.log, &self.metrics);
        self.wait();
    }

    /// Ends the daemon in order; whether it succeeded.
    pub fn end(mut self) -> bool {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    /// A path of a volume below the data root.
    pub fn at(&self, name: &str) -> String {
        format!("{}/volumes/{name}/_data", self.root)
    }

    /// What monitoring reads.
    pub fn metrics(&self) -> String {
        curl(&self.metrics, &["http://lamina/metrics"]).text()
    }

    /// Calls the plugin as an engine does; its reply, and how long it took.
    pub fn call(&self, call: &str, body: &str) -> (Value, Duration) {
        let start = Instant::now();
        let url = format!("http://plugin/VolumeDriver.{call}");
        let done = curl(SOCKET, &["-X", "POST", "-d", body, &url]);
        (serde_json::from_str(&done.text()).unwrap_or_default(), start.elapsed())
    }
}

fn curl(socket: &str, args: &[&str]) -> Done {
    harness::call("curl", &[&["-sS", "--max-time", "130", "--unix-socket", socket], args].concat())
}

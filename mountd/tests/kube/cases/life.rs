//! Daemons of one data root after each other, which end at a commit of their choice.
//!
//! A library that is preloaded counts the commits of the catalogue and ends the process at one of
//! them: `kill.c`. The data root begins as a copy of one that a daemon has prepared.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, Reply};
use crate::daemon::{self, free_address};
use crate::until::until;

/// The time in which a daemon has to answer.
const WAIT: Duration = Duration::from_secs(20);
/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(3);
/// A claim that no volume suits, in a namespace of its own: the controller's answer to a change of
/// it comes after all that is due before.
pub const MARK: &str = "/api/v1/namespaces/mark/persistentvolumeclaims/mark";

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// What all lives begin with.
pub struct Template {
    place: daemon::Place,
    config: String,
    library: PathBuf,
}

impl Template {
    pub fn new() -> Self {
        let place = daemon::Place::new();
        let library = place.at("kill.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kube/cases/kill.c");
        let mut build = Command::new("cc");
        build.args(["-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o"]);
        assert!(build.arg(&library).arg(source).status().unwrap().success());
        let mut daemon = place.start();
        let mut client = daemon.client();
        let namespace = json!({"metadata": {"name": "mark"}});
        client.post("/api/v1/namespaces", &namespace).is(201);
        let spec = json!({
            "storageClassName": "",
            "volumeName": "none",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1"}},
        });
        let mark = json!({"metadata": {"name": "mark"}, "spec": spec});
        client.post(MARK.trim_end_matches("/mark"), &mark).is(201);
        until("the mark", || client.get(MARK).is(200)["status"]["phase"] == "Pending");
        let config = daemon.config.clone();
        daemon.end();
        Self { place, config, library }
    }
}

/// A data root, and the daemon that has it now.
pub struct Life<'a> {
    template: &'a Template,
    dir: tempfile::TempDir,
    address: SocketAddr,
    config: String,
    child: Option<Child>,
    client: Option<Client>,
    /// The commits at which the next daemons end; the ones behind them go on.
    kills: Vec<u64>,
    pub ends: usize,
}

impl<'a> Life<'a> {
    pub fn new(template: &'a Template, kills: &[u64]) -> Self {
        let dir = tempfile::Builder::new().prefix("case").tempdir_in("/tmp").unwrap();
        copy(&template.place.at("root"), &dir.path().join("root"));
        fs::write(dir.path().join("lamina.toml"), "").unwrap();
        let address = free_address();
        let before = template.config.lines().find(|line| line.contains("server:")).unwrap();
        let config = template.config.replace(before, &format!("    server: https://{address}"));
        let kills = kills.iter().rev().copied().collect();
        Self { template, dir, address, config, child: None, client: None, kills, ends: 0 }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The commits of all daemons.
    pub fn commits(&self) -> u64 {
        fs::metadata(self.dir().join("commits")).map_or(0, |file| file.len())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamina"));
        for name in ["LAMINA_ROOT", "LAMINA_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        command.env("LAMINA_RUNTIME_DIR", self.dir().join("run"));
        command.env("LD_PRELOAD", &self.template.library);
        command.env("KILL_LOG", self.dir().join("commits"));
        command.env("KILL_AT", self.kills.pop().unwrap_or(0).to_string());
        command.arg("serve").arg("--root").arg(self.dir().join("root"));
        command.arg("--config").arg(self.dir().join("lamina.toml"));
        command.arg(format!("--kube={}", self.address)).arg("--node=here");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Connects, with a new daemon if the last one ended.
    fn connect(&mut self) {
        let ended = match &mut self.child {
            Some(child) => child.try_wait().unwrap(),
            None => None,
        };
        if let Some(status) = ended {
            assert!(status.code().is_none(), "{status}: {}", self.log());
            self.ends += 1;
        }
        if ended.is_some() || self.child.is_none() {
            self.start();
        }
        self.client = Client::try_new(&self.config);
        if self.client.is_none() {
            std::thread::sleep(LOOK);
        }
    }

    /// Sends a request until a daemon answers it. Whether one may have carried it out before.
    pub fn request(&mut self, method: &str, path: &str, form: &str, body: &str) -> (Reply, bool) {
        let deadline = Instant::now() + WAIT;
        let form = format!("Content-Type: application/{form}");
        let mut is_repeated = false;
        loop {
            assert!(Instant::now() < deadline, "no answer to {method} {path}: {}", self.log());
            let Some(client) = &mut self.client else {
                self.connect();
                continue;
            };
            match client.try_request(method, path, &[&form], body) {
                Ok(reply) => return (reply, is_repeated),
                Err(_) => {
                    self.client = None;
                    is_repeated = true;
                }
            }
        }
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.request("GET", path, "json", "").0
    }

    /// Waits until the controller has done what is due.
    pub fn settle(&mut self) {
        for _ in 0..2 {
            let patch = r#"{"metadata":{"finalizers":null}}"#;
            self.request("PATCH", MARK, "merge-patch+json", patch);
            let deadline = Instant::now() + WAIT;
            while self.get(MARK).json()["metadata"]["finalizers"].is_null() {
                assert!(Instant::now() < deadline, "the controller stands still: {}", self.log());
                std::thread::sleep(LOOK);
            }
        }
    }

    /// Ends the daemon as a crash would, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.client = None;
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

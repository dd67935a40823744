//! kubectl, as it is installed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::daemon::{Daemon, Place};
use crate::programs::has;

/// The version of a kubectl, such as `1.32`.
fn version(program: &Path) -> Option<String> {
    let done = Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let shown: Value = serde_json::from_slice(&done.stdout).ok()?;
    let numbers = shown["clientVersion"]["gitVersion"].as_str()?.trim_start_matches('v');
    Some(numbers.split('.').take(2).collect::<Vec<_>>().join("."))
}

/// The installed kubectl, and the one of 1.20 that `scripts/deps test` fetches.
pub fn versions() -> Vec<(String, PathBuf)> {
    let tools = std::env::var_os("LAMINA_TOOLS").map(PathBuf::from);
    let tools =
        tools.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|dir| dir.join("kubectl"));
    let installed = installed.filter(|program| program.exists()).take(1);
    let all = installed.chain([tools.join("bin/kubectl-1.20")]);
    let found = all.filter_map(|program| Some((version(&program)?, program)));
    let mut found: Vec<(String, PathBuf)> = found.collect();
    found.dedup_by(|one, other| one.0 == other.0);
    let is_whole = found.iter().any(|(version, _)| version == "1.20");
    assert!(is_whole || std::env::var_os("LAMINA_NO_SKIP").is_none(), "no kubectl 1.20: {found:?}");
    if !is_whole {
        eprintln!("skipped: kubectl 1.20 is not there: scripts/deps test");
    }
    found
}

/// kubectl with the configuration of a daemon.
pub struct Kubectl {
    config: PathBuf,
    cache: PathBuf,
}

/// What a run printed.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[track_caller]
    pub fn is(&self, stdout: &str) {
        assert_eq!((self.code, &self.stdout[..]), (0, stdout), "{}", self.stderr);
    }

    /// The words of each line.
    pub fn rows(&self) -> Vec<Vec<&str>> {
        self.stdout.lines().map(|line| line.split_whitespace().collect()).collect()
    }
}

impl Kubectl {
    /// `None` where it is not installed, which is an error in CI.
    pub fn new(place: &Place, daemon: &Daemon) -> Option<Self> {
        if !has("kubectl") {
            return None;
        }
        let (config, cache) = (place.at("kubeconfig"), place.at("cache"));
        std::fs::write(&config, &daemon.config).unwrap();
        Some(Self { config, cache })
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.config).arg("--cache-dir").arg(&self.cache);
        command.args(args).stdin(Stdio::null()).env_remove("KUBECONFIG");
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        let done = self.command(args).output().unwrap();
        Output {
            code: done.status.code().unwrap(),
            stdout: String::from_utf8(done.stdout).unwrap(),
            stderr: String::from_utf8(done.stderr).unwrap(),
        }
    }

    /// Creates the objects of a manifest.
    #[track_caller]
    pub fn create(&self, manifest: &str) {
        let mut command = self.command(&["create", "--validate=false", "-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

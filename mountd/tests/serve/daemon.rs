//! A daemon with a data root of its own.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::until::until;

/// For what should happen at once.
pub const WAIT: Duration = Duration::from_secs(20);

/// The files of a daemon, which outlive it.
pub struct Place {
    dir: tempfile::TempDir,
}

/// A running daemon. It is killed when it is dropped.
pub struct Daemon {
    child: Child,
    pub docker: PathBuf,
    log: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self, text: &str) {
        fs::write(self.at("lamina.toml"), text).unwrap();
    }

    /// The command of a daemon without flags of front ends.
    pub fn command(&self) -> Command {
        self.dress(Command::new(env!("CARGO_BIN_EXE_lamina")))
    }

    /// Gives a command the environment and arguments of a daemon.
    pub fn dress(&self, mut command: Command) -> Command {
        let log = File::options().create(true).append(true).open(self.at("log")).unwrap();
        for name in ["LAMINA_ROOT", "LAMINA_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        command.env("LAMINA_RUNTIME_DIR", self.at("run"));
        if !self.at("lamina.toml").exists() {
            self.config("");
        }
        command.arg("serve").arg("--root").arg(self.at("root"));
        command.arg("--config").arg(self.at("lamina.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts a command and waits until it listens.
    pub fn start_command(&self, command: &mut Command) -> Daemon {
        let docker = self.at("plugins/lamina.sock");
        let child = command.spawn().unwrap();
        let mut daemon = Daemon { child, docker, log: self.at("log") };
        until("the start", || {
            assert!(daemon.child.try_wait().unwrap().is_none(), "{}", daemon.log());
            // A socket of an earlier daemon refuses. This one queues until it is ready.
            UnixStream::connect(&daemon.docker).is_ok() && daemon.client().activates()
        });
        daemon
    }

    /// Starts a daemon with the volume plugin.
    pub fn start(&self) -> Daemon {
        let docker = self.at("plugins/lamina.sock");
        self.start_command(self.command().arg("--docker").arg(docker))
    }

    /// Runs a daemon that is refused; its exit code and what it says.
    pub fn refused(&self, args: &[&str]) -> (i32, String) {
        let done = self.command().args(args).stderr(Stdio::piped()).output().unwrap();
        (done.status.code().unwrap(), String::from_utf8(done.stderr).unwrap())
    }
}

impl Daemon {
    pub fn client(&self) -> Client {
        Client::new(&self.docker)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        until("the end", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }

    /// Ends it in order.
    pub fn end(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
    }

    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.wait().signal(), Some(9));
    }

    pub fn says(&self, text: &str) {
        until(&format!("{text:?} in the log"), || self.log().contains(text));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// The permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

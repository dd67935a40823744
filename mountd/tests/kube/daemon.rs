//! A daemon with a data root and a port of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::port;
use crate::until::until;

/// For what should happen at once.
pub const WAIT: Duration = Duration::from_secs(20);

/// The files of daemons, which outlive them.
pub struct Place {
    dir: tempfile::TempDir,
}

/// A running daemon. It is killed when it is dropped.
pub struct Daemon {
    child: Child,
    pub config: String,
}

/// An address on which nobody listens.
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port::free()).into()
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lamina.toml"), "").unwrap();
        Self { dir }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamina"));
        for name in ["LAMINA_ROOT", "LAMINA_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        command.env("LAMINA_RUNTIME_DIR", self.at("run")).stdin(Stdio::null());
        command
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    /// The kubeconfig of a client of an address.
    pub fn kubeconfig(&self, address: SocketAddr) -> String {
        let mut command = self.command();
        command.args(["kubeconfig", "--root"]).arg(self.at("root"));
        let done = command.arg(format!("--server=https://{address}")).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Starts a daemon at an address and waits until it answers.
    pub fn start_at(&self, address: SocketAddr) -> Daemon {
        let log = File::options().create(true).append(true).open(self.at("log")).unwrap();
        let mut command = self.command();
        command.arg("serve").arg("--root").arg(self.at("root"));
        command.arg("--config").arg(self.at("lamina.toml"));
        command.arg(format!("--kube={address}")).arg("--node=here");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut daemon = Daemon { child, config: String::new() };
        until("the start", || {
            assert!(daemon.child.try_wait().unwrap().is_none(), "{}", self.log());
            self.at("root/kube/address").exists()
        });
        daemon.config = self.kubeconfig(address);
        until("an answer", || {
            assert!(daemon.child.try_wait().unwrap().is_none(), "{}", self.log());
            Client::try_new(&daemon.config).is_some_and(|mut client| client.is_ready())
        });
        daemon
    }

    pub fn start(&self) -> Daemon {
        self.start_at(free_address())
    }
}

impl Daemon {
    pub fn client(&self) -> Client {
        Client::try_new(&self.config).unwrap()
    }

    fn end_by(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        until("the end", || self.child.try_wait().unwrap().is_some());
    }

    /// Ends it in order.
    pub fn end(&mut self) {
        self.end_by(Signal::TERM);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    pub fn kill(&mut self) {
        self.end_by(Signal::KILL);
    }

    /// Its resident memory in KiB.
    pub fn memory_kib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
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

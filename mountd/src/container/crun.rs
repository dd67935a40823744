//! crun, with the bundles of containers.
//!
//! A container is the foreground of its runtime's process, whose exit code is that of the
//! container. What the runtime itself has to say goes to a file in the bundle.
//!
//! crun refuses hosts that have both forms of cgroups with controllers in the second one. There it
//! runs in a mount namespace without that one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::files::make_dir;
use super::launch::Launch;

/// The name of the program.
pub const CRUN: &str = "crun";
/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Takes the second form of cgroups away and goes on as the program behind it.
const WITHOUT_SECOND: &str = "mount --make-private /sys/fs/cgroup && \
                              umount /sys/fs/cgroup/unified && exec \"$@\"";
/// The most bytes that are read of what a runtime says.
const SAID_MAX: usize = 4096;

fn is_writable(path: &str) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Whether both forms of cgroups are there, and the second one has controllers.
fn is_hybrid() -> bool {
    let controllers = fs::read_to_string(format!("{CGROUPS}/unified/cgroup.controllers"));
    controllers.is_ok_and(|text| !text.trim().is_empty())
}

/// Whether this process can make cgroups.
pub fn has_cgroups() -> bool {
    let is_second = Path::new(CGROUPS).join("cgroup.controllers").exists();
    match is_second {
        true => is_writable(CGROUPS),
        false => ["devices", "pids"].iter().all(|one| is_writable(&format!("{CGROUPS}/{one}"))),
    }
}

/// crun with the directory of the states of its containers.
#[derive(Debug)]
pub struct Crun {
    state: PathBuf,
    /// Whether containers have cgroups.
    pub has_cgroups: bool,
    is_hybrid: bool,
}

impl Crun {
    /// crun with the states of its containers in a directory.
    pub fn new(state: PathBuf) -> Self {
        Self { state, has_cgroups: has_cgroups(), is_hybrid: is_hybrid() }
    }

    /// The directory of the states.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// A runtime of any name, where it finds the cgroups that it supports.
    pub fn program(&self, name: &str) -> Command {
        let mut command = if self.is_hybrid {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "unchanged", "sh", "-c", WITHOUT_SECOND]);
            command.args(["sh", name]);
            command
        } else {
            Command::new(name)
        };
        command.stdin(Stdio::null());
        command
    }

    /// crun, to which the words of a request are added.
    pub fn command(&self) -> Command {
        let mut command = self.program(CRUN);
        let manager = if self.has_cgroups { "cgroupfs" } else { "disabled" };
        command.arg("--root").arg(&self.state).args(["--cgroup-manager", manager]);
        command
    }

    /// Makes a bundle of what a container of the same place left, or anew.
    ///
    /// # Errors
    /// As mkdir(2) and unlink(2).
    pub fn clear(&self, bundle: &Path, more: &[&str]) -> io::Result<()> {
        make_dir(bundle)?;
        make_dir(&self.state)?;
        for name in ["pid", "runtime.log"].iter().chain(more) {
            match fs::remove_file(bundle.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the bundle of a container, and returns the command that runs it in the foreground.
    /// With `console` the container has a terminal, whose other side crun sends to that socket.
    ///
    /// # Errors
    /// As write(2).
    pub fn run(
        &self,
        bundle: &Path,
        launch: &Launch,
        console: Option<&Path>,
    ) -> io::Result<Command> {
        let cgroup = format!("/lamina/{}", launch.id);
        let config = launch.config(self.has_cgroups.then_some(&cgroup[..]));
        fs::write(bundle.join("config.json"), config.to_string())?;
        let mut command = self.command();
        command.arg("--log").arg(bundle.join("runtime.log")).args(["--log-format", "json"]);
        command.arg("run").arg("--pid-file").arg(bundle.join("pid"));
        if let Some(socket) = console {
            command.arg("--console-socket").arg(socket);
        }
        command.arg("--bundle").arg(bundle).arg(&launch.id);
        Ok(command)
    }

    /// Sends a signal to the first process of a container.
    ///
    /// # Errors
    /// What crun says, also of a container that has ended.
    pub fn kill(&self, id: &str, signal: &str) -> io::Result<()> {
        let mut command = self.command();
        command.args(["kill", id, signal]);
        quiet(command).map(drop)
    }

    /// Kills and removes a container. One that is gone is no error.
    ///
    /// # Errors
    /// What crun says.
    pub fn delete(&self, id: &str) -> io::Result<()> {
        let state = self.state.join(id);
        if !state.exists() {
            return Ok(());
        }
        let mut command = self.command();
        command.args(["delete", "--force", id]);
        match quiet(command) {
            // It ended by itself meanwhile.
            Err(_) if !state.exists() => Ok(()),
            done => done.map(drop),
        }
    }

    /// The ids of the containers that have a state, also of those that an earlier process left.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn ids(&self) -> io::Result<Vec<String>> {
        let states = match fs::read_dir(&self.state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            states => states?,
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        states.map(name).collect()
    }

    /// Kills and removes all containers that have a state.
    ///
    /// # Errors
    /// What crun says.
    pub fn delete_all(&self) -> io::Result<()> {
        self.ids()?.iter().try_for_each(|id| self.delete(id))
    }
}

/// What a runtime that could not start a container said; empty if it did.
pub fn said(bundle: &Path) -> String {
    said_in(&bundle.join("runtime.log"))
}

/// The errors in a log of a runtime.
pub fn said_in(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(..SAID_MAX).unwrap_or(&text)).into_owned();
    let messages = text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let is_error = line.get("level").and_then(Value::as_str) == Some("error");
        let message = line.get("msg").and_then(Value::as_str).map(str::to_owned);
        message.filter(|_| is_error)
    });
    messages.collect::<Vec<_>>().join("; ")
}

/// Whether a container began to run.
pub fn has_begun(bundle: &Path) -> bool {
    fs::metadata(bundle.join("pid")).is_ok_and(|meta| meta.len() > 0)
}

/// Runs a command to its end. Its error is what it says.
///
/// # Errors
/// Of the start, or what the command says.
pub fn quiet(mut command: Command) -> io::Result<Output> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(text))
}

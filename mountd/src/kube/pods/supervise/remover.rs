//! Removes what a runtime that was killed left: its container goes on without it.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::kube::pods::home::Home;
use crate::kube::pods::runtime::Runtime;

/// Removes one container.
pub(super) struct Remover {
    command: Command,
    /// What is there as long as the container is; `None` for a runtime that keeps this elsewhere.
    state: Option<PathBuf>,
}

impl Remover {
    /// One for the container that a command runs. The words before those of the request are about
    /// the runtime as a whole, and hold for the removal too.
    pub(super) fn of(run: &Command, runtime: &str, (home, id): (&Home, &str)) -> Self {
        let is_common = |word: &&OsStr| *word != "--log" && *word != "run";
        let mut command = Command::new(run.get_program());
        command.args(run.get_args().take_while(is_common)).stdin(Stdio::null());
        let is_podman = Runtime::of(runtime) == Some(Runtime::Podman);
        match is_podman {
            true => command.args(["rm", "--force", "--ignore", "--time", "0", id]),
            false => command.args(["delete", "--force", id]),
        };
        let state = (!is_podman).then(|| home.runtime().join(id));
        Self { command, state }
    }

    fn is_gone(&self) -> bool {
        self.state.as_ref().is_some_and(|state| !state.exists())
    }

    /// Kills and removes the container. One that its runtime has removed is no error.
    ///
    /// # Errors
    /// What the runtime says.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        if self.is_gone() {
            return Ok(());
        }
        let output = self.command.output()?;
        if output.status.success() || self.is_gone() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

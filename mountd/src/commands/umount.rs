//! `lamina umount`: unmounts, and waits until the daemon has left its layers.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use laminafs::service::mount::{unmount, unmount_with};
use laminafs::service::status::{MountStatus, list};
use laminafs::service::{Failure, is_root};

use crate::report::Trouble;
use crate::run;

/// How long the daemon may take to leave.
const PATIENCE: Duration = Duration::from_secs(30);

fn served_by(target: &Path) -> Option<MountStatus> {
    let absolute = std::fs::canonicalize(target).ok()?;
    let found = list(&run::runtime_dir()?).ok()?;
    found.into_iter().rev().find(|status| status.target == absolute)
}

// One that has ended and that nobody asked for its exit code has no words any more.
fn is_alive(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty())
}

/// Runs the command.
///
/// # Errors
/// [`Trouble`].
pub fn run(target: &Path, lazy: bool) -> Result<ExitCode, Trouble> {
    let daemon = served_by(target);
    let grafts = daemon.as_ref().map_or(&[][..], |daemon| &daemon.graft_mounts);
    let unmounted = match lazy || grafts.is_empty() {
        true => unmount(target, lazy),
        false => unmount_with(target, grafts),
    };
    match unmounted {
        Err(Failure::Mount { error, .. })
            if !is_root() && error.is(laminafs::error::Errno::PERM) =>
        {
            by_fusermount(target, lazy)?;
        }
        done => done?,
    }
    if let Some(daemon) = daemon.filter(|_| !lazy) {
        let deadline = Instant::now() + PATIENCE;
        while is_alive(daemon.pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn by_fusermount(target: &Path, lazy: bool) -> Result<(), Trouble> {
    let what = || "fusermount3 -u".to_owned();
    let flags = if lazy { "-uz" } else { "-u" };
    let run = Command::new("fusermount3").arg(flags).arg(target).stdin(Stdio::null()).status();
    let status = run.map_err(|error| Trouble::Io { what: what(), error })?;
    if status.success() {
        return Ok(());
    }
    Err(Trouble::Io { what: what(), error: std::io::Error::other(status.to_string()) })
}

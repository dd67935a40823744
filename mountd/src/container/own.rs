//! Commands of this program that others run: a mount is served by a process of its own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a command of this program and returns what it prints.
///
/// # Errors
/// What the command says.
pub fn run(words: &[&OsStr]) -> io::Result<Vec<u8>> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(words).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(said.trim().trim_start_matches("lamina: ").to_owned()))
}

/// Mounts a container of a data root at a place, and returns the mount point.
///
/// # Errors
/// What the command says.
pub fn mount_container(root: &Path, id: &str, at: &Path) -> io::Result<PathBuf> {
    let words = ["container", "start", "--mount-only", id, "--root"].map(OsStr::new);
    let words = words.into_iter().chain([root.as_os_str()]).chain([at.as_os_str()]);
    let mut target = run(&words.collect::<Vec<_>>())?;
    if target.ends_with(b"\n") {
        target.pop();
    }
    Ok(OsString::from_vec(target).into())
}

//! Directories of containers, and the files that a container gets of its host.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// The files in `/etc` of a container that tell about its host.
pub const OF_HOST: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Makes a directory that is closed to others, with those above it.
///
/// # Errors
/// As mkdir(2).
pub fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file with a mode, whatever the file mode creation mask.
///
/// # Errors
/// As write(2).
pub fn write(at: &Path, content: &str, mode: u32) -> io::Result<()> {
    fs::write(at, content)?;
    fs::set_permissions(at, Permissions::from_mode(mode))
}

/// Writes the files [`OF_HOST`] of a container to a directory. The container can write to them, so
/// they are on disk and not in memory.
///
/// # Errors
/// As write(2).
pub fn write_of_host(dir: &Path, hostname: &str, address: &str) -> io::Result<()> {
    let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    write(&dir.join("hosts"), &format!("{}{address}\t{hostname}\n", host("/etc/hosts")), 0o644)?;
    write(&dir.join("hostname"), &format!("{hostname}\n"), 0o644)?;
    write(&dir.join("resolv.conf"), &host("/etc/resolv.conf"), 0o644)
}

//! Locks of files that other processes may remove.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// The outcome of a try to lock a file.
#[derive(Debug)]
pub enum Locked {
    /// The lock, which ends when the file is closed, or with the process.
    Taken(File),
    /// Another process has it.
    Busy,
    /// The directory of the file is gone, or the path leads to another file by now.
    Gone,
}

/// Tries to lock a file, which is made if it is missing.
///
/// # Errors
/// As open(2) and flock(2).
pub fn lock(path: &Path) -> io::Result<Locked> {
    let file = match File::options().create(true).append(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Locked::Gone),
        opened => opened?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Locked::Busy),
        locked => locked?,
    }
    let of_path = fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let held = file.metadata()?;
    let is_same = of_path.is_ok_and(|id| id == (held.dev(), held.ino()));
    Ok(if is_same { Locked::Taken(file) } else { Locked::Gone })
}

/// Whether a process has the lock of a file.
pub fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(flock(&file, FlockOperation::NonBlockingLockShared),
        Err(error) if error.kind() == ErrorKind::WouldBlock)
}

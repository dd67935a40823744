//! The lock of the one controller of a data root.
//!
//! A daemon holds it until its end, a command until the state is settled. The file says which of
//! the two it is: a command leaves the work to a daemon, and waits for another command, which may
//! have looked for the last time before this one wrote.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// A process that has the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leader {
    /// A daemon, for its life.
    Daemon,
    /// A command, until it is done.
    Command,
}

impl Leader {
    const fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Command => "command",
        }
    }
}

/// Tries to get the controller; `Err` has the process that has it. It is held as long as the file
/// is open.
///
/// The name is written after the lock is taken and before anything is read: one that reads the name
/// of the leader before wrote before the new one reads.
pub(super) fn take(path: &Path, of: Leader) -> io::Result<Result<File, Leader>> {
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.set_len(0)?;
            file.write_all(of.name().as_bytes())?;
            Ok(Ok(file))
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut name = String::new();
            file.rewind()?;
            file.take(16).read_to_string(&mut name)?;
            let is_command = name == Leader::Command.name();
            Ok(Err(if is_command { Leader::Command } else { Leader::Daemon }))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_leads_and_others_learn_which() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("controller");
        for leader in [Leader::Daemon, Leader::Command, Leader::Daemon] {
            let held = take(&path, leader).unwrap().unwrap();
            assert_eq!(take(&path, Leader::Command).unwrap().unwrap_err(), leader);
            drop(held);
        }
    }
}

//! Daemonising: the process that was started returns only when the mount is live.

use std::os::fd::{AsFd, OwnedFd};

use super::Failure;
use super::failure::ServiceResult;
use crate::sys::process::{self, Side};

/// The role of a process after the split.
#[derive(Debug)]
pub enum Role {
    /// The process that was started; it must end with this exit code.
    Starter(u8),
    /// The process in the background, which reports through its [`Ready`].
    Daemon(Ready),
}

/// Reports that the mount is live.
#[derive(Debug)]
pub struct Ready(Option<OwnedFd>);

impl Ready {
    /// For a process that stays in the foreground: no process waits for the report.
    #[must_use]
    pub const fn nobody() -> Self {
        Self(None)
    }

    /// Leaves the terminal, the standard descriptors and the working directory of the caller, and
    /// makes the process that was started end with success.
    ///
    /// # Errors
    /// As dup2(2), chdir(2), write(2).
    pub fn report(self) -> ServiceResult<()> {
        let Some(pipe) = self.0 else { return Ok(()) };
        let wrap = Failure::system("going to the background");
        let null = process::open_null().map_err(&wrap)?;
        process::replace_standard(null.as_fd()).map_err(&wrap)?;
        process::chdir_root().map_err(&wrap)?;
        process::write_byte(&pipe, 0).map_err(&wrap)
    }
}

/// Splits the process, which must have only one thread.
///
/// # Errors
/// As fork(2).
pub fn split() -> ServiceResult<Role> {
    let wrap = Failure::system("going to the background");
    let (reads, writes) = process::pipe().map_err(&wrap)?;
    match process::fork().map_err(&wrap)? {
        Side::Child => {
            drop(reads);
            process::setsid().map_err(&wrap)?;
            Ok(Role::Daemon(Ready(Some(writes))))
        }
        Side::Parent(child) => {
            drop(writes);
            match process::read_byte(&reads).map_err(&wrap)? {
                Some(code) => Ok(Role::Starter(code)),
                None => Ok(Role::Starter(process::wait_for(child).map_err(&wrap)?.max(1))),
            }
        }
    }
}

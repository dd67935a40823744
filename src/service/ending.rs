//! The end of a mount on a signal.
//!
//! The mount is taken out of the tree at once. The daemon continues until the file system is no
//! longer used, however long that takes, so processes with open files keep the data that was
//! acknowledged.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use super::failure::ServiceResult;
use super::mounts::{self, MountEntry};
use super::{Failure, unmount};
use crate::error::{Errno, Error};
use crate::sys::fuse::UnmountFlags;
use crate::sys::process::{self, Side};

/// The interval at which a mount that another one covers is checked.
const COVERED: Duration = Duration::from_secs(1);

/// Ends a mount of this process from another thread.
#[derive(Debug)]
pub struct Ender {
    target: PathBuf,
    entry: Option<MountEntry>,
    helper: Helper,
}

impl Ender {
    pub(super) fn new(target: PathBuf, entry: Option<MountEntry>, helper: Helper) -> Self {
        Self { target, entry, helper }
    }

    /// Unmounts lazily, wherever the mount was moved to. Waits while another mount covers it; a
    /// mount that is already gone is not an error.
    ///
    /// # Errors
    /// As umount2(2).
    pub fn end(&self) -> ServiceResult<()> {
        loop {
            match self.find()? {
                None => return Ok(()),
                Some((target, true)) => return self.unmount(&target),
                Some((target, false)) => {
                    tracing::warn!(target = %target.display(), "another mount covers this one");
                    std::thread::sleep(COVERED);
                }
            }
        }
    }

    /// The current place of the mount, and whether it is uncovered.
    fn find(&self) -> ServiceResult<Option<(PathBuf, bool)>> {
        let Some(own) = &self.entry else { return Ok(Some((self.target.clone(), true))) };
        let table = mounts::read().map_err(Failure::system("the mount table"))?;
        let found = table.iter().find(|entry| entry.id == own.id && entry.device == own.device);
        Ok(found.map(|found| {
            let top = table.iter().rev().find(|entry| entry.target == found.target);
            (found.target.clone(), top.is_some_and(|top| top.id == found.id))
        }))
    }

    fn unmount(&self, target: &Path) -> ServiceResult<()> {
        let how = UnmountFlags { lazy: true, force: false };
        match crate::sys::fuse::unmount(target, how) {
            Err(Errno::PERM) => self.helper.unmount(target),
            // It was unmounted in the meantime.
            Err(Errno::INVAL) => Ok(()),
            done => done.map_err(|errno| {
                let error = Error::os("umount2", errno);
                Failure::Unmount { path: target.to_owned(), error }
            }),
        }
    }
}

/// A process that unmounts for a daemon without the right to, which it cannot get from a
/// set-user-ID program either after it gave up new privileges.
#[derive(Debug, Default)]
pub struct Helper(Mutex<Option<OwnedFd>>);

impl Helper {
    /// Starts the process if it is needed. This process must have one thread, see
    /// [`process::fork`]. The helper ends after its use or together with this process.
    ///
    /// # Errors
    /// As fork(2) and pipe(2).
    pub fn start() -> ServiceResult<Self> {
        if crate::sys::confine::may_mount() {
            return Ok(Self::default());
        }
        let wrap = Failure::system("starting a process");
        let (reads, writes) = process::pipe().map_err(&wrap)?;
        match process::fork().map_err(&wrap)? {
            Side::Parent(_) => Ok(Self(Mutex::new(Some(writes)))),
            Side::Child => {
                drop(writes);
                process::exit_now(u8::from(serve(reads).is_none()));
            }
        }
    }

    fn unmount(&self, target: &Path) -> ServiceResult<()> {
        let what = "fusermount3 -u";
        let Some(pipe) = self.0.lock().take() else {
            let error = Error::os(what, Errno::PERM);
            return Err(Failure::Unmount { path: target.to_owned(), error });
        };
        let written = std::fs::File::from(pipe).write_all(target.as_os_str().as_bytes());
        written.map_err(|error| {
            let error = Error::os(what, Errno(error.raw_os_error().unwrap_or(Errno::IO.0)));
            Failure::Unmount { path: target.to_owned(), error }
        })
    }
}

/// The helper: reads one path, or nothing if the daemon ends.
fn serve(pipe: OwnedFd) -> Option<()> {
    let null = process::open_null().ok()?;
    process::replace_standard(null.as_fd()).ok()?;
    process::chdir_root().ok()?;
    let mut path = Vec::new();
    std::fs::File::from(pipe).read_to_end(&mut path).ok()?;
    if path.is_empty() {
        return Some(());
    }
    let target = PathBuf::from(std::ffi::OsString::from_vec(path));
    unmount::by_fusermount(&target, UnmountFlags { lazy: true, force: false }).ok()
}

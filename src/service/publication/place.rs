//! The target of a publication: an entry of a directory that is open, so that no path is resolved
//! twice.
//!
//! Links above the entry are followed, since an administrator may have moved the directory of an
//! orchestrator. The entry itself is never one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::super::holders::{self, Wanted};
use super::super::mounts::{self, MountEntry};
use super::error::{PublicationError, Result};
use crate::error::{Errno, Error, FromHost};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{Kind, Stat};

/// How often and how long `EBUSY` is waited for: scanners of the host come and go.
const BUSY: (u32, Duration) = (15, Duration::from_millis(20));

/// How often the mounts are read while they change.
const TRIES: usize = 64;

/// An entry of a directory, which need not exist.
pub(super) struct Place {
    parent: OwnedFd,
    name: Vec<u8>,
    target: PathBuf,
}

/// A path in the form in which it is recorded.
///
/// # Errors
/// [`PublicationError::Invalid`] for one that is not absolute, has `..`, or names no entry.
pub(super) fn plain(target: &Path) -> Result<PathBuf> {
    let invalid = |why: &str| PublicationError::Invalid { what: format!("{target:?} {why}") };
    if !target.is_absolute() {
        return Err(invalid("is not an absolute path"));
    }
    if target.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(invalid("has a NUL"));
    }
    if target.components().any(|part| part == Component::ParentDir) {
        return Err(invalid("has \"..\": use the path without it"));
    }
    let plain: PathBuf = target.components().collect();
    if plain.file_name().is_none() {
        return Err(invalid("is the root directory"));
    }
    Ok(plain)
}

impl Place {
    /// Opens the directory of a target in its plain form; `None` without that directory.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn open(target: &Path) -> Result<Option<Self>> {
        let (Some(above), Some(name)) = (target.parent(), target.file_name()) else {
            let what = format!("{target:?} has no directory");
            return Err(PublicationError::Invalid { what });
        };
        match sys::file::find_directory(above) {
            Ok(parent) => {
                let name = name.as_encoded_bytes().to_vec();
                Ok(Some(Self { parent, name, target: target.to_owned() }))
            }
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            Err(error) => Err(PublicationError::host(above)(error)),
        }
    }

    fn failed(&self) -> impl Fn(Error) -> PublicationError + use<> {
        PublicationError::host(&self.target)
    }

    /// The mounts on the entry, the topmost one first.
    ///
    /// # Errors
    /// As statx(2) and as reading the table of mounts.
    pub(super) fn mounts(&self) -> Result<Vec<MountEntry>> {
        for _ in 0..TRIES {
            if let Some(found) = self.try_mounts()? {
                return Ok(found);
            }
        }
        Err(self.failed()(Error::os("read mountinfo", Errno::AGAIN)))
    }

    /// As [`Place::mounts`]; `None` if the topmost one ended meanwhile.
    fn try_mounts(&self) -> Result<Option<Vec<MountEntry>>> {
        let failed = self.failed();
        let above = sys::file::mount_id(self.parent.as_fd(), b"").map_err(&failed)?;
        let top = match sys::file::mount_id(self.parent.as_fd(), &self.name) {
            Err(error) if error.is(Errno::NOENT) => return Ok(Some(Vec::new())),
            top => top.map_err(&failed)?,
        };
        let mut found: Vec<MountEntry> = Vec::new();
        if top == above {
            return Ok(Some(found));
        }
        // In the table a mount may come before the one that it covers.
        let mut table = mounts::read_of("thread-self").map_err(&failed)?;
        let mut next = top;
        while let Some(at) = table.iter().position(|entry| entry.id == next) {
            let entry = table.swap_remove(at);
            if found.first().is_some_and(|first| first.target != entry.target) {
                break;
            }
            next = entry.parent;
            found.push(entry);
        }
        Ok((!found.is_empty()).then_some(found))
    }

    /// Whether the file system at the entry has lost its process.
    pub(super) fn is_dead(&self) -> bool {
        let opened = sys::file::openat(self.parent.as_fd(), &self.name, OFlags::PATH);
        let asked = opened.and_then(|root| sys::file::fstatfs(root.as_fd()));
        asked.is_err_and(|error| error.is(Errno::NOTCONN))
    }

    /// The entry itself, which is not mounted on.
    fn entry(&self) -> Result<Option<Stat>> {
        match sys::file::statx(self.parent.as_fd(), &self.name) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed()(error)),
        }
    }

    fn occupied(&self, what: &'static str) -> PublicationError {
        PublicationError::Occupied { target: self.target.clone(), what }
    }

    /// Makes the entry, or takes an existing one that is empty.
    ///
    /// # Errors
    /// [`PublicationError::Occupied`].
    pub(super) fn make(&self, is_device: bool) -> Result<()> {
        let parent = self.parent.as_fd();
        let made = match is_device {
            true => sys::dir::mknodat(parent, &self.name, Kind::File.mode_bits() | 0o640, 0),
            false => sys::dir::mkdirat(parent, &self.name, 0o750),
        };
        match made {
            Err(error) if error.is(Errno::EXIST) => {}
            made => return made.map_err(self.failed()),
        }
        let Some(stat) = self.entry()? else { return self.make(is_device) };
        self.check_kind(&stat, is_device)?;
        match !is_device && !self.is_empty()? {
            // The mount would hide what is in it, and nothing could remove the target later.
            true => Err(self.occupied("a directory with other content")),
            false => Ok(()),
        }
    }

    fn check_kind(&self, stat: &Stat, is_device: bool) -> Result<()> {
        match (stat.kind(), is_device) {
            (Kind::Dir, false) => Ok(()),
            (Kind::File, true) if stat.size == 0 => Ok(()),
            (Kind::Symlink, _) => Err(self.occupied("a symbolic link")),
            (Kind::File, true) => Err(self.occupied("a file with other content")),
            (_, true) => Err(self.occupied("not a regular file")),
            (_, false) => Err(self.occupied("not a directory")),
        }
    }

    fn is_empty(&self) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = sys::file::openat(self.parent.as_fd(), &self.name, flags);
        let mut is_empty = true;
        let dir = dir.map_err(self.failed())?;
        sys::dir::getdents(dir.as_fd(), &mut |entry| {
            is_empty = matches!(entry.name, b"." | b"..");
            is_empty
        })
        .map_err(self.failed())?;
        Ok(is_empty)
    }

    /// Puts a mount that has no place yet over the entry.
    ///
    /// # Errors
    /// As move_mount(2).
    pub(super) fn attach(&self, mount: BorrowedFd<'_>) -> Result<()> {
        let place = sys::file::openat(self.parent.as_fd(), &self.name, OFlags::PATH);
        let put = place.and_then(|place| sys::bind::attach(mount, place.as_fd()));
        put.map_err(self.failed())
    }

    /// Takes the topmost mount away. One whose process is dead ends with its last user.
    ///
    /// # Errors
    /// [`PublicationError::Busy`].
    pub(super) fn unmount(&self, top: &MountEntry) -> Result<()> {
        if self.is_dead() {
            return self.detach();
        }
        let mut tries = 1..=BUSY.0;
        loop {
            match sys::bind::unmount_at(self.parent.as_fd(), &self.name) {
                Err(error) if error.is(Errno::BUSY) => {}
                // Somebody else was faster.
                Err(error) if error.is(Errno::INVAL) || error.is(Errno::NOENT) => return Ok(()),
                done => return done.map_err(self.failed()),
            }
            if tries.next().is_none() {
                return Err(PublicationError::Busy { target: self.target.clone(), by: users(top) });
            }
            std::thread::sleep(BUSY.1);
        }
    }

    /// Takes the topmost mount away at once; it ends with its last user.
    ///
    /// # Errors
    /// As umount2(2).
    pub(super) fn detach(&self) -> Result<()> {
        match sys::bind::detach_at(self.parent.as_fd(), &self.name) {
            Err(error) if error.is(Errno::INVAL) || error.is(Errno::NOENT) => Ok(()),
            done => done.map_err(self.failed()),
        }
    }

    /// Removes the entry, which nothing is mounted on, if it is empty.
    ///
    /// # Errors
    /// [`PublicationError::Occupied`]; then it is untouched.
    pub(super) fn remove(&self, is_device: bool) -> Result<()> {
        let Some(stat) = self.entry()? else { return Ok(()) };
        self.check_kind(&stat, is_device)?;
        let removed = match is_device {
            true => sys::dir::unlinkat(self.parent.as_fd(), &self.name),
            false => sys::dir::rmdirat(self.parent.as_fd(), &self.name),
        };
        match removed {
            Err(error) if error.is(Errno::NOENT) => Ok(()),
            Err(error) if error.is(Errno::NOTEMPTY) || error.is(Errno::EXIST) => {
                Err(self.occupied("a directory with other content"))
            }
            removed => removed.map_err(self.failed()),
        }
    }
}

/// The processes that use a mount, and the mounts beneath it.
pub(super) fn users(mount: &MountEntry) -> Vec<String> {
    let wanted = Wanted { device: &mount.device, mount: Some(mount.id), is_shared: true };
    let processes = holders::processes(wanted).into_iter().map(|holder| holder.to_string());
    let table = mounts::read_of("thread-self").unwrap_or_default();
    let is_beneath = |entry: &&MountEntry| entry.parent == mount.id;
    let beneath = table.iter().filter(is_beneath).map(|entry| format!("mount {}", entry.label()));
    let mut found: Vec<String> = processes.chain(beneath).collect();
    if found.is_empty() {
        found.push("a process that is not shown here".to_owned());
    }
    found
}

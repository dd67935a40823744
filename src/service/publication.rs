//! Publications: the content of a volume at a path of the host, as an orchestrator asks for it.
//!
//! A publication is a bind mount of a directory or a device node, or of a view that shows the
//! directory with a group (`view`). Its record is on the disk before the mount is made and stays
//! until everything of it is gone. So whatever step a process is killed at, a repeat of the call
//! finishes, and a mount that no record knows is never touched. A target is removed only if it is
//! empty; nothing here removes content.
//!
//! Calls for one target wait for each other, in any number of processes.

mod error;
mod flags;
mod place;
mod record;
mod view;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mounts::{self, MountEntry};
use crate::error::{Errno, FromHost};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::Kind;
use flags::Flags;
use place::Place;
use record::{Lock, Record, Records, Shown};
use view::View;

pub use error::{PublicationError, Result};
pub use view::{Serving, serving};

/// The content of a volume at a path of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The path: an entry of an existing directory, which a publication makes and removes.
    pub target: PathBuf,
    /// The directory of the content, or a device node.
    pub source: PathBuf,
    /// Whether the source is a device node, and the target a regular file.
    pub is_device: bool,
    /// Whether nothing can be written through the target.
    pub read_only: bool,
    /// Mount flags of the request, such as `nosuid`.
    pub flags: Vec<String>,
    /// The group that all files show, with the rights of their owners.
    pub group: Option<u32>,
    /// The context that all files have for SELinux. Without SELinux it has no effect, as with
    /// mount(8).
    pub context: Option<String>,
    /// What the caller keeps with it.
    pub about: BTreeMap<String, String>,
}

/// The publications of a data root.
pub struct Publications {
    records: Records,
    boot: String,
}

impl Publications {
    /// Opens the publications of a data root.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn open(root: &Path) -> Result<Self> {
        let boot = Path::new("/proc/sys/kernel/random/boot_id");
        let id = sys::process::boot_id().map_err(PublicationError::io(boot))?;
        Ok(Self { records: Records::open(root)?, boot: id })
    }

    /// Shows a source at a target, and returns whether that is new. A mount whose process is dead
    /// is made again. After a crash the record is there, and perhaps the mount: the next call
    /// finishes.
    ///
    /// # Errors
    /// [`PublicationError::AlreadyPublished`] for a target that shows something else,
    /// [`PublicationError::Foreign`], [`PublicationError::Occupied`],
    /// [`PublicationError::NoParent`], [`PublicationError::NoSource`].
    pub fn publish(&self, wanted: &Publication) -> Result<bool> {
        let target = place::plain(&wanted.target)?;
        let wanted = &Publication { target: target.clone(), ..wanted.clone() };
        let flags = check(wanted)?;
        let open = || PublicationError::NoParent { target: target.clone() };
        let place = Place::open(&target)?.ok_or_else(open)?;
        let lock = self.records.lock(&target)?;
        let known = self.records.read(&target)?;
        let is_new = known.is_none();
        let published = self.publish_at(&place, wanted, flags, known);
        if published.is_err() && is_new {
            self.forget(&place, wanted, lock);
        }
        published
    }

    /// Removes what a first call that failed left. What stays is found by the next call.
    fn forget(&self, place: &Place, wanted: &Publication, lock: Lock) {
        let forget = || -> Result<()> {
            let Some(record) = self.records.read(&wanted.target)? else {
                self.records.discard(&wanted.target)?;
                return lock.remove();
            };
            if !place.mounts()?.is_empty() {
                return Ok(());
            }
            match place.remove(wanted.is_device) {
                // It was there before.
                Err(PublicationError::Occupied { .. }) => {}
                removed => removed?,
            }
            self.leave_view(&record, || self.records.remove(&wanted.target))?;
            lock.remove()
        };
        if let Err(error) = forget() {
            tracing::debug!(%error, target = %wanted.target.display(), "a record stays");
        }
    }

    fn publish_at(
        &self,
        place: &Place,
        wanted: &Publication,
        flags: Flags,
        known: Option<Record>,
    ) -> Result<bool> {
        let there = place.mounts()?;
        let shown = known.as_ref().map(|record| &record.shown[..]).unwrap_or_default();
        for mount in &there {
            self.require_ours(&wanted.target, mount, shown)?;
        }
        if let (Some(known), false) = (&known, there.is_empty()) {
            if known.publication != *wanted {
                return Err(PublicationError::AlreadyPublished { target: wanted.target.clone() });
            }
            if !place.is_dead() {
                return Ok(false);
            }
        }
        for _ in &there {
            place.detach()?;
        }
        let opened = open_source(wanted)?;
        let mut record = self.record(wanted, known)?;
        self.records.write(&record)?;
        place.make(wanted.is_device)?;
        let source = match &record.view {
            Some(key) => View::lock(&self.records.views(), key)?.ensure(wanted, &self.boot)?,
            None => opened,
        };
        let flags = if record.view.is_some() { flags.of_view() } else { flags };
        let clone = sys::bind::clone_tree(source.as_fd(), false)
            .and_then(|clone| flags.set(clone.as_fd()).map(|()| clone))
            .map_err(PublicationError::host(&wanted.source))?;
        let shows = self.shown(&wanted.source, source.as_fd())?;
        record.shown.retain(|shown| *shown != shows);
        record.shown.push(shows);
        self.records.write(&record)?;
        place.attach(clone.as_fd()).map(|()| true)
    }

    /// The first record of a publication, before anything is mounted.
    fn record(&self, wanted: &Publication, known: Option<Record>) -> Result<Record> {
        let view = view::key(wanted);
        match known {
            Some(mut known) if known.publication == *wanted && known.view == view => {
                known.shown.retain(|shown| shown.boot == self.boot);
                Ok(known)
            }
            known => {
                // It was not finished, or the host was restarted.
                if let Some(known) = known {
                    self.leave_view(&known, || Ok(()))?;
                }
                let publication = wanted.clone();
                Ok(Record { publication, view, shown: Vec::new() })
            }
        }
    }

    fn require_ours(&self, target: &Path, mount: &MountEntry, shown: &[Shown]) -> Result<()> {
        match shown.iter().any(|shown| shown.is_of(mount, &self.boot)) {
            true => Ok(()),
            false => {
                Err(PublicationError::Foreign { target: target.to_owned(), what: mount.label() })
            }
        }
    }

    /// How the table of mounts will show a mount of an object.
    fn shown(&self, path: &Path, object: BorrowedFd<'_>) -> Result<Shown> {
        let failed = PublicationError::host(path);
        let id = sys::file::mount_id(object, b"").map_err(&failed)?;
        let path = sys::file::path_of(object).map_err(&failed)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(path));
        let table = mounts::read_of("thread-self").map_err(&failed)?;
        let mount = table.into_iter().find(|mount| mount.id == id);
        let gone = || PublicationError::NoSource { source_path: path.clone() };
        let mount = mount.ok_or_else(gone)?;
        let below = path.strip_prefix(&mount.target).map_err(|_| gone())?;
        // No slash at the end.
        let root: PathBuf = mount.root.join(below).components().collect();
        Ok(Shown { boot: self.boot.clone(), device: mount.device, root })
    }

    /// Ends a publication: its mounts, its target, and its view if no other one uses it. `check`
    /// may refuse first. `release` ends what else belongs to it, and its record is removed last: a
    /// repeat of the call finishes after a crash or an error at any step.
    ///
    /// # Errors
    /// [`PublicationError::Busy`] with the users, [`PublicationError::Foreign`],
    /// [`PublicationError::Occupied`] for a target that is not empty; those of the callbacks.
    pub fn unpublish(
        &self,
        target: &Path,
        check: impl FnOnce(&Publication) -> Result<()>,
        release: impl FnOnce(&Publication) -> Result<()>,
    ) -> Result<()> {
        let target = place::plain(target)?;
        let lock = self.records.lock(&target)?;
        let known = self.records.read(&target)?;
        let place = Place::open(&target)?;
        let Some(record) = known else {
            let mounted = place.as_ref().map_or(Ok(Vec::new()), Place::mounts)?;
            self.records.discard(&target)?;
            lock.remove()?;
            return mounted.first().map_or(Ok(()), |mount| self.require_ours(&target, mount, &[]));
        };
        check(&record.publication)?;
        if let Some(place) = &place {
            self.clear(place, &record)?;
        }
        let done = || {
            release(&record.publication)?;
            self.records.remove(&target)
        };
        self.leave_view(&record, done)?;
        lock.remove()
    }

    /// Unmounts until nothing is mounted at a place, and removes it.
    fn clear(&self, place: &Place, record: &Record) -> Result<()> {
        let target = &record.publication.target;
        while let Some(top) = place.mounts()?.first() {
            self.require_ours(target, top, &record.shown)?;
            place.unmount(top)?;
        }
        place.remove(record.publication.is_device)
    }

    /// Ends the view of a record unless another record names it, and calls `done` before others
    /// can look for users of the view: of two that leave at once, the second one ends it.
    fn leave_view(&self, record: &Record, done: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(key) = &record.view else { return done() };
        let view = View::lock(&self.records.views(), key)?;
        let target = &record.publication.target;
        let uses = |other: &Record| {
            other.view.as_ref() == Some(key) && other.publication.target != *target
        };
        if self.records.all()?.iter().any(uses) {
            return done();
        }
        // The lock file is there until the record is gone.
        let ended = view.end()?;
        let finished = done();
        ended.remove()?;
        finished
    }

    /// Finds the publication at a target, and whether it is mounted.
    ///
    /// # Errors
    /// [`PublicationError::Record`].
    pub fn find(&self, target: &Path) -> Result<Option<(Publication, bool)>> {
        let target = place::plain(target)?;
        let Some(record) = self.records.read(&target)? else { return Ok(None) };
        let there = Place::open(&target)?.map_or(Ok(Vec::new()), |place| place.mounts())?;
        let is_ours = |mount: &MountEntry| self.require_ours(&target, mount, &record.shown).is_ok();
        let is_mounted = there.first().is_some_and(is_ours);
        Ok(Some((record.publication, is_mounted)))
    }

    /// All publications that are recorded, by target.
    ///
    /// # Errors
    /// [`PublicationError::Record`].
    pub fn list(&self) -> Result<Vec<Publication>> {
        let records = self.records.all()?;
        let mut found: Vec<_> = records.into_iter().map(|record| record.publication).collect();
        found.sort_by(|one, other| one.target.cmp(&other.target));
        Ok(found)
    }
}

/// Checks what a request says about itself.
fn check(wanted: &Publication) -> Result<Flags> {
    let invalid = |what: &str| Err(PublicationError::Invalid { what: what.to_owned() });
    if wanted.is_device && wanted.group.is_some() {
        return invalid("a device has no group: leave the group out for a block volume");
    }
    if wanted.group == Some(u32::MAX) {
        return invalid("4294967295 is not a group");
    }
    if let Some(context) = &wanted.context {
        view::check_context(context)?;
    }
    Flags::parse(&wanted.flags, wanted.read_only)
}

/// Opens the source.
fn open_source(wanted: &Publication) -> Result<OwnedFd> {
    let source = &wanted.source;
    let opened = match sys::file::open_path(source, OFlags::PATH) {
        Err(error) if error.is(Errno::NOENT) => {
            return Err(PublicationError::NoSource { source_path: source.clone() });
        }
        opened => opened.map_err(PublicationError::host(source))?,
    };
    let kind = sys::file::statx(opened.as_fd(), b"").map_err(PublicationError::host(source))?;
    let fits = match wanted.is_device {
        true => matches!(kind.kind(), Kind::Block | Kind::Char),
        false => kind.kind() == Kind::Dir,
    };
    match fits {
        true => Ok(opened),
        false => Err(PublicationError::Invalid {
            what: format!(
                "{} is not a {}",
                source.display(),
                if wanted.is_device { "device" } else { "directory" }
            ),
        }),
    }
}

//! Host directories as layers, upper and grafts.
//!
//! A [`HostDir`] is a place: a parent and a name. Its descriptor is opened when it is needed and
//! sits in an [`FdCache`] that all trees of a process share, so the count of open directories is
//! bounded whatever is touched; only the root of a tree keeps its own. A descriptor that was
//! evicted is opened again through the parents, one component at a time and never through a
//! symbolic link; one that is cached stays right when its directory is renamed.
//!
//! Invariants: a name is one component, never `..`; no call follows a link; only regular files and
//! directories are opened for reading or writing. New objects get the requested owner in the step
//! that makes them, unless the kernel grants no foreign ids to this process: then they get it in a
//! second step, and are removed again if that is refused.
//!
//! What is mounted beneath a tree is the caller's choice, see [`Submounts`]. The umask of the
//! process is expected to be 0. Callers do the locking, and stop using a directory that is being
//! removed.

mod attr;
mod cache;
mod file;
mod make;
mod names;
mod pin;
mod place;
mod tree;

#[cfg(test)]
mod tests;

use std::any::Any;

use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{
    Access, AttrChange, Handle, Kind, Owner, RenameFlags, Stat, StatFs, XattrFlags,
};
use crate::union::layer::{Dir, DirRef, EntrySink, FileRef};

use file::HostFile;
use names::{ITSELF, component};
use place::peer;

pub use cache::FdCache;
pub use place::HostDir;
pub use tree::{HostTree, Submounts};

impl Dir for HostDir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self, name: Option<&[u8]>) -> Result<Stat> {
        match name {
            Some(name) => sys::file::statx(self.opened()?.fd(), component(name)?),
            None => match self.stat_self()? {
                stat if stat.kind() == Kind::Dir => Ok(stat),
                _ => Err(Error::os("statx", Errno::NOTDIR)),
            },
        }
    }

    fn dir(&self, name: &[u8]) -> DirRef {
        self.child(name, None)
    }

    fn list(&self, from: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.list_about(from, u64::MAX, sink)
    }

    fn list_about(&self, from: u64, count: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        let dir = self.opened()?;
        // Only one reader at a time may use the position of the shared descriptor.
        if let Some(listing) = dir.listing() {
            sys::file::seek_to(dir.fd(), from)?;
            let listed = sys::dir::getdents_about(dir.fd(), count, sink);
            drop(listing);
            return listed;
        }
        let own = self.open_again(&dir)?;
        let own = std::os::fd::AsFd::as_fd(&own);
        sys::file::seek_to(own, from)?;
        sys::dir::getdents_about(own, count, sink)
    }

    fn count_access(&self, always: bool) -> Result<()> {
        if !always && attr::was_read_lately(&self.stat(None)?) {
            return Ok(());
        }
        // All other descriptors of directories keep the access time as it is (`O_NOATIME`).
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = self.opened()?;
        let own = self.cache().with_room(|| sys::file::openat(dir.fd(), b".", flags))?;
        sys::dir::getdents(std::os::fd::AsFd::as_fd(&own), &mut |_| false)
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        sys::dir::readlinkat(self.opened()?.fd(), component(name)?)
    }

    fn open(&self, name: &[u8], access: Access) -> Result<FileRef> {
        let (dir, name) = (self.opened()?, component(name)?);
        let safe = self.is_cloned();
        self.cache().with_room(|| HostFile::open(dir.fd(), name, access, safe))
    }

    fn open_self(&self) -> Result<FileRef> {
        let dir = self.opened()?;
        self.open_again(&dir).map(HostFile::wrap)
    }

    fn xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.look(name, |dir, name| attr::xattr(dir, name, key))
    }

    fn xattr_names(&self, name: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        self.look(name, attr::xattr_names)
    }

    fn statfs(&self) -> Result<StatFs> {
        sys::file::fstatfs(self.opened()?.fd())
    }

    fn handle(&self, name: Option<&[u8]>) -> Result<Option<Handle>> {
        let found = self.look(name, |dir, name| sys::ioctl::name_to_handle(dir.fd(), name));
        let (kind, bytes) = match found {
            Ok(found) => found,
            Err(error) if error.is(Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The kernel's mark has one byte for the type.
        let Ok(kind) = u8::try_from(kind) else { return Ok(None) };
        let uuid = self.fs_uuid()?;
        Ok(uuid.map(|uuid| Handle { kind, bytes, uuid }))
    }

    fn mkdir(&self, name: &[u8], mode: u32, owner: Owner) -> Result<()> {
        self.make(name, owner, |dir, name| sys::dir::mkdirat(dir, name, mode))
    }

    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<()> {
        self.make(name, owner, |dir, name| sys::dir::mknodat(dir, name, mode, rdev))
    }

    fn symlink(&self, name: &[u8], target: &[u8], owner: Owner) -> Result<()> {
        self.make(name, owner, |dir, name| sys::dir::symlinkat(target, dir, name))
    }

    fn create(&self, name: &[u8], mode: u32, owner: Owner) -> Result<FileRef> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let made = self.cache().with_room(|| {
            self.make(name, owner, |dir, name| {
                sys::file::openat_with_mode(dir, name, flags, mode & crate::types::MODE_MASK)
            })
        });
        made.map(HostFile::wrap)
    }

    fn link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        let (dir, to) = (self.opened()?, peer(to)?.opened()?);
        sys::dir::linkat((dir.fd(), component(name)?), (to.fd(), component(to_name)?))
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        sys::dir::unlinkat(self.opened()?.fd(), component(name)?)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        sys::dir::rmdirat(self.opened()?.fd(), component(name)?)
    }

    fn rename(&self, name: &[u8], to: &dyn Dir, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        let (dir, to) = (self.opened()?, peer(to)?.opened()?);
        sys::dir::renameat2((dir.fd(), component(name)?), (to.fd(), component(to_name)?), flags)
    }

    fn pin(&self, name: &[u8]) -> Result<DirRef> {
        let (dir, name) = (self.opened()?, component(name)?);
        let fd = self.cache().with_room(|| sys::file::openat(dir.fd(), name, OFlags::PATH))?;
        Ok(pin::Pinned::of(fd))
    }

    fn moving(&self, begins: bool) {
        self.tree().moving(begins);
    }

    fn dir_known(&self, name: &[u8], stat: &Stat) -> DirRef {
        self.child(name, Some((stat.dev, stat.ino)))
    }

    fn relocate(&self, parent: &DirRef, name: &[u8]) {
        if let Ok(parent) = peer(parent.as_ref()) {
            self.move_to(parent, name);
        }
    }

    fn set_attr(&self, name: Option<&[u8]>, change: &AttrChange) -> Result<()> {
        let dir = self.opened()?;
        attr::change(&dir, name.map_or(Ok(ITSELF), component)?, change)
    }

    fn set_xattr(
        &self,
        name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        let dir = self.opened()?;
        let name = name.map_or(Ok(dir.readable_name()), component)?;
        sys::xattr::set(dir.fd(), name, key, value, flags)
    }

    fn remove_xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<()> {
        let dir = self.opened()?;
        let name = name.map_or(Ok(dir.readable_name()), component)?;
        sys::xattr::remove(dir.fd(), name, key)
    }

    fn sync_fs(&self) -> Result<()> {
        let dir = self.opened()?;
        if dir.is_readable() {
            return sys::file::syncfs(dir.fd());
        }
        let own = self.open_again(&dir)?;
        sys::file::syncfs(std::os::fd::AsFd::as_fd(&own))
    }
}

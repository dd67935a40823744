//! A place that leads to one object of the host by a descriptor, whatever became of its names.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{
    Access, AttrChange, Handle, Kind, Owner, RenameFlags, Stat, StatFs, XattrFlags,
};
use crate::union::layer::{Dir, DirRef, EntrySink, FileRef};

use super::file::HostFile;
use super::names::{ITSELF, component};
use super::place::peer;

/// The object, by an `O_PATH` descriptor. No names are made, moved or removed here.
pub(super) struct Pinned {
    fd: Arc<OwnedFd>,
}

fn no_directory<T>(op: &'static str) -> Result<T> {
    Err(Error::os(op, Errno::NOTDIR))
}

fn no_name<T>(op: &'static str) -> Result<T> {
    Err(Error::os(op, Errno::NOENT))
}

impl Pinned {
    pub(super) fn of(fd: OwnedFd) -> DirRef {
        Arc::new(Self { fd: Arc::new(fd) })
    }

    fn kind(&self) -> Result<Kind> {
        Ok(sys::file::statx(self.fd.as_fd(), ITSELF)?.kind())
    }
}

impl Dir for Pinned {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self, _name: Option<&[u8]>) -> Result<Stat> {
        sys::file::statx(self.fd.as_fd(), ITSELF)
    }

    fn dir(&self, _name: &[u8]) -> DirRef {
        Arc::new(Self { fd: Arc::clone(&self.fd) })
    }

    fn list(&self, _from: u64, _sink: &mut EntrySink<'_>) -> Result<()> {
        no_directory("getdents64")
    }

    fn readlink(&self, _name: &[u8]) -> Result<Vec<u8>> {
        sys::dir::readlinkat(self.fd.as_fd(), ITSELF)
    }

    fn open(&self, _name: &[u8], access: Access) -> Result<FileRef> {
        let access = match access {
            Access::Path => return sys::file::duplicate(self.fd.as_fd()).map(HostFile::wrap),
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        // Asked first: a device would act when it is opened.
        match self.kind()? {
            Kind::File => {}
            _ => return Err(Error::os("open", Errno::NXIO)),
        }
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY;
        sys::pin::reopen(self.fd.as_fd(), flags).map(HostFile::wrap)
    }

    fn open_self(&self) -> Result<FileRef> {
        self.open(ITSELF, Access::Read)
    }

    fn xattr(&self, _name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match sys::pin::xattr(self.fd.as_fd(), key) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is(Errno::NODATA) || error.is(Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn xattr_names(&self, _name: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        match sys::pin::xattr_names(self.fd.as_fd()) {
            Ok(list) => Ok(super::attr::split_names(&list)),
            Err(error) if error.is(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn statfs(&self) -> Result<StatFs> {
        sys::file::fstatfs(self.fd.as_fd())
    }

    fn handle(&self, _name: Option<&[u8]>) -> Result<Option<Handle>> {
        Ok(None)
    }

    fn mkdir(&self, _name: &[u8], _mode: u32, _owner: Owner) -> Result<()> {
        no_directory("mkdirat")
    }

    fn mknod(&self, _name: &[u8], _mode: u32, _rdev: u64, _owner: Owner) -> Result<()> {
        no_directory("mknodat")
    }

    fn symlink(&self, _name: &[u8], _target: &[u8], _owner: Owner) -> Result<()> {
        no_directory("symlinkat")
    }

    fn create(&self, _name: &[u8], _mode: u32, _owner: Owner) -> Result<FileRef> {
        no_directory("openat")
    }

    fn link(&self, _name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        let to = peer(to)?.opened()?;
        sys::pin::link(self.fd.as_fd(), to.fd(), component(to_name)?)
    }

    fn unlink(&self, _name: &[u8]) -> Result<()> {
        no_name("unlinkat")
    }

    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        no_name("unlinkat")
    }

    fn rename(
        &self,
        _name: &[u8],
        _to: &dyn Dir,
        _to_name: &[u8],
        _flags: RenameFlags,
    ) -> Result<()> {
        no_name("renameat2")
    }

    fn pin(&self, _name: &[u8]) -> Result<DirRef> {
        Ok(Arc::new(Self { fd: Arc::clone(&self.fd) }))
    }

    fn relocate(&self, _parent: &DirRef, _name: &[u8]) {}

    fn set_attr(&self, _name: Option<&[u8]>, change: &AttrChange) -> Result<()> {
        let fd = self.fd.as_fd();
        if let Some(size) = change.size {
            let file = sys::pin::reopen(fd, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
            sys::file::ftruncate(file.as_fd(), size)?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            sys::file::fchownat(fd, ITSELF, change.uid, change.gid)?;
        }
        if let Some(mode) = change.mode {
            super::attr::set_mode(fd, ITSELF, mode)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            sys::file::utimensat(fd, ITSELF, change)?;
        }
        Ok(())
    }

    fn set_xattr(
        &self,
        _name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        sys::pin::set_xattr(self.fd.as_fd(), key, value, flags)
    }

    fn remove_xattr(&self, _name: Option<&[u8]>, key: &[u8]) -> Result<()> {
        sys::pin::remove_xattr(self.fd.as_fd(), key)
    }

    fn sync_fs(&self) -> Result<()> {
        self.open_self()?.sync(false)
    }
}

//! A place that leads to one object of the host by a descriptor, independent of its names.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{Access, AttrChange, Kind, Stat, StatFs, XattrFlags};
use crate::union::layer::object::{Object, Pin};
use crate::union::layer::{Dir, DirRef, FileRef};

use super::attr;
use super::file::HostFile;
use super::names::{ITSELF, component};
use super::place::peer;

/// The object, by an `O_PATH` descriptor.
pub(super) struct Pinned {
    fd: Arc<OwnedFd>,
}

impl Pinned {
    pub(super) fn of(fd: OwnedFd) -> DirRef {
        Arc::new(Pin(Self { fd: Arc::new(fd) }))
    }

    fn again(&self) -> DirRef {
        Arc::new(Pin(Self { fd: Arc::clone(&self.fd) }))
    }
}

impl Object for Pinned {
    fn stat(&self) -> Result<Stat> {
        sys::file::statx(self.fd.as_fd(), ITSELF)
    }

    fn below(&self, _name: &[u8]) -> DirRef {
        self.again()
    }

    fn pin(&self) -> Result<DirRef> {
        Ok(self.again())
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        sys::dir::readlinkat(self.fd.as_fd(), ITSELF)
    }

    fn open(&self, access: Access) -> Result<FileRef> {
        let access = match access {
            Access::Path => return sys::file::duplicate(self.fd.as_fd()).map(HostFile::wrap),
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        // The kind is checked first: opening a device would have effects.
        match self.stat()?.kind() {
            Kind::File => {}
            _ => return Err(Error::os("open", Errno::NXIO)),
        }
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY;
        sys::pin::reopen(self.fd.as_fd(), flags).map(HostFile::wrap)
    }

    fn xattr(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match sys::pin::xattr(self.fd.as_fd(), key) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is(Errno::NODATA) || error.is(Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        match sys::pin::xattr_names(self.fd.as_fd()) {
            Ok(list) => Ok(attr::split_names(&list)),
            Err(error) if error.is(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn statfs(&self) -> Result<StatFs> {
        sys::file::fstatfs(self.fd.as_fd())
    }

    fn link(&self, to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        let to = peer(to)?.opened()?;
        sys::pin::link(self.fd.as_fd(), to.fd(), component(to_name)?)
    }

    fn set_attr(&self, change: &AttrChange) -> Result<()> {
        let fd = self.fd.as_fd();
        if let Some(size) = change.size {
            let file = sys::pin::reopen(fd, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
            sys::file::ftruncate(file.as_fd(), size)?;
        }
        attr::change_itself(fd, &AttrChange { size: None, ..*change })
    }

    fn set_xattr(&self, key: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        sys::pin::set_xattr(self.fd.as_fd(), key, value, flags)
    }

    fn remove_xattr(&self, key: &[u8]) -> Result<()> {
        sys::pin::remove_xattr(self.fd.as_fd(), key)
    }

    fn sync_fs(&self) -> Result<()> {
        self.open(Access::Read)?.sync(false)
    }
}

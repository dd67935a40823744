//! Open files of the host.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{Access, AttrChange, FsXattr, Kind, Seek, Stat};
use crate::union::layer::{File, FileRef};

use super::attr;

/// Bytes of one step of a copy through memory.
const COPY_BYTES: u64 = 1024 * 1024;

/// An open file or directory.
pub(super) struct HostFile {
    fd: OwnedFd,
}

impl HostFile {
    pub(super) fn wrap(fd: OwnedFd) -> FileRef {
        Arc::new(Self { fd })
    }

    /// Opens an entry of an open directory; for anything but `Access::Path` a regular file. Where
    /// no device can be opened (`safe`), a file that is only read is not checked further: other
    /// kinds give no data.
    pub(super) fn open(
        dir: BorrowedFd<'_>,
        name: &[u8],
        access: Access,
        safe: bool,
    ) -> Result<FileRef> {
        let access = match access {
            Access::Path => return sys::file::openat(dir, name, OFlags::PATH).map(Self::wrap),
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match sys::file::openat(dir, name, flags) {
            // An append-only file is opened with O_APPEND; without permission to write it is
            // refused again.
            Err(error) if error.is(Errno::PERM) && access == OFlags::RDWR => {
                sys::file::openat(dir, name, flags | OFlags::APPEND)?
            }
            opened => opened?,
        };
        if safe && access == OFlags::RDONLY {
            return Ok(Self::wrap(fd));
        }
        // The descriptor is checked: a user who may make devices could have swapped the name.
        match sys::file::statx(fd.as_fd(), b"")?.kind() {
            Kind::File => Ok(Self::wrap(fd)),
            Kind::Dir => Err(Error::os("openat", Errno::ISDIR)),
            _ => Err(Error::os("openat", Errno::NXIO)),
        }
    }

    /// Copies at most one step through memory.
    fn copy_plain(&self, from: u64, to: &dyn File, to_offset: u64, len: u64) -> Result<u64> {
        let step = usize::try_from(len.min(COPY_BYTES)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; step];
        let got = self.read_at(&mut buffer, from)?;
        let data = buffer.get(..got).unwrap_or_default();
        if data.is_empty() {
            return Ok(0);
        }
        to.write_at(data, to_offset).map(|written| written as u64)
    }

    /// Whether the kernel's EINVAL concerns a range that overlaps itself.
    fn is_same(&self, other: &Self) -> Result<bool> {
        let (one, two) = (self.stat()?, other.stat()?);
        Ok((one.dev, one.ino) == (two.dev, two.ino))
    }
}

impl File for HostFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn stat(&self) -> Result<Stat> {
        sys::file::statx(self.fd.as_fd(), b"")
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..)
            && !rest.is_empty()
        {
            match sys::file::pread(self.fd.as_fd(), rest, offset.saturating_add(done as u64))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = data.get(done..)
            && !rest.is_empty()
        {
            let at = offset.saturating_add(done as u64);
            match sys::file::pwrite(self.fd.as_fd(), rest, at) {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break, // the next write fails again
            }
        }
        Ok(done)
    }

    fn again(&self, access: Access) -> Result<FileRef> {
        let flags = match access {
            Access::Path => OFlags::PATH,
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        sys::file::open_again(self.fd.as_fd(), flags).map(Self::wrap)
    }

    fn append(&self, data: &[u8]) -> Result<usize> {
        sys::file::append(self.fd.as_fd(), data)
    }

    fn set_attr(&self, change: &AttrChange) -> Result<()> {
        let fd = self.fd.as_fd();
        if let Some(size) = change.size {
            sys::file::ftruncate(fd, size)?;
        }
        attr::change_itself(fd, &AttrChange { size: None, ..*change })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        sys::file::ftruncate(self.fd.as_fd(), len)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        sys::file::fallocate(self.fd.as_fd(), mode, offset, len)
    }

    fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        sys::file::seek_extent(self.fd.as_fd(), offset, whence)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        if data_only {
            sys::file::fdatasync(self.fd.as_fd())
        } else {
            sys::file::fsync(self.fd.as_fd())
        }
    }

    fn copy_range(&self, from: u64, to: &dyn File, to_offset: u64, len: u64) -> Result<u64> {
        let Some(target) = to.as_any().downcast_ref::<Self>() else {
            return self.copy_plain(from, to, to_offset, len);
        };
        let step = usize::try_from(len).unwrap_or(usize::MAX);
        let ends = ((self.fd.as_fd(), from), (target.fd.as_fd(), to_offset));
        let error = match sys::file::copy_file_range(ends.0, ends.1, step) {
            Ok(copied) => return Ok(copied as u64),
            Err(error) => error,
        };
        match error.errno() {
            Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS => {}
            Errno::INVAL if !self.is_same(target)? => {}
            _ => return Err(error),
        }
        self.copy_plain(from, to, to_offset, len)
    }

    fn clone_to(&self, to: &dyn File) -> Result<()> {
        let target = to.as_any().downcast_ref::<Self>().ok_or(Error::Rule(Errno::XDEV))?;
        sys::ioctl::ficlone(target.fd.as_fd(), self.fd.as_fd())
    }

    fn flags(&self) -> Result<u32> {
        sys::ioctl::flags(self.fd.as_fd())
    }

    fn set_flags(&self, flags: u32) -> Result<()> {
        sys::ioctl::set_flags(self.fd.as_fd(), flags)
    }

    fn fsxattr(&self) -> Result<FsXattr> {
        sys::ioctl::fsxattr(self.fd.as_fd())
    }

    fn set_fsxattr(&self, value: &FsXattr) -> Result<()> {
        sys::ioctl::set_fsxattr(self.fd.as_fd(), value)
    }
}

//! Open files of a tree in memory.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use laminafs::error::{Errno, Result};
use laminafs::sync::OnceLock;
use laminafs::types::{Access, FsXattr, Seek, Stat};
use laminafs::union::layer::{File, FileRef};

use super::content::Content;
use super::shared::Shared;
use super::tree::{Body, Inode, fail};

/// The largest number of bytes that one copy moves.
const COPY_BYTES: u64 = 1 << 20;

/// An open file; it keeps its inode alive without a name.
pub(super) struct MemoryFile {
    shared: Arc<Shared>,
    ino: u64,
    access: Access,
}

impl MemoryFile {
    /// Takes over one open that the caller has counted in the inode.
    pub(super) fn new(shared: &Arc<Shared>, ino: u64, access: Access) -> Self {
        Self { shared: Arc::clone(shared), ino, access }
    }

    /// Opens the inode once more, for reading and writing.
    pub(super) fn reopen(&self) -> Option<FileRef> {
        self.shared.tree.lock().inodes.get_mut(&self.ino)?.opens += 1;
        Some(Arc::new(Self::new(&self.shared, self.ino, Access::Write)))
    }

    fn with_inode<R>(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut Inode) -> Result<R>,
    ) -> Result<R> {
        if self.access == Access::Path {
            return fail(op, Errno::BADF);
        }
        work(self.shared.tree.lock().inode_mut(op, self.ino)?)
    }

    fn with_content<R>(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut Content) -> Result<R>,
    ) -> Result<R> {
        self.with_inode(op, |inode| match &mut inode.body {
            Body::File(content) => work(content),
            Body::Dir(_) => fail(op, Errno::ISDIR),
            _ => fail(op, Errno::INVAL),
        })
    }

    /// A change of the data: refused on a file opened for reading.
    fn change(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut Content) -> Result<()>,
    ) -> Result<()> {
        if self.access != Access::Write {
            return fail(op, Errno::BADF);
        }
        self.with_content(op, work)?;
        let mut tree = self.shared.tree.lock();
        let now = tree.now;
        let inode = tree.inode_mut(op, self.ino)?;
        (inode.mtime, inode.ctime) = (now, now);
        inode.drop_capability();
        Ok(())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut tree = self.shared.tree.lock();
        if let Some(inode) = tree.inodes.get_mut(&self.ino) {
            inode.opens = inode.opens.saturating_sub(1);
        }
        tree.reap(self.ino);
    }
}

impl File for MemoryFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        static NOWHERE: OnceLock<Option<std::fs::File>> = OnceLock::new();
        if !self.shared.traits.descriptors {
            return None;
        }
        let file = NOWHERE.get_or_init(|| std::fs::File::open("/dev/null").ok());
        file.as_ref().map(AsFd::as_fd)
    }

    fn stat(&self) -> Result<Stat> {
        let tree = self.shared.tree.lock();
        Ok(tree.inode("statx", self.ino)?.stat(self.shared.dev, self.ino))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.with_content("pread", |content| Ok(content.read(buf, offset)))
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        self.change("pwrite", |content| content.write(data, offset))?;
        Ok(data.len())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change("ftruncate", |content| content.set_len(len))
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.change("fallocate", |content| content.allocate(mode, offset, len))
    }

    fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        self.with_content("lseek", |content| content.seek(offset, whence))
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        self.with_inode("fsync", |inode| {
            if let Body::File(content) = &mut inode.body {
                content.sync();
            }
            Ok(())
        })
    }

    fn copy_range(&self, from: u64, to: &dyn File, to_offset: u64, len: u64) -> Result<u64> {
        let left = self.stat()?.size.saturating_sub(from);
        let count = len.min(left).min(COPY_BYTES);
        let mut buf = vec![0; usize::try_from(count).unwrap_or(0)];
        let got = self.read_at(&mut buf, from)?;
        buf.truncate(got);
        // Through the trait, so that a wrapper around `to` sees the write.
        to.write_at(&buf, to_offset).map(|count| count as u64)
    }

    fn clone_to(&self, to: &dyn File) -> Result<()> {
        const OP: &str = "ficlone";
        if !self.shared.traits.reflink {
            return fail(OP, Errno::OPNOTSUPP);
        }
        match to.as_any().downcast_ref::<Self>() {
            Some(to) if Arc::ptr_eq(&to.shared, &self.shared) => {
                let source = self.with_content(OP, |content| Ok(content.clone()))?;
                to.change(OP, |content| {
                    content.share(&source);
                    Ok(())
                })
            }
            _ => fail(OP, Errno::XDEV),
        }
    }

    fn flags(&self) -> Result<u32> {
        fail("FS_IOC_GETFLAGS", Errno::NOTTY)
    }

    fn set_flags(&self, _flags: u32) -> Result<()> {
        fail("FS_IOC_SETFLAGS", Errno::NOTTY)
    }

    fn fsxattr(&self) -> Result<FsXattr> {
        fail("FS_IOC_FSGETXATTR", Errno::NOTTY)
    }

    fn set_fsxattr(&self, _value: &FsXattr) -> Result<()> {
        fail("FS_IOC_FSSETXATTR", Errno::NOTTY)
    }
}

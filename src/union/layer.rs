//! The traits below the union: directories and files of a layer, reached one name at a time.
//!
//! A [`Dir`] is a place in one layer, not an open descriptor: an implementation opens it when it is
//! needed and may close it at any time. Names are single components; nothing here follows a
//! symbolic link, and nothing crosses from a layer into another file system. Every method is one
//! step that either happened or did not.

pub mod object;

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::{
    Access, AttrChange, FsXattr, Handle, Owner, RawEntry, RenameFlags, Seek, Stat, StatFs,
    XattrFlags,
};

/// A shared reference to a directory of a layer.
pub type DirRef = Arc<dyn Dir>;

/// A shared reference to an open file of a layer.
pub type FileRef = Arc<dyn File>;

/// The consumer of a listing; returns false to stop.
pub type EntrySink<'a> = dyn FnMut(RawEntry<'_>) -> bool + 'a;

/// Receives the entries of a listing with their attributes; returns whether it wants more.
pub type StatSink<'a> = dyn FnMut(RawEntry<'_>, &Stat) -> bool + 'a;

/// A directory of a layer.
///
/// Where a method takes `name: Option<&[u8]>`, `None` means the directory itself.
pub trait Dir: Send + Sync {
    /// Returns this object, for an implementation that must recognise its own type in `link` and
    /// `rename`.
    fn as_any(&self) -> &dyn Any;

    /// Returns the attributes of an entry or of the directory. `ENOENT` for an absent name.
    ///
    /// # Errors
    /// As statx(2); a symbolic link is not followed.
    fn stat(&self, name: Option<&[u8]>) -> Result<Stat>;

    /// Returns the attributes of an entry that [`Dir::create`] has just made and opened as `file`.
    ///
    /// # Errors
    /// As fstat(2).
    fn stat_new(&self, _name: &[u8], file: &FileRef) -> Result<Stat> {
        file.stat()
    }

    /// Returns the place of a subdirectory. Does no I/O; its use fails if there is no such
    /// directory.
    fn dir(&self, name: &[u8]) -> DirRef;

    /// Passes the entries behind position `from` (0: from the start) to `sink`, without `.` and
    /// `..`, until it returns false.
    ///
    /// # Errors
    /// As getdents64(2).
    fn list(&self, from: u64, sink: &mut EntrySink<'_>) -> Result<()>;

    /// As [`Dir::list`], for a caller that takes `count` entries: the listing may end after them.
    ///
    /// # Errors
    /// As [`Dir::list`].
    fn list_about(&self, from: u64, _count: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.list(from, sink)
    }

    /// Passes the entries with their attributes. Returns false, and passes nothing, if the
    /// attributes are not at hand. For layers whose only whiteouts are devices 0:0.
    ///
    /// # Errors
    /// As [`Dir::list`].
    fn list_stat(&self, _from: u64, _sink: &mut StatSink<'_>) -> Result<bool> {
        Ok(false)
    }

    /// Counts the directory as read by a user: its access time changes according to the flags of
    /// its mount. Unless `always`, an access that `relatime` would ignore may be skipped. Without
    /// access times nothing happens.
    ///
    /// # Errors
    /// As getdents64(2).
    fn count_access(&self, _always: bool) -> Result<()> {
        Ok(())
    }

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// As readlinkat(2).
    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>>;

    /// Opens an existing regular file (`Access::Path` opens any kind) without following links
    /// and without blocking on a FIFO.
    ///
    /// # Errors
    /// As openat(2).
    fn open(&self, name: &[u8], access: Access) -> Result<FileRef>;

    /// Opens the directory itself for fsync and ioctl.
    ///
    /// # Errors
    /// As openat(2).
    fn open_self(&self) -> Result<FileRef>;

    /// Returns the value of an extended attribute; `None` if it is absent or not supported.
    ///
    /// # Errors
    /// As lgetxattr(2), but for `ENODATA` and `EOPNOTSUPP`.
    fn xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Returns the names of all extended attributes; none if the file system does not support them.
    ///
    /// # Errors
    /// As llistxattr(2), but for `EOPNOTSUPP`.
    fn xattr_names(&self, name: Option<&[u8]>) -> Result<Vec<Vec<u8>>>;

    /// Returns the space and inodes of the file system.
    ///
    /// # Errors
    /// As fstatfs(2).
    fn statfs(&self) -> Result<StatFs>;

    /// Returns the file handle and UUID, for the kernel's origin mark; `None` if there are no
    /// handles, or none that mean the same object in every mount.
    ///
    /// # Errors
    /// As name_to_handle_at(2).
    fn handle(&self, name: Option<&[u8]>) -> Result<Option<Handle>>;

    /// Makes a directory with exactly this owner; the mode passes through the file system's own
    /// rules (setgid inheritance, default ACL), no umask.
    ///
    /// # Errors
    /// As mkdirat(2).
    fn mkdir(&self, name: &[u8], mode: u32, owner: Owner) -> Result<()>;

    /// Makes a file of any kind but directory and symbolic link; `mode` holds the format bits.
    ///
    /// # Errors
    /// As mknodat(2).
    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<()>;

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As symlinkat(2).
    fn symlink(&self, name: &[u8], target: &[u8], owner: Owner) -> Result<()>;

    /// Makes a regular file that did not exist and opens it for reading and writing.
    ///
    /// # Errors
    /// As openat(2) with `O_CREAT | O_EXCL`.
    fn create(&self, name: &[u8], mode: u32, owner: Owner) -> Result<FileRef>;

    /// Makes a hard link of `name` at `to_name` of `to`, which is of the same layer.
    ///
    /// # Errors
    /// As linkat(2); `EXDEV` if `to` is of another implementation.
    fn link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<()>;

    /// Removes an entry that is not a directory.
    ///
    /// # Errors
    /// As unlinkat(2).
    fn unlink(&self, name: &[u8]) -> Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As unlinkat(2) with `AT_REMOVEDIR`.
    fn rmdir(&self, name: &[u8]) -> Result<()>;

    /// Renames `name` to `to_name` of `to`, which is of the same layer. With
    /// [`RenameFlags::whiteout`] a character device 0:0 takes the old place in the same step.
    ///
    /// The [`Dir`] of a moved directory must be updated by [`Dir::relocate`].
    ///
    /// # Errors
    /// As renameat2(2).
    fn rename(&self, name: &[u8], to: &dyn Dir, to_name: &[u8], flags: RenameFlags) -> Result<()>;

    /// Returns a place that leads to the object `name`, which is not a directory, even if its name
    /// changes: any name in the place means the object. The place keeps the object alive.
    ///
    /// # Errors
    /// As openat(2) with `O_PATH`.
    fn pin(&self, name: &[u8]) -> Result<DirRef>;

    /// Notes that a directory of this tree is about to be moved (`true`), or that all places have
    /// been updated (`false`): between the two, a name may lead to another directory than before.
    fn moving(&self, _begins: bool) {}

    /// Returns the place of the subdirectory with the attributes `stat`: an implementation that
    /// notes them opens no other directory in its stead.
    fn dir_known(&self, name: &[u8], _stat: &Stat) -> DirRef {
        self.dir(name)
    }

    /// Notes that this directory is now `name` of `parent`; directories opened beneath it stay
    /// valid.
    fn relocate(&self, parent: &DirRef, name: &[u8]);

    /// Changes attributes of an entry or of the directory, in the order size, owner, mode, times; a
    /// symbolic link is not followed. Set-id bits are kept unless `mode` clears them or the owner
    /// of a regular file changes as chown(2) describes.
    ///
    /// # Errors
    /// As fchownat(2), fchmodat2(2), utimensat(2), truncate(2).
    fn set_attr(&self, name: Option<&[u8]>, change: &AttrChange) -> Result<()>;

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// As lsetxattr(2).
    fn set_xattr(
        &self,
        name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()>;

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As lremovexattr(2).
    fn remove_xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<()>;

    /// Makes everything in the file system of this directory durable.
    ///
    /// # Errors
    /// As syncfs(2).
    fn sync_fs(&self) -> Result<()>;
}

/// An open file or directory of a layer.
pub trait File: Send + Sync {
    /// Returns this object, for an implementation that must recognise its own type in `copy_range`.
    fn as_any(&self) -> &dyn Any;

    /// The descriptor, if there is one: for passthrough and for replies without a copy.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Notes that the kernel does not serve this file by itself, for a file made for that.
    fn not_registered(&self) {}

    /// Returns the attributes.
    ///
    /// # Errors
    /// As statx(2).
    fn stat(&self) -> Result<Stat>;

    /// Reads at an offset; fewer bytes than requested only at the end of the file.
    ///
    /// # Errors
    /// As pread(2).
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;

    /// Passes the bytes that [`File::read_at`] would read to `take`, at once and in parts, without
    /// a copy. Returns false, and does not call `take`, if the bytes are not in the memory of the
    /// process.
    ///
    /// # Errors
    /// As pread(2).
    fn read_shared(
        &self,
        _len: usize,
        _offset: u64,
        _take: &mut dyn FnMut(&[&[u8]]),
    ) -> Result<bool> {
        Ok(false)
    }

    /// Writes all of `data` at an offset, or as much as fits before an error.
    ///
    /// # Errors
    /// As pwrite(2), if nothing was written.
    fn write_at(&self, data: &[u8], offset: u64) -> Result<usize>;

    /// Opens the same file once more, wherever its name leads by now.
    ///
    /// # Errors
    /// As open(2); `EOPNOTSUPP` if the implementation has no such call.
    fn again(&self, _access: Access) -> Result<FileRef> {
        Err(Errno::OPNOTSUPP.into())
    }

    /// Writes all of `data` at the current end of the file.
    ///
    /// # Errors
    /// As pwritev2(2) with `RWF_APPEND`; `EOPNOTSUPP` if the implementation has no such call.
    fn append(&self, _data: &[u8]) -> Result<usize> {
        Err(Errno::OPNOTSUPP.into())
    }

    /// Changes attributes, as [`Dir::set_attr`] does by name.
    ///
    /// # Errors
    /// As fchown(2), fchmod(2), futimens(3), ftruncate(2); `EOPNOTSUPP` if the implementation has
    /// no such call.
    fn set_attr(&self, _change: &AttrChange) -> Result<()> {
        Err(Errno::OPNOTSUPP.into())
    }

    /// Sets the size in bytes.
    ///
    /// # Errors
    /// As ftruncate(2).
    fn set_len(&self, len: u64) -> Result<()>;

    /// fallocate(2) with its mode bits.
    ///
    /// # Errors
    /// As fallocate(2).
    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()>;

    /// Returns the next data or hole at or behind `offset`.
    ///
    /// # Errors
    /// As lseek(2); `ENXIO` behind the end.
    fn seek(&self, offset: u64, whence: Seek) -> Result<u64>;

    /// Makes data (and, unless `data_only`, all attributes) durable.
    ///
    /// # Errors
    /// As fsync(2).
    fn sync(&self, data_only: bool) -> Result<()>;

    /// Copies a range to another file; may copy fewer bytes, 0 at the end of this file.
    ///
    /// # Errors
    /// As copy_file_range(2), after a plain copy was tried if the kernel cannot copy the range.
    fn copy_range(&self, from: u64, to: &dyn File, to_offset: u64, len: u64) -> Result<u64>;

    /// Makes `to`, which is empty, share all extents of this file (`FICLONE`).
    ///
    /// # Errors
    /// `EOPNOTSUPP` (or the error of `FICLONE`) if the file system cannot share extents.
    fn clone_to(&self, to: &dyn File) -> Result<()>;

    /// Makes this file, which is empty, share all extents of another one: for an implementation
    /// that must know what it receives. Others have [`File::clone_to`].
    ///
    /// # Errors
    /// `EOPNOTSUPP` without it; `ENOSPC`; the error of `FICLONE`.
    fn take_clone(&self, _source: &dyn File) -> Result<()> {
        Err(Errno::OPNOTSUPP.into())
    }

    /// `FS_IOC_GETFLAGS`.
    ///
    /// # Errors
    /// `ENOTTY` where the file system has none.
    fn flags(&self) -> Result<u32>;

    /// `FS_IOC_SETFLAGS`.
    ///
    /// # Errors
    /// As the ioctl.
    fn set_flags(&self, flags: u32) -> Result<()>;

    /// `FS_IOC_FSGETXATTR`.
    ///
    /// # Errors
    /// `ENOTTY` where the file system has none.
    fn fsxattr(&self) -> Result<FsXattr>;

    /// `FS_IOC_FSSETXATTR`.
    ///
    /// # Errors
    /// As the ioctl.
    fn set_fsxattr(&self, value: &FsXattr) -> Result<()>;
}

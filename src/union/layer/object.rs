//! Places without entries: one object that is not a directory, independent of its names.

use std::any::Any;

use crate::error::{Errno, Error, Result};
use crate::types::{Access, AttrChange, Handle, Owner, RenameFlags, Stat, StatFs, XattrFlags};
use crate::union::layer::{Dir, DirRef, EntrySink, FileRef};

/// One object of a layer that is not a directory and is kept by itself.
///
/// [`Pin`] refuses the operations of a directory that make no sense here.
pub trait Object: Send + Sync + 'static {
    /// Returns the attributes.
    ///
    /// # Errors
    /// As statx(2).
    fn stat(&self) -> Result<Stat>;

    /// Returns a place for a name below the object, where nothing is.
    fn below(&self, name: &[u8]) -> DirRef;

    /// Returns another place of the object.
    ///
    /// # Errors
    /// As [`Dir::pin`].
    fn pin(&self) -> Result<DirRef>;

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// As readlinkat(2).
    fn readlink(&self) -> Result<Vec<u8>>;

    /// Opens the object.
    ///
    /// # Errors
    /// As [`Dir::open`].
    fn open(&self, access: Access) -> Result<FileRef>;

    /// Returns the value of an extended attribute.
    ///
    /// # Errors
    /// As [`Dir::xattr`].
    fn xattr(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Returns the names of all extended attributes.
    ///
    /// # Errors
    /// As [`Dir::xattr_names`].
    fn xattr_names(&self) -> Result<Vec<Vec<u8>>>;

    /// Returns the space and inodes of the file system.
    ///
    /// # Errors
    /// As fstatfs(2).
    fn statfs(&self) -> Result<StatFs>;

    /// Makes a hard link of the object.
    ///
    /// # Errors
    /// As [`Dir::link`].
    fn link(&self, to: &dyn Dir, to_name: &[u8]) -> Result<()>;

    /// Changes attributes.
    ///
    /// # Errors
    /// As [`Dir::set_attr`].
    fn set_attr(&self, change: &AttrChange) -> Result<()>;

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// As [`Dir::set_xattr`].
    fn set_xattr(&self, key: &[u8], value: &[u8], flags: XattrFlags) -> Result<()>;

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As [`Dir::remove_xattr`].
    fn remove_xattr(&self, key: &[u8]) -> Result<()>;

    /// Makes everything in the file system of the object durable.
    ///
    /// # Errors
    /// As syncfs(2).
    fn sync_fs(&self) -> Result<()>;
}

/// The place of an object: any name in it means the object, and it has no entries.
pub struct Pin<T>(pub T);

fn no_directory<R>(op: &'static str) -> Result<R> {
    Err(Error::os(op, Errno::NOTDIR))
}

fn no_name<R>(op: &'static str) -> Result<R> {
    Err(Error::os(op, Errno::NOENT))
}

impl<T: Object> Dir for Pin<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self, _name: Option<&[u8]>) -> Result<Stat> {
        self.0.stat()
    }

    fn dir(&self, name: &[u8]) -> DirRef {
        self.0.below(name)
    }

    fn list(&self, _from: u64, _sink: &mut EntrySink<'_>) -> Result<()> {
        no_directory("getdents64")
    }

    fn readlink(&self, _name: &[u8]) -> Result<Vec<u8>> {
        self.0.readlink()
    }

    fn open(&self, _name: &[u8], access: Access) -> Result<FileRef> {
        self.0.open(access)
    }

    fn open_self(&self) -> Result<FileRef> {
        self.0.open(Access::Read)
    }

    fn xattr(&self, _name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.0.xattr(key)
    }

    fn xattr_names(&self, _name: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        self.0.xattr_names()
    }

    fn statfs(&self) -> Result<StatFs> {
        self.0.statfs()
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
        self.0.link(to, to_name)
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
        self.0.pin()
    }

    fn relocate(&self, _parent: &DirRef, _name: &[u8]) {}

    fn set_attr(&self, _name: Option<&[u8]>, change: &AttrChange) -> Result<()> {
        self.0.set_attr(change)
    }

    fn set_xattr(
        &self,
        _name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        self.0.set_xattr(key, value, flags)
    }

    fn remove_xattr(&self, _name: Option<&[u8]>, key: &[u8]) -> Result<()> {
        self.0.remove_xattr(key)
    }

    fn sync_fs(&self) -> Result<()> {
        self.0.sync_fs()
    }
}

//! A place that leads to one object of a tree in memory, whatever became of its names.

use std::any::Any;
use std::sync::Arc;

use laminafs::error::{Errno, Result};
use laminafs::types::{
    Access, AttrChange, Handle, Kind, Owner, RenameFlags, Stat, StatFs, XattrFlags,
};
use laminafs::union::layer::{Dir, DirRef, EntrySink, File, FileRef};

use super::file::MemoryFile;
use super::tree::{Body, Tree, fail};
use super::{MemoryDir, Shared};

/// The object. It counts as open, so that it lives without a name.
pub(super) struct Pinned {
    shared: Arc<Shared>,
    ino: u64,
    open: MemoryFile,
}

impl Pinned {
    /// Pins an inode of a tree that the caller has locked.
    pub(super) fn of(shared: &Arc<Shared>, tree: &mut Tree, ino: u64) -> Result<DirRef> {
        tree.inode_mut("openat", ino)?.opens += 1;
        let open = MemoryFile::new(shared, ino, Access::Path);
        Ok(Arc::new(Self { shared: Arc::clone(shared), ino, open }))
    }

    fn on<R>(&self, work: impl FnOnce(&mut Tree, u64) -> Result<R>) -> Result<R> {
        work(&mut self.shared.tree.lock(), self.ino)
    }
}

impl Dir for Pinned {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self, _name: Option<&[u8]>) -> Result<Stat> {
        self.open.stat()
    }

    fn dir(&self, name: &[u8]) -> DirRef {
        // Nothing is below it: no directory of the tree has this name.
        MemoryDir::root_of(&self.shared).dir(&[b"..nothing below ", name].concat())
    }

    fn list(&self, _from: u64, _sink: &mut EntrySink<'_>) -> Result<()> {
        fail("getdents64", Errno::NOTDIR)
    }

    fn readlink(&self, _name: &[u8]) -> Result<Vec<u8>> {
        self.on(|tree, ino| match &tree.inode("readlinkat", ino)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => fail("readlinkat", Errno::INVAL),
        })
    }

    fn open(&self, _name: &[u8], access: Access) -> Result<FileRef> {
        self.on(|tree, ino| {
            let inode = tree.inode_mut("openat", ino)?;
            if access != Access::Path && inode.kind() != Kind::File {
                return fail("openat", Errno::NXIO);
            }
            inode.opens += 1;
            Ok(Arc::new(MemoryFile::new(&self.shared, ino, access)) as FileRef)
        })
    }

    fn open_self(&self) -> Result<FileRef> {
        self.open(b"", Access::Read)
    }

    fn xattr(&self, _name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.on(|tree, ino| Ok(tree.inode("lgetxattr", ino)?.xattrs.get(key).cloned()))
    }

    fn xattr_names(&self, _name: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        self.on(|tree, ino| Ok(tree.inode("llistxattr", ino)?.xattrs.keys().cloned().collect()))
    }

    fn statfs(&self) -> Result<StatFs> {
        MemoryDir::root_of(&self.shared).statfs()
    }

    fn handle(&self, _name: Option<&[u8]>) -> Result<Option<Handle>> {
        Ok(None)
    }

    fn mkdir(&self, _name: &[u8], _mode: u32, _owner: Owner) -> Result<()> {
        fail("mkdirat", Errno::NOTDIR)
    }

    fn mknod(&self, _name: &[u8], _mode: u32, _rdev: u64, _owner: Owner) -> Result<()> {
        fail("mknodat", Errno::NOTDIR)
    }

    fn symlink(&self, _name: &[u8], _target: &[u8], _owner: Owner) -> Result<()> {
        fail("symlinkat", Errno::NOTDIR)
    }

    fn create(&self, _name: &[u8], _mode: u32, _owner: Owner) -> Result<FileRef> {
        fail("openat", Errno::NOTDIR)
    }

    fn link(&self, _name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        let Some(to) = to.as_any().downcast_ref::<MemoryDir>() else {
            return fail("linkat", Errno::XDEV);
        };
        to.take(&self.shared, self.ino, to_name)
    }

    fn unlink(&self, _name: &[u8]) -> Result<()> {
        fail("unlinkat", Errno::NOENT)
    }

    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        fail("unlinkat", Errno::NOENT)
    }

    fn rename(
        &self,
        _name: &[u8],
        _to: &dyn Dir,
        _to_name: &[u8],
        _flags: RenameFlags,
    ) -> Result<()> {
        fail("renameat2", Errno::NOENT)
    }

    fn pin(&self, _name: &[u8]) -> Result<DirRef> {
        Self::of(&self.shared, &mut self.shared.tree.lock(), self.ino)
    }

    fn relocate(&self, _parent: &DirRef, _name: &[u8]) {}

    fn set_attr(&self, _name: Option<&[u8]>, change: &AttrChange) -> Result<()> {
        self.on(|tree, ino| tree.set_attr(ino, change))
    }

    fn set_xattr(
        &self,
        _name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        let rule = self.shared.traits.user_xattr_rule;
        self.on(|tree, ino| tree.set_xattr(ino, key, value, flags, rule))
    }

    fn remove_xattr(&self, _name: Option<&[u8]>, key: &[u8]) -> Result<()> {
        let rule = self.shared.traits.user_xattr_rule;
        self.on(|tree, ino| tree.remove_xattr(ino, key, rule))
    }

    fn sync_fs(&self) -> Result<()> {
        MemoryDir::root_of(&self.shared).sync_fs()
    }
}

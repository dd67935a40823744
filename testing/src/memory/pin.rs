//! A place that leads to one object of a tree in memory, independent of its names.

use std::sync::Arc;

use laminafs::error::{Errno, Result};
use laminafs::types::{Access, AttrChange, Kind, Stat, StatFs, XattrFlags};
use laminafs::union::layer::object::{Object, Pin};
use laminafs::union::layer::{Dir, DirRef, File, FileRef};

use super::MemoryDir;
use super::file::MemoryFile;
use super::shared::Shared;
use super::tree::{Body, Tree, fail};

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
        Ok(Arc::new(Pin(Self { shared: Arc::clone(shared), ino, open })))
    }

    fn on<R>(&self, work: impl FnOnce(&mut Tree, u64) -> Result<R>) -> Result<R> {
        work(&mut self.shared.tree.lock(), self.ino)
    }
}

impl Object for Pinned {
    fn stat(&self) -> Result<Stat> {
        self.open.stat()
    }

    fn below(&self, name: &[u8]) -> DirRef {
        // Nothing is below it: no directory of the tree has this name.
        MemoryDir::root_of(&self.shared).dir(&[b"..nothing below ", name].concat())
    }

    fn pin(&self) -> Result<DirRef> {
        Self::of(&self.shared, &mut self.shared.tree.lock(), self.ino)
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        self.on(|tree, ino| match &tree.inode("readlinkat", ino)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => fail("readlinkat", Errno::INVAL),
        })
    }

    fn open(&self, access: Access) -> Result<FileRef> {
        self.on(|tree, ino| {
            let inode = tree.inode_mut("openat", ino)?;
            if access != Access::Path && inode.kind() != Kind::File {
                return fail("openat", Errno::NXIO);
            }
            inode.opens += 1;
            Ok(Arc::new(MemoryFile::new(&self.shared, ino, access)) as FileRef)
        })
    }

    fn xattr(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.on(|tree, ino| Ok(tree.inode("lgetxattr", ino)?.xattrs.get(key).cloned()))
    }

    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        self.on(|tree, ino| Ok(tree.inode("llistxattr", ino)?.xattrs.keys().cloned().collect()))
    }

    fn statfs(&self) -> Result<StatFs> {
        MemoryDir::root_of(&self.shared).statfs()
    }

    fn link(&self, to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        let Some(to) = to.as_any().downcast_ref::<MemoryDir>() else {
            return fail("linkat", Errno::XDEV);
        };
        to.take(&self.shared, self.ino, to_name)
    }

    fn set_attr(&self, change: &AttrChange) -> Result<()> {
        self.on(|tree, ino| tree.set_attr(ino, change))
    }

    fn set_xattr(&self, key: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        let rule = self.shared.traits.user_xattr_rule;
        self.on(|tree, ino| tree.set_xattr(ino, key, value, flags, rule))
    }

    fn remove_xattr(&self, key: &[u8]) -> Result<()> {
        let rule = self.shared.traits.user_xattr_rule;
        self.on(|tree, ino| tree.remove_xattr(ino, key, rule))
    }

    fn sync_fs(&self) -> Result<()> {
        MemoryDir::root_of(&self.shared).sync_fs()
    }
}

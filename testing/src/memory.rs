//! A file system in memory behind the traits of the union.
//!
//! It serves tests of the union without a mount and small trees that need no disk. It follows POSIX
//! and Linux where a union can notice a difference: hard links with their counts, unlinked files
//! that live while they are open, renameat2(2) with all flags, holes at 4 KiB, extended attributes
//! on every kind, listing positions that are never reused. Like ext4, it gives the number of a
//! freed inode to the next object, and distinguishes the two by a generation in their file handles.
//!
//! Invariants: a [`MemoryTree`] is one file system with its own device number and UUID; nothing
//! links or moves between two of them. Time is a logical clock that only
//! [`MemoryTree::set_time`] moves; reading changes no time. A [`Dir`] is a place: it is resolved
//! by name at each use, as an implementation that closes its descriptors would do.
//!
//! It also models a disk that loses power: [`MemoryTree::power_cut`] keeps every change of names
//! and attributes and loses the bytes that were not synced. It has no permission checks, ACL
//! inheritance or quotas; `fault` injects faults.

mod attr;
mod content;
mod file;
mod pin;
mod shared;
mod tree;

use std::any::Any;
use std::sync::Arc;

use laminafs::error::{Errno, Result};
use laminafs::sync::{Condvar, Mutex, MutexGuard, OnceLock, RwLock};
use laminafs::types::{
    Access, AttrChange, Handle, Kind, Name, Owner, RawEntry, RenameFlags, Stat, StatFs, Time,
    XattrFlags, name as owned,
};
use laminafs::union::layer::{Dir, DirRef, EntrySink, File, FileRef};

pub use content::Loss;
pub use shared::Traits;

use file::MemoryFile;
use shared::Shared;
use tree::{Body, ROOT_INO, Tree, check_name, fail};

/// One file system in memory; clones are the same file system.
#[derive(Clone)]
pub struct MemoryTree {
    shared: Arc<Shared>,
}

impl MemoryTree {
    /// Makes an empty tree with the device number `dev`.
    #[must_use]
    pub fn new(dev: u64) -> Self {
        Self::with_traits(dev, Traits::default())
    }

    /// Makes an empty tree that differs from ext4.
    #[must_use]
    pub fn with_traits(dev: u64, traits: Traits) -> Self {
        Self::over(dev, traits, Tree::new(Time::default()))
    }

    fn over(dev: u64, traits: Traits, tree: Tree) -> Self {
        Self {
            shared: Arc::new(Shared { dev, traits, tree: Mutex::new(tree), moved: Condvar::new() }),
        }
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> DirRef {
        Arc::new(MemoryDir::root_of(&self.shared))
    }

    /// Opens the file behind an open file once more, for reading and writing, as the kernel does
    /// with one that is registered with it.
    #[must_use]
    pub fn reopen(file: &dyn File) -> Option<FileRef> {
        file.as_any().downcast_ref::<MemoryFile>()?.reopen()
    }

    /// Sets the clock of the tree.
    pub fn set_time(&self, now: Time) {
        self.shared.tree.lock().now = now;
    }

    /// Makes all bytes durable, as syncfs(2).
    pub fn sync(&self) {
        for inode in self.shared.tree.lock().inodes.values_mut() {
            if let Body::File(content) = &mut inode.body {
                content.sync();
            }
        }
    }

    /// A second file system with the same device number and the same content; what happens to one
    /// does not touch the other. Open files stay with the original.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut tree = self.shared.tree.lock().clone();
        tree.close_all();
        tree.moving = 0;
        Self::over(self.shared.dev, self.shared.traits, tree)
    }

    /// A fork that shows what the disk holds if power fails now.
    #[must_use]
    pub fn power_cut(&self, loss: Loss) -> Self {
        let left = self.fork();
        for inode in left.shared.tree.lock().inodes.values_mut() {
            if let Body::File(content) = &mut inode.body {
                *content = content.after_power_cut(loss);
            }
        }
        left
    }
}

/// Where a directory is: a name in another, or the root.
struct Place {
    up: RwLock<Option<(Arc<Place>, Name)>>,
    /// Number of the directory, once it is known: no other one is taken for it.
    known: OnceLock<u64>,
}

impl Place {
    const fn root() -> Self {
        Self { up: RwLock::new(None), known: OnceLock::new() }
    }

    fn below(parent: &Arc<Self>, name: &[u8]) -> Self {
        let up = RwLock::new(Some((Arc::clone(parent), owned(name))));
        Self { up, known: OnceLock::new() }
    }

    /// The inode number of the directory that is here now.
    fn resolve(&self, op: &'static str, tree: &Tree) -> Result<u64> {
        let up = self.up.read().clone();
        let Some((parent, name)) = up else {
            return Ok(ROOT_INO);
        };
        let ino = tree.child(op, parent.resolve(op, tree)?, &name)?;
        tree.entries(op, ino)?;
        if *self.known.get_or_init(|| ino) == ino { Ok(ino) } else { fail(op, Errno::STALE) }
    }
}

/// A directory of a [`MemoryTree`].
///
/// A place that leads nowhere, or to another directory than before, is looked for again once no
/// directory of the tree is being moved, as `laminafs::backing::host` does.
struct MemoryDir {
    shared: Arc<Shared>,
    place: Arc<Place>,
}

impl MemoryDir {
    fn root_of(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), place: Arc::new(Place::root()) }
    }

    /// Gives an object of the tree `shared` a name here.
    fn take(&self, shared: &Arc<Shared>, ino: u64, name: &[u8]) -> Result<()> {
        if !Arc::ptr_eq(shared, &self.shared) {
            return fail("linkat", Errno::XDEV);
        }
        self.on("linkat", |tree, dir| tree.link_inode(ino, dir, name))
    }

    /// The tree, locked, with the inode number of this directory.
    fn found(&self, op: &'static str) -> Result<(MutexGuard<'_, Tree>, u64)> {
        let mut tree = self.shared.tree.lock();
        loop {
            match self.place.resolve(op, &tree) {
                Err(_) if tree.moving > 0 => self.shared.moved.wait(&mut tree),
                found => return found.map(|dir| (tree, dir)),
            }
        }
    }

    /// Runs `work` on the tree with the inode number of this directory.
    fn on<R>(&self, op: &'static str, work: impl FnOnce(&mut Tree, u64) -> Result<R>) -> Result<R> {
        let (mut tree, dir) = self.found(op)?;
        work(&mut tree, dir)
    }

    /// As [`MemoryDir::on`], with the number of an entry or of the directory.
    fn at<R>(
        &self,
        op: &'static str,
        name: Option<&[u8]>,
        work: impl FnOnce(&mut Tree, u64) -> Result<R>,
    ) -> Result<R> {
        self.on(op, |tree, dir| {
            let ino = name.map_or(Ok(dir), |name| tree.child(op, dir, name))?;
            work(tree, ino)
        })
    }

    /// As [`MemoryDir::on`], with the number of another directory of the same tree.
    fn with<R>(
        &self,
        op: &'static str,
        to: &dyn Dir,
        work: impl FnOnce(&mut Tree, u64, u64) -> Result<R>,
    ) -> Result<R> {
        match to.as_any().downcast_ref::<Self>() {
            Some(to) if Arc::ptr_eq(&to.shared, &self.shared) => loop {
                // Each may wait, so that the one found first may be gone afterwards.
                drop(to.found(op)?);
                let (mut tree, dir) = self.found(op)?;
                match to.place.resolve(op, &tree) {
                    Err(_) if tree.moving > 0 => continue,
                    other => break work(&mut tree, dir, other?),
                }
            },
            _ => fail(op, Errno::XDEV),
        }
    }

    fn opened(&self, tree: &mut Tree, ino: u64, access: Access) -> Result<FileRef> {
        tree.inode_mut("openat", ino)?.opens += 1;
        Ok(Arc::new(MemoryFile::new(&self.shared, ino, access)))
    }
}

impl Dir for MemoryDir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self, name: Option<&[u8]>) -> Result<Stat> {
        let dev = self.shared.dev;
        self.at("statx", name, |tree, ino| Ok(tree.inode("statx", ino)?.stat(dev, ino)))
    }

    fn dir(&self, name: &[u8]) -> DirRef {
        let place = Arc::new(Place::below(&self.place, name));
        Arc::new(Self { shared: Arc::clone(&self.shared), place })
    }

    fn list(&self, from: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.list_about(from, u64::MAX, sink)
    }

    fn list_about(&self, from: u64, count: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        // The sink may call the tree, so the lock ends before the sink is called.
        let entries: Vec<_> = self.on("getdents64", |tree, dir| {
            let entries = tree.entries("getdents64", dir)?.behind(from).take(count);
            entries
                .map(|(at, name, ino)| {
                    Ok((at, name.clone(), ino, tree.inode("getdents64", ino)?.kind()))
                })
                .collect::<Result<_>>()
        })?;
        for (next, name, ino, kind) in entries {
            if !sink(RawEntry { name: &name, ino, kind, next }) {
                break;
            }
        }
        Ok(())
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.at("readlinkat", Some(name), |tree, ino| match &tree.inode("readlinkat", ino)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => fail("readlinkat", Errno::INVAL),
        })
    }

    fn open(&self, name: &[u8], access: Access) -> Result<FileRef> {
        const OP: &str = "openat";
        self.at(OP, Some(name), |tree, ino| {
            if access != Access::Path {
                match tree.inode(OP, ino)?.kind() {
                    Kind::File => {}
                    Kind::Symlink => return fail(OP, Errno::LOOP),
                    Kind::Dir if access == Access::Write => return fail(OP, Errno::ISDIR),
                    Kind::Dir => {}
                    _ => return fail(OP, Errno::NXIO),
                }
            }
            self.opened(tree, ino, access)
        })
    }

    fn open_self(&self) -> Result<FileRef> {
        self.on("openat", |tree, dir| self.opened(tree, dir, Access::Read))
    }

    fn xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.at("lgetxattr", name, |tree, ino| {
            Ok(tree.inode("lgetxattr", ino)?.xattrs.get(key).cloned())
        })
    }

    fn xattr_names(&self, name: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        self.at("llistxattr", name, |tree, ino| {
            Ok(tree.inode("llistxattr", ino)?.xattrs.keys().cloned().collect())
        })
    }

    fn statfs(&self) -> Result<StatFs> {
        self.on("fstatfs", |tree, _| {
            let (total, used) = (1 << 20, tree.inodes.len() as u64);
            let free = total - used.min(total);
            Ok(StatFs {
                blocks: total,
                bfree: free,
                bavail: free,
                files: total,
                ffree: free,
                bsize: 4096,
                frsize: 4096,
                namelen: 255,
            })
        })
    }

    fn handle(&self, name: Option<&[u8]>) -> Result<Option<Handle>> {
        if !self.shared.traits.handles {
            return Ok(None);
        }
        self.at("name_to_handle_at", name, |tree, ino| {
            let generation = tree.inode("name_to_handle_at", ino)?.generation;
            let bytes = [ino.to_be_bytes(), generation.to_be_bytes()].concat();
            Ok(Some(Handle { kind: 1, bytes, uuid: self.shared.uuid() }))
        })
    }

    fn mkdir(&self, name: &[u8], mode: u32, owner: Owner) -> Result<()> {
        self.on("mkdirat", |tree, dir| {
            let mode = Tree::permissions(mode, Kind::Dir);
            tree.make("mkdirat", dir, name, (mode, 0, owner)).map(drop)
        })
    }

    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<()> {
        let kind = Kind::from_mode(mode);
        let rdev = match kind {
            Kind::Char | Kind::Block => rdev,
            Kind::Fifo | Kind::Socket | Kind::File => 0,
            _ => return fail("mknodat", Errno::INVAL),
        };
        self.on("mknodat", |tree, dir| {
            let mode = Tree::permissions(mode, kind);
            tree.make("mknodat", dir, name, (mode, rdev, owner)).map(drop)
        })
    }

    fn symlink(&self, name: &[u8], target: &[u8], owner: Owner) -> Result<()> {
        self.on("symlinkat", |tree, dir| tree.symlink(dir, name, target, owner))
    }

    fn create(&self, name: &[u8], mode: u32, owner: Owner) -> Result<FileRef> {
        self.on("openat", |tree, dir| {
            let mode = Tree::permissions(mode, Kind::File);
            let ino = tree.make("openat", dir, name, (mode, 0, owner))?;
            self.opened(tree, ino, Access::Write)
        })
    }

    fn link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        self.with("linkat", to, |tree, dir, to| tree.link(dir, name, to, to_name))
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.on("unlinkat", |tree, dir| tree.unlink(dir, name))
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.on("unlinkat", |tree, dir| tree.rmdir(dir, name))
    }

    fn rename(&self, name: &[u8], to: &dyn Dir, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        self.with("renameat2", to, |tree, dir, to| tree.rename(dir, name, to, to_name, flags))
    }

    fn pin(&self, name: &[u8]) -> Result<DirRef> {
        self.at("openat", Some(name), |tree, ino| pin::Pinned::of(&self.shared, tree, ino))
    }

    fn moving(&self, begins: bool) {
        let mut tree = self.shared.tree.lock();
        tree.moving = if begins { tree.moving + 1 } else { tree.moving.saturating_sub(1) };
        drop(tree);
        self.shared.moved.notify_all();
    }

    fn dir_known(&self, name: &[u8], stat: &Stat) -> DirRef {
        let place = Place::below(&self.place, name);
        let place = Place { known: OnceLock::from(stat.ino), ..place };
        Arc::new(Self { shared: Arc::clone(&self.shared), place: Arc::new(place) })
    }

    fn relocate(&self, parent: &DirRef, name: &[u8]) {
        let Some(parent) = parent.as_any().downcast_ref::<Self>() else {
            return;
        };
        if check_name("relocate", name).is_ok() {
            *self.place.up.write() = Some((Arc::clone(&parent.place), owned(name)));
        }
    }

    fn set_attr(&self, name: Option<&[u8]>, change: &AttrChange) -> Result<()> {
        self.at("setattr", name, |tree, ino| tree.set_attr(ino, change))
    }

    fn set_xattr(
        &self,
        name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        let rule = self.shared.traits.user_xattr_rule;
        self.at("lsetxattr", name, |tree, ino| tree.set_xattr(ino, key, value, flags, rule))
    }

    fn remove_xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<()> {
        let rule = self.shared.traits.user_xattr_rule;
        self.at("lremovexattr", name, |tree, ino| tree.remove_xattr(ino, key, rule))
    }

    fn sync_fs(&self) -> Result<()> {
        MemoryTree { shared: Arc::clone(&self.shared) }.sync();
        Ok(())
    }
}

#[cfg(test)]
mod tests;

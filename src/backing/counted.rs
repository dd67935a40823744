//! An upper with a limit of its own: what is written to it is counted, and refused beyond.
//!
//! The layer wraps another one, so the union above and the host below know nothing of it. Data is
//! counted in blocks of 4 KiB that hold data, as `SEEK_DATA` of lseek(2) shows them, and never by
//! what the host file system allocates: the same content counts the same on ext4, XFS and btrfs.
//! Space is taken from the account before it is used. The number of blocks of an inode is always
//! what a scan of the tree would find; what is in memory is a cache of that. So nothing is stored,
//! and nothing can be wrong after a crash.
//!
//! - `account`: limits and use; `blocks`: sets of blocks; `scan`: what a tree holds;
//! - `file`: open files.
//!
//! Each inode but a whiteout counts, whatever its kind. Names and attributes do not.
//!
//! An account may be idle: then the layer passes everything on, and remembers only which files are
//! open. What is known of an inode is empty until the account begins to count.

mod account;
mod blocks;
mod file;
mod scan;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Errno, Result};
use crate::types::{
    Access, AttrChange, Handle, Kind, Owner, RenameFlags, Stat, StatFs, XattrFlags,
};
use crate::union::layer::{Dir, DirRef, EntrySink, FileRef, StatSink};

pub use account::{Account, Used};
pub use blocks::BLOCK;
pub use scan::Scan;

use file::{CountedFile, Tracked};

/// The most unused inodes whose data is remembered.
const TRACKED_MAX: usize = 16 * 1024;

/// A tree with an account.
struct Tree {
    account: Arc<Account>,
    tracked: Mutex<HashMap<(u64, u64), Arc<Tracked>>>,
}

/// Counts what is written below directories of one file system: the upper, the work directory and
/// the index of a mount.
#[derive(Clone)]
pub struct Counter(Arc<Tree>);

impl Counter {
    /// Counts on this account, which has what the directories hold.
    #[must_use]
    pub fn new(account: Arc<Account>) -> Self {
        Self(Arc::new(Tree { account, tracked: Mutex::default() }))
    }

    /// Shows a directory, and all that is reached through it, with the account.
    #[must_use]
    pub fn wrap(&self, inner: DirRef) -> DirRef {
        Arc::new(CountedDir { inner, tree: Arc::clone(&self.0) })
    }
}

impl Tree {
    fn tracked(&self, stat: &Stat) -> Arc<Tracked> {
        let mut tracked = self.tracked.lock();
        if tracked.len() >= TRACKED_MAX {
            tracked.retain(|_, one| Arc::strong_count(one) > 1);
        }
        let new = || Arc::new(Tracked::new(&self.account));
        let one = tracked.entry((stat.dev, stat.ino)).or_insert_with(new);
        if one.is_gone() {
            // Another inode has its number by now.
            *one = new();
        }
        Arc::clone(one)
    }

    /// A new inode: what had its number before is gone.
    fn tracked_new(&self, stat: &Stat) -> Arc<Tracked> {
        let new = match self.account.counts() {
            true => Arc::new(Tracked::empty(&self.account)),
            false => Arc::new(Tracked::new(&self.account)),
        };
        self.tracked.lock().insert((stat.dev, stat.ino), Arc::clone(&new));
        new
    }

    fn give_inode(&self) {
        if self.account.counts() {
            self.account.give(0, 1);
        }
    }

    fn forget(&self, stat: &Stat, gone: &Arc<Tracked>) {
        let mut tracked = self.tracked.lock();
        if tracked.get(&(stat.dev, stat.ino)).is_some_and(|one| Arc::ptr_eq(one, gone)) {
            tracked.remove(&(stat.dev, stat.ino));
        }
    }

    /// Removes an inode without a name with its last open file.
    fn forget_with(&self, last: &Arc<Tracked>) {
        let mut tracked = self.tracked.lock();
        // The table has one, and the file that is dropped.
        if Arc::strong_count(last) == 2 {
            tracked.retain(|_, one| !Arc::ptr_eq(one, last));
        }
    }

    /// Makes an object, which takes an inode.
    fn make<R>(&self, make: impl FnOnce() -> Result<R>) -> Result<R> {
        if !self.account.counts() {
            return make();
        }
        self.account.take_inode()?;
        make().inspect_err(|_| self.account.give(0, 1))
    }

    /// Takes a name away from an object that is not a directory; its last name takes the object
    /// along. The caller keeps other users from the name.
    fn lose(&self, dir: &dyn Dir, entry: &[u8], lose: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.account.counts() {
            return lose();
        }
        let stat = dir.stat(Some(entry))?;
        if stat.is_whiteout_device() {
            return lose();
        }
        let tracked = self.tracked(&stat);
        let mut state = tracked.lock();
        // Another name may have gone meanwhile.
        let stat = dir.stat(Some(entry))?;
        if stat.nlink > 1 {
            return lose();
        }
        if stat.kind() == Kind::File {
            state.load_by(&stat, || dir.open(entry, Access::Read))?;
        }
        lose()?;
        state.set_gone();
        drop(state);
        self.forget(&stat, &tracked);
        Ok(())
    }
}

struct CountedDir {
    inner: DirRef,
    tree: Arc<Tree>,
}

impl CountedDir {
    fn sibling(&self, inner: DirRef) -> DirRef {
        Arc::new(Self { inner, tree: Arc::clone(&self.tree) })
    }

    /// The object that a rename replaces; `None` if it replaces none, or a whiteout.
    fn replaced(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<Option<Stat>> {
        let target = match to.stat(Some(to_name)) {
            Err(error) if error.is(Errno::NOENT) => return Ok(None),
            target => target?,
        };
        if target.is_whiteout_device() {
            return Ok(None);
        }
        // Two names of one object: rename(2) does nothing.
        let source = self.inner.stat(Some(name))?;
        Ok(((source.dev, source.ino) != (target.dev, target.ino)).then_some(target))
    }
}

impl Dir for CountedDir {
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn stat(&self, name: Option<&[u8]>) -> Result<Stat> {
        self.inner.stat(name)
    }

    fn stat_new(&self, name: &[u8], file: &FileRef) -> Result<Stat> {
        self.inner.stat_new(name, file)
    }

    fn dir(&self, name: &[u8]) -> DirRef {
        self.sibling(self.inner.dir(name))
    }

    fn list(&self, from: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.inner.list(from, sink)
    }

    fn list_about(&self, from: u64, count: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.inner.list_about(from, count, sink)
    }

    fn list_stat(&self, from: u64, sink: &mut StatSink<'_>) -> Result<bool> {
        self.inner.list_stat(from, sink)
    }

    fn count_access(&self, always: bool) -> Result<()> {
        self.inner.count_access(always)
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.inner.readlink(name)
    }

    fn open(&self, name: &[u8], access: Access) -> Result<FileRef> {
        let inner = self.inner.open(name, access)?;
        if access == Access::Read {
            return Ok(inner);
        }
        let tracked = self.tree.tracked(&inner.stat()?);
        Ok(CountedFile::wrap(inner, tracked, &self.tree))
    }

    fn open_self(&self) -> Result<FileRef> {
        self.inner.open_self()
    }

    fn xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.xattr(name, key)
    }

    fn xattr_names(&self, name: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        self.inner.xattr_names(name)
    }

    fn statfs(&self) -> Result<StatFs> {
        let host = self.inner.statfs()?;
        Ok(if self.tree.account.counts() { self.tree.account.statfs(host) } else { host })
    }

    fn handle(&self, name: Option<&[u8]>) -> Result<Option<Handle>> {
        self.inner.handle(name)
    }

    fn mkdir(&self, name: &[u8], mode: u32, owner: Owner) -> Result<()> {
        self.tree.make(|| self.inner.mkdir(name, mode, owner))
    }

    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<()> {
        if Kind::from_mode(mode) == Kind::Char && rdev == 0 {
            return self.inner.mknod(name, mode, rdev, owner);
        }
        self.tree.make(|| self.inner.mknod(name, mode, rdev, owner))
    }

    fn symlink(&self, name: &[u8], target: &[u8], owner: Owner) -> Result<()> {
        self.tree.make(|| self.inner.symlink(name, target, owner))
    }

    fn create(&self, name: &[u8], mode: u32, owner: Owner) -> Result<FileRef> {
        let inner = self.tree.make(|| self.inner.create(name, mode, owner))?;
        let tracked = self.tree.tracked_new(&inner.stat()?);
        Ok(CountedFile::wrap(inner, tracked, &self.tree))
    }

    fn link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        let stat = self.inner.stat(Some(name))?;
        // Whoever takes a name away counts the names under this lock.
        let tracked = self.tree.tracked(&stat);
        let _state = tracked.lock();
        self.inner.link(name, to, to_name)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.tree.lose(self.inner.as_ref(), name, || self.inner.unlink(name))
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.inner.rmdir(name)?;
        self.tree.give_inode();
        Ok(())
    }

    fn rename(&self, name: &[u8], to: &dyn Dir, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        let rename = || self.inner.rename(name, to, to_name, flags);
        if flags.exchange || flags.noreplace || !self.tree.account.counts() {
            return rename();
        }
        match self.replaced(name, to, to_name)? {
            None => rename(),
            Some(target) if target.kind() == Kind::Dir => {
                rename()?;
                self.tree.give_inode();
                Ok(())
            }
            Some(_) => self.tree.lose(to, to_name, rename),
        }
    }

    fn pin(&self, name: &[u8]) -> Result<DirRef> {
        Ok(self.sibling(self.inner.pin(name)?))
    }

    fn moving(&self, begins: bool) {
        self.inner.moving(begins);
    }

    fn dir_known(&self, name: &[u8], stat: &Stat) -> DirRef {
        self.sibling(self.inner.dir_known(name, stat))
    }

    fn relocate(&self, parent: &DirRef, name: &[u8]) {
        self.inner.relocate(parent, name);
    }

    fn set_attr(&self, name: Option<&[u8]>, change: &AttrChange) -> Result<()> {
        let set = || self.inner.set_attr(name, change);
        let (Some(len), Some(entry)) = (change.size, name) else { return set() };
        if !self.tree.account.counts() {
            return set();
        }
        let file = self.inner.open(entry, Access::Read)?;
        let stat = file.stat()?;
        let tracked = self.tree.tracked(&stat);
        let mut state = tracked.lock();
        tracked.resize(&mut state, file.as_ref(), (len, &set))
    }

    fn set_xattr(
        &self,
        name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        self.inner.set_xattr(name, key, value, flags)
    }

    fn remove_xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<()> {
        self.inner.remove_xattr(name, key)
    }

    fn sync_fs(&self) -> Result<()> {
        self.inner.sync_fs()
    }
}

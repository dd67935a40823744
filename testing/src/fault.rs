//! Counts the changes that a mount makes beneath it, and makes them fail.
//!
//! [`wrap`] puts any directory of a layer behind a [`Faults`]. Every call that changes something
//! gets the next number; a [`Plan`] says from which number on, or at which one, calls fail. With
//! [`Plan::StopAt`] the calls behind the stop fail with `EIO` and change nothing: the state below
//! is what a daemon leaves that was killed there. A write that meets the stop is torn in half.
//!
//! What reads passes through unchanged and uncounted. A wrapper shows itself to `link`, `rename`
//! and `clone_to` as the object that it wraps, so wrapped and plain objects of one tree mix.

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use laminafs::error::{Errno, Error, Result};
use laminafs::sync::Mutex;
use laminafs::types::{
    Access, AttrChange, FsXattr, Handle, Owner, RenameFlags, Seek, Stat, StatFs, XattrFlags,
};
use laminafs::union::layer::{Dir, DirRef, EntrySink, File, FileRef};

/// A kind of call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the method of `Dir` or `File` of that name")]
pub enum Call {
    Mkdir,
    Mknod,
    Symlink,
    Create,
    Link,
    Unlink,
    Rmdir,
    Rename,
    SetAttr,
    SetXattr,
    RemoveXattr,
    SyncFs,
    WriteAt,
    SetLen,
    Allocate,
    Sync,
    CopyRange,
    CloneTo,
    SetFlags,
    SetFsXattr,
}

/// Which calls fail. Calls are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plan {
    /// None.
    #[default]
    Pass,
    /// The call of this number and all behind it, with `EIO`.
    StopAt(usize),
    /// The call of this number alone.
    FailAt(usize, Errno),
    /// Every call of this kind.
    FailKind(Call, Errno),
}

/// The count of changes and the plan of one mount.
#[derive(Default)]
pub struct Faults {
    state: Mutex<(Plan, Vec<Call>)>,
}

impl Faults {
    /// Makes a counter under which everything passes.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Sets the plan and starts counting anew.
    pub fn start(&self, plan: Plan) {
        *self.state.lock() = (plan, Vec::new());
    }

    /// The calls since [`Faults::start`], those that failed by the plan included.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().1.clone()
    }

    /// How many calls of one kind there were.
    #[must_use]
    pub fn count(&self, kind: Call) -> usize {
        self.state.lock().1.iter().filter(|call| **call == kind).count()
    }

    fn enter(&self, call: Call) -> std::result::Result<(), Stop> {
        let mut state = self.state.lock();
        state.1.push(call);
        let number = state.1.len();
        match state.0 {
            Plan::StopAt(at) if number >= at => Err(Stop { errno: Errno::IO, torn: number == at }),
            Plan::FailAt(at, errno) if number == at => Err(Stop { errno, torn: false }),
            Plan::FailKind(kind, errno) if kind == call => Err(Stop { errno, torn: false }),
            _ => Ok(()),
        }
    }
}

/// A call that the plan ends.
struct Stop {
    errno: Errno,
    /// It is the very call at which the daemon stops.
    torn: bool,
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        Self::os("fault", stop.errno)
    }
}

/// Puts a directory, and all that is reached through it, behind `faults`.
#[must_use]
pub fn wrap(inner: DirRef, faults: &Arc<Faults>) -> DirRef {
    Arc::new(FaultDir { inner, faults: Arc::clone(faults) })
}

struct FaultDir {
    inner: DirRef,
    faults: Arc<Faults>,
}

impl FaultDir {
    fn file(&self, inner: FileRef) -> FileRef {
        Arc::new(FaultFile { inner, faults: Arc::clone(&self.faults) })
    }

    fn pass(&self, call: Call) -> Result<()> {
        Ok(self.faults.enter(call)?)
    }
}

impl Dir for FaultDir {
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn stat(&self, name: Option<&[u8]>) -> Result<Stat> {
        self.inner.stat(name)
    }

    fn dir(&self, name: &[u8]) -> DirRef {
        wrap(self.inner.dir(name), &self.faults)
    }

    fn list(&self, from: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.inner.list(from, sink)
    }

    fn list_about(&self, from: u64, count: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.inner.list_about(from, count, sink)
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.inner.readlink(name)
    }

    fn open(&self, name: &[u8], access: Access) -> Result<FileRef> {
        self.inner.open(name, access).map(|file| self.file(file))
    }

    fn open_self(&self) -> Result<FileRef> {
        self.inner.open_self().map(|file| self.file(file))
    }

    fn xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.xattr(name, key)
    }

    fn xattr_names(&self, name: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        self.inner.xattr_names(name)
    }

    fn statfs(&self) -> Result<StatFs> {
        self.inner.statfs()
    }

    fn handle(&self, name: Option<&[u8]>) -> Result<Option<Handle>> {
        self.inner.handle(name)
    }

    fn mkdir(&self, name: &[u8], mode: u32, owner: Owner) -> Result<()> {
        self.pass(Call::Mkdir)?;
        self.inner.mkdir(name, mode, owner)
    }

    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<()> {
        self.pass(Call::Mknod)?;
        self.inner.mknod(name, mode, rdev, owner)
    }

    fn symlink(&self, name: &[u8], target: &[u8], owner: Owner) -> Result<()> {
        self.pass(Call::Symlink)?;
        self.inner.symlink(name, target, owner)
    }

    fn create(&self, name: &[u8], mode: u32, owner: Owner) -> Result<FileRef> {
        self.pass(Call::Create)?;
        self.inner.create(name, mode, owner).map(|file| self.file(file))
    }

    fn link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        self.pass(Call::Link)?;
        self.inner.link(name, to, to_name)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.pass(Call::Unlink)?;
        self.inner.unlink(name)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.pass(Call::Rmdir)?;
        self.inner.rmdir(name)
    }

    fn rename(&self, name: &[u8], to: &dyn Dir, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        self.pass(Call::Rename)?;
        self.inner.rename(name, to, to_name, flags)
    }

    fn pin(&self, name: &[u8]) -> Result<DirRef> {
        Ok(wrap(self.inner.pin(name)?, &self.faults))
    }

    fn moving(&self, begins: bool) {
        self.inner.moving(begins);
    }

    fn relocate(&self, parent: &DirRef, name: &[u8]) {
        self.inner.relocate(parent, name);
    }

    fn set_attr(&self, name: Option<&[u8]>, change: &AttrChange) -> Result<()> {
        self.pass(Call::SetAttr)?;
        self.inner.set_attr(name, change)
    }

    fn set_xattr(
        &self,
        name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        self.pass(Call::SetXattr)?;
        self.inner.set_xattr(name, key, value, flags)
    }

    fn remove_xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<()> {
        self.pass(Call::RemoveXattr)?;
        self.inner.remove_xattr(name, key)
    }

    fn sync_fs(&self) -> Result<()> {
        self.pass(Call::SyncFs)?;
        self.inner.sync_fs()
    }
}

struct FaultFile {
    inner: FileRef,
    faults: Arc<Faults>,
}

impl FaultFile {
    fn pass(&self, call: Call) -> Result<()> {
        Ok(self.faults.enter(call)?)
    }
}

impl File for FaultFile {
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }

    fn stat(&self) -> Result<Stat> {
        self.inner.stat()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<usize> {
        if let Err(stop) = self.faults.enter(Call::WriteAt) {
            if stop.torn {
                let (half, _) = data.split_at(data.len() / 2);
                self.inner.write_at(half, offset)?;
            }
            return Err(stop.into());
        }
        self.inner.write_at(data, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.pass(Call::SetLen)?;
        self.inner.set_len(len)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.pass(Call::Allocate)?;
        self.inner.allocate(mode, offset, len)
    }

    fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        self.inner.seek(offset, whence)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.pass(Call::Sync)?;
        self.inner.sync(data_only)
    }

    fn copy_range(&self, from: u64, to: &dyn File, to_offset: u64, len: u64) -> Result<u64> {
        self.pass(Call::CopyRange)?;
        self.inner.copy_range(from, to, to_offset, len)
    }

    fn clone_to(&self, to: &dyn File) -> Result<()> {
        self.pass(Call::CloneTo)?;
        self.inner.clone_to(to)
    }

    fn flags(&self) -> Result<u32> {
        self.inner.flags()
    }

    fn set_flags(&self, flags: u32) -> Result<()> {
        self.pass(Call::SetFlags)?;
        self.inner.set_flags(flags)
    }

    fn fsxattr(&self) -> Result<FsXattr> {
        self.inner.fsxattr()
    }

    fn set_fsxattr(&self, value: &FsXattr) -> Result<()> {
        self.pass(Call::SetFsXattr)?;
        self.inner.set_fsxattr(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryTree;

    fn errno<T>(result: Result<T>) -> Option<Errno> {
        result.err().map(|error| error.errno())
    }

    #[test]
    fn stop_ends_all_changes_and_tears_the_write_it_meets() {
        let (tree, faults) = (MemoryTree::new(1), Faults::new());
        let root = wrap(tree.root(), &faults);
        faults.start(Plan::StopAt(2));
        let file = root.create(b"f", 0o644, Owner::default()).unwrap();
        assert_eq!(errno(file.write_at(b"abcd", 0)), Some(Errno::IO));
        assert_eq!(errno(root.unlink(b"f")), Some(Errno::IO));
        assert_eq!(root.stat(Some(b"f")).unwrap().size, 2);
        assert_eq!(faults.calls(), [Call::Create, Call::WriteAt, Call::Unlink]);
    }

    #[test]
    fn one_call_fails_and_the_next_passes() {
        let faults = Faults::new();
        let root = wrap(MemoryTree::new(1).root(), &faults);
        faults.start(Plan::FailAt(1, Errno::NOSPC));
        assert_eq!(errno(root.mkdir(b"d", 0o755, Owner::default())), Some(Errno::NOSPC));
        assert_eq!(errno(root.mkdir(b"d", 0o755, Owner::default())), None);
        faults.start(Plan::FailKind(Call::Rmdir, Errno::DQUOT));
        assert_eq!(errno(root.rmdir(b"d")), Some(Errno::DQUOT));
        assert_eq!(faults.count(Call::Rmdir), 1);
    }

    #[test]
    fn wrapped_and_plain_directories_of_a_tree_mix() {
        let (tree, faults) = (MemoryTree::new(1), Faults::new());
        let root = wrap(tree.root(), &faults);
        root.mkdir(b"d", 0o755, Owner::default()).unwrap();
        root.mknod(b"f", 0o100644, 0, Owner::default()).unwrap();
        root.link(b"f", &*tree.root().dir(b"d"), b"g").unwrap();
        let dir = root.dir(b"d");
        root.rename(b"d", &*root, b"e", RenameFlags::default()).unwrap();
        dir.relocate(&root, b"e");
        assert_eq!(dir.stat(Some(b"g")).unwrap().nlink, 2);
    }
}

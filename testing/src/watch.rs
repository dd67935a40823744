//! Layers whose calls are watched.
//!
//! [`watch`] puts a directory, and all that is reached through it, behind a [`Watcher`]. The
//! watcher is called before each call, may refuse it, and receives its result. The injector of
//! faults (`fault`) and the trace of the test `concurrent` are watchers.
//!
//! A watched object passes itself to `link`, `rename` and `clone_to` as the object that it wraps,
//! so watched and plain objects of one tree mix. Every method of the traits is passed on, those
//! with a default body too: the union sees the layer as without the wrapper.

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use laminafs::error::{Errno, Error, Result};
use laminafs::types::{
    Access, AttrChange, FsXattr, Handle, Owner, RenameFlags, Seek, Stat, StatFs, XattrFlags,
};
use laminafs::union::layer::{Dir, DirRef, EntrySink, File, FileRef, StatSink};

/// A method of `Dir` or `File` that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the method of `Dir` or `File` of that name")]
pub enum Call {
    Stat,
    List,
    Readlink,
    Open,
    OpenSelf,
    Xattr,
    XattrNames,
    Statfs,
    Handle,
    Pin,
    Relocate,
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

impl Call {
    /// Whether the call changes something, or makes a change durable.
    #[must_use]
    pub const fn is_change(self) -> bool {
        !matches!(
            self,
            Self::Stat
                | Self::List
                | Self::Readlink
                | Self::Open
                | Self::OpenSelf
                | Self::Xattr
                | Self::XattrNames
                | Self::Statfs
                | Self::Handle
                | Self::Pin
                | Self::Relocate
        )
    }
}

/// A call that a [`Watcher`] refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The errno of the call.
    pub errno: Errno,
    /// Whether half of a write is done before it fails.
    pub torn: bool,
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        Self::os("fault", stop.errno)
    }
}

/// A completed call on a directory.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The method.
    pub call: Call,
    /// The names by which the directory was reached.
    pub path: &'a str,
    /// The entry, empty for the directory itself, and behind it a second name or a key.
    pub names: &'a [&'a [u8]],
    /// The failure, if it failed.
    pub errno: Option<Errno>,
}

/// A watcher of calls. For a method of a `Dir` both functions are called; for a method of a `File`
/// only `before`, and only if the method changes something.
pub trait Watcher: Send + Sync {
    /// Lets a call pass or refuses it.
    ///
    /// # Errors
    /// The error of a call that is refused.
    fn before(&self, _call: Call) -> std::result::Result<(), Stop> {
        Ok(())
    }

    /// Receives the result of a call.
    fn after(&self, _answered: &Answered<'_>) {}
}

/// Puts a directory, and all that is reached through it, behind a watcher, to which its name is
/// `path`.
#[must_use]
pub fn watch(inner: DirRef, path: &str, watcher: &Arc<dyn Watcher>) -> DirRef {
    Arc::new(WatchedDir { inner, path: path.to_owned(), watcher: Arc::clone(watcher) })
}

/// Returns the names of a call on an entry, or on the directory itself.
fn entry(name: Option<&[u8]>) -> &[u8] {
    name.unwrap_or_default()
}

struct WatchedDir {
    inner: DirRef,
    path: String,
    watcher: Arc<dyn Watcher>,
}

impl WatchedDir {
    fn below(&self, inner: DirRef, name: &[u8]) -> DirRef {
        let path = format!("{}/{}", self.path, String::from_utf8_lossy(name));
        watch(inner, &path, &self.watcher)
    }

    fn file(&self, inner: FileRef) -> FileRef {
        Arc::new(WatchedFile { inner, watcher: Arc::clone(&self.watcher) })
    }

    fn run<T>(
        &self,
        call: Call,
        names: &[&[u8]],
        work: impl FnOnce(&dyn Dir) -> Result<T>,
    ) -> Result<T> {
        let allowed = self.watcher.before(call).map_err(Error::from);
        let done = allowed.and_then(|()| work(&*self.inner));
        let errno = done.as_ref().err().map(Error::errno);
        self.watcher.after(&Answered { call, path: &self.path, names, errno });
        done
    }
}

impl Dir for WatchedDir {
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn stat(&self, name: Option<&[u8]>) -> Result<Stat> {
        self.run(Call::Stat, &[entry(name)], |dir| dir.stat(name))
    }

    fn stat_new(&self, name: &[u8], file: &FileRef) -> Result<Stat> {
        self.inner.stat_new(name, file)
    }

    fn dir(&self, name: &[u8]) -> DirRef {
        self.below(self.inner.dir(name), name)
    }

    fn list(&self, from: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.run(Call::List, &[b""], |dir| dir.list(from, sink))
    }

    fn list_about(&self, from: u64, count: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.run(Call::List, &[b""], |dir| dir.list_about(from, count, sink))
    }

    fn list_stat(&self, from: u64, sink: &mut StatSink<'_>) -> Result<bool> {
        self.run(Call::List, &[b""], |dir| dir.list_stat(from, sink))
    }

    fn count_access(&self, always: bool) -> Result<()> {
        self.inner.count_access(always)
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.run(Call::Readlink, &[name], |dir| dir.readlink(name))
    }

    fn open(&self, name: &[u8], access: Access) -> Result<FileRef> {
        self.run(Call::Open, &[name], |dir| dir.open(name, access)).map(|file| self.file(file))
    }

    fn open_self(&self) -> Result<FileRef> {
        self.run(Call::OpenSelf, &[b""], |dir| dir.open_self()).map(|file| self.file(file))
    }

    fn xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.run(Call::Xattr, &[entry(name), key], |dir| dir.xattr(name, key))
    }

    fn xattr_names(&self, name: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        self.run(Call::XattrNames, &[entry(name)], |dir| dir.xattr_names(name))
    }

    fn statfs(&self) -> Result<StatFs> {
        self.run(Call::Statfs, &[b""], |dir| dir.statfs())
    }

    fn handle(&self, name: Option<&[u8]>) -> Result<Option<Handle>> {
        self.run(Call::Handle, &[entry(name)], |dir| dir.handle(name))
    }

    fn mkdir(&self, name: &[u8], mode: u32, owner: Owner) -> Result<()> {
        self.run(Call::Mkdir, &[name], |dir| dir.mkdir(name, mode, owner))
    }

    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<()> {
        self.run(Call::Mknod, &[name], |dir| dir.mknod(name, mode, rdev, owner))
    }

    fn symlink(&self, name: &[u8], target: &[u8], owner: Owner) -> Result<()> {
        self.run(Call::Symlink, &[name], |dir| dir.symlink(name, target, owner))
    }

    fn create(&self, name: &[u8], mode: u32, owner: Owner) -> Result<FileRef> {
        let made = self.run(Call::Create, &[name], |dir| dir.create(name, mode, owner));
        made.map(|file| self.file(file))
    }

    fn link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        self.run(Call::Link, &[name, to_name], |dir| dir.link(name, to, to_name))
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.run(Call::Unlink, &[name], |dir| dir.unlink(name))
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.run(Call::Rmdir, &[name], |dir| dir.rmdir(name))
    }

    fn rename(&self, name: &[u8], to: &dyn Dir, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        self.run(Call::Rename, &[name, to_name], |dir| dir.rename(name, to, to_name, flags))
    }

    fn pin(&self, name: &[u8]) -> Result<DirRef> {
        let pinned = self.run(Call::Pin, &[name], |dir| dir.pin(name))?;
        let path = format!("pinned {}", String::from_utf8_lossy(name));
        Ok(watch(pinned, &path, &self.watcher))
    }

    fn moving(&self, begins: bool) {
        self.inner.moving(begins);
    }

    fn dir_known(&self, name: &[u8], stat: &Stat) -> DirRef {
        self.below(self.inner.dir_known(name, stat), name)
    }

    fn relocate(&self, parent: &DirRef, name: &[u8]) {
        let (call, path, names) = (Call::Relocate, &self.path[..], &[&b""[..], name][..]);
        self.watcher.after(&Answered { call, path, names, errno: None });
        self.inner.relocate(parent, name);
    }

    fn set_attr(&self, name: Option<&[u8]>, change: &AttrChange) -> Result<()> {
        self.run(Call::SetAttr, &[entry(name)], |dir| dir.set_attr(name, change))
    }

    fn set_xattr(
        &self,
        name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        let names = [entry(name), key];
        self.run(Call::SetXattr, &names, |dir| dir.set_xattr(name, key, value, flags))
    }

    fn remove_xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<()> {
        let names = [entry(name), key];
        self.run(Call::RemoveXattr, &names, |dir| dir.remove_xattr(name, key))
    }

    fn sync_fs(&self) -> Result<()> {
        self.run(Call::SyncFs, &[b""], |dir| dir.sync_fs())
    }
}

struct WatchedFile {
    inner: FileRef,
    watcher: Arc<dyn Watcher>,
}

impl WatchedFile {
    fn pass(&self, call: Call) -> Result<()> {
        Ok(self.watcher.before(call)?)
    }

    /// Writes, or writes half of the data if the watcher tears the write.
    fn write(&self, data: &[u8], work: impl Fn(&[u8]) -> Result<usize>) -> Result<usize> {
        if let Err(stop) = self.watcher.before(Call::WriteAt) {
            if stop.torn {
                let (half, _) = data.split_at(data.len() / 2);
                work(half)?;
            }
            return Err(stop.into());
        }
        work(data)
    }
}

impl File for WatchedFile {
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }

    fn not_registered(&self) {
        self.inner.not_registered();
    }

    fn stat(&self) -> Result<Stat> {
        self.inner.stat()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn read_shared(&self, len: usize, offset: u64, take: &mut dyn FnMut(&[&[u8]])) -> Result<bool> {
        self.inner.read_shared(len, offset, take)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<usize> {
        self.write(data, |data| self.inner.write_at(data, offset))
    }

    fn again(&self, access: Access) -> Result<FileRef> {
        let inner = self.inner.again(access)?;
        Ok(Arc::new(Self { inner, watcher: Arc::clone(&self.watcher) }))
    }

    fn append(&self, data: &[u8]) -> Result<usize> {
        self.write(data, |data| self.inner.append(data))
    }

    fn set_attr(&self, change: &AttrChange) -> Result<()> {
        self.pass(Call::SetAttr)?;
        self.inner.set_attr(change)
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
    use laminafs::sync::Mutex;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Watcher for Log {
        fn after(&self, answered: &Answered<'_>) {
            let names: Vec<_> = answered.names.iter().map(|n| String::from_utf8_lossy(n)).collect();
            let Answered { call, path, errno, .. } = answered;
            self.0.lock().push(format!("{call:?} {path} {names:?} {errno:?}"));
        }
    }

    #[test]
    fn calls_are_told_with_the_names_that_lead_to_them() {
        let log = Arc::new(Log::default());
        let watcher: Arc<dyn Watcher> = log.clone();
        let root = watch(MemoryTree::new(1).root(), "upper", &watcher);
        root.mkdir(b"d", 0o755, Owner::default()).unwrap();
        let dir = root.dir(b"d");
        dir.create(b"f", 0o644, Owner::default()).unwrap().write_at(b"x", 0).unwrap();
        dir.rename(b"f", &*root, b"g", RenameFlags::default()).unwrap();
        assert!(dir.stat(Some(b"f")).is_err());
        let wanted = [
            r#"Mkdir upper ["d"] None"#,
            r#"Create upper/d ["f"] None"#,
            r#"Rename upper/d ["f", "g"] None"#,
            r#"Stat upper/d ["f"] Some(ENOENT)"#,
        ];
        assert_eq!(*log.0.lock(), wanted);
    }
}

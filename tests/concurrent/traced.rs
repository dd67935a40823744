//! Layers that tell each call of the union in the trace of a failure.

use std::any::Any;
use std::sync::Arc;

use laminafs::error::Result;
use laminafs::types::{
    Access, AttrChange, Handle, Owner, RenameFlags, Stat, StatFs, XattrFlags,
};
use laminafs::union::layer::EntrySink;
use laminafs::union::{Dir, DirRef, FileRef};

/// Where calls are told.
pub type Log = Arc<dyn Fn(String) + Send + Sync>;

/// A directory, and by which names it was reached.
struct Traced {
    inner: DirRef,
    path: String,
    log: Log,
}

/// Tells the calls on a directory and on all that is reached through it.
pub fn traced(inner: DirRef, path: &str, log: &Log) -> DirRef {
    Arc::new(Traced { inner, path: path.to_owned(), log: Arc::clone(log) })
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl Traced {
    fn tell<T>(&self, what: &str, name: Option<&[u8]>, done: Result<T>) -> Result<T> {
        let answer = done.as_ref().err().map_or("ok".to_owned(), |error| format!("{:?}", error.errno()));
        (self.log)(format!("{what} {}/{} = {answer}", self.path, text(name.unwrap_or(b"."))));
        done
    }
}

impl Dir for Traced {
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn stat(&self, name: Option<&[u8]>) -> Result<Stat> {
        self.tell("stat", name, self.inner.stat(name))
    }

    fn dir(&self, name: &[u8]) -> DirRef {
        let path = format!("{}/{}", self.path, text(name));
        traced(self.inner.dir(name), &path, &self.log)
    }

    fn list(&self, from: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.tell("list", None, self.inner.list(from, sink))
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.inner.readlink(name)
    }

    fn open(&self, name: &[u8], access: Access) -> Result<FileRef> {
        self.tell("open", Some(name), self.inner.open(name, access))
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
        self.inner.statfs()
    }

    fn handle(&self, name: Option<&[u8]>) -> Result<Option<Handle>> {
        self.inner.handle(name)
    }

    fn mkdir(&self, name: &[u8], mode: u32, owner: Owner) -> Result<()> {
        self.tell("mkdir", Some(name), self.inner.mkdir(name, mode, owner))
    }

    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<()> {
        self.tell("mknod", Some(name), self.inner.mknod(name, mode, rdev, owner))
    }

    fn symlink(&self, name: &[u8], target: &[u8], owner: Owner) -> Result<()> {
        self.tell("symlink", Some(name), self.inner.symlink(name, target, owner))
    }

    fn create(&self, name: &[u8], mode: u32, owner: Owner) -> Result<FileRef> {
        self.tell("create", Some(name), self.inner.create(name, mode, owner))
    }

    fn link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        let what = format!("link to {} of", text(to_name));
        self.tell(&what, Some(name), self.inner.link(name, to, to_name))
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.tell("unlink", Some(name), self.inner.unlink(name))
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.tell("rmdir", Some(name), self.inner.rmdir(name))
    }

    fn rename(&self, name: &[u8], to: &dyn Dir, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        let what = format!("rename to {} of", text(to_name));
        self.tell(&what, Some(name), self.inner.rename(name, to, to_name, flags))
    }

    fn relocate(&self, parent: &DirRef, name: &[u8]) {
        (self.log)(format!("relocate {} to {}", self.path, text(name)));
        self.inner.relocate(parent, name);
    }

    fn set_attr(&self, name: Option<&[u8]>, change: &AttrChange) -> Result<()> {
        self.tell("set_attr", name, self.inner.set_attr(name, change))
    }

    fn set_xattr(
        &self,
        name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        let what = format!("set_xattr {}", text(key));
        self.tell(&what, name, self.inner.set_xattr(name, key, value, flags))
    }

    fn remove_xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<()> {
        self.tell("remove_xattr", name, self.inner.remove_xattr(name, key))
    }

    fn sync_fs(&self) -> Result<()> {
        self.inner.sync_fs()
    }
}

//! Layers that tell each call of the union in the trace of a failure.

use std::any::Any;
use std::sync::{Arc, Mutex};

use laminafs::error::Result;
use laminafs::types::{Access, AttrChange, Handle, Owner, RenameFlags, Stat, StatFs, XattrFlags};
use laminafs::union::layer::EntrySink;
use laminafs::union::{Dir, DirRef, FileRef};

/// What happened, if anybody wants to know.
#[derive(Clone, Default)]
pub struct Trace(pub Option<Arc<Mutex<Vec<String>>>>);

impl Trace {
    pub fn new(on: bool) -> Self {
        Self(on.then(Arc::default))
    }

    pub fn log(&self, text: impl FnOnce() -> String) {
        if let Some(lines) = &self.0 {
            lines.lock().unwrap().push(text());
        }
    }
}

/// The number of the program that runs.
pub fn task() -> usize {
    shuttle::current::get_current_task().map_or(0, usize::from)
}

/// A directory, and by which names it was reached.
struct Traced {
    inner: DirRef,
    path: String,
    log: Trace,
}

/// Tells the calls on a directory and on all that is reached through it.
pub fn traced(inner: DirRef, path: &str, log: &Trace) -> DirRef {
    if log.0.is_none() {
        return inner;
    }
    Arc::new(Traced { inner, path: path.to_owned(), log: log.clone() })
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl Traced {
    fn tell<T>(&self, what: &str, name: Option<&[u8]>, done: Result<T>) -> Result<T> {
        let failed = |error: &laminafs::error::Error| format!("{:?}", error.errno());
        let answer = done.as_ref().err().map_or("ok".to_owned(), failed);
        let (who, name) = (task(), text(name.unwrap_or(b".")));
        self.log.log(|| format!("      [{who}] {what} {}/{name} = {answer}", self.path));
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

    fn pin(&self, name: &[u8]) -> Result<DirRef> {
        let pinned = self.tell("pin", Some(name), self.inner.pin(name))?;
        Ok(traced(pinned, &format!("pinned {}", text(name)), &self.log))
    }

    fn moving(&self, begins: bool) {
        self.inner.moving(begins);
    }

    fn dir_known(&self, name: &[u8], stat: &Stat) -> DirRef {
        let path = format!("{}/{}", self.path, text(name));
        traced(self.inner.dir_known(name, stat), &path, &self.log)
    }

    fn relocate(&self, parent: &DirRef, name: &[u8]) {
        let who = task();
        self.log.log(|| format!("      [{who}] relocate {} to {}", self.path, text(name)));
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

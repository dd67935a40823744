//! A small kernel: names and inodes that it caches, the locks that the VFS takes for a FUSE client,
//! and the rule of `fs/fuse/iomode.c` for the ways in which a file is served.
//!
//! The tables of this kernel are under locks of the standard library, which no thread holds while
//! another can run; the locks that decide an order are those of `laminafs::sync`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use laminafs::error::{Errno, Error, Result};
use laminafs::sync;
use laminafs::types::{Kind, NodeId, RenameFlags};
use laminafs::union::{
    Caller, Detail, DirSink, Entry, FileRef, Kernel as Served, OpenFlags, OpenMode, Opened, Union,
};

use super::registry::{Registry, Wrongs};
use super::traced::{Trace, task};

pub type Answer<T> = std::result::Result<T, Errno>;

/// The way in which all open files of an inode are served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Cached,
    Passthrough(u32),
}

struct Inode {
    lookups: u64,
    refs: u32,
    lock: Arc<sync::RwLock<()>>,
    mode: Option<(Mode, u32)>,
}

#[derive(Default)]
struct Books {
    inodes: HashMap<NodeId, Inode>,
    names: BTreeMap<(NodeId, Vec<u8>), NodeId>,
    /// Names being looked up: one request for each at a time (`d_alloc_parallel()`).
    lookups: BTreeMap<(NodeId, String), Arc<sync::Mutex<()>>>,
}

impl Books {
    fn inode(&mut self, id: NodeId) -> &mut Inode {
        let lock = || Arc::new(sync::RwLock::new(()));
        let fresh = || Inode { lookups: 0, refs: 0, lock: lock(), mode: None };
        self.inodes.entry(id).or_insert_with(fresh)
    }
}

/// One mounted union and its kernel.
pub struct Kernel {
    pub union: Union,
    /// Whether the locks of the VFS are taken.
    pub locks: bool,
    /// Whether names stay cached until memory is short.
    pub caches: bool,
    pub wrongs: Arc<Wrongs>,
    registry: Arc<Registry>,
    books: std::sync::Mutex<Books>,
    renames: sync::Mutex<()>,
    /// Taken while a request or an answer is on its way, so that other threads may run.
    pause: sync::Mutex<()>,
    trace: Trace,
}

/// An open file.
pub struct Handle {
    pub node: NodeId,
    fh: u64,
    mode: Option<Mode>,
    backing: Option<FileRef>,
}

/// The inodes that one system call holds.
pub struct Pins<'a>(&'a Kernel, RefCell<Vec<NodeId>>);

impl<'a> Pins<'a> {
    pub fn new(kernel: &'a Kernel) -> Self {
        Self(kernel, RefCell::new(Vec::new()))
    }

    fn keep(&self, id: NodeId) -> NodeId {
        self.1.borrow_mut().push(id);
        id
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.1.take().into_iter().rev().for_each(|id| self.0.put(id));
        }
    }
}

pub const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 9, umask: 0 };

impl Kernel {
    pub fn new(union: Union, (locks, caches): (bool, bool), wrongs: &Arc<Wrongs>) -> Self {
        let registry = Registry::new(wrongs);
        let kernel = Self {
            union,
            locks,
            caches,
            wrongs: Arc::clone(wrongs),
            registry,
            books: std::sync::Mutex::default(),
            renames: sync::Mutex::new(()),
            pause: sync::Mutex::new(()),
            trace: Trace::default(),
        };
        kernel.books.lock().unwrap().inode(NodeId::ROOT).refs = 1;
        kernel
    }

    pub fn pass_through(&self) {
        self.union.set_kernel(Arc::clone(&self.registry) as Arc<dyn Served>, true);
    }

    pub fn traced(mut self, trace: &Trace) -> Self {
        self.trace = trace.clone();
        self
    }

    pub fn log(&self, text: impl FnOnce() -> String) {
        self.trace.log(text);
    }

    /// Discards the trace of the start.
    pub fn clear_trace(&self) {
        if let Some(lines) = &self.trace.0 {
            lines.lock().unwrap().clear();
        }
    }

    pub fn trace(&self) -> Vec<String> {
        self.trace.0.as_ref().map(|lines| lines.lock().unwrap().clone()).unwrap_or_default()
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    // Sends a request; its start and its answer go to the trace.
    fn ask<T>(&self, what: &str, request: impl FnOnce() -> Result<T>) -> Answer<T> {
        let who = task();
        self.log(|| format!("  [{who}] {what} ..."));
        let answer = request().map_err(|error: Error| error.errno());
        let told = answer.as_ref().err().map_or("ok".to_owned(), |errno| format!("{errno:?}"));
        self.log(|| format!("  [{who}] {what} = {told}"));
        if answer.as_ref().err() == Some(&Errno::IO) {
            self.wrongs.note(format!("EIO from {}", what.split(' ').next().unwrap_or(what)));
        }
        answer
    }

    pub fn lock(&self, id: NodeId) -> Arc<sync::RwLock<()>> {
        Arc::clone(&self.books().inode(id).lock)
    }

    /// Drops one reference; the last one also drops the lookups (FORGET).
    fn put(&self, id: NodeId) {
        let count = {
            let mut books = self.books();
            let inode = books.inode(id);
            inode.refs -= 1;
            if inode.refs > 0 {
                return;
            }
            let count = inode.lookups;
            books.inodes.remove(&id);
            count
        };
        if count > 0 {
            self.log(|| format!("  FORGET {}", id.0));
            self.union.forget(id, count);
        }
    }

    fn entered(&self, pins: &Pins<'_>, parent: NodeId, name: &[u8], entry: &Entry) -> NodeId {
        let mut books = self.books();
        let inode = books.inode(entry.node);
        inode.lookups += 1;
        inode.refs += 1;
        let mut old = None;
        if self.caches {
            inode.refs += 1;
            old = books.names.insert((parent, name.to_vec()), entry.node);
        }
        drop(books);
        if let Some(old) = old {
            self.put(old);
        }
        pins.keep(entry.node)
    }

    fn drop_name(&self, parent: NodeId, name: &[u8]) {
        let old = self.books().names.remove(&(parent, name.to_vec()));
        if let Some(old) = old {
            self.put(old);
        }
    }

    /// Finds a name. The caller holds the lock of its directory.
    pub fn find(&self, pins: &Pins<'_>, parent: NodeId, name: &str) -> Answer<Option<NodeId>> {
        self.find_or_ask(pins, parent, name, false)
    }

    /// Like [`Kernel::find`]; with `again` a cached name is ignored, even one that a listing
    /// entered in the meantime (`__lookup_slow()` in fs/namei.c revalidates it).
    fn find_or_ask(
        &self,
        pins: &Pins<'_>,
        parent: NodeId,
        name: &str,
        again: bool,
    ) -> Answer<Option<NodeId>> {
        let lock = Arc::clone(self.books().lookups.entry((parent, name.to_owned())).or_default());
        let _one = self.locks.then(|| lock.lock());
        if !again && let Some(id) = self.cached(pins, parent, name) {
            return Ok(Some(id));
        }
        let what = format!("LOOKUP {}/{name}", parent.0);
        let found = self.ask(&what, || self.union.lookup(parent, name.as_bytes()))?;
        Ok(found.map(|entry| self.entered(pins, parent, name.as_bytes(), &entry)))
    }

    fn cached(&self, pins: &Pins<'_>, parent: NodeId, name: &str) -> Option<NodeId> {
        let mut books = self.books();
        let id = books.names.get(&(parent, name.as_bytes().to_vec())).copied()?;
        books.inode(id).refs += 1;
        Some(pins.keep(id))
    }

    /// Walks a path; with `again` every name is looked up anew, as with `LOOKUP_REVAL`.
    pub fn walk(&self, pins: &Pins<'_>, path: &str, again: bool) -> Answer<NodeId> {
        let mut at = NodeId::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if again {
                self.drop_name(at, name.as_bytes());
            }
            let known = if again { None } else { self.cached(pins, at, name) };
            at = match known {
                Some(id) => id,
                None => {
                    let lock = self.lock(at);
                    let _shared = self.locks.then(|| lock.read());
                    self.find_or_ask(pins, at, name, again)?.ok_or(Errno::NOENT)?
                }
            };
        }
        Ok(at)
    }

    pub fn walk_parent<'p>(
        &self,
        pins: &Pins<'_>,
        path: &'p str,
        again: bool,
    ) -> Answer<(NodeId, &'p str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.walk(pins, parent, again)?, name))
    }

    /// Drops every unused name, the deepest first.
    pub fn prune(&self) {
        loop {
            let free = {
                let mut books = self.books();
                let used: BTreeSet<NodeId> = books.names.keys().map(|(dir, _)| *dir).collect();
                let names: Vec<_> = books.names.iter().map(|(k, v)| (k.clone(), *v)).collect();
                let count = |id| names.iter().filter(|(_, other)| *other == id).count() as u32;
                let mut free = Vec::new();
                for (key, id) in &names {
                    if !used.contains(id) && books.inode(*id).refs == count(*id) {
                        books.names.remove(key);
                        free.push(*id);
                    }
                }
                free
            };
            if free.is_empty() {
                return;
            }
            free.into_iter().for_each(|id| self.put(id));
        }
    }

    pub fn open(&self, node: NodeId, flags: OpenFlags) -> Answer<Handle> {
        // The kernel takes no lock here and gets the new size from the answer, so an append through
        // its page cache may still go to the old end. Only the kernel could prevent that.
        let lock = self.lock(node);
        let _own = flags.truncate.then(|| lock.write());
        let opened = self.ask(&format!("OPEN {}", node.0), || self.union.open(node, flags))?;
        Ok(self.opened(node, opened))
    }

    fn opened(&self, node: NodeId, opened: Opened) -> Handle {
        // The answer is on its way, and other threads run.
        drop(self.pause.lock());
        let mut books = self.books();
        let inode = books.inode(node);
        inode.refs += 1;
        let mode = match opened.mode {
            // Only grafts bypass the page cache.
            OpenMode::Cached { .. } | OpenMode::Direct => Mode::Cached,
            OpenMode::Passthrough { backing_id } => Mode::Passthrough(backing_id),
        };
        let backing = match mode {
            Mode::Passthrough(id) => self.registry.using(id),
            Mode::Cached => None,
        };
        let shown = |mode| match mode {
            Mode::Cached => "cached",
            Mode::Passthrough(_) => "passthrough",
        };
        match &mut inode.mode {
            Some((known, users)) if *known == mode => *users += 1,
            Some((known, _)) => {
                let text = format!("an open {} beside one {}", shown(mode), shown(*known));
                self.wrongs.note(text);
                return Handle { node, fh: opened.fh, mode: None, backing };
            }
            none => *none = Some((mode, 1)),
        }
        Handle { node, fh: opened.fh, mode: Some(mode), backing }
    }

    pub fn create(&self, pins: &Pins<'_>, (dir, name): (NodeId, &str)) -> Answer<Handle> {
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let what = format!("CREATE {}/{name}", dir.0);
        let make = || self.union.create(&CALLER, dir, name.as_bytes(), 0o644, flags);
        let (entry, opened) = self.ask(&what, make)?;
        let node = self.entered(pins, dir, name.as_bytes(), &entry);
        Ok(self.opened(node, opened))
    }

    pub fn tmpfile(&self, pins: &Pins<'_>, dir: NodeId) -> Answer<Handle> {
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let make = || self.union.tmpfile(&CALLER, dir, 0o644, flags);
        let (entry, opened) = self.ask("TMPFILE", make)?;
        {
            let mut books = self.books();
            let inode = books.inode(entry.node);
            inode.lookups += 1;
            inode.refs += 1;
        }
        pins.keep(entry.node);
        Ok(self.opened(entry.node, opened))
    }

    pub fn close(&self, handle: Handle) {
        if let Some(mode) = handle.mode {
            let mut books = self.books();
            let inode = books.inode(handle.node);
            if let Some((_, users)) = &mut inode.mode {
                *users -= 1;
                if *users == 0 {
                    inode.mode = None;
                }
            }
            drop(books);
            if let Mode::Passthrough(id) = mode {
                self.registry.done(id);
            }
        }
        drop(handle.backing);
        drop(self.pause.lock());
        self.log(|| format!("  RELEASE {}", handle.node.0));
        self.union.release(handle.node, handle.fh);
        self.put(handle.node);
    }

    pub fn size(&self, handle: &Handle) -> Answer<u64> {
        match &handle.backing {
            Some(file) => file.stat().map(|stat| stat.size).map_err(|error| error.errno()),
            None => self.ask("GETATTR", || Ok(self.union.getattr(handle.node)?.size)),
        }
    }

    pub fn write(&self, handle: &Handle, data: &[u8], at: Option<u64>) -> Answer<()> {
        let lock = self.lock(handle.node);
        let _own = lock.write();
        let at = match at {
            Some(at) => at,
            None => self.size(handle)?,
        };
        let wrote = match &handle.backing {
            Some(file) => file.write_at(data, at).map_err(|error| error.errno()),
            None => self.ask(&format!("WRITE {}", handle.node.0), || {
                self.union.write(handle.node, handle.fh, data, at, false)
            }),
        };
        if wrote? == data.len() { Ok(()) } else { Err(Errno::IO) }
    }

    pub fn read(&self, handle: &Handle) -> Answer<Vec<u8>> {
        let mut data = vec![0; 1 << 17];
        let len = match &handle.backing {
            Some(file) => file.read_at(&mut data, 0).map_err(|error| error.errno())?,
            None => self.ask(&format!("READ {}", handle.node.0), || {
                self.union.read_with(handle.node, |file| file.read_at(&mut data, 0))
            })?,
        };
        data.truncate(len);
        Ok(data)
    }

    /// Sends a request for an inode under its lock.
    pub fn change<T>(
        &self,
        node: NodeId,
        what: &str,
        act: impl FnOnce() -> Result<T>,
    ) -> Answer<T> {
        let lock = self.lock(node);
        let _own = self.locks.then(|| lock.write());
        self.ask(&format!("{what} {}", node.0), act)
    }

    /// Sends a request without a lock.
    pub fn plain<T>(&self, node: NodeId, what: &str, act: impl FnOnce() -> Result<T>) -> Answer<T> {
        self.ask(&format!("{what} {}", node.0), act)
    }

    /// Runs `act` under the lock of a directory, with the name looked up.
    pub fn in_dir<T>(
        &self,
        pins: &Pins<'_>,
        (dir, name): (NodeId, &str),
        act: impl FnOnce(Option<NodeId>) -> Answer<T>,
    ) -> Answer<T> {
        let lock = self.lock(dir);
        let _own = self.locks.then(|| lock.write());
        let found = self.find(pins, dir, name)?;
        act(found)
    }

    pub fn made(&self, pins: &Pins<'_>, (dir, name): (NodeId, &str), entry: &Entry) {
        self.entered(pins, dir, name.as_bytes(), entry);
    }

    pub fn is_dir(&self, node: NodeId) -> Answer<bool> {
        self.ask("GETATTR", || Ok(self.union.getattr(node)?.kind() == Kind::Dir))
    }

    pub fn remove(&self, pins: &Pins<'_>, at: (NodeId, &str), dir: bool) -> Answer<()> {
        let (parent, name) = at;
        self.in_dir(pins, at, |found| {
            let node = found.ok_or(Errno::NOENT)?;
            let lock = self.lock(node);
            let _victim = self.locks.then(|| lock.write());
            let what = if dir { "RMDIR" } else { "UNLINK" };
            self.ask(&format!("{what} {}/{name}", parent.0), || {
                if dir {
                    self.union.rmdir(parent, name.as_bytes())
                } else {
                    self.union.unlink(parent, name.as_bytes())
                }
            })?;
            self.drop_name(parent, name.as_bytes());
            Ok(())
        })
    }

    pub fn rename(
        &self,
        pins: &Pins<'_>,
        from: (NodeId, &str),
        to: (NodeId, &str),
        flags: RenameFlags,
    ) -> Answer<()> {
        let crosses = from.0 != to.0;
        let _one = (self.locks && crosses).then(|| self.renames.lock());
        let (low, high) = (self.lock(from.0.min(to.0)), self.lock(from.0.max(to.0)));
        let _low = self.locks.then(|| low.write());
        let _high = (self.locks && crosses).then(|| high.write());
        let source = self.find(pins, from.0, from.1)?.ok_or(Errno::NOENT)?;
        let target = self.find(pins, to.0, to.1)?;
        if self.locks {
            match target {
                Some(_) if flags.noreplace => return Err(Errno::EXIST),
                None if flags.exchange => return Err(Errno::NOENT),
                _ => {}
            }
        }
        let is_dir = self.is_dir(source)?;
        let mut victims = Vec::new();
        if !is_dir || crosses {
            victims.push(source);
        }
        victims.extend(target.filter(|target| *target != source));
        victims.sort_unstable();
        let locks: Vec<_> = victims.into_iter().map(|id| self.lock(id)).collect();
        let _held: Vec<_> = locks.iter().filter(|_| self.locks).map(|lock| lock.write()).collect();
        self.ask(&format!("RENAME {}/{} {}/{}", from.0.0, from.1, to.0.0, to.1), || {
            self.union.rename(from.0, from.1.as_bytes(), to.0, to.1.as_bytes(), flags)
        })?;
        self.moved(from, to, flags.exchange, Some(source) == target);
        Ok(())
    }

    fn moved(&self, from: (NodeId, &str), to: (NodeId, &str), exchange: bool, same: bool) {
        if !self.caches || same {
            return;
        }
        let key = |(dir, name): (NodeId, &str)| (dir, name.as_bytes().to_vec());
        let replaced = {
            let mut books = self.books();
            let (old, new) = (books.names.remove(&key(from)), books.names.remove(&key(to)));
            if let Some(old) = old {
                books.names.insert(key(to), old);
            }
            match new {
                Some(new) if exchange => books.names.insert(key(from), new),
                new => new,
            }
        };
        if let Some(id) = replaced {
            self.put(id);
        }
    }

    /// The names in a directory.
    pub fn list(&self, pins: &Pins<'_>, dir: NodeId, plus: bool) -> Answer<Vec<String>> {
        let lock = self.lock(dir);
        let _shared = self.locks.then(|| lock.read());
        let mut all = Vec::new();
        let mut from = 0;
        loop {
            let mut sink = Listing { room: 3, from, seen: Vec::new() };
            let tell = if plus { Detail::All } else { Detail::Names };
            self.ask(&format!("READDIR {}", dir.0), || {
                self.union.readdir(dir, from, tell, &mut sink)
            })?;
            if all.len() > 99 {
                self.wrongs.note("a listing never ends");
                sink.seen.clear();
            }
            if sink.seen.is_empty() {
                all.sort();
                return Ok(all);
            }
            from = sink.from;
            for (name, entry) in sink.seen {
                if let Some(entry) = entry {
                    self.entered(pins, dir, name.as_bytes(), &entry);
                }
                all.push(name);
            }
        }
    }

    /// Ends the mount as the kernel does: nothing is open, and all inodes are forgotten.
    pub fn unmount(&self) {
        self.prune();
        let left = self.books().inodes.len();
        if left > 1 {
            self.wrongs.note(format!("the test holds {left} inodes"));
        }
        if let Err(error) = self.union.shutdown() {
            self.wrongs.note(format!("the end of the mount: {error}"));
        }
    }
}

struct Listing {
    room: usize,
    from: u64,
    seen: Vec<(String, Option<Entry>)>,
}

impl DirSink for Listing {
    fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    fn has_room(&self, _name_len: usize) -> bool {
        self.seen.len() < self.room
    }

    fn push(&mut self, name: &[u8], _ino: u64, _kind: Kind, next: u64, entry: Option<&Entry>) {
        self.from = next;
        self.seen.push((String::from_utf8_lossy(name).into_owned(), entry.copied()));
    }
}

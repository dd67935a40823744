//! A mount on layers written down as text, with the operations of a shell, by path.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fault::{Faults, wrap};
use crate::memory::MemoryTree;
use laminafs::error::Errno;
use laminafs::types::{AttrChange, Kind, NodeId, Owner, RenameFlags, Time, XattrFlags};
use laminafs::union::{Caller, DirRef, Entry, OpenFlags, Options};

use crate::driver::{Mount, Shown, mount, prepare_upper, shown};
use crate::reference::Answer;

/// A caller with all privileges.
pub const ROOT_USER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
/// A rename that replaces its target.
pub const PLAIN: RenameFlags = RenameFlags { noreplace: false, exchange: false, whiteout: false };
/// A rename that exchanges the two.
pub const EXCHANGE: RenameFlags = RenameFlags { exchange: true, ..PLAIN };

/// Layers and an upper on file systems in memory, with a fault plan beneath all of them.
pub struct Fixture {
    /// The lower layers, topmost first.
    pub lowers: Vec<MemoryTree>,
    /// The file system of upper, work directory and index.
    pub upper: MemoryTree,
    /// Options of the next mount.
    pub options: Options,
    /// The plan beneath all layers.
    pub faults: Arc<Faults>,
}

impl Fixture {
    /// Makes lowers (topmost first) from lists of paths: `d/` is a directory, `d/f=text` a file,
    /// `d/f*N=x` a file of N times x, `d/g>d/f` a hard link, `d/w!` a whiteout device.
    pub fn new(lowers: &[&[&str]]) -> Self {
        let lowers = lowers.iter().zip(1..).map(|(items, dev)| {
            let tree = MemoryTree::new(dev);
            tree.set_time(Time { secs: 10, nanos: 0 });
            for item in *items {
                put(&tree.root(), item);
            }
            tree.sync();
            tree
        });
        let upper = MemoryTree::new(1000);
        prepare_upper(&upper);
        upper.set_time(Time { secs: 20, nanos: 0 });
        let lowers = lowers.collect();
        Self { lowers, upper, options: Options::default(), faults: Faults::new() }
    }

    /// Sets the options.
    pub fn with(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Mounts.
    pub fn mount(&self) -> Mount {
        let lowers: Vec<DirRef> =
            self.lowers.iter().map(|tree| wrap(tree.root(), &self.faults)).collect();
        let upper = wrap(self.upper.root(), &self.faults);
        Mount::new(mount(&lowers, Some(&upper), &self.options).unwrap())
    }

    /// Ends a mount cleanly and makes the next.
    pub fn remount(&self, old: Mount) -> Mount {
        old.union.shutdown().unwrap();
        drop(old);
        self.mount()
    }
}

/// Puts one object into a layer, see [`Fixture::new`].
pub fn put(root: &DirRef, item: &str) {
    let cut = item.find(['=', '>', '!', '*']).unwrap_or(item.len());
    let (path, rest) = item.split_at(cut);
    let mut parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let name = parts.pop().unwrap().as_bytes();
    let dir = parts.iter().fold(root.clone(), |dir, part| {
        let _present = dir.mkdir(part.as_bytes(), 0o755, Owner::default());
        dir.dir(part.as_bytes())
    });
    if path.ends_with('/') {
        let _present = dir.mkdir(name, 0o755, Owner::default());
    } else if let Some(text) = rest.strip_prefix('=') {
        let file = dir.create(name, 0o644, Owner::default()).unwrap();
        file.write_at(text.as_bytes(), 0).unwrap();
    } else if let Some((count, byte)) = rest.strip_prefix('*').and_then(|s| s.split_once('=')) {
        let file = dir.create(name, 0o644, Owner::default()).unwrap();
        file.write_at(&byte.as_bytes().repeat(count.parse().unwrap()), 0).unwrap();
    } else if let Some(target) = rest.strip_prefix('>') {
        let (from, file) = target.rsplit_once('/').unwrap_or(("", target));
        let parts = from.split('/').filter(|part| !part.is_empty());
        let from = parts.fold(root.clone(), |dir, part| dir.dir(part.as_bytes()));
        from.link(file.as_bytes(), &*dir, name).unwrap();
    } else {
        assert_eq!(rest, "!", "unknown item {item}");
        dir.mknod(name, Kind::Char.mode_bits(), 0, Owner::default()).unwrap();
    }
}

fn split(path: &str) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut parts: Vec<Vec<u8>> =
        path.split('/').filter(|part| !part.is_empty()).map(|part| part.into()).collect();
    let name = parts.pop().unwrap();
    (parts, name)
}

fn answer<T>(result: laminafs::error::Result<T>) -> Answer<T> {
    result.map_err(|error| error.errno())
}

impl Mount {
    /// Returns the node at a path.
    pub fn at(&mut self, path: &str) -> Answer<NodeId> {
        if path.is_empty() {
            return Ok(NodeId::ROOT);
        }
        let (parents, name) = split(path);
        let dir = self.walk(&parents)?;
        Ok(self.lookup(dir, &name)?.node)
    }

    fn slot(&mut self, path: &str) -> Answer<(NodeId, Vec<u8>)> {
        let (parents, name) = split(path);
        Ok((self.walk(&parents)?, name))
    }

    fn entered(&mut self, made: laminafs::error::Result<Entry>) -> Answer<NodeId> {
        answer(made).map(|entry| self.enter(&entry))
    }

    /// Returns the inode number at a path.
    pub fn ino(&mut self, path: &str) -> u64 {
        let node = self.at(path).unwrap();
        self.union.getattr(node).unwrap().ino
    }

    /// Makes a directory.
    pub fn mkdir(&mut self, path: &str) -> Answer<NodeId> {
        let (dir, name) = self.slot(path)?;
        let made = self.union.mkdir(&ROOT_USER, dir, &name, 0o755);
        self.entered(made)
    }

    /// Makes a file of any kind but directory and symbolic link.
    pub fn mknod(&mut self, path: &str, mode: u32, rdev: u64) -> Answer<NodeId> {
        let (dir, name) = self.slot(path)?;
        let made = self.union.mknod(&ROOT_USER, dir, &name, mode, rdev);
        self.entered(made)
    }

    /// Makes a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &[u8]) -> Answer<NodeId> {
        let (dir, name) = self.slot(path)?;
        let made = self.union.symlink(&ROOT_USER, dir, &name, target);
        self.entered(made)
    }

    /// Makes a new file with content.
    pub fn create(&mut self, path: &str, data: &[u8]) -> Answer<NodeId> {
        let (dir, name) = self.slot(path)?;
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let (entry, opened) = answer(self.union.create(&ROOT_USER, dir, &name, 0o644, flags))?;
        let node = self.enter(&entry);
        let wrote = answer(self.union.write(node, opened.fh, data, 0, false));
        self.union.release(node, opened.fh);
        wrote.map(|_| node)
    }

    /// Writes into a file that exists.
    pub fn write(&mut self, path: &str, data: &[u8], offset: u64) -> Answer<()> {
        let node = self.at(path)?;
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let opened = answer(self.union.open(node, flags))?;
        let wrote = answer(self.union.write(node, opened.fh, data, offset, false));
        self.union.release(node, opened.fh);
        wrote.map(drop)
    }

    /// Changes attributes.
    pub fn change(&mut self, path: &str, change: AttrChange) -> Answer<()> {
        let node = self.at(path)?;
        answer(self.union.setattr(node, &change, false)).map(drop)
    }

    /// Changes the mode.
    pub fn chmod(&mut self, path: &str, mode: u32) -> Answer<()> {
        self.change(path, AttrChange { mode: Some(mode), ..AttrChange::default() })
    }

    /// Sets the size.
    pub fn truncate(&mut self, path: &str, size: u64) -> Answer<()> {
        self.change(path, AttrChange { size: Some(size), ..AttrChange::default() })
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&mut self, path: &str, key: &[u8], value: &[u8]) -> Answer<()> {
        let node = self.at(path)?;
        answer(self.union.setxattr(node, key, value, XattrFlags::default(), false))
    }

    /// Makes a hard link.
    pub fn link(&mut self, from: &str, to: &str) -> Answer<NodeId> {
        let node = self.at(from)?;
        let (dir, name) = self.slot(to)?;
        let made = self.union.link(node, dir, &name);
        self.entered(made)
    }

    /// Removes a name of an object that is not a directory.
    pub fn unlink(&mut self, path: &str) -> Answer<()> {
        let (dir, name) = self.slot(path)?;
        self.lookup(dir, &name)?;
        answer(self.union.unlink(dir, &name))
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, path: &str) -> Answer<()> {
        let (dir, name) = self.slot(path)?;
        self.lookup(dir, &name)?;
        answer(self.union.rmdir(dir, &name))
    }

    /// `rm -rf`.
    pub fn remove_all(&mut self, path: &str) -> Answer<()> {
        for name in self.names(path)? {
            let inner = format!("{path}/{name}");
            let node = self.at(&inner)?;
            if answer(self.union.getattr(node))?.kind() == Kind::Dir {
                self.remove_all(&inner)?;
            } else {
                self.unlink(&inner)?;
            }
        }
        self.rmdir(path)
    }

    /// renameat2(2).
    pub fn rename(&mut self, from: &str, to: &str, flags: RenameFlags) -> Answer<()> {
        let (dir, name) = self.slot(from)?;
        let (to_dir, to_name) = self.slot(to)?;
        self.lookup(dir, &name)?;
        match self.lookup(to_dir, &to_name) {
            Err(errno) if errno != Errno::NOENT => return Err(errno),
            _ => {}
        }
        answer(self.union.rename(dir, &name, to_dir, &to_name, flags))
    }

    /// Returns the content of a file.
    pub fn cat(&mut self, path: &str) -> Answer<Vec<u8>> {
        let node = self.at(path)?;
        answer(self.read(node))
    }

    /// Returns the names in a directory, sorted, without `.` and `..`.
    pub fn names(&mut self, path: &str) -> Answer<Vec<String>> {
        let node = self.at(path)?;
        let listed = answer(self.list(node, false, 4))?;
        let mut names: Vec<String> =
            listed.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    /// Returns everything that the mount shows, by path. The times of directories are left out: a
    /// copy-up restores them in a step of its own.
    pub fn observe(&mut self) -> BTreeMap<String, Shown> {
        let mut seen = BTreeMap::new();
        let mut left = vec![String::new()];
        while let Some(path) = left.pop() {
            let node = self.at(&path).unwrap_or_else(|errno| panic!("lookup of {path}: {errno:?}"));
            let mut what = shown(self, node, &path);
            if what.kind == Kind::Dir {
                what.times = (Time::default(), Time::default());
                let names = self.names(&path).unwrap();
                left.extend(names.iter().map(|name| format!("{path}/{name}")));
            }
            seen.insert(path, what);
        }
        seen
    }
}

//! A POSIX tree in its simplest form: how a mount must look, operation by operation.

use std::collections::BTreeMap;

use laminafs::error::Errno;
use laminafs::types::{Kind, RenameFlags, S_ISGID, S_ISUID, S_IXGRP, Time};

/// Identity of an object of the reference.
pub type Id = usize;
/// A path: components below the root.
pub type Path = Vec<Vec<u8>>;

/// The root directory.
pub const ROOT: Id = 0;

/// An object.
#[derive(Clone, Debug)]
pub struct Node {
    /// Kind.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: u64,
    /// The number of names, of any object but a directory.
    pub nlink: u32,
    /// Access time.
    pub atime: Time,
    /// Modification time.
    pub mtime: Time,
    /// Bytes of a file, target of a symbolic link.
    pub data: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Entries of a directory.
    pub children: BTreeMap<Vec<u8>, Id>,
}

impl Node {
    /// Makes an object of one name.
    pub fn new(kind: Kind, mode: u32, (uid, gid): (u32, u32), now: Time) -> Self {
        Self {
            kind,
            mode,
            uid,
            gid,
            rdev: 0,
            nlink: 1,
            atime: now,
            mtime: now,
            data: Vec::new(),
            xattrs: BTreeMap::new(),
            children: BTreeMap::new(),
        }
    }

    /// Changes the mode as a write or a truncation by a caller without privilege does.
    pub fn kill_privileges(&mut self) {
        self.mode &= !S_ISUID;
        if self.mode & S_IXGRP != 0 {
            self.mode &= !S_ISGID;
        }
    }
}

/// A tree.
#[derive(Clone)]
pub struct Tree {
    /// All objects.
    pub nodes: BTreeMap<Id, Node>,
    /// The clock.
    pub now: Time,
}

/// The result of an operation.
pub type Answer<T> = Result<T, Errno>;

impl Tree {
    /// Makes a tree of its root.
    pub fn new(root: Node) -> Self {
        Self { nodes: BTreeMap::from([(ROOT, root)]), now: Time::default() }
    }

    /// Returns an object.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[&id]
    }

    /// Returns an object to be changed.
    pub fn node_mut(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// Adds an object without a name.
    pub fn add(&mut self, node: Node) -> Id {
        let id = self.nodes.keys().last().unwrap() + 1;
        self.nodes.insert(id, node);
        id
    }

    /// Returns all names, a directory before its entries.
    pub fn paths(&self) -> Vec<(Path, Id)> {
        let mut found = vec![(Path::new(), ROOT)];
        let mut at = 0;
        while at < found.len() {
            let (path, id) = found[at].clone();
            for (name, child) in &self.node(id).children {
                let mut path = path.clone();
                path.push(name.clone());
                found.push((path, *child));
            }
            at += 1;
        }
        found
    }

    /// Returns the object at a path.
    pub fn find(&self, path: &[Vec<u8>]) -> Answer<Id> {
        let mut at = ROOT;
        for name in path {
            if self.node(at).kind != Kind::Dir {
                return Err(Errno::NOTDIR);
            }
            at = *self.node(at).children.get(name).ok_or(Errno::NOENT)?;
        }
        Ok(at)
    }

    fn child(&self, dir: Id, name: &[u8]) -> Option<Id> {
        self.node(dir).children.get(name).copied()
    }

    fn put(&mut self, dir: Id, name: &[u8], id: Id) {
        let now = self.now;
        let dir = self.node_mut(dir);
        dir.children.insert(name.to_vec(), id);
        dir.mtime = now;
    }

    fn take(&mut self, dir: Id, name: &[u8]) {
        let now = self.now;
        let dir = self.node_mut(dir);
        dir.children.remove(name);
        dir.mtime = now;
    }

    /// Makes an object; `mode` is masked already.
    pub fn make(&mut self, dir: Id, name: &[u8], mut node: Node) -> Answer<Id> {
        if self.child(dir, name).is_some() {
            return Err(Errno::EXIST);
        }
        (node.atime, node.mtime) = (self.now, self.now);
        let parent = self.node(dir);
        if parent.mode & S_ISGID != 0 {
            node.gid = parent.gid;
            if node.kind == Kind::Dir {
                node.mode |= S_ISGID;
            }
        }
        let id = self.add(node);
        self.put(dir, name, id);
        Ok(id)
    }

    /// Gives an object one more name.
    pub fn link(&mut self, id: Id, dir: Id, name: &[u8]) -> Answer<()> {
        if self.child(dir, name).is_some() {
            return Err(Errno::EXIST);
        }
        if self.node(id).kind == Kind::Dir {
            return Err(Errno::PERM);
        }
        self.node_mut(id).nlink += 1;
        self.put(dir, name, id);
        Ok(())
    }

    /// Removes a name of an object that is not a directory.
    pub fn unlink(&mut self, dir: Id, name: &[u8]) -> Answer<()> {
        let id = self.child(dir, name).ok_or(Errno::NOENT)?;
        if self.node(id).kind == Kind::Dir {
            return Err(Errno::ISDIR);
        }
        self.take(dir, name);
        self.node_mut(id).nlink -= 1;
        Ok(())
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, dir: Id, name: &[u8]) -> Answer<()> {
        let id = self.child(dir, name).ok_or(Errno::NOENT)?;
        let node = self.node(id);
        if node.kind != Kind::Dir {
            return Err(Errno::NOTDIR);
        }
        if !node.children.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.take(dir, name);
        self.node_mut(id).nlink = 0;
        Ok(())
    }

    /// Whether `id` is `top` or is reached through it.
    fn is_beneath(&self, top: Id, id: Id) -> bool {
        top == id || self.node(top).children.values().any(|child| self.is_beneath(*child, id))
    }

    /// renameat2(2) with all flags.
    pub fn rename(
        &mut self,
        (dir, name): (Id, &[u8]),
        (to, to_name): (Id, &[u8]),
        flags: RenameFlags,
    ) -> Answer<()> {
        let id = self.child(dir, name).ok_or(Errno::NOENT)?;
        let target = self.child(to, to_name);
        match target {
            Some(_) if flags.noreplace => return Err(Errno::EXIST),
            None if flags.exchange => return Err(Errno::NOENT),
            _ => {}
        }
        let is_dir = self.node(id).kind == Kind::Dir;
        if is_dir && self.is_beneath(id, to) {
            return Err(Errno::INVAL);
        }
        if let Some(target) = target {
            if self.node(target).kind == Kind::Dir && self.is_beneath(target, dir) {
                return Err(if flags.exchange { Errno::INVAL } else { Errno::NOTEMPTY });
            }
            if target == id {
                return Ok(());
            }
            if !flags.exchange {
                match (is_dir, self.node(target).kind == Kind::Dir) {
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    _ if !self.node(target).children.is_empty() => return Err(Errno::NOTEMPTY),
                    _ => {}
                }
            }
        }
        self.take(dir, name);
        self.put(to, to_name, id);
        match target {
            Some(target) if flags.exchange => self.put(dir, name, target),
            Some(target) if self.node(target).kind == Kind::Dir => self.node_mut(target).nlink = 0,
            Some(target) => self.node_mut(target).nlink -= 1,
            None => {}
        }
        if flags.whiteout {
            let device = self.add(Node::new(Kind::Char, 0, (0, 0), self.now));
            self.put(dir, name, device);
        }
        Ok(())
    }

    /// Writes; `kill` clears set-id bits, as a write without privilege does.
    pub fn write(&mut self, id: Id, data: &[u8], offset: usize, kill: bool) {
        let now = self.now;
        let node = self.node_mut(id);
        node.data.resize(node.data.len().max(offset + data.len()), 0);
        node.data[offset..offset + data.len()].copy_from_slice(data);
        node.mtime = now;
        node.xattrs.remove(&b"security.capability"[..]);
        if kill {
            node.kill_privileges();
        }
    }

    /// Sets the size; `kill` as in [`Tree::write`].
    pub fn truncate(&mut self, id: Id, len: usize, kill: bool) {
        let now = self.now;
        let node = self.node_mut(id);
        node.data.resize(len, 0);
        node.mtime = now;
        node.xattrs.remove(&b"security.capability"[..]);
        if kill {
            node.kill_privileges();
        }
    }

    /// Changes the owner, which clears set-id bits and capabilities.
    pub fn chown(&mut self, id: Id, uid: Option<u32>, gid: Option<u32>) {
        let node = self.node_mut(id);
        node.uid = uid.unwrap_or(node.uid);
        node.gid = gid.unwrap_or(node.gid);
        if node.kind != Kind::Dir {
            node.kill_privileges();
            node.xattrs.remove(&b"security.capability"[..]);
        }
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&mut self, id: Id, key: &[u8], value: &[u8]) -> Answer<()> {
        self.check_key(id, key)?;
        self.node_mut(id).xattrs.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&mut self, id: Id, key: &[u8]) -> Answer<()> {
        self.check_key(id, key)?;
        self.node_mut(id).xattrs.remove(key).map(drop).ok_or(Errno::NODATA)
    }

    fn check_key(&self, id: Id, key: &[u8]) -> Answer<()> {
        let plain = matches!(self.node(id).kind, Kind::Dir | Kind::File);
        if key.starts_with(b"user.") && !plain { Err(Errno::PERM) } else { Ok(()) }
    }
}

//! The table of inodes and the operations on names, under the lock of the tree.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use laminafs::error::{Errno, Error, Result};
use laminafs::types::{
    Kind, MODE_MASK, NAME_MAX, Name, Owner, RenameFlags, S_ISGID, Stat, Time, name as owned,
};

use super::content::Content;

/// Number of the root directory, as on ext4.
pub(super) const ROOT_INO: u64 = 2;

/// The content of an inode, in addition to its attributes.
#[derive(Clone)]
pub(super) enum Body {
    File(Content),
    Dir(Entries),
    Symlink(Vec<u8>),
    Special,
}

/// One object.
#[derive(Clone)]
pub(super) struct Inode {
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) nlink: u32,
    pub(super) rdev: u64,
    pub(super) atime: Time,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    pub(super) btime: Time,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Distinguishes this inode from an earlier one with its number.
    pub(super) generation: u64,
    /// Open files of this inode: without a name it lives until the last is closed.
    pub(super) opens: u32,
    pub(super) body: Body,
}

impl Inode {
    pub(super) const fn kind(&self) -> Kind {
        Kind::from_mode(self.mode)
    }

    pub(super) const fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir(_))
    }

    pub(super) fn stat(&self, dev: u64, ino: u64) -> Stat {
        let (size, blocks) = match &self.body {
            Body::File(content) => (content.len(), content.sectors()),
            Body::Dir(_) => (4096, 8),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::Special => (0, 0),
        };
        Stat {
            dev,
            ino,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.owner.uid,
            gid: self.owner.gid,
            rdev: self.rdev,
            size,
            blocks,
            blksize: 4096,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            immutable: false,
            append_only: false,
            btime: Some(self.btime),
        }
    }
}

/// The entries of a directory. A position is given once and never again, so that a listing
/// resumed at one neither skips nor repeats an entry that stayed.
#[derive(Clone)]
pub(super) struct Entries {
    parent: u64,
    last_position: u64,
    by_name: BTreeMap<Name, (u64, u64)>,
    by_position: BTreeMap<u64, Name>,
}

impl Entries {
    fn new(parent: u64) -> Self {
        let (by_name, by_position) = (BTreeMap::new(), BTreeMap::new());
        Self { parent, last_position: 0, by_name, by_position }
    }

    fn insert(&mut self, name: &[u8], ino: u64) {
        self.remove(name);
        self.last_position += 1;
        self.by_name.insert(owned(name), (ino, self.last_position));
        self.by_position.insert(self.last_position, owned(name));
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some((_, position)) = self.by_name.remove(name) {
            self.by_position.remove(&position);
        }
    }

    /// Returns the entries behind a position: position, name, inode number.
    pub(super) fn behind(&self, from: u64) -> impl Iterator<Item = (u64, &Name, u64)> {
        let entries = self.by_position.range(from.saturating_add(1)..);
        entries.filter_map(|(at, name)| Some((*at, name, self.by_name.get(name)?.0)))
    }
}

/// A file system.
#[derive(Clone)]
pub(super) struct Tree {
    pub(super) inodes: HashMap<u64, Inode>,
    pub(super) now: Time,
    /// The number of directories that are being moved: their places are outdated.
    pub(super) moving: u32,
    last_ino: u64,
    free_inos: BTreeSet<u64>,
    last_generation: u64,
}

pub(super) fn fail<T>(op: &'static str, errno: Errno) -> Result<T> {
    Err(Error::os(op, errno))
}

pub(super) fn check_name(op: &'static str, name: &[u8]) -> Result<()> {
    match name {
        b"" => fail(op, Errno::NOENT),
        b"." | b".." => fail(op, Errno::INVAL),
        _ if name.len() > NAME_MAX => fail(op, Errno::NAMETOOLONG),
        _ if name.contains(&b'/') || name.contains(&0) => fail(op, Errno::INVAL),
        _ => Ok(()),
    }
}

impl Tree {
    pub(super) fn new(now: Time) -> Self {
        let mut tree = Self {
            inodes: HashMap::new(),
            now,
            moving: 0,
            last_ino: ROOT_INO,
            free_inos: BTreeSet::new(),
            last_generation: 0,
        };
        let mut root = tree.blank(Kind::Dir.mode_bits() | 0o755, 0, Owner::default());
        root.body = Body::Dir(Entries::new(ROOT_INO));
        root.nlink = 2;
        tree.inodes.insert(ROOT_INO, root);
        tree
    }

    fn blank(&mut self, mode: u32, rdev: u64, owner: Owner) -> Inode {
        let body = match Kind::from_mode(mode) {
            Kind::File => Body::File(Content::default()),
            _ => Body::Special,
        };
        let (atime, mtime, ctime, btime) = (self.now, self.now, self.now, self.now);
        self.last_generation += 1;
        Inode {
            mode,
            owner,
            nlink: 1,
            rdev,
            atime,
            mtime,
            ctime,
            btime,
            xattrs: BTreeMap::new(),
            generation: self.last_generation,
            opens: 0,
            body,
        }
    }

    pub(super) fn inode(&self, op: &'static str, ino: u64) -> Result<&Inode> {
        self.inodes.get(&ino).ok_or(Error::os(op, Errno::STALE))
    }

    pub(super) fn inode_mut(&mut self, op: &'static str, ino: u64) -> Result<&mut Inode> {
        self.inodes.get_mut(&ino).ok_or(Error::os(op, Errno::STALE))
    }

    pub(super) fn entries(&self, op: &'static str, dir: u64) -> Result<&Entries> {
        match &self.inode(op, dir)?.body {
            Body::Dir(entries) => Ok(entries),
            _ => fail(op, Errno::NOTDIR),
        }
    }

    fn entries_mut(&mut self, op: &'static str, dir: u64) -> Result<&mut Entries> {
        match &mut self.inode_mut(op, dir)?.body {
            Body::Dir(entries) => Ok(entries),
            _ => fail(op, Errno::NOTDIR),
        }
    }

    pub(super) fn find(&self, op: &'static str, dir: u64, name: &[u8]) -> Result<Option<u64>> {
        check_name(op, name)?;
        Ok(self.entries(op, dir)?.by_name.get(name).map(|(ino, _)| *ino))
    }

    pub(super) fn child(&self, op: &'static str, dir: u64, name: &[u8]) -> Result<u64> {
        self.find(op, dir, name)?.ok_or(Error::os(op, Errno::NOENT))
    }

    fn enter(&mut self, op: &'static str, dir: u64, name: &[u8], ino: u64) -> Result<()> {
        self.entries_mut(op, dir)?.insert(name, ino);
        let subdir = match &mut self.inode_mut(op, ino)?.body {
            Body::Dir(entries) => {
                entries.parent = dir;
                1
            }
            _ => 0,
        };
        self.touch_dir(op, dir, subdir)
    }

    fn leave(&mut self, op: &'static str, dir: u64, name: &[u8], ino: u64) -> Result<()> {
        self.entries_mut(op, dir)?.remove(name);
        let subdir = -i32::from(self.inode(op, ino)?.is_dir());
        self.touch_dir(op, dir, subdir)
    }

    fn touch_dir(&mut self, op: &'static str, dir: u64, subdirs: i32) -> Result<()> {
        let now = self.now;
        let inode = self.inode_mut(op, dir)?;
        (inode.mtime, inode.ctime) = (now, now);
        inode.nlink = inode.nlink.saturating_add_signed(subdirs);
        Ok(())
    }

    /// Takes one link from an inode; a directory loses both of its own.
    fn drop_link(&mut self, op: &'static str, ino: u64) -> Result<()> {
        let now = self.now;
        let inode = self.inode_mut(op, ino)?;
        inode.nlink = if inode.is_dir() { 0 } else { inode.nlink.saturating_sub(1) };
        inode.ctime = now;
        self.reap(ino);
        Ok(())
    }

    /// Frees an inode that has neither a name nor an open file.
    pub(super) fn reap(&mut self, ino: u64) {
        if self.inodes.get(&ino).is_some_and(|inode| inode.nlink == 0 && inode.opens == 0) {
            self.inodes.remove(&ino);
            self.free_inos.insert(ino);
        }
    }

    /// Closes every file, and frees inodes without a name.
    pub(super) fn close_all(&mut self) {
        let all: Vec<u64> = self.inodes.keys().copied().collect();
        for ino in all {
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.opens = 0;
            }
            self.reap(ino);
        }
    }

    /// Returns the lowest free number, as ext4 does.
    fn take_ino(&mut self) -> u64 {
        self.free_inos.pop_first().unwrap_or_else(|| {
            self.last_ino += 1;
            self.last_ino
        })
    }

    /// Makes an object of any kind under a new name.
    pub(super) fn make(
        &mut self,
        op: &'static str,
        dir: u64,
        name: &[u8],
        (mode, rdev, owner): (u32, u64, Owner),
    ) -> Result<u64> {
        if self.find(op, dir, name)?.is_some() {
            return fail(op, Errno::EXIST);
        }
        let parent = self.inode(op, dir)?;
        if parent.nlink == 0 {
            return fail(op, Errno::NOENT);
        }
        let inherits = parent.mode & S_ISGID;
        let group = if inherits == 0 { owner.gid } else { parent.owner.gid };
        let mut inode = self.blank(mode, rdev, Owner { gid: group, ..owner });
        if inode.kind() == Kind::Dir {
            inode.mode |= inherits;
            inode.body = Body::Dir(Entries::new(dir));
            inode.nlink = 2;
        }
        let ino = self.take_ino();
        self.inodes.insert(ino, inode);
        self.enter(op, dir, name, ino)?;
        Ok(ino)
    }

    pub(super) fn symlink(
        &mut self,
        dir: u64,
        name: &[u8],
        target: &[u8],
        owner: Owner,
    ) -> Result<()> {
        match target.len() {
            0 => return fail("symlinkat", Errno::NOENT),
            4096.. => return fail("symlinkat", Errno::NAMETOOLONG),
            _ => {}
        }
        let mode = Kind::Symlink.mode_bits() | 0o777;
        let ino = self.make("symlinkat", dir, name, (mode, 0, owner))?;
        self.inode_mut("symlinkat", ino)?.body = Body::Symlink(target.to_vec());
        Ok(())
    }

    pub(super) fn link(&mut self, dir: u64, name: &[u8], to: u64, to_name: &[u8]) -> Result<()> {
        const OP: &str = "linkat";
        let ino = self.child(OP, dir, name)?;
        self.link_inode(ino, to, to_name)
    }

    /// Gives an object one more name. `ENOENT` if it lost its last name.
    pub(super) fn link_inode(&mut self, ino: u64, to: u64, to_name: &[u8]) -> Result<()> {
        const OP: &str = "linkat";
        if self.find(OP, to, to_name)?.is_some() {
            return fail(OP, Errno::EXIST);
        }
        let now = self.now;
        let inode = self.inode_mut(OP, ino)?;
        if inode.is_dir() {
            return fail(OP, Errno::PERM);
        }
        if inode.nlink == 0 {
            return fail(OP, Errno::NOENT);
        }
        inode.nlink += 1;
        inode.ctime = now;
        self.enter(OP, to, to_name, ino)
    }

    pub(super) fn unlink(&mut self, dir: u64, name: &[u8]) -> Result<()> {
        const OP: &str = "unlinkat";
        let ino = self.child(OP, dir, name)?;
        if self.inode(OP, ino)?.is_dir() {
            return fail(OP, Errno::ISDIR);
        }
        self.leave(OP, dir, name, ino)?;
        self.drop_link(OP, ino)
    }

    pub(super) fn rmdir(&mut self, dir: u64, name: &[u8]) -> Result<()> {
        const OP: &str = "unlinkat";
        let ino = self.child(OP, dir, name)?;
        if !self.entries(OP, ino)?.by_name.is_empty() {
            return fail(OP, Errno::NOTEMPTY);
        }
        self.leave(OP, dir, name, ino)?;
        self.drop_link(OP, ino)
    }

    /// Whether `dir` is `top` or lies beneath it.
    fn is_beneath(&self, dir: u64, top: u64) -> Result<bool> {
        let mut at = dir;
        while at != top {
            if at == ROOT_INO {
                return Ok(false);
            }
            at = self.entries("renameat2", at)?.parent;
        }
        Ok(true)
    }

    pub(super) fn rename(
        &mut self,
        dir: u64,
        name: &[u8],
        to: u64,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        const OP: &str = "renameat2";
        if flags.exchange && (flags.noreplace || flags.whiteout) {
            return fail(OP, Errno::INVAL);
        }
        let ino = self.child(OP, dir, name)?;
        let target = self.find(OP, to, to_name)?;
        match target {
            Some(_) if flags.noreplace => return fail(OP, Errno::EXIST),
            None if flags.exchange => return fail(OP, Errno::NOENT),
            _ => {}
        }
        self.check_rename(ino, dir, target, to, flags.exchange)?;
        if target == Some(ino) {
            return Ok(());
        }
        self.leave(OP, dir, name, ino)?;
        if let Some(old) = target {
            self.leave(OP, to, to_name, old)?;
            if flags.exchange {
                self.enter(OP, dir, name, old)?;
            } else {
                self.drop_link(OP, old)?;
            }
        }
        self.enter(OP, to, to_name, ino)?;
        let now = self.now;
        self.inode_mut(OP, ino)?.ctime = now;
        if flags.whiteout {
            let mode = Kind::Char.mode_bits();
            self.make(OP, dir, name, (mode, 0, Owner::default()))?;
        }
        Ok(())
    }

    fn check_rename(
        &self,
        ino: u64,
        dir: u64,
        target: Option<u64>,
        to: u64,
        exchange: bool,
    ) -> Result<()> {
        const OP: &str = "renameat2";
        let is_dir = self.inode(OP, ino)?.is_dir();
        if is_dir && self.is_beneath(to, ino)? {
            return fail(OP, Errno::INVAL);
        }
        let Some(target) = target else {
            return Ok(());
        };
        let Body::Dir(entries) = &self.inode(OP, target)?.body else {
            return if is_dir && !exchange { fail(OP, Errno::NOTDIR) } else { Ok(()) };
        };
        if self.is_beneath(dir, target)? {
            return fail(OP, if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        match exchange {
            false if !is_dir => fail(OP, Errno::ISDIR),
            false if target != ino && !entries.by_name.is_empty() => fail(OP, Errno::NOTEMPTY),
            _ => Ok(()),
        }
    }

    pub(super) const fn permissions(mode: u32, kind: Kind) -> u32 {
        kind.mode_bits() | (mode & MODE_MASK)
    }
}

//! The operations of the model: chosen at random, applied to the mount and to the reference.

use std::collections::BTreeMap;

use laminafs::error::Errno;
use laminafs::types::{AttrChange, Kind, NodeId, RenameFlags, SetTime, Time, XattrFlags};
use laminafs::union::{Caller, OpenFlags, Opened};
use proptest::prelude::*;

use super::layers::NAMES;
use laminafs_testing::driver::Mount;
use laminafs_testing::reference::{Answer, Id, Node, Path, Tree};

/// The deepest path that is made.
const DEPTH: usize = 4;
const KEYS: [&[u8]; 6] = [
    b"user.a",
    b"trusted.b",
    b"security.capability",
    b"user.overlay.opaque",
    b"trusted.overlay.redirect",
    b"user.overlay.whiteout",
];
const SIZES: [usize; 4] = [0, 5, 4096, 10_000];

/// A name in an existing directory; the directory is a number, modulo the number of directories.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    dir: usize,
    name: usize,
}

/// One operation. A `usize` for an object is its number among all existing paths.
#[derive(Clone, Debug)]
pub enum Op {
    Create(Slot, u32),
    Mkdir(Slot, u32),
    Symlink(Slot),
    Mknod(Slot, usize),
    Link(usize, Slot),
    Unlink(usize),
    Rmdir(usize),
    Rename(usize, Slot, usize),
    RenameOver(usize, usize, usize),
    Write {
        file: usize,
        offset: usize,
        len: usize,
        kill: bool,
    },
    Truncate {
        file: usize,
        len: usize,
        kill: bool,
    },
    OpenTruncate(usize),
    Chmod(usize, u32),
    Chown(usize, Option<u32>, Option<u32>),
    Utimes(usize, i64),
    SetXattr(usize, usize),
    RemoveXattr(usize, usize),
    Readdir(usize, bool),
    Open(usize, bool),
    /// Reads, writes or closes a file that an earlier `Open` left open.
    UseOpen(usize, usize),
    ForgetAll,
    Remount,
    /// The upper becomes the topmost lower of a mount with an empty upper.
    Restack,
}

fn slot() -> impl Strategy<Value = Slot> {
    (0..64usize, 0..NAMES.len()).prop_map(|(dir, name)| Slot { dir, name })
}

pub fn op() -> impl Strategy<Value = Op> {
    let pick = || 0..64usize;
    let mode = || prop_oneof![Just(0o644), Just(0o4755), Just(0o666), Just(0o400)];
    let size = || 0..SIZES.len();
    let id = || prop::option::of(0..3u32);
    prop_oneof![
        4 => (slot(), mode()).prop_map(|(slot, mode)| Op::Create(slot, mode)),
        4 => (slot(), prop_oneof![Just(0o777), Just(0o700)])
            .prop_map(|(slot, mode)| Op::Mkdir(slot, mode)),
        1 => slot().prop_map(Op::Symlink),
        2 => (slot(), 0..4usize).prop_map(|(slot, which)| Op::Mknod(slot, which)),
        4 => (pick(), slot()).prop_map(|(file, slot)| Op::Link(file, slot)),
        5 => pick().prop_map(Op::Unlink),
        4 => pick().prop_map(Op::Rmdir),
        8 => (pick(), slot(), 0..6usize).prop_map(|(from, to, flag)| Op::Rename(from, to, flag)),
        4 => (pick(), pick(), 0..6usize)
            .prop_map(|(from, to, flag)| Op::RenameOver(from, to, flag)),
        5 => (pick(), size(), size(), any::<bool>())
            .prop_map(|(file, offset, len, kill)| Op::Write { file, offset, len, kill }),
        3 => (pick(), size(), any::<bool>())
            .prop_map(|(file, len, kill)| Op::Truncate { file, len, kill }),
        1 => pick().prop_map(Op::OpenTruncate),
        3 => (pick(), mode()).prop_map(|(file, mode)| Op::Chmod(file, mode)),
        2 => (pick(), id(), id()).prop_map(|(file, uid, gid)| Op::Chown(file, uid, gid)),
        2 => (pick(), -3..3i64).prop_map(|(file, secs)| Op::Utimes(file, secs)),
        4 => (pick(), 0..KEYS.len()).prop_map(|(file, key)| Op::SetXattr(file, key)),
        2 => (pick(), 0..KEYS.len()).prop_map(|(file, key)| Op::RemoveXattr(file, key)),
        2 => (pick(), any::<bool>()).prop_map(|(dir, plus)| Op::Readdir(dir, plus)),
        3 => (pick(), any::<bool>()).prop_map(|(file, write)| Op::Open(file, write)),
        4 => (pick(), 0..3usize).prop_map(|(open, act)| Op::UseOpen(open, act)),
        1 => Just(Op::ForgetAll),
        1 => Just(Op::Remount),
        1 => Just(Op::Restack),
    ]
}

/// A file that stays open over operations.
struct Held {
    id: Id,
    node: NodeId,
    opened: Opened,
    write: bool,
}

/// The reference, the open files, and the step, which serves as time.
pub struct Run {
    pub tree: Tree,
    pub inos: BTreeMap<Id, u64>,
    held: Vec<Held>,
    pub cached: bool,
    pub user_marks: bool,
    pub aufs: bool,
    pub step: usize,
}

const CALLER: Caller = Caller { uid: 1, gid: 2, pid: 99, umask: 0o022 };

impl Run {
    pub fn new(tree: Tree) -> Self {
        Self {
            tree,
            inos: BTreeMap::new(),
            held: Vec::new(),
            cached: true,
            user_marks: false,
            aufs: false,
            step: 0,
        }
    }

    /// Drops the inode numbers of objects that cannot keep them over a remount: links and devices
    /// have no `user.` attributes.
    pub fn forget_unmarked(&mut self) {
        let tree = &self.tree;
        let kept = |id: &Id| {
            tree.nodes.get(id).is_some_and(|node| matches!(node.kind, Kind::File | Kind::Dir))
        };
        if self.user_marks {
            self.inos.retain(|id, _| kept(id));
        }
    }

    fn pick(&self, number: usize) -> (Path, Id) {
        let mut paths = self.tree.paths();
        paths.swap_remove(number % paths.len())
    }

    /// An object that is not the root.
    fn pick_below(&self, number: usize) -> Option<(Path, Id)> {
        let paths = self.tree.paths();
        let count = paths.len() - 1;
        (count > 0).then(|| paths[1 + number % count].clone())
    }

    fn pick_file(&self, number: usize) -> Option<(Path, Id)> {
        let paths = self.tree.paths().into_iter();
        let files: Vec<_> =
            paths.filter(|(_, id)| self.tree.node(*id).kind == Kind::File).collect();
        (!files.is_empty()).then(|| files[number % files.len()].clone())
    }

    fn pick_slot(&self, slot: Slot) -> (Path, Id, Vec<u8>) {
        let paths = self.tree.paths().into_iter();
        let dirs: Vec<_> = paths
            .filter(|(path, id)| path.len() < DEPTH && self.tree.node(*id).kind == Kind::Dir)
            .collect();
        let (path, id) = dirs[slot.dir % dirs.len()].clone();
        // If whiteouts are files, their names are refused; the last name is one of them.
        let name = if self.aufs { slot.name % (NAMES.len() - 1) } else { slot.name };
        (path, id, NAMES[name].to_vec())
    }

    /// Closes all files and removes unlinked ones.
    pub fn close_all(&mut self, mount: &mut Mount) {
        while !self.held.is_empty() {
            self.close(mount, 0);
        }
    }

    pub fn has_open(&self) -> bool {
        !self.held.is_empty()
    }

    fn close(&mut self, mount: &mut Mount, at: usize) {
        let held = self.held.remove(at);
        mount.union.release(held.node, held.opened.fh);
        self.bury(mount, held.id);
    }

    /// Makes the kernel forget an object without names and open files.
    fn bury(&mut self, mount: &mut Mount, id: Id) {
        let held = self.held.iter().any(|held| held.id == id);
        if self.tree.paths().iter().all(|(_, other)| *other != id) && !held {
            mount.drop_dead(id);
            self.tree.nodes.remove(&id);
            self.inos.remove(&id);
        }
    }

    fn bury_dead(&mut self, mount: &mut Mount) {
        let ids: Vec<Id> = self.tree.nodes.keys().copied().collect();
        for id in ids {
            self.bury(mount, id);
        }
    }

    fn object(&self, mount: &mut Mount, path: &Path, id: Id) -> NodeId {
        let text = laminafs_testing::driver::show_path(path);
        let node = mount.node(path, id, self.cached);
        node.unwrap_or_else(|errno| panic!("lookup of {text}: {errno:?}"))
    }

    /// Applies one operation to both; panics if the results differ.
    pub fn apply(&mut self, mount: &mut Mount, op: &Op) {
        let (got, wanted) = match op {
            Op::Create(..) | Op::Mkdir(..) | Op::Symlink(_) | Op::Mknod(..) => self.make(mount, op),
            Op::Link(..) | Op::Unlink(_) | Op::Rmdir(_) => self.entry(mount, op),
            Op::Rename(from, to, flag) => {
                let (dir, id, name) = self.pick_slot(*to);
                self.rename(mount, *from, (dir, id, name), *flag)
            }
            Op::RenameOver(from, to, flag) => match self.pick_below(*to) {
                Some((mut path, _)) => {
                    let name = path.pop().unwrap();
                    let dir = self.tree.find(&path).unwrap();
                    self.rename(mount, *from, (path, dir, name), *flag)
                }
                None => return,
            },
            Op::Write { .. } | Op::Truncate { .. } | Op::OpenTruncate(_) => self.data(mount, op),
            Op::Chmod(..) | Op::Chown(..) | Op::Utimes(..) => self.attributes(mount, op),
            Op::SetXattr(..) | Op::RemoveXattr(..) => self.xattr(mount, op),
            Op::Readdir(dir, plus) => self.readdir(mount, *dir, *plus),
            Op::Open(file, write) => self.open(mount, *file, *write),
            Op::UseOpen(open, act) => self.use_open(mount, *open, *act),
            Op::ForgetAll | Op::Remount | Op::Restack => return,
        };
        assert_eq!(got, wanted, "answer of the mount (left) and of the reference to {op:?}");
        self.bury_dead(mount);
    }

    fn make(&mut self, mount: &mut Mount, op: &Op) -> (Answer<()>, Answer<()>) {
        let (Op::Create(slot, _) | Op::Mkdir(slot, _) | Op::Symlink(slot) | Op::Mknod(slot, _)) =
            op
        else {
            return (Ok(()), Ok(()));
        };
        let (path, dir, name) = self.pick_slot(*slot);
        let parent = self.object(mount, &path, dir);
        let node = |kind, mode| Node::new(kind, mode, (CALLER.uid, CALLER.gid), Time::default());
        let mut wanted;
        let got = match op {
            Op::Create(_, mode) => {
                wanted = node(Kind::File, *mode & !CALLER.umask);
                let flags = OpenFlags { write: true, ..OpenFlags::default() };
                mount.union.create(&CALLER, parent, &name, *mode, flags).map(|(entry, opened)| {
                    mount.union.release(entry.node, opened.fh);
                    entry
                })
            }
            Op::Mkdir(_, mode) => {
                wanted = node(Kind::Dir, *mode & !CALLER.umask);
                mount.union.mkdir(&CALLER, parent, &name, *mode)
            }
            Op::Mknod(_, which) => {
                // 0:0 is the device of whiteouts; made by a user it is an ordinary device.
                let kinds =
                    [(Kind::Fifo, 0), (Kind::Char, 0), (Kind::Char, 0x103), (Kind::File, 0)];
                let which = if self.user_marks && *which == 1 { 2 } else { *which };
                let (kind, rdev) = kinds[which];
                wanted = node(kind, 0o640);
                wanted.rdev = rdev;
                mount.union.mknod(&CALLER, parent, &name, kind.mode_bits() | 0o640, rdev)
            }
            _ => {
                wanted = node(Kind::Symlink, 0o777);
                wanted.data = format!("to{}", self.step).into_bytes();
                mount.union.symlink(&CALLER, parent, &name, &wanted.data)
            }
        };
        let wanted = self.tree.make(dir, &name, wanted);
        if let (Ok(entry), Ok(id)) = (&got, wanted) {
            let node = mount.enter(entry);
            mount.nodes.insert(id, node);
        }
        (plain(got), wanted.map(drop))
    }

    fn entry(&mut self, mount: &mut Mount, op: &Op) -> (Answer<()>, Answer<()>) {
        let (Op::Link(number, _) | Op::Unlink(number) | Op::Rmdir(number)) = op else {
            return (Ok(()), Ok(()));
        };
        let Some((mut path, id)) = self.pick_below(*number) else { return (Ok(()), Ok(())) };
        if let Op::Link(_, slot) = op {
            let node = self.object(mount, &path, id);
            let (dir_path, dir, name) = self.pick_slot(*slot);
            let parent = self.object(mount, &dir_path, dir);
            let got = mount.union.link(node, parent, &name);
            if let Ok(entry) = &got {
                assert_eq!(mount.enter(entry), node, "a link is the same object");
            }
            return (plain(got), self.tree.link(id, dir, &name));
        }
        let name = path.pop().unwrap();
        let dir = self.tree.find(&path).unwrap();
        let parent = self.object(mount, &path, dir);
        // The kernel looks up the object that it removes.
        let target = mount.lookup(parent, &name).map(|entry| entry.node);
        mount.nodes.insert(id, target.unwrap());
        match op {
            Op::Unlink(_) => {
                (plain(mount.union.unlink(parent, &name)), self.tree.unlink(dir, &name))
            }
            _ => (plain(mount.union.rmdir(parent, &name)), self.tree.rmdir(dir, &name)),
        }
    }

    fn rename(
        &mut self,
        mount: &mut Mount,
        from: usize,
        (to_path, to, to_name): (Path, Id, Vec<u8>),
        flag: usize,
    ) -> (Answer<()>, Answer<()>) {
        let Some((mut path, id)) = self.pick_below(from) else { return (Ok(()), Ok(())) };
        if flag != 2 && path.len() + self.height(id) > path.len() + DEPTH + 2 {
            return (Ok(()), Ok(()));
        }
        // The kernel sends no request to move a directory into itself or over one above it, and
        // without `trusted.` attributes a device 0:0 of a user cannot be marked.
        let over: Path = to_path.iter().cloned().chain([to_name.clone()]).collect();
        let nested = to_path.starts_with(&path) || (path != over && path.starts_with(&over));
        if nested || (flag == 3 && self.user_marks) {
            return (Ok(()), Ok(()));
        }
        self.object(mount, &path, id);
        let name = path.pop().unwrap();
        let dir = self.tree.find(&path).unwrap();
        let parent = self.object(mount, &path, dir);
        let to_parent = self.object(mount, &to_path, to);
        if let Some(target) = self.tree.node(to).children.get(&to_name).copied() {
            let mut target_path = to_path;
            target_path.push(to_name.clone());
            self.object(mount, &target_path, target);
        }
        let flags = RenameFlags { noreplace: flag == 1, exchange: flag == 2, whiteout: flag == 3 };
        let got = mount.union.rename(parent, &name, to_parent, &to_name, flags);
        (plain(got), self.tree.rename((dir, &name), (to, &to_name), flags))
    }

    fn height(&self, id: Id) -> usize {
        let children = self.tree.node(id).children.values();
        1 + children.map(|child| self.height(*child)).max().unwrap_or(0)
    }

    fn data(&mut self, mount: &mut Mount, op: &Op) -> (Answer<()>, Answer<()>) {
        let (Op::Write { file, .. } | Op::Truncate { file, .. } | Op::OpenTruncate(file)) = op
        else {
            return (Ok(()), Ok(()));
        };
        let Some((path, id)) = self.pick_file(*file) else { return (Ok(()), Ok(())) };
        let node = self.object(mount, &path, id);
        let got = match op {
            Op::Write { offset, len, kill, .. } => {
                let data = self.pattern(SIZES[*len].max(1));
                self.tree.write(id, &data, SIZES[*offset], *kill);
                let flags = OpenFlags { write: true, ..OpenFlags::default() };
                mount.union.open(node, flags).and_then(|opened| {
                    let offset = SIZES[*offset] as u64;
                    let got = mount.union.write(node, opened.fh, &data, offset, *kill);
                    mount.union.release(node, opened.fh);
                    got.map(|count| assert_eq!(count, data.len()))
                })
            }
            Op::Truncate { len, kill, .. } => {
                self.tree.truncate(id, SIZES[*len], *kill);
                let size = Some(SIZES[*len] as u64);
                let change = AttrChange { size, ..AttrChange::default() };
                mount.union.setattr(node, &change, *kill).map(drop)
            }
            _ => {
                self.tree.truncate(id, 0, true);
                let kill = OpenFlags { kill_priv: true, ..OpenFlags::default() };
                let flags = OpenFlags { write: true, truncate: true, ..kill };
                let opened = mount.union.open(node, flags);
                opened.map(|opened| mount.union.release(node, opened.fh))
            }
        };
        (plain(got), Ok(()))
    }

    fn pattern(&self, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + self.step) as u8 | 1).collect()
    }

    fn attributes(&mut self, mount: &mut Mount, op: &Op) -> (Answer<()>, Answer<()>) {
        let (Op::Chmod(number, _) | Op::Chown(number, ..) | Op::Utimes(number, _)) = op else {
            return (Ok(()), Ok(()));
        };
        let (path, id) = self.pick(*number);
        let node = self.object(mount, &path, id);
        let mut change = AttrChange::default();
        match op {
            // Linux cannot change the mode of a symbolic link.
            Op::Chmod(..) if self.tree.node(id).kind == Kind::Symlink => return (Ok(()), Ok(())),
            Op::Chmod(_, mode) => {
                change.mode = Some(*mode);
                self.tree.node_mut(id).mode = *mode;
            }
            Op::Chown(_, None, None) => return (Ok(()), Ok(())),
            Op::Chown(_, uid, gid) => {
                (change.uid, change.gid) = (*uid, *gid);
                self.tree.chown(id, *uid, *gid);
            }
            Op::Utimes(_, secs) => {
                let time = Time { secs: *secs, nanos: 5 };
                (change.atime, change.mtime) = (Some(SetTime::Now), Some(SetTime::At(time)));
                let now = self.tree.now;
                let node = self.tree.node_mut(id);
                (node.atime, node.mtime) = (now, time);
            }
            _ => {}
        }
        (plain(mount.union.setattr(node, &change, false)), Ok(()))
    }

    fn xattr(&mut self, mount: &mut Mount, op: &Op) -> (Answer<()>, Answer<()>) {
        let (Op::SetXattr(number, key) | Op::RemoveXattr(number, key)) = op else {
            return (Ok(()), Ok(()));
        };
        let (path, id) = self.pick(*number);
        let (node, key) = (self.object(mount, &path, id), KEYS[*key]);
        if matches!(op, Op::SetXattr(..)) {
            let flags = XattrFlags::default();
            let got = mount.union.setxattr(node, key, b"y", flags, false);
            (plain(got), self.tree.set_xattr(id, key, b"y"))
        } else {
            (plain(mount.union.removexattr(node, key)), self.tree.remove_xattr(id, key))
        }
    }

    fn readdir(
        &mut self,
        mount: &mut Mount,
        number: usize,
        plus: bool,
    ) -> (Answer<()>, Answer<()>) {
        let (path, id) = self.pick(number);
        if self.tree.node(id).kind != Kind::Dir {
            return (Ok(()), Ok(()));
        }
        let node = self.object(mount, &path, id);
        let names = mount.list(node, plus, 2).map(|listed| listed.len());
        assert_eq!(names, Ok(self.tree.node(id).children.len() + 2), "entries of {path:?}");
        (Ok(()), Ok(()))
    }

    fn open(&mut self, mount: &mut Mount, number: usize, write: bool) -> (Answer<()>, Answer<()>) {
        let Some((path, id)) = self.pick_file(number) else { return (Ok(()), Ok(())) };
        let node = self.object(mount, &path, id);
        let opened = mount.union.open(node, OpenFlags { write, ..OpenFlags::default() });
        if let Ok(opened) = &opened {
            self.held.push(Held { id, node, opened: *opened, write });
        }
        (plain(opened), Ok(()))
    }

    fn use_open(&mut self, mount: &mut Mount, open: usize, act: usize) -> (Answer<()>, Answer<()>) {
        if self.held.is_empty() {
            return (Ok(()), Ok(()));
        }
        let at = open % self.held.len();
        let Held { id, node, opened, write } = self.held[at];
        match act {
            0 => self.close(mount, at),
            1 if write => {
                let data = self.pattern(30);
                self.tree.write(id, &data, 2, true);
                return (plain(mount.union.write(node, opened.fh, &data, 2, true)), Ok(()));
            }
            _ => {
                let nlink = mount.union.getattr(node).map(|stat| stat.nlink);
                assert_eq!(nlink, Ok(self.tree.node(id).nlink), "link count of an open file");
                let read = mount.read(node).map_err(|error| error.errno());
                let wanted: Result<_, Errno> = Ok(self.tree.node(id).data.clone());
                assert_eq!(read, wanted, "content of an open file");
            }
        }
        (Ok(()), Ok(()))
    }
}

fn plain<T>(result: laminafs::error::Result<T>) -> Answer<()> {
    result.map(drop).map_err(|error| error.errno())
}

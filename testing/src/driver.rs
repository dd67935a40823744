//! A mount without a kernel: it resolves paths, counts lookups and forgets as a kernel would.

use std::collections::{BTreeMap, HashMap};

use crate::memory::MemoryTree;
use laminafs::error::{Errno, Result};
use laminafs::types::{Kind, NodeId, Owner, Time};
use laminafs::union::{
    Config, Detail, DirRef, DirSink, Entry, Lower, Options, Union, Upper, empty_dir,
};

use crate::reference::{Answer, Id, Path, ROOT, Tree};

/// The directories of an upper file system.
pub const UPPER_DIRS: [&[u8]; 3] = [b"upper", b"work", b"index"];

/// Makes the directories of an upper. The work directory and the index are outside of the root of
/// the upper, so that a mount does not show them.
pub fn prepare_upper(tree: &MemoryTree) {
    for name in UPPER_DIRS {
        tree.root().mkdir(name, 0o755, Owner::default()).unwrap();
    }
}

/// Makes a configuration: lowers (topmost first) and the three directories of an upper.
pub fn config(lowers: &[DirRef], upper: Option<[DirRef; 3]>, options: &Options) -> Config {
    let lower = |root: &DirRef| Lower {
        root: root.clone(),
        label: "lower".into(),
        shifted: false,
        was_upper: false,
    };
    let upper = upper.map(|[root, work, index]| {
        let index = options.index.then_some(index);
        Upper { root, work, index, label: "upper".into() }
    });
    let lowers = lowers.iter().map(lower).collect();
    Config { lowers, upper, grafts: Vec::new(), options: options.clone() }
}

/// Builds a union over lowers (topmost first) and the directories of an upper file system.
/// Leftovers of an earlier mount in its work directory are removed, as the service does before a
/// mount.
pub fn mount(lowers: &[DirRef], upper: Option<&DirRef>, options: &Options) -> Result<Union> {
    let upper = upper.map(|root| UPPER_DIRS.map(|name| root.dir(name)));
    if let Some([_, work, _]) = &upper {
        empty_dir(work).unwrap();
    }
    Union::new(config(lowers, upper, options))
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Inode number.
    pub ino: u64,
    /// Kind.
    pub kind: Kind,
}

/// Takes a few entries and then has no room.
struct Batch {
    room: usize,
    next: u64,
    seen: Vec<(Vec<u8>, Listed)>,
    counted: Vec<Entry>,
}

impl DirSink for Batch {
    fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    fn has_room(&self, _name_len: usize) -> bool {
        self.seen.len() < self.room
    }

    fn push(&mut self, name: &[u8], ino: u64, kind: Kind, next: u64, entry: Option<&Entry>) {
        assert!(self.seen.len() < self.room, "an entry was pushed without room");
        assert_ne!(next, 0, "a position behind an entry is never the start");
        self.next = next;
        self.seen.push((name.to_vec(), Listed { ino, kind }));
        if let Some(entry) = entry {
            assert_eq!(entry.stat.ino, ino, "d_ino and st_ino of {name:?}");
            self.counted.push(*entry);
        }
    }
}

/// A union with the lookup counts of a kernel.
pub struct Mount {
    /// The union.
    pub union: Union,
    /// Lookups to be taken back.
    counts: HashMap<NodeId, u64>,
    /// The cache of a kernel: the node of an object of the reference.
    pub nodes: BTreeMap<Id, NodeId>,
}

/// Some entries of a directory, in the order of the listing.
type Piece = Vec<(Vec<u8>, Listed)>;

impl Mount {
    /// Starts with the root alone.
    pub fn new(union: Union) -> Self {
        let nodes = BTreeMap::from([(ROOT, NodeId::ROOT)]);
        Self { union, counts: HashMap::new(), nodes }
    }

    /// Counts an entry that the union returned.
    pub fn enter(&mut self, entry: &Entry) -> NodeId {
        *self.counts.entry(entry.node).or_default() += 1;
        entry.node
    }

    /// LOOKUP, counted; `ENOENT` for an absent name.
    pub fn lookup(&mut self, parent: NodeId, name: &[u8]) -> Answer<Entry> {
        match self.union.lookup(parent, name) {
            Ok(Some(entry)) => {
                self.enter(&entry);
                Ok(entry)
            }
            Ok(None) => Err(Errno::NOENT),
            Err(error) => Err(error.errno()),
        }
    }

    /// Walks a path with a lookup for each component.
    pub fn walk(&mut self, path: &[Vec<u8>]) -> Answer<NodeId> {
        let mut at = NodeId::ROOT;
        for name in path {
            at = self.lookup(at, name)?.node;
        }
        Ok(at)
    }

    /// Returns the node of an object that the reference shows at `path`: from the cache if
    /// `cached`.
    pub fn node(&mut self, path: &Path, id: Id, cached: bool) -> Answer<NodeId> {
        if let Some(node) = self.nodes.get(&id)
            && cached
        {
            return Ok(*node);
        }
        let node = self.walk(path)?;
        self.nodes.insert(id, node);
        Ok(node)
    }

    fn forget(&mut self, node: NodeId) {
        if let Some(count) = self.counts.remove(&node) {
            self.union.forget(node, count);
        }
    }

    /// Forgets every object but the root, the deepest first, as a kernel short of memory does.
    pub fn forget_all(&mut self, tree: &Tree) {
        let live: Vec<Id> = tree.paths().into_iter().map(|(_, id)| id).collect();
        let mut order: Vec<NodeId> = self.counts.keys().copied().collect();
        let by_node: HashMap<NodeId, Id> =
            self.nodes.iter().map(|(id, node)| (*node, *id)).collect();
        order.sort_by_key(|node| {
            let place = by_node.get(node).and_then(|id| live.iter().rposition(|other| other == id));
            std::cmp::Reverse(place.unwrap_or(usize::MAX))
        });
        for node in order {
            self.forget(node);
        }
        self.nodes.retain(|id, _| *id == ROOT);
    }

    /// Drops an object that lost its last name and its last open file.
    pub fn drop_dead(&mut self, id: Id) {
        if let Some(node) = self.nodes.remove(&id) {
            self.forget(node);
        }
    }

    /// Lists a directory in pieces of `room` entries.
    pub fn list(&mut self, dir: NodeId, plus: bool, room: usize) -> Result<Vec<(Vec<u8>, Listed)>> {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let (piece, next) = self.list_piece(dir, from, plus, room)?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend(piece);
            from = next;
        }
    }

    /// Lists one piece and returns it with the position behind it.
    pub fn list_piece(
        &mut self,
        dir: NodeId,
        from: u64,
        plus: bool,
        room: usize,
    ) -> Result<(Piece, u64)> {
        let mut sink = Batch { room, next: from, seen: Vec::new(), counted: Vec::new() };
        let tell = if plus { Detail::Likely } else { Detail::Names };
        self.union.readdir(dir, from, tell, &mut sink)?;
        for entry in &sink.counted {
            self.enter(entry);
        }
        Ok((sink.seen, sink.next))
    }

    /// Returns the whole content of a file.
    pub fn read(&self, node: NodeId) -> Result<Vec<u8>> {
        let size = self.union.getattr(node)?.size as usize;
        self.union.read_with(node, |file| {
            // One byte more than the size, to detect a longer backing file.
            let mut data = vec![0xee; size + 1];
            let got = file.read_at(&mut data, 0)?;
            data.truncate(got);
            Ok(data)
        })
    }

    /// Returns names and values of all extended attributes.
    pub fn xattrs(&self, node: NodeId) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let names = self.union.listxattr(node)?;
        let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names.map(|name| Ok((name.to_vec(), self.union.getxattr(node, name)?))).collect()
    }
}

/// The properties of an object that are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Kind.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Device number.
    pub rdev: u64,
    /// Link count; 1 for a directory.
    pub nlink: u32,
    /// Access and modification.
    pub times: (Time, Time),
    /// Bytes of a file, target of a symbolic link.
    pub data: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Compares a mount with the reference: names, attributes, content, links, inode numbers.
///
/// `inos` holds the inode numbers seen so far; they must not change.
pub fn compare(mount: &mut Mount, tree: &Tree, inos: &mut BTreeMap<Id, u64>, plus: bool) {
    let mut owners: BTreeMap<u64, Id> = BTreeMap::new();
    let mut nodes: BTreeMap<Id, NodeId> = BTreeMap::from([(ROOT, NodeId::ROOT)]);
    for (path, id) in tree.paths() {
        let text = show_path(&path);
        let node = match path.split_last() {
            None => NodeId::ROOT,
            Some((name, parent)) => {
                let parent = nodes[&tree.find(parent).unwrap()];
                let found = mount.lookup(parent, name);
                found.unwrap_or_else(|errno| panic!("lookup of {text}: {errno:?}")).node
            }
        };
        nodes.insert(id, node);
        mount.nodes.insert(id, node);
        let stat = mount.union.getattr(node).unwrap();
        let known = *inos.entry(id).or_insert(stat.ino);
        assert_eq!(stat.ino, known, "the inode number of {text} changed");
        let owner = *owners.entry(stat.ino).or_insert(id);
        assert_eq!(owner, id, "{text} shares its inode number {} with another object", stat.ino);
        assert_eq!(shown(mount, node, &text), expected(tree, id), "attributes of {text}");
        if stat.kind() == Kind::Dir {
            compare_listing(mount, tree, (node, id), inos, (plus, &text));
        }
    }
}

fn compare_listing(
    mount: &mut Mount,
    tree: &Tree,
    (node, id): (NodeId, Id),
    inos: &BTreeMap<Id, u64>,
    (plus, text): (bool, &str),
) {
    let listed = mount.list(node, plus, 3).unwrap();
    let mut names: Vec<&[u8]> = listed.iter().map(|(name, _)| &name[..]).collect();
    names.sort_unstable();
    let mut wanted: Vec<&[u8]> = tree.node(id).children.keys().map(|name| &name[..]).collect();
    wanted.extend([&b"."[..], b".."]);
    wanted.sort_unstable();
    assert_eq!(show(&names), show(&wanted), "listing of {text}");
    for (name, listed) in listed {
        let Some(child) = tree.node(id).children.get(&name) else { continue };
        assert_eq!(listed.kind, tree.node(*child).kind, "d_type of {}", show(&[&name]));
        if let Some(ino) = inos.get(child) {
            assert_eq!(listed.ino, *ino, "d_ino of {}", show(&[&name]));
        }
    }
}

/// Returns the properties of a node that the mount shows.
pub fn shown(mount: &Mount, node: NodeId, text: &str) -> Shown {
    let stat = mount.union.getattr(node).unwrap();
    let data = match stat.kind() {
        Kind::File => mount.read(node).unwrap_or_else(|error| panic!("read of {text}: {error}")),
        Kind::Symlink => mount.union.readlink(node).unwrap(),
        _ => Vec::new(),
    };
    if matches!(stat.kind(), Kind::File | Kind::Symlink) {
        assert_eq!(stat.size, data.len() as u64, "size of {text}");
    }
    Shown {
        kind: stat.kind(),
        mode: stat.mode & 0o7777,
        owner: (stat.uid, stat.gid),
        rdev: stat.rdev,
        nlink: if stat.kind() == Kind::Dir { 1 } else { stat.nlink },
        times: (stat.atime, stat.mtime),
        data,
        xattrs: mount.xattrs(node).unwrap_or_else(|error| panic!("xattrs of {text}: {error}")),
    }
}

fn expected(tree: &Tree, id: Id) -> Shown {
    let node = tree.node(id);
    Shown {
        kind: node.kind,
        // Linux gives symbolic links all permissions, and no way to change them.
        mode: node.mode,
        owner: (node.uid, node.gid),
        rdev: node.rdev,
        nlink: if node.kind == Kind::Dir { 1 } else { node.nlink },
        times: (node.atime, node.mtime),
        data: node.data.clone(),
        xattrs: node.xattrs.clone(),
    }
}

/// Returns the path as text.
pub fn show_path(path: &[Vec<u8>]) -> String {
    let names: Vec<&[u8]> = path.iter().map(|name| &name[..]).collect();
    format!("/{}", show(&names).replace(' ', "/"))
}

fn show(names: &[&[u8]]) -> String {
    let texts: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
    texts.join(" ")
}

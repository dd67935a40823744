//! Layers flattened into a plain tree by the rules of overlayfs, independent of the union.

use std::collections::{BTreeMap, BTreeSet};

use laminafs::types::{Access, Kind, RawEntry, Stat};
use laminafs::union::DirRef;

use laminafs_testing::reference::{Id, Node, ROOT, Tree};

/// The marks that make a directory opaque.
pub const OPAQUE_KEYS: [&[u8]; 3] =
    [b"trusted.overlay.opaque", b"user.overlay.opaque", b"user.fuseoverlayfs.opaque"];
/// The marks that make an empty file a whiteout.
pub const WHITEOUT_KEYS: [&[u8]; 2] = [b"trusted.overlay.whiteout", b"user.overlay.whiteout"];
const AUFS_PREFIX: &[u8] = b".wh.";
const AUFS_OPAQUE: &[u8] = b".wh..wh..opq";

/// Flattens layers, topmost first.
pub fn flatten(layers: &[DirRef]) -> Tree {
    let parts = visible_parts(layers.to_vec());
    let stat = parts[0].stat(None).unwrap();
    let mut flat = Flat { tree: Tree::new(node(&stat)), links: BTreeMap::new() };
    flat.tree.node_mut(ROOT).xattrs = xattrs(&parts[0], None);
    flat.fill(ROOT, &parts);
    flat.tree
}

struct Flat {
    tree: Tree,
    /// Hard links within one file system: device and inode number.
    links: BTreeMap<(u64, u64), Id>,
}

/// The directories that are visible: up to the first opaque one.
fn visible_parts(mut parts: Vec<DirRef>) -> Vec<DirRef> {
    let last = parts.iter().position(is_opaque).unwrap_or(parts.len() - 1);
    parts.truncate(last + 1);
    parts
}

fn is_opaque(dir: &DirRef) -> bool {
    dir.stat(Some(AUFS_OPAQUE)).is_ok()
        || OPAQUE_KEYS.iter().any(|key| dir.xattr(None, key).unwrap().as_deref() == Some(b"y"))
}

fn is_whiteout(dir: &DirRef, name: &[u8], stat: &Stat) -> bool {
    let marked = || WHITEOUT_KEYS.iter().any(|key| dir.xattr(Some(name), key).unwrap().is_some());
    stat.is_whiteout_device() || (stat.kind() == Kind::File && stat.size == 0 && marked())
}

fn names(dir: &DirRef) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let collect = &mut |entry: RawEntry<'_>| {
        found.push(entry.name.to_vec());
        true
    };
    dir.list(0, collect).unwrap();
    found
}

fn node(stat: &Stat) -> Node {
    let mut node = Node::new(stat.kind(), stat.mode & 0o7777, (stat.uid, stat.gid), stat.mtime);
    (node.rdev, node.nlink, node.atime) = (stat.rdev, stat.nlink, stat.atime);
    node
}

fn xattrs(dir: &DirRef, name: Option<&[u8]>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let hidden = |key: &[u8]| {
        let marks: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs."];
        marks.iter().any(|mark| key.starts_with(mark))
    };
    let names = dir.xattr_names(name).unwrap().into_iter().filter(|key| !hidden(key));
    names.map(|key| (key.clone(), dir.xattr(name, &key).unwrap().unwrap())).collect()
}

fn read(dir: &DirRef, name: &[u8]) -> Vec<u8> {
    let file = dir.open(name, Access::Read).unwrap();
    let mut data = vec![0; file.stat().unwrap().size as usize];
    assert_eq!(file.read_at(&mut data, 0).unwrap(), data.len());
    data
}

impl Flat {
    /// Adds the entries of the parts of a directory, topmost first.
    fn fill(&mut self, into: Id, parts: &[DirRef]) {
        let mut decided: BTreeSet<Vec<u8>> = BTreeSet::new();
        for (depth, part) in parts.iter().enumerate() {
            let mut hidden = Vec::new();
            for name in names(part) {
                if let Some(plain) = name.strip_prefix(AUFS_PREFIX) {
                    hidden.push(plain.to_vec());
                } else if decided.insert(name.clone()) {
                    self.add(into, &name, part, &parts[depth + 1..]);
                }
            }
            decided.extend(hidden);
        }
    }

    fn add(&mut self, into: Id, name: &[u8], part: &DirRef, below: &[DirRef]) {
        let stat = part.stat(Some(name)).unwrap();
        if is_whiteout(part, name, &stat) {
            return;
        }
        let key = (stat.dev, stat.ino);
        let id = match self.links.get(&key) {
            Some(id) => *id,
            None => {
                let mut node = node(&stat);
                node.xattrs = xattrs(part, Some(name));
                match node.kind {
                    Kind::File => node.data = read(part, name),
                    Kind::Symlink => node.data = part.readlink(name).unwrap(),
                    _ => {}
                }
                self.tree.add(node)
            }
        };
        self.tree.node_mut(into).children.insert(name.to_vec(), id);
        if stat.kind() == Kind::Dir {
            let parts = merged_parts(name, part, below);
            self.fill(id, &parts);
        } else {
            self.links.insert(key, id);
        }
    }
}

/// The parts of a directory that is in `top`: downwards to the first that hides the rest.
fn merged_parts(name: &[u8], top: &DirRef, below: &[DirRef]) -> Vec<DirRef> {
    let aufs = [AUFS_PREFIX, name].concat();
    let mut parts = vec![top.dir(name)];
    let mut above = top;
    for layer in below {
        if above.stat(Some(&aufs)).is_ok() {
            break;
        }
        above = layer;
        match layer.stat(Some(name)) {
            Ok(stat) if stat.kind() == Kind::Dir => parts.push(layer.dir(name)),
            Ok(_) => break,
            Err(_) => {}
        }
    }
    visible_parts(parts)
}

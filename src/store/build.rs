//! A layer that is being built: names and attributes stay in memory, data goes to the blob at once.
//!
//! - `place`: resolves paths, through the symbolic links of the layer itself;
//! - `prune`: removes directories that only whiteouts implied.

mod place;
mod prune;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use zerocopy::FromZeros;

use super::blob::{BlobWriter, Data};
use super::budget::{self, Budget};
use super::error::StoreError;
use super::sink::{Body, Meta, Sink};
use crate::error::Error;
use crate::format::layout::{
    COMPATIBLE_IMPLIED, DT_WHITEOUT, Dirent, Extent, FLAG_IMPLIED, FLAG_INLINE, FLAG_OPAQUE,
    FRAME_LEN, Inode, NO_DIGEST, WHITEOUT,
};
use crate::format::tables::Tables;
use crate::types::{Kind, Name, Time};

/// The maximum number of objects of a layer: 16 million.
const OBJECTS_MAX: usize = 1 << 24;

type NodeId = usize;

/// The object behind a name.
enum Slot {
    Node(NodeId),
    Whiteout,
    /// A hard link to the object that is at this path at the end of the stream.
    Link(Vec<Name>),
}

enum Content {
    Dir(Directory),
    File { size: u64, data: usize },
    Symlink(Vec<u8>),
    Special { kind: Kind, major: u32, minor: u32 },
}

#[derive(Default)]
struct Directory {
    entries: BTreeMap<Name, Slot>,
    opaque: bool,
    /// The stream gave the attributes; otherwise the content of the directory implied it.
    stated: bool,
    /// The layer also has a whiteout of this name.
    hidden: bool,
}

struct Node {
    meta: Meta,
    content: Content,
}

/// A node in its position among the inodes.
struct Numbered {
    node: NodeId,
    parent: u32,
    links: u32,
}

/// Builds one layer in a directory of its own.
pub struct LayerBuilder {
    dir: PathBuf,
    nodes: Vec<Node>,
    tables: Tables,
    blob: BlobWriter,
    budget: Budget,
}

/// The builder of a published layer. It still has the places of all contents that were written,
/// including those of files that later entries replaced.
pub struct Written(pub(super) LayerBuilder);

impl Written {
    /// The extents in the blob of the content with this digest.
    pub(super) fn extents(&self, digest: &[u8; 32]) -> Option<&[Extent]> {
        self.0.blob.extents(digest)
    }
}

fn new_dir() -> Node {
    let meta = Meta { mode: 0o755, mtime: Time::default(), ..Meta::default() };
    Node { meta, content: Content::Dir(Directory::default()) }
}

fn shown(path: &[Name]) -> String {
    let parts: Vec<_> = path.iter().map(|name| String::from_utf8_lossy(name)).collect();
    parts.join("/")
}

fn refuse(path: &[Name], what: &str) -> StoreError {
    StoreError::Entry { name: shown(path), what: what.to_owned() }
}

impl LayerBuilder {
    pub(super) fn new(dir: PathBuf) -> Result<Self, StoreError> {
        let blob = BlobWriter::new(dir.join(super::files::DATA))?;
        let (nodes, tables, budget) = (vec![new_dir()], Tables::default(), Budget::of_host());
        Ok(Self { dir, nodes, tables, blob, budget })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    #[cfg(test)]
    pub(super) fn limit(&mut self, bytes: u64) {
        self.budget = Budget::new(bytes);
    }

    fn directory(&mut self, node: NodeId) -> Option<&mut Directory> {
        match &mut self.nodes.get_mut(node)?.content {
            Content::Dir(directory) => Some(directory),
            _ => None,
        }
    }

    fn entries(&mut self, dir: NodeId) -> Option<&mut BTreeMap<Name, Slot>> {
        self.directory(dir).map(|directory| &mut directory.entries)
    }

    fn add(&mut self, node: Node) -> Result<NodeId, StoreError> {
        if self.nodes.len() >= OBJECTS_MAX {
            return Err(StoreError::TooLarge { what: "more than 16,777,216 objects".to_owned() });
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn enter(&mut self, dir: NodeId, name: &Name, slot: Slot) {
        if let Some(entries) = self.entries(dir) {
            entries.insert(name.clone(), slot);
        }
    }

    // A directory that replaces a whiteout hides what the whiteout hid.
    fn make_dir(&mut self, dir: NodeId, name: &Name, opaque: bool) -> Result<NodeId, StoreError> {
        self.budget.take(budget::OBJECT + budget::text(name.len()))?;
        let node = self.add(new_dir())?;
        self.enter(dir, name, Slot::Node(node));
        if opaque {
            self.hide(node);
        }
        Ok(node)
    }

    /// Records that a whiteout has the name of this directory.
    fn hide(&mut self, node: NodeId) {
        if let Some(directory) = self.directory(node) {
            directory.opaque = true;
            directory.hidden = true;
        }
    }

    fn put_dir(&mut self, path: &[Name], meta: Meta) -> Result<(), StoreError> {
        let node = match path {
            [] => 0,
            _ => {
                let (dir, name) = self.parent(path)?;
                let known = self.entries(dir).and_then(|entries| match entries.get(name) {
                    Some(Slot::Node(node)) => Some((Some(*node), false)),
                    Some(Slot::Whiteout) => Some((None, true)),
                    _ => None,
                });
                let (node, opaque) = known.unwrap_or_default();
                match node.filter(|node| self.entries(*node).is_some()) {
                    Some(node) => node,
                    None => self.make_dir(dir, name, opaque)?,
                }
            }
        };
        self.take_attributes(&meta)?;
        if let Some(directory) = self.directory(node) {
            directory.stated = true;
        }
        if let Some(node) = self.nodes.get_mut(node) {
            node.meta = meta;
        }
        Ok(())
    }

    fn take_attributes(&mut self, meta: &Meta) -> Result<(), StoreError> {
        if meta.xattrs.is_empty() {
            return Ok(());
        }
        let pairs = meta.xattrs.iter();
        let bytes = pairs.map(|(name, value)| budget::text(name.len()) + budget::text(value.len()));
        self.budget.take(budget::SET + bytes.sum::<u64>())
    }

    /// Charges an object that is not a directory to the budget.
    fn take_object(&mut self, name: &Name, node: &Node) -> Result<(), StoreError> {
        let content = match &node.content {
            Content::Symlink(target) => budget::text(target.len()),
            Content::File { size, data } => match self.blob.data(*data) {
                Some(Data::Inline(bytes)) => budget::text(bytes.len()),
                Some(Data::Extents { extents, .. }) => {
                    let frames = size.div_ceil(FRAME_LEN as u64) * budget::FRAME;
                    budget::CONTENT + extents.len() as u64 * budget::EXTENT + frames
                }
                None => 0,
            },
            _ => 0,
        };
        self.budget.take(budget::OBJECT + budget::text(name.len()) + content)?;
        self.take_attributes(&node.meta)
    }

    // Resolves hard links to later entries or to other links, now that all entries are there.
    fn resolve_links(&mut self) -> Result<(), StoreError> {
        let mut open: Vec<(NodeId, Name, Vec<Name>)> = Vec::new();
        for (dir, node) in self.nodes.iter().enumerate() {
            let Content::Dir(directory) = &node.content else { continue };
            for (name, slot) in &directory.entries {
                if let Slot::Link(to) = slot {
                    open.push((dir, name.clone(), to.clone()));
                }
            }
        }
        while !open.is_empty() {
            let before = open.len();
            let mut left = Vec::new();
            for (dir, name, to) in open {
                match self.find(&to) {
                    Some(node) if self.entries(node).is_none() => {
                        self.enter(dir, &name, Slot::Node(node));
                    }
                    Some(_) => return Err(refuse(&to, "a hard link to a directory")),
                    None => left.push((dir, name, to)),
                }
            }
            if left.len() == before {
                let (_, _, to) = left.into_iter().next().unwrap_or_default();
                return Err(refuse(&to, "a hard link leads to it, and it is not in the archive"));
            }
            open = left;
        }
        Ok(())
    }

    /// Ends the blob and returns the index.
    pub(super) fn finish(&mut self) -> Result<Vec<u8>, StoreError> {
        self.resolve_links()?;
        self.prune();
        self.blob.finish(&mut self.tables)?;
        let mut numbers: Vec<Option<u32>> = vec![None; self.nodes.len()];
        let mut order = vec![Numbered { node: 0, parent: 0, links: 2 }];
        if let Some(first) = numbers.first_mut() {
            *first = Some(0);
        }
        // Breadth first: a directory gets its number before everything that is in it.
        let mut dirs = VecDeque::from([(0, 0_u32)]);
        while let Some((dir, number)) = dirs.pop_front() {
            let Some(Node { content: Content::Dir(directory), .. }) = self.nodes.get(dir) else {
                continue;
            };
            for slot in directory.entries.values() {
                let Slot::Node(node) = *slot else { continue };
                let Some(place) = numbers.get_mut(node) else { continue };
                if let Some(known) = *place {
                    count_link(&mut order, known);
                    continue;
                }
                let new = order.len() as u32;
                *place = Some(new);
                if self.nodes.get(node).is_some_and(|node| node.kind() == Kind::Dir) {
                    order.push(Numbered { node, parent: number, links: 2 });
                    dirs.push_back((node, new));
                    count_link(&mut order, number);
                } else {
                    order.push(Numbered { node, parent: 0, links: 1 });
                }
            }
        }
        for Numbered { node, parent, links } in order {
            let inode = self.inode(node, &numbers)?;
            self.tables.inodes.push(Inode { nlink: links.into(), parent: parent.into(), ..inode });
        }
        Ok(self.tables.encode())
    }

    fn inode(&mut self, node: NodeId, numbers: &[Option<u32>]) -> Result<Inode, StoreError> {
        let big =
            |error: Error| StoreError::TooLarge { what: format!("a layer too large: {error}") };
        let Some(found) = self.nodes.get(node) else {
            return Err(StoreError::Contradiction { what: "an object was lost".to_owned() });
        };
        let (mut flags, mut digest) = (0, NO_DIGEST);
        let tables = &mut self.tables;
        let (kind, size, a, b) = match &found.content {
            Content::Dir(Directory { entries, opaque, stated, hidden }) => {
                flags = if *opaque { FLAG_OPAQUE } else { 0 };
                // A directory that was removed and made again takes no attributes from the one
                // below.
                if !stated && !hidden {
                    flags |= FLAG_IMPLIED;
                    // Readers of version 1.0 expect the flag on the root only.
                    tables.compatible |= if node == 0 { 0 } else { COMPATIBLE_IMPLIED };
                }
                let first = tables.dirents.len();
                for (name, slot) in entries {
                    let (ino, kind) = match slot {
                        Slot::Node(node) => {
                            let number = numbers.get(*node).copied().flatten().unwrap_or(WHITEOUT);
                            (number, self.nodes.get(*node).map_or(0, |node| node.kind() as u8))
                        }
                        _ => (WHITEOUT, DT_WHITEOUT),
                    };
                    let offset = tables.string(name).map_err(big)?;
                    tables.dirents.push(dirent(offset, name, ino, kind));
                }
                (Kind::Dir, 0, first as u32, entries.len() as u32)
            }
            Content::File { size, data } => match self.blob.data(*data) {
                Some(Data::Inline(bytes)) => {
                    flags = FLAG_INLINE;
                    let offset = tables.string(bytes).map_err(big)?;
                    (Kind::File, *size, offset, bytes.len() as u32)
                }
                Some(Data::Extents { extents, digest: number }) => {
                    digest = *number;
                    let first = tables.extents.len();
                    tables.extents.extend_from_slice(extents);
                    (Kind::File, *size, first as u32, extents.len() as u32)
                }
                None => (Kind::File, 0, 0, 0),
            },
            Content::Symlink(target) => {
                let offset = tables.string(target).map_err(big)?;
                (Kind::Symlink, target.len() as u64, offset, target.len() as u32)
            }
            Content::Special { kind, major, minor } => (*kind, 0, *major, *minor),
        };
        let xattrs = tables.xattrs(found.meta.xattrs.iter()).map_err(big)?;
        Ok(Inode {
            size: size.into(),
            flags: flags.into(),
            a: a.into(),
            b: b.into(),
            xattrs: xattrs.into(),
            digest: digest.into(),
            ..attributes(kind, &found.meta)
        })
    }
}

fn count_link(order: &mut [Numbered], number: u32) {
    if let Some(found) = order.get_mut(number as usize) {
        found.links += 1;
    }
}

fn dirent(offset: u32, name: &[u8], ino: u32, kind: u8) -> Dirent {
    let name_len = (name.len() as u16).into();
    Dirent { name: offset.into(), ino: ino.into(), name_len, kind, reserved: 0 }
}

fn attributes(kind: Kind, meta: &Meta) -> Inode {
    Inode {
        mode: (kind.mode_bits() | meta.mode & crate::types::MODE_MASK).into(),
        uid: meta.uid.into(),
        gid: meta.gid.into(),
        mtime: meta.mtime.secs.into(),
        mtime_nanos: meta.mtime.nanos.into(),
        ..Inode::new_zeroed()
    }
}

impl Node {
    const fn kind(&self) -> Kind {
        match self.content {
            Content::Dir(_) => Kind::Dir,
            Content::File { .. } => Kind::File,
            Content::Symlink(_) => Kind::Symlink,
            Content::Special { kind, .. } => kind,
        }
    }
}

impl Sink for LayerBuilder {
    fn put(&mut self, path: &[Name], meta: Meta, body: Body<'_>) -> Result<(), StoreError> {
        let special = |kind, major, minor| Content::Special { kind, major, minor };
        let content = match body {
            Body::Dir => return self.put_dir(path, meta),
            Body::Char { major: 0, minor: 0 } => return self.whiteout(path),
            Body::File { size, data } => {
                let number = self.blob.write(&mut self.tables, size, data)?;
                Content::File { size, data: number }
            }
            Body::Symlink { target } if target.is_empty() || target.len() > 4095 => {
                return Err(refuse(path, "a link target of no byte or more than 4095"));
            }
            Body::Symlink { target } => Content::Symlink(target),
            Body::Char { major, minor } => special(Kind::Char, major, minor),
            Body::Block { major, minor } => special(Kind::Block, major, minor),
            Body::Fifo => special(Kind::Fifo, 0, 0),
            Body::Socket => special(Kind::Socket, 0, 0),
        };
        let (dir, name) = self.parent(path)?;
        let node = Node { meta, content };
        self.take_object(name, &node)?;
        let node = self.add(node)?;
        self.enter(dir, name, Slot::Node(node));
        Ok(())
    }

    fn link(&mut self, path: &[Name], to: &[Name]) -> Result<(), StoreError> {
        let (dir, name) = self.parent(path)?;
        let slot = match self.find(to) {
            Some(node) if self.entries(node).is_some() => {
                return Err(refuse(path, "a hard link to a directory"));
            }
            Some(node) => Slot::Node(node),
            None if path == to => return Err(refuse(path, "a hard link to itself")),
            None => {
                let bytes = to.iter().map(|name| budget::COMPONENT + name.len() as u64);
                self.budget.take(2 * bytes.sum::<u64>())?;
                Slot::Link(to.to_vec())
            }
        };
        self.budget.take(budget::text(name.len()))?;
        self.enter(dir, name, slot);
        Ok(())
    }

    fn whiteout(&mut self, path: &[Name]) -> Result<(), StoreError> {
        let (dir, name) = self.parent(path)?;
        let known = self.entries(dir).and_then(|entries| match entries.get(name) {
            Some(Slot::Node(node)) => Some(Some(*node)),
            Some(Slot::Link(_)) => Some(None),
            _ => None,
        });
        match known {
            // A file of this layer hides the layers below by itself; a directory must be marked.
            Some(Some(node)) => self.hide(node),
            Some(None) => {}
            None => {
                self.budget.take(budget::text(name.len()))?;
                self.enter(dir, name, Slot::Whiteout);
            }
        }
        Ok(())
    }

    fn opaque(&mut self, path: &[Name]) -> Result<(), StoreError> {
        let dir = self.walk(path)?;
        if let Some(directory) = self.directory(dir) {
            directory.opaque = true;
        }
        Ok(())
    }
}

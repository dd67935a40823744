//! The inode table: what the kernel knows of, from the lookup that told it to the last forget.
//!
//! A slot is 88 bytes and holds a name inline, so that a million inodes stay below 150 bytes
//! each with their entry in the key map. A node is found by its number, or by its key: the layer
//! and the inode that back it. Slots hold their parent, so that a place can always be resolved.
//!
//! Invariants: a node number is never given twice; one key leads to at most one node; a slot lives
//! while the kernel counts lookups on it or another slot names it as parent. Locks are held for
//! memory operations only, never across I/O, and never two at once.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::types::{Kind, Name, NodeId};
use crate::union::body::Body;

const SHARDS: usize = 16;
const SHARD_BITS: u32 = 4;
/// Slots of a chunk: 88 bytes each, so that a chunk is mapped and returned to the system whole.
const CHUNK: usize = 2048;
/// Forgotten nodes that keep their number for a while, so that file handles made of it stay valid.
const RETAINED: usize = 4096;

/// Stands in a key for a file system where the key is of a name.
const SPLIT: u16 = u16::MAX;

/// Identifies the backing object of a node: layer, file system and inode number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Inode number in the backing file system.
    pub ino: u64,
    /// Layer in the high half, file system in the low half.
    pub place: u32,
}

impl Key {
    /// The key of inode `ino` of file system `fs` as seen in `layer`.
    #[must_use]
    pub const fn new(layer: u16, fs: u16, ino: u64) -> Self {
        Self { ino, place: ((layer as u32) << 16) | fs as u32 }
    }

    /// The layer.
    #[must_use]
    pub const fn layer(self) -> u16 {
        (self.place >> 16) as u16
    }

    /// The file system.
    #[must_use]
    pub const fn fs(self) -> u16 {
        self.place as u16
    }

    /// The key of one name of an object in `layer` whose names are objects of their own.
    #[must_use]
    pub const fn split(layer: u16, name: u64) -> Self {
        Self::new(layer, SPLIT, name)
    }

    /// Whether this is the key of a name, not of an object.
    #[must_use]
    pub const fn is_split(self) -> bool {
        self.fs() == SPLIT
    }

    fn shard(self) -> usize {
        let mixed = (self.ino ^ u64::from(self.place)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 60) as usize & (SHARDS - 1)
    }
}

/// What the kernel's page cache may hold of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Nothing yet.
    None,
    /// What is there is right.
    Valid,
    /// What is there may be older than the file.
    Stale,
}

/// What the table knows of a node, copied out under the lock.
#[derive(Clone)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Number of the directory that it was found in; its own for the root.
    pub parent: NodeId,
    /// Its name there.
    pub name: Name,
    /// The backing object.
    pub key: Key,
    /// Inode number shown.
    pub ino: u64,
    /// Kind.
    pub kind: Kind,
    /// What the kernel may hold of its data.
    pub pages: Pages,
    /// A lower file that is too small to be served by the kernel itself.
    pub small: bool,
    /// Count of its moves to another name or backing object, modulo 65,536.
    pub moves: u16,
    /// State beyond the slot: always there for directories.
    pub body: Option<Arc<Body>>,
}

struct Slot {
    generation: u32,
    children: u32,
    lookups: u64,
    parent: NodeId,
    name: Name,
    key: Key,
    ino: u64,
    kind: Kind,
    keyed: bool,
    retained: bool,
    pages: Pages,
    small: bool,
    moves: u16,
    body: Option<Arc<Body>>,
}

enum Released {
    Kept,
    Retained,
    Gone(Box<Slot>),
}

#[derive(Default)]
struct Chunk {
    slots: Vec<Option<Slot>>,
    used: usize,
}

#[derive(Default)]
struct Shard {
    chunks: Vec<Chunk>,
    free: Vec<u32>,
    keys: HashMap<Key, NodeId>,
}

/// The inode table of a mount.
pub struct Table {
    shards: [Mutex<Shard>; SHARDS],
    retained: Mutex<VecDeque<NodeId>>,
    generation: AtomicU64,
    count: AtomicU64,
}

/// What a lookup found, to be entered in the table.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Directory that it was found in.
    pub parent: NodeId,
    /// Name there.
    pub name: Name,
    /// Backing object.
    pub key: Key,
    /// Inode number shown.
    pub ino: u64,
    /// Kind.
    pub kind: Kind,
    /// A lower file that is too small to be served by the kernel itself.
    pub small: bool,
}

// A node number: generation in the high 32 bits, index of the slot in its shard above the shard.
// The root is generation 0, index 0, shard 1: number 1.
const fn split(id: NodeId) -> (u32, usize, usize) {
    let low = id.0 as u32;
    ((id.0 >> 32) as u32, (low >> SHARD_BITS) as usize, low as usize & (SHARDS - 1))
}

const fn join(generation: u32, index: usize, shard: usize) -> NodeId {
    NodeId(((generation as u64) << 32) | ((index << SHARD_BITS) | shard) as u64)
}

impl Shard {
    fn slot(&mut self, id: NodeId) -> Option<&mut Slot> {
        let (generation, index, _) = split(id);
        let slot = self.chunks.get_mut(index / CHUNK)?.slots.get_mut(index % CHUNK)?.as_mut()?;
        (slot.generation == generation).then_some(slot)
    }

    fn insert(&mut self, shard: usize, slot: Slot) -> NodeId {
        let index = self.free.pop().map_or_else(|| self.grow(), |index| index as usize);
        let id = join(slot.generation, index, shard);
        if let Some(chunk) = self.chunks.get_mut(index / CHUNK) {
            // Room for all of them is memory that nobody touched so far.
            chunk.slots.reserve_exact(CHUNK - chunk.slots.len());
            if chunk.slots.len() <= index % CHUNK {
                chunk.slots.resize_with(index % CHUNK + 1, || None);
            }
            if let Some(place) = chunk.slots.get_mut(index % CHUNK) {
                *place = Some(slot);
                chunk.used += 1;
            }
        }
        id
    }

    fn grow(&mut self) -> usize {
        let empty = self.chunks.iter().position(|chunk| chunk.slots.is_empty());
        let chunk = empty.unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.chunks.len() - 1
        });
        let first = chunk * CHUNK;
        self.free.extend((first + 1..first + CHUNK).rev().map(|index| index as u32));
        first
    }

    fn remove(&mut self, id: NodeId) -> Option<Slot> {
        let (_, index, _) = split(id);
        self.slot(id)?;
        let chunk = self.chunks.get_mut(index / CHUNK)?;
        let slot = chunk.slots.get_mut(index % CHUNK)?.take();
        chunk.used -= 1;
        if chunk.used == 0 {
            chunk.slots = Vec::new();
            let range = (index / CHUNK * CHUNK) as u32..((index / CHUNK + 1) * CHUNK) as u32;
            self.free.retain(|free| !range.contains(free));
            self.free.shrink_to(self.chunks.len() * 64);
        } else {
            self.free.push(index as u32);
        }
        slot
    }
}

impl Slot {
    fn node(&self, id: NodeId) -> Node {
        Node {
            id,
            parent: self.parent,
            name: self.name.clone(),
            key: self.key,
            ino: self.ino,
            kind: self.kind,
            pages: self.pages,
            small: self.small,
            moves: self.moves,
            body: self.body.clone(),
        }
    }
}

impl Table {
    /// A table with the root in it.
    #[must_use]
    pub fn new(key: Key, ino: u64, body: Arc<Body>) -> Self {
        let table = Self {
            shards: std::array::from_fn(|_| Mutex::new(Shard::default())),
            retained: Mutex::new(VecDeque::new()),
            generation: AtomicU64::new(1),
            count: AtomicU64::new(1),
        };
        let root = Slot {
            generation: 0,
            children: 1,
            lookups: 1,
            parent: NodeId::ROOT,
            name: Name::new(),
            key,
            ino,
            kind: Kind::Dir,
            keyed: true,
            retained: false,
            pages: Pages::None,
            small: false,
            moves: 0,
            body: Some(body),
        };
        table.lock(1).insert(1, root);
        table.lock(key.shard()).keys.insert(key, NodeId::ROOT);
        table
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // The index is masked to the number of shards.
        #[allow(clippy::indexing_slicing)]
        self.shards[shard & (SHARDS - 1)].lock()
    }

    /// Count of nodes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Always false: there is a root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A node by its number.
    #[must_use]
    pub fn find(&self, id: NodeId) -> Option<Node> {
        self.lock(split(id).2).slot(id).map(|slot| slot.node(id))
    }

    /// Whether nothing is going on with a node that had no body, and nothing was since it was read.
    #[must_use]
    pub fn is_at_rest(&self, node: &Node) -> bool {
        let mut shard = self.lock(split(node.id).2);
        shard.slot(node.id).is_some_and(|slot| slot.body.is_none() && slot.moves == node.moves)
    }

    /// The number of the node with this key.
    #[must_use]
    pub fn find_key(&self, key: Key) -> Option<NodeId> {
        self.lock(key.shard()).keys.get(&key).copied()
    }

    /// Enters an object, or finds it by its key, and counts a lookup on it. The body is made only
    /// for a new slot. Returns the node and whether it is new.
    pub fn enter(&self, new: &NewNode, body: impl Fn() -> Option<Arc<Body>>) -> (Node, bool) {
        loop {
            let Some(id) = self.find_key(new.key) else {
                if let Some(node) = self.insert(new, body()) {
                    return (node, true);
                }
                continue;
            };
            if let Some(slot) = self.lock(split(id).2).slot(id) {
                slot.lookups += 1;
                return (slot.node(id), false);
            }
            // The slot was given up after the key was read; a slot never returns under its number.
            self.remove_key(new.key, id);
        }
    }

    /// Enters an object of one name that needs no body, or finds it there, and counts a lookup.
    /// Returns its number and the inode number shown; `None`, and counts nothing, where it is
    /// known by another name or has a body.
    pub fn tell(&self, new: NewNode) -> Option<(NodeId, u64)> {
        let known = self.lock(new.key.shard()).keys.get(&new.key).copied();
        let Some(id) = known else {
            return self.insert(&new, None).map(|node| (node.id, node.ino));
        };
        let mut shard = self.lock(split(id).2);
        let slot = shard.slot(id)?;
        if slot.parent != new.parent || slot.name != new.name || slot.body.is_some() {
            return None;
        }
        slot.lookups += 1;
        Some((id, slot.ino))
    }

    /// Counts one more lookup on a known node.
    pub fn again(&self, id: NodeId) -> Option<Node> {
        let mut shard = self.lock(split(id).2);
        let slot = shard.slot(id)?;
        slot.lookups += 1;
        Some(slot.node(id))
    }

    fn insert(&self, new: &NewNode, body: Option<Arc<Body>>) -> Option<Node> {
        self.hold(new.parent);
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) as u32 & 0x7fff_ffff;
        let shard_index = new.key.shard();
        let mut shard = self.lock(shard_index);
        if shard.keys.contains_key(&new.key) {
            drop(shard);
            drop(self.unhold(new.parent));
            return None;
        }
        let slot = Slot {
            generation: generation.max(1),
            children: 0,
            lookups: 1,
            parent: new.parent,
            name: new.name.clone(),
            key: new.key,
            ino: new.ino,
            kind: new.kind,
            keyed: true,
            retained: false,
            pages: Pages::None,
            small: new.small,
            moves: 0,
            body,
        };
        let mut node = slot.node(NodeId::ROOT);
        let id = shard.insert(shard_index, slot);
        node.id = id;
        shard.keys.insert(new.key, id);
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(node)
    }

    /// Counts one more holder of a slot that is not the kernel.
    pub fn hold(&self, id: NodeId) {
        if let Some(slot) = self.lock(split(id).2).slot(id) {
            slot.children += 1;
        }
    }

    /// Takes back what [`Table::hold`] counted.
    pub fn unhold(&self, id: NodeId) -> Vec<Arc<Body>> {
        self.release(id, 0, 1)
    }

    /// Takes back lookups. Returns the bodies of the nodes that are gone with it.
    pub fn forget(&self, id: NodeId, count: u64) -> Vec<Arc<Body>> {
        self.release(id, count, 0)
    }

    fn release(&self, id: NodeId, lookups: u64, children: u32) -> Vec<Arc<Body>> {
        let mut gone = Vec::new();
        let mut steps = vec![(id, lookups, children)];
        while let Some((id, lookups, children)) = steps.pop() {
            match self.release_one(id, lookups, children) {
                Released::Kept => {}
                Released::Retained => steps.extend(self.retain(id).map(|old| (old, 0, 0))),
                Released::Gone(slot) => {
                    steps.push((slot.parent, 0, 1));
                    gone.extend(slot.body);
                }
            }
        }
        gone
    }

    fn release_one(&self, id: NodeId, lookups: u64, children: u32) -> Released {
        let slot = {
            let mut shard = self.lock(split(id).2);
            let Some(slot) = shard.slot(id) else { return Released::Kept };
            slot.lookups = slot.lookups.saturating_sub(lookups);
            slot.children = slot.children.saturating_sub(children);
            if slot.lookups > 0 || slot.children > 0 || id == NodeId::ROOT {
                slot.retained &= lookups > 0 || children > 0;
                return Released::Kept;
            }
            let evicted = lookups == 0 && children == 0;
            if slot.keyed && !evicted {
                let again = std::mem::replace(&mut slot.retained, true);
                return if again { Released::Kept } else { Released::Retained };
            }
            match shard.remove(id) {
                Some(slot) => slot,
                None => return Released::Kept,
            }
        };
        if slot.keyed {
            self.remove_key(slot.key, id);
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        Released::Gone(Box::new(slot))
    }

    // Queues a node that nobody holds; answers the one that has to leave the queue for it.
    fn retain(&self, id: NodeId) -> Option<NodeId> {
        let mut retained = self.retained.lock();
        retained.push_back(id);
        if retained.len() > RETAINED { retained.pop_front() } else { None }
    }

    /// The body of a node, made if it has none yet.
    pub fn body(&self, id: NodeId, make: impl FnOnce() -> Arc<Body>) -> Option<Arc<Body>> {
        let mut shard = self.lock(split(id).2);
        let slot = shard.slot(id)?;
        Some(slot.body.get_or_insert_with(make).clone())
    }

    /// Drops the body of a file node if nobody holds it, the caller included, and `idle` says so.
    pub fn drop_body(&self, id: NodeId, idle: impl FnOnce(&Body) -> bool) {
        let mut shard = self.lock(split(id).2);
        if let Some(slot) = shard.slot(id)
            && let Some(body) = &slot.body
            && slot.kind != Kind::Dir
            && Arc::strong_count(body) == 1
            && idle(body)
        {
            slot.body = None;
        }
    }

    /// Says what the kernel may hold of a node's data from now on.
    pub fn set_pages(&self, id: NodeId, pages: Pages) {
        if let Some(slot) = self.lock(split(id).2).slot(id) {
            slot.pages = pages;
        }
    }

    /// Sets the inode number shown for a node.
    pub fn set_ino(&self, id: NodeId, ino: u64) {
        if let Some(slot) = self.lock(split(id).2).slot(id) {
            slot.ino = ino;
        }
    }

    /// Moves a node to another place in the tree.
    pub fn relocate(&self, id: NodeId, parent: NodeId, name: &[u8]) {
        let old = {
            let mut shard = self.lock(split(id).2);
            let Some(slot) = shard.slot(id) else { return };
            slot.name = Name::from_slice(name);
            slot.moves = slot.moves.wrapping_add(1);
            std::mem::replace(&mut slot.parent, parent)
        };
        if old != parent {
            self.hold(parent);
            drop(self.unhold(old));
        }
    }

    /// Gives a node another backing object, after a copy-up.
    pub fn rekey(&self, id: NodeId, key: Key) {
        let (old, was_keyed) = {
            let mut shard = self.lock(split(id).2);
            let Some(slot) = shard.slot(id) else { return };
            let was_keyed = std::mem::replace(&mut slot.keyed, true);
            slot.moves = slot.moves.wrapping_add(1);
            (std::mem::replace(&mut slot.key, key), was_keyed)
        };
        if was_keyed {
            self.remove_key(old, id);
        }
        self.lock(key.shard()).keys.insert(key, id);
    }

    /// Gives a node that no key leads to another backing object.
    pub fn set_key(&self, id: NodeId, key: Key) {
        if let Some(slot) = self.lock(split(id).2).slot(id) {
            slot.key = key;
            slot.moves = slot.moves.wrapping_add(1);
        }
    }

    /// Makes a node unreachable by its key: its object is gone, or another node takes it over.
    /// Answers whether it was reachable.
    pub fn unkey(&self, id: NodeId) -> bool {
        self.unkey_if(id, |_| true)
    }

    /// [`Table::unkey`] of a node that still has this key: a copy-up gives it another one.
    pub fn unkey_from(&self, id: NodeId, key: Key) -> bool {
        self.unkey_if(id, |current| current == key)
    }

    fn unkey_if(&self, id: NodeId, is_right: impl FnOnce(Key) -> bool) -> bool {
        let key = {
            let mut shard = self.lock(split(id).2);
            let Some(slot) = shard.slot(id) else { return false };
            if !slot.keyed || !is_right(slot.key) {
                return false;
            }
            slot.keyed = false;
            slot.key
        };
        self.remove_key(key, id);
        true
    }

    fn remove_key(&self, key: Key, id: NodeId) {
        let mut keys = self.lock(key.shard());
        if keys.keys.get(&key) == Some(&id) {
            keys.keys.remove(&key);
            if keys.keys.capacity() > 4096 && keys.keys.len() * 4 < keys.keys.capacity() {
                keys.keys.shrink_to_fit();
            }
        }
    }

    /// Lets a key lead to a node besides its own: the object that a copy-up is about to publish.
    pub fn add_key(&self, id: NodeId, key: Key) {
        self.lock(key.shard()).keys.insert(key, id);
    }

    /// Takes back [`Table::add_key`] of a copy-up that failed.
    pub fn drop_key(&self, id: NodeId, key: Key) {
        self.remove_key(key, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_as_small_as_documented() {
        assert_eq!(size_of::<Option<Slot>>(), 88);
    }
}

//! The inode table: the nodes that the kernel holds, from their first lookup to the last forget.
//!
//! A slot is 88 bytes and holds a name inline, so that a million inodes stay below 150 bytes
//! each with their entry in the key map. A node is found by its number, or by its key: the layer
//! and the inode that back it. Slots hold their parent, so that a place can always be resolved.
//!
//! Invariants: a node number is never given twice; one key leads to at most one node; a slot lives
//! while the kernel counts lookups on it or another slot names it as parent. Locks are held for
//! memory operations only, never across I/O, and never two at once.

mod node;
mod shard;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::types::{Kind, Name, NodeId};
use crate::union::body::Body;

pub use node::{Key, NewNode, Node, Pages};
use shard::{SHARDS, Shard, Slot, split};

/// Forgotten nodes that keep their number for a while, so that file handles of them stay valid.
const RETAINED: usize = 4096;

enum Released {
    Kept,
    Retained,
    Gone(Box<Slot>),
}

/// The inode table of a mount.
pub struct Table {
    shards: [Mutex<Shard>; SHARDS],
    retained: Mutex<VecDeque<NodeId>>,
    generation: AtomicU64,
    count: AtomicU64,
}

impl Table {
    /// Makes a table with the root in it.
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

    /// The number of nodes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Always false: the root is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a node by its number.
    #[must_use]
    pub fn find(&self, id: NodeId) -> Option<Node> {
        self.lock(split(id).2).slot(id).map(|slot| slot.node(id))
    }

    /// Returns a node that must be known.
    ///
    /// # Errors
    /// `ESTALE`.
    pub fn node(&self, id: NodeId) -> Result<Node> {
        self.find(id).ok_or(Error::Rule(Errno::STALE))
    }

    /// Whether a node that had no body is not in use, and was not since it was read.
    #[must_use]
    pub fn is_at_rest(&self, node: &Node) -> bool {
        let mut shard = self.lock(split(node.id).2);
        shard.slot(node.id).is_some_and(|slot| slot.body.is_none() && slot.moves == node.moves)
    }

    /// Returns the number of the node with this key.
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
            // The slot was dropped after the key was read; a slot never returns under its number.
            self.unmap_key(new.key, id);
        }
    }

    /// Enters an object of one name that needs no body, or finds it, and counts a lookup. Returns
    /// its number and the inode number shown. Returns `None`, and counts nothing, if the object is
    /// known by another name or has a body.
    pub fn enter_plain(&self, new: NewNode) -> Option<(NodeId, u64)> {
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
    pub fn add_lookup(&self, id: NodeId) -> Option<Node> {
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

    /// Counts one more holder of a slot other than the kernel.
    pub fn hold(&self, id: NodeId) {
        if let Some(slot) = self.lock(split(id).2).slot(id) {
            slot.children += 1;
        }
    }

    /// Reverses [`Table::hold`].
    pub fn unhold(&self, id: NodeId) -> Vec<Arc<Body>> {
        self.release(id, 0, 1)
    }

    /// Takes back lookups. Returns the bodies of the nodes that are dropped.
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
            self.unmap_key(slot.key, id);
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        Released::Gone(Box::new(slot))
    }

    // Queues a node without holders; returns the node that leaves the queue for it.
    fn retain(&self, id: NodeId) -> Option<NodeId> {
        let mut retained = self.retained.lock();
        retained.push_back(id);
        if retained.len() > RETAINED { retained.pop_front() } else { None }
    }

    /// Returns the body of a node, and makes one if there is none.
    pub fn body(&self, id: NodeId, make: impl FnOnce() -> Arc<Body>) -> Option<Arc<Body>> {
        let mut shard = self.lock(split(id).2);
        let slot = shard.slot(id)?;
        Some(slot.body.get_or_insert_with(make).clone())
    }

    /// Drops the body of a file node if it has no holder, the caller included, and `idle` is true.
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

    /// Notes what the page cache may hold of a node's data from now on.
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
    pub fn replace_key(&self, id: NodeId, key: Key) {
        let (old, was_keyed) = {
            let mut shard = self.lock(split(id).2);
            let Some(slot) = shard.slot(id) else { return };
            let was_keyed = std::mem::replace(&mut slot.keyed, true);
            slot.moves = slot.moves.wrapping_add(1);
            (std::mem::replace(&mut slot.key, key), was_keyed)
        };
        if was_keyed {
            self.unmap_key(old, id);
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

    /// The numbers of all nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        (0..SHARDS).flat_map(|shard| self.lock(shard).ids(shard)).collect()
    }

    /// Gives a node another key, if a key leads to it. Nobody else uses the table.
    pub fn rekey(&self, id: NodeId, key: Key) {
        let old = {
            let mut shard = self.lock(split(id).2);
            let Some(slot) = shard.slot(id) else { return };
            slot.moves = slot.moves.wrapping_add(1);
            let old = std::mem::replace(&mut slot.key, key);
            slot.keyed.then_some(old)
        };
        if let Some(old) = old {
            self.unmap_key(old, id);
            self.lock(key.shard()).keys.insert(key, id);
        }
    }

    /// Makes a node unreachable by its key: its object is gone, or another node takes it over.
    /// Returns whether it was reachable.
    pub fn clear_key(&self, id: NodeId) -> bool {
        self.clear_key_where(id, |_| true)
    }

    /// [`Table::clear_key`] of a node that still has this key: a copy-up may have changed it.
    pub fn clear_key_if(&self, id: NodeId, key: Key) -> bool {
        self.clear_key_where(id, |current| current == key)
    }

    fn clear_key_where(&self, id: NodeId, is_right: impl FnOnce(Key) -> bool) -> bool {
        let key = {
            let mut shard = self.lock(split(id).2);
            let Some(slot) = shard.slot(id) else { return false };
            if !slot.keyed || !is_right(slot.key) {
                return false;
            }
            slot.keyed = false;
            slot.key
        };
        self.unmap_key(key, id);
        true
    }

    fn unmap_key(&self, key: Key, id: NodeId) {
        let mut keys = self.lock(key.shard());
        if keys.keys.get(&key) == Some(&id) {
            keys.keys.remove(&key);
            if keys.keys.capacity() > 4096 && keys.keys.len() * 4 < keys.keys.capacity() {
                keys.keys.shrink_to_fit();
            }
        }
    }

    /// Makes a further key lead to a node: that of the object that a copy-up is about to publish.
    pub fn add_key(&self, id: NodeId, key: Key) {
        self.lock(key.shard()).keys.insert(key, id);
    }

    /// Reverses [`Table::add_key`] of a copy-up that failed.
    pub fn drop_key(&self, id: NodeId, key: Key) {
        self.unmap_key(key, id);
    }
}

//! Shards of the inode table: slots of nodes in chunks, found by node number or by key.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::types::{Kind, Name, NodeId};
use crate::union::body::Body;
use crate::union::table::node::{Key, Node, Pages};

pub(super) const SHARDS: usize = 16;
const SHARD_BITS: u32 = 4;
/// Slots of a chunk: 88 bytes each, so that a chunk is mapped and returned to the system whole.
const CHUNK: usize = 2048;

/// The slot of a node.
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) children: u32,
    pub(super) lookups: u64,
    pub(super) parent: NodeId,
    pub(super) name: Name,
    pub(super) key: Key,
    pub(super) ino: u64,
    pub(super) kind: Kind,
    pub(super) keyed: bool,
    pub(super) retained: bool,
    pub(super) pages: Pages,
    pub(super) small: bool,
    pub(super) moves: u16,
    pub(super) body: Option<Arc<Body>>,
}

#[derive(Default)]
struct Chunk {
    slots: Vec<Option<Slot>>,
    used: usize,
}

/// A part of the table with a lock of its own: slots in chunks, and the keys that lead to nodes.
#[derive(Default)]
pub(super) struct Shard {
    chunks: Vec<Chunk>,
    free: Vec<u32>,
    pub(super) keys: HashMap<Key, NodeId>,
}

/// Returns the parts of a node number: generation in the high 32 bits, index of the slot in its
/// shard, and, lowest, the shard. The root is generation 0, index 0, shard 1: number 1.
pub(super) const fn split(id: NodeId) -> (u32, usize, usize) {
    let low = id.0 as u32;
    ((id.0 >> 32) as u32, (low >> SHARD_BITS) as usize, low as usize & (SHARDS - 1))
}

const fn join(generation: u32, index: usize, shard: usize) -> NodeId {
    NodeId(((generation as u64) << 32) | ((index << SHARD_BITS) | shard) as u64)
}

impl Shard {
    pub(super) fn slot(&mut self, id: NodeId) -> Option<&mut Slot> {
        let (generation, index, _) = split(id);
        let slot = self.chunks.get_mut(index / CHUNK)?.slots.get_mut(index % CHUNK)?.as_mut()?;
        (slot.generation == generation).then_some(slot)
    }

    /// The numbers of all nodes of this shard.
    pub(super) fn ids(&self, shard: usize) -> Vec<NodeId> {
        let chunks = self.chunks.iter().zip((0..).step_by(CHUNK));
        let ids = chunks.flat_map(|(chunk, first)| {
            let slots = chunk.slots.iter().zip(first..);
            slots.filter_map(move |(slot, index)| {
                slot.as_ref().map(|slot| join(slot.generation, index, shard))
            })
        });
        ids.collect()
    }

    pub(super) fn insert(&mut self, shard: usize, slot: Slot) -> NodeId {
        let index = self.free.pop().map_or_else(|| self.grow(), |index| index as usize);
        let id = join(slot.generation, index, shard);
        if let Some(chunk) = self.chunks.get_mut(index / CHUNK) {
            // Room for all of them is memory that was not touched so far.
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

    pub(super) fn remove(&mut self, id: NodeId) -> Option<Slot> {
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
    pub(super) fn node(&self, id: NodeId) -> Node {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_as_small_as_documented() {
        assert_eq!(size_of::<Option<Slot>>(), 88);
    }
}

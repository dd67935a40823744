//! Names of the parts of a directory, as eight bytes each: which part may have a name.
//!
//! Two names may have one hash, so `has` is a hint to check the part itself; a name that is missing
//! here is in no part.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use crate::error::Result;
use crate::types::Kind;
use crate::union::layer::DirRef;
use crate::union::listing::item::Item;
use crate::union::mark;

/// The low bits of an entry are the part, the others are the hash of the name.
const PART_BITS: u32 = 16;

/// Names of the parts of a directory.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Sorted, so that the first entry of a hash is the topmost part.
    sorted: Vec<u64>,
    /// The inode of whiteouts of the upper: most are links to one inode.
    pub(super) whiteout: Option<u64>,
}

/// Names while they are collected.
pub(super) struct Collector {
    found: Vec<u64>,
    limit: usize,
    /// A character device, which may be a whiteout.
    pub(super) device: Option<Item>,
}

fn hash(name: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(name) >> PART_BITS << PART_BITS
}

impl Names {
    /// Whether a part above `part` may have a name.
    pub(super) fn has(&self, name: &[u8], part: u16) -> bool {
        let hash = hash(name);
        let first = self.sorted.partition_point(|entry| *entry < hash);
        self.sorted.get(first).is_some_and(|entry| *entry < hash | u64::from(part))
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.sorted.capacity() * size_of::<u64>()
    }
}

impl Collector {
    /// Collects names until they take more than `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        Self { found: Vec::new(), limit: bytes / size_of::<u64>(), device: None }
    }

    /// Adds the names of a part, and the names that AUFS whiteouts in it hide. Returns false if
    /// there are too many.
    pub(super) fn add(&mut self, dir: &DirRef, part: u16) -> Result<bool> {
        dir.list(0, &mut |entry| {
            self.found.push(hash(entry.name) | u64::from(part));
            if let Some(hidden) = entry.name.strip_prefix(mark::WH_PREFIX) {
                self.found.push(hash(hidden) | u64::from(part));
            }
            if entry.kind == Kind::Char && self.device.is_none() {
                self.device = Some(Item::new(0, entry));
            }
            self.found.len() <= self.limit
        })?;
        Ok(self.found.len() <= self.limit)
    }

    pub(super) fn finish(self, whiteout: Option<u64>) -> Names {
        let mut sorted = self.found;
        sorted.sort_unstable();
        sorted.dedup();
        sorted.shrink_to_fit();
        Names { sorted, whiteout }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_from_its_topmost_part_on() {
        let mut names = Collector::new(1 << 20);
        for (name, part) in [(&b"a"[..], 3), (b"b", 1), (b"a", 2), (b"c", 0)] {
            names.found.push(hash(name) | part);
        }
        let names = names.finish(None);
        assert_eq!([2, 3, 4].map(|part| names.has(b"a", part)), [false, true, true]);
        assert_eq!([1, 2].map(|part| names.has(b"b", part)), [false, true]);
        assert_eq!([0, 1].map(|part| names.has(b"c", part)), [false, true]);
        assert!(!names.has(b"d", u16::MAX));
        assert_eq!((names.len(), names.bytes()), (4, 32));
    }
}

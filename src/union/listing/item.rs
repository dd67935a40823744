//! Entries of a listing, and the properties that entries of one part share.

use crate::types::{Kind, Name, RawEntry, name};

/// An entry of a listing.
#[derive(Clone)]
pub(in crate::union) struct Item {
    pub(super) position: u64,
    pub(in crate::union) name: Name,
    pub(super) ino: u64,
    pub(in crate::union) kind: Kind,
}

impl Item {
    pub(super) fn new(position: u64, entry: RawEntry<'_>) -> Self {
        Self { position, name: name(entry.name), ino: entry.ino, kind: entry.kind }
    }
}

/// Returns the memory that a list of entries takes.
pub(super) fn bytes_of(items: &Vec<Item>) -> usize {
    let spilled = items.iter().filter(|item| item.name.spilled());
    items.capacity() * size_of::<Item>() + spilled.map(|item| item.name.len()).sum::<usize>()
}

/// The properties that the entries of a part share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits {
    /// The layer.
    pub(super) layer: u16,
    /// The device of the directory.
    pub(super) dev: u64,
    /// Whether entries of this part of the upper may have their numbers stored with them.
    pub(super) stored: bool,
    /// Whether files of this part may be xattr whiteouts.
    pub(super) marked: bool,
}

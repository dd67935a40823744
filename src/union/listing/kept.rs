//! The state of merged directories that is kept between requests, within a budget in bytes.

use std::sync::Arc;

use lru::LruCache;

use crate::types::NodeId;
use crate::union::listing::large::Large;
use crate::union::listing::whole::Whole;

/// The largest number of directories whose listings are kept.
const DIRECTORIES: usize = 1024;

/// The kept state of a merged directory.
pub(super) enum Merged {
    Whole(Whole),
    Large(Large),
}

impl Merged {
    fn bytes(&self) -> usize {
        match self {
            Self::Whole(whole) => whole.bytes(),
            Self::Large(large) => large.bytes(),
        }
    }
}

struct Entry {
    merged: Arc<Merged>,
    bytes: usize,
}

/// Listings of directories; the least recently read is dropped first.
pub(in crate::union) struct Kept {
    entries: LruCache<NodeId, Entry>,
    bytes: usize,
    limit: usize,
}

impl Kept {
    pub(in crate::union) fn new(limit: usize) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, limit }
    }

    /// The number of directories that are kept, and their bytes.
    pub(in crate::union) fn stats(&self) -> (u64, u64) {
        (self.entries.len() as u64, self.bytes as u64)
    }

    pub(super) fn find(&mut self, id: NodeId) -> Option<Arc<Merged>> {
        self.entries.get(&id).map(|entry| Arc::clone(&entry.merged))
    }

    pub(super) fn keep(&mut self, id: NodeId, merged: &Arc<Merged>) {
        let bytes = merged.bytes();
        self.bytes += bytes;
        if let Some(old) = self.entries.put(id, Entry { merged: Arc::clone(merged), bytes }) {
            self.bytes -= old.bytes;
        }
        self.fit();
    }

    /// Drops the state of large directories, which depends on the number of their parts.
    pub(in crate::union) fn drop_large(&mut self) {
        let large = |(id, entry): (&NodeId, &Entry)| {
            matches!(*entry.merged, Merged::Large(_)).then_some(*id)
        };
        let ids: Vec<NodeId> = self.entries.iter().filter_map(large).collect();
        for id in ids {
            if let Some(entry) = self.entries.pop(&id) {
                self.bytes -= entry.bytes;
            }
        }
    }

    /// Counts the bytes of a directory again, after they changed.
    pub(super) fn count(&mut self, id: NodeId) {
        if let Some(entry) = self.entries.peek_mut(&id) {
            let bytes = entry.merged.bytes();
            self.bytes = self.bytes + bytes - entry.bytes;
            entry.bytes = bytes;
            self.fit();
        }
    }

    // Names of large directories are dropped first: a listing continues without them, but slower.
    fn fit(&mut self) {
        if self.bytes > self.limit {
            for (_, entry) in self.entries.iter_mut().rev() {
                if let Merged::Large(large) = &*entry.merged {
                    large.drop_names();
                    self.bytes -= entry.bytes;
                    entry.bytes = large.bytes();
                    self.bytes += entry.bytes;
                }
                if self.bytes <= self.limit {
                    break;
                }
            }
        }
        while self.bytes > self.limit || self.entries.len() > DIRECTORIES {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            self.bytes -= entry.bytes;
        }
    }
}

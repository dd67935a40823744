//! Files that lost one of several names a moment ago.
//!
//! The kernel decrements the link count by itself when it processes the reply to UNLINK or RENAME
//! (`fuse_entry_unlinked()` in fs/fuse/dir.c). If it requested attributes between the removal and
//! that moment, it decrements a count that does not include the name any more. A file with one name
//! left then has the count 0, and the kernel refuses to link it.
//!
//! So the kernel is notified that the attributes of such a file changed, after they were read and
//! before they are sent (`fuse/ops.rs`). It then discards the result of its older request
//! (`fuse_change_attributes()` in fs/fuse/inode.c), uses the reply only for its caller, and keeps
//! its own count, which is right.

use std::collections::HashMap;

use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::types::NodeId;

/// The length of a moment, in milliseconds: longer than a process may wait for a processor after
/// its reply was sent.
const MOMENT: u64 = 10_000;
/// The number of files above which those of long ago are dropped.
const MANY: usize = 1024;

/// The files, and the time when each lost a name.
#[derive(Default)]
pub(super) struct RecentlyUnlinked {
    any: AtomicBool,
    at: Mutex<HashMap<NodeId, u64>>,
}

impl RecentlyUnlinked {
    /// Notes that a file is about to lose a name.
    pub(super) fn note(&self, id: NodeId, now: u64) {
        let mut at = self.at.lock();
        if at.len() >= MANY {
            at.retain(|_, then| now.saturating_sub(*then) < MOMENT);
        }
        at.insert(id, now);
        self.any.store(true, Ordering::Release);
    }

    /// Whether a file lost a name a moment ago.
    pub(super) fn is_recent(&self, id: NodeId, now: impl FnOnce() -> u64) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut at = self.at.lock();
        let Some(then) = at.get(&id) else { return false };
        if now().saturating_sub(*then) < MOMENT {
            return true;
        }
        at.remove(&id);
        if at.is_empty() {
            self.any.store(false, Ordering::Release);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_ends() {
        let unlinked = RecentlyUnlinked::default();
        assert!(!unlinked.is_recent(NodeId(1), || 0));
        unlinked.note(NodeId(1), 5);
        assert!(unlinked.is_recent(NodeId(1), || 5));
        assert!(!unlinked.is_recent(NodeId(2), || 5));
        assert!(unlinked.is_recent(NodeId(1), || 4 + MOMENT));
        assert!(!unlinked.is_recent(NodeId(1), || 5 + MOMENT));
        assert!(!unlinked.any.load(Ordering::Relaxed));
    }

    #[test]
    fn many_files_do_not_stay() {
        let unlinked = RecentlyUnlinked::default();
        for id in 0..MANY as u64 {
            unlinked.note(NodeId(id), 0);
        }
        unlinked.note(NodeId(5000), MOMENT);
        assert_eq!(unlinked.at.lock().len(), 1);
    }
}

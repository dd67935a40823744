//! State that the places and open files of a tree share.

use laminafs::sync::{Condvar, Mutex};

use super::tree::Tree;

/// How a tree differs from ext4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Whether files can share extents (`FICLONE`).
    pub reflink: bool,
    /// Whether `user.*` attributes are refused on all but files and directories, as in Linux.
    pub user_xattr_rule: bool,
    /// Whether objects have file handles.
    pub handles: bool,
    /// Whether open files have a descriptor, which leads nowhere, so that a union registers them
    /// for passthrough; [`MemoryTree::reopen`](super::MemoryTree::reopen) then serves them like the
    /// kernel.
    pub descriptors: bool,
}

impl Default for Traits {
    fn default() -> Self {
        Self { reflink: false, user_xattr_rule: true, handles: true, descriptors: false }
    }
}

/// State that all places and open files of a tree share.
pub(super) struct Shared {
    pub(super) dev: u64,
    pub(super) traits: Traits,
    pub(super) tree: Mutex<Tree>,
    /// Notified when a directory has been moved.
    pub(super) moved: Condvar,
}

impl Shared {
    pub(super) fn uuid(&self) -> [u8; 16] {
        let mut uuid = *b"memory..........";
        let (_, tail) = uuid.split_at_mut(8);
        tail.copy_from_slice(&self.dev.to_be_bytes());
        uuid
    }
}

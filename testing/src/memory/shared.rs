//! What the places and open files of a tree share.

use laminafs::sync::{Condvar, Mutex};

use super::tree::Tree;

/// How a tree differs from ext4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Files can share extents (`FICLONE`).
    pub reflink: bool,
    /// `user.*` attributes are refused on what is neither file nor directory, as Linux does.
    pub user_xattr_rule: bool,
    /// File handles are given.
    pub handles: bool,
    /// Open files show a descriptor, which leads nowhere, so that a union registers them for
    /// passthrough; [`MemoryTree::reopen`](super::MemoryTree::reopen) serves what the kernel would.
    pub descriptors: bool,
}

impl Default for Traits {
    fn default() -> Self {
        Self { reflink: false, user_xattr_rule: true, handles: true, descriptors: false }
    }
}

/// What all places and open files of a tree share.
pub(super) struct Shared {
    pub(super) dev: u64,
    pub(super) traits: Traits,
    pub(super) tree: Mutex<Tree>,
    /// No directory is being moved any more.
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

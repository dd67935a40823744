//! Nodes as the table hands them out, and the keys of their backing objects.

use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::types::{Kind, Name, NodeId};
use crate::union::body::{Body, DirBody};

/// The file system of a key that identifies a name.
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
    /// Makes the key of inode `ino` of file system `fs` as seen in `layer`.
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

    /// The key of the same object in another layer.
    #[must_use]
    pub const fn in_layer(self, layer: u16) -> Self {
        Self::new(layer, self.fs(), self.ino)
    }

    /// Makes the key of one name of an object in `layer` whose names are objects of their own.
    #[must_use]
    pub const fn split(layer: u16, name: u64) -> Self {
        Self::new(layer, SPLIT, name)
    }

    /// Whether this is the key of a name, not of an object.
    #[must_use]
    pub const fn is_split(self) -> bool {
        self.fs() == SPLIT
    }

    pub(super) fn shard(self) -> usize {
        let mixed = (self.ino ^ u64::from(self.place)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 60) as usize
    }
}

/// What the kernel's page cache may hold of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Nothing yet.
    None,
    /// The cached data is right.
    Valid,
    /// The cached data may be older than the file.
    Stale,
}

/// A node of the table, copied out under the lock.
#[derive(Clone)]
pub struct Node {
    /// The number.
    pub id: NodeId,
    /// Number of the directory in which it was found; its own for the root.
    pub parent: NodeId,
    /// The name in that directory.
    pub name: Name,
    /// The backing object.
    pub key: Key,
    /// Inode number shown.
    pub ino: u64,
    /// Kind.
    pub kind: Kind,
    /// What the kernel may hold of the data.
    pub pages: Pages,
    /// Whether it is a lower file that is too small to be served by the kernel itself.
    pub small: bool,
    /// The number of moves to another name or backing object, modulo 65,536.
    pub moves: u16,
    /// State beyond the slot: always present for directories.
    pub body: Option<Arc<Body>>,
}

/// The result of a lookup, to be entered in the table.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Directory in which it was found.
    pub parent: NodeId,
    /// Name there.
    pub name: Name,
    /// Backing object.
    pub key: Key,
    /// Inode number shown.
    pub ino: u64,
    /// Kind.
    pub kind: Kind,
    /// Whether it is a lower file that is too small to be served by the kernel itself.
    pub small: bool,
}

impl Node {
    /// Returns the state of a directory. `ENOTDIR` for anything else.
    ///
    /// # Errors
    /// `ENOTDIR`.
    pub fn dir(&self) -> Result<&DirBody> {
        self.body.as_deref().and_then(Body::dir).ok_or(Error::Rule(Errno::NOTDIR))
    }

    /// Returns the state of a directory, to be kept.
    ///
    /// # Errors
    /// `ENOTDIR` for a node without state.
    pub fn dir_body(&self) -> Result<Arc<Body>> {
        self.body.clone().ok_or(Error::Rule(Errno::NOTDIR))
    }
}

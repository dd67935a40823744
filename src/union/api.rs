//! The words that a front end and the union exchange.

use crate::error::Result;
use crate::types::{Kind, NodeId, Stat};
use crate::union::layer::File;

/// Who asks, as the front end learnt it from the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller {
    /// Effective user, as seen in the mount.
    pub uid: u32,
    /// Effective group, as seen in the mount.
    pub gid: u32,
    /// Process.
    pub pid: u32,
    /// File creation mask; applied to new objects unless a default ACL takes its place.
    pub umask: u32,
}

/// What a listing tells of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// Their names: the reader takes nothing else.
    Names,
    /// Attributes too, of those for which the reader would ask soon as far as that can be foreseen.
    Likely,
    /// Attributes of all.
    All,
}

/// An object as the kernel is told of it. Each one that reaches the kernel counts as one lookup
/// and is given back by `Union::forget`.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The object.
    pub node: NodeId,
    /// Attributes as the mount shows them; `stat.ino` is the stable number.
    pub stat: Stat,
}

/// How the kernel is to serve an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Through the page cache of the FUSE inode, filled by READ.
    Cached {
        /// The cached pages of earlier opens are still right (`FOPEN_KEEP_CACHE`).
        keep_cache: bool,
    },
    /// By READ and WRITE, past the page cache.
    Direct,
    /// By the kernel, from a registered backing file.
    Passthrough {
        /// The backing id.
        backing_id: u32,
    },
}

/// The answer to OPEN and CREATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Handle to be given back with each request on the open file.
    pub fh: u64,
    /// How the kernel serves it.
    pub mode: OpenMode,
}

/// What an OPEN asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// Opened for writing (`O_WRONLY` or `O_RDWR`).
    pub write: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// `O_APPEND`.
    pub append: bool,
    /// Opened by execve(2).
    pub execute: bool,
    /// The kernel asks to clear set-id bits with the truncation (`FUSE_OPEN_KILL_SUIDGID`).
    pub kill_priv: bool,
}

/// What a change of data takes away from a file besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kill {
    /// Nothing: the caller has CAP_FSETID.
    #[default]
    Nothing,
    /// Capabilities, set-user-ID, and set-group-ID of what its group may execute.
    Privilege,
    /// Set-group-ID in any case too: the caller is not of the group.
    AllIds,
}

impl From<bool> for Kill {
    fn from(kill: bool) -> Self {
        if kill { Self::Privilege } else { Self::Nothing }
    }
}

/// What the union asks of the kernel apart from its answers.
///
/// The front end implements it; without one the union serves every file through READ and WRITE.
pub trait Kernel: Send + Sync {
    /// Registers an open file (`FUSE_DEV_IOC_BACKING_OPEN`).
    ///
    /// # Errors
    /// As the ioctl; `EPERM` switches passthrough off for the mount.
    fn register(&self, file: &dyn File) -> Result<u32>;

    /// Takes a registration back (`FUSE_DEV_IOC_BACKING_CLOSE`).
    fn release(&self, backing_id: u32);

    /// Drops what is kept of the listing of a directory.
    fn drop_listing(&self, _node: NodeId) {}

    /// Drops the attributes of a node, which changed by way of another node.
    fn changed(&self, _node: NodeId) {}

    /// Milliseconds of a clock that only goes forward.
    fn now_ms(&self) -> u64 {
        0
    }

    /// Puts all data of a file into the page cache (`FUSE_NOTIFY_STORE`). Waits for pages that are
    /// being read: the file has no open handle, since those reads would wait for the caller.
    ///
    /// # Errors
    /// `ENOENT` for a node that the kernel does not hold, `ENOMEM`.
    fn store(&self, node: NodeId, data: &[u8]) -> Result<()>;
}

/// Receives the entries of a merged directory.
pub trait DirSink {
    /// Whether no entry was taken yet.
    fn is_empty(&self) -> bool;

    /// Whether one more entry with a name of this length fits.
    fn has_room(&self, name_len: usize) -> bool;

    /// Takes an entry. `next` is the position to resume behind it. With `entry`, the kernel is
    /// told of the object at once (READDIRPLUS) and a lookup is counted; without, of its name.
    fn push(&mut self, name: &[u8], ino: u64, kind: Kind, next: u64, entry: Option<&Entry>);
}

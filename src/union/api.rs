//! The types that a front end and the union exchange.

use crate::error::Result;
use crate::types::{Kind, NodeId, Stat};
use crate::union::layer::File;

/// The caller of a request, as the kernel reports it.
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

/// Which attributes a listing carries with its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// None: the reader uses only the names.
    Names,
    /// Those of entries that the reader is likely to look up soon.
    Likely,
    /// Those of all entries.
    All,
}

/// An object as the kernel receives it. Each one that reaches the kernel counts as one lookup,
/// which `Union::forget` takes back.
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
        /// Whether the cached pages of earlier opens are still right (`FOPEN_KEEP_CACHE`).
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

/// The reply to OPEN and CREATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Handle that the kernel sends with each request on the open file.
    pub fh: u64,
    /// How the kernel serves it.
    pub mode: OpenMode,
}

/// The flags of an OPEN.
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
    /// Whether the truncation is to clear set-id bits (`FUSE_OPEN_KILL_SUIDGID`).
    pub kill_priv: bool,
}

/// The privileges of a file that a change of its data clears.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kill {
    /// None: the caller has CAP_FSETID.
    #[default]
    Nothing,
    /// Capabilities, set-user-ID, and set-group-ID if the group may execute the file.
    Privilege,
    /// Set-group-ID in any case too: the caller is not in the group.
    AllIds,
}

impl From<bool> for Kill {
    fn from(kill: bool) -> Self {
        if kill { Self::Privilege } else { Self::Nothing }
    }
}

/// Requests of the union to the kernel, apart from replies.
///
/// The front end implements it; without one the union serves every file through READ and WRITE.
pub trait Kernel: Send + Sync {
    /// Registers an open file (`FUSE_DEV_IOC_BACKING_OPEN`).
    ///
    /// # Errors
    /// As the ioctl; `EPERM` switches passthrough off for the mount.
    fn register(&self, file: &dyn File) -> Result<u32>;

    /// Closes a registration (`FUSE_DEV_IOC_BACKING_CLOSE`).
    fn release(&self, backing_id: u32);

    /// Drops the cached listing of a directory.
    fn drop_listing(&self, _node: NodeId) {}

    /// Drops the attributes of a node that changed through another node.
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

    /// Takes an entry. `next` is the position to resume behind it. With `entry`, the kernel
    /// receives the object at once (READDIRPLUS) and a lookup is counted; without, only its name.
    fn push(&mut self, name: &[u8], ino: u64, kind: Kind, next: u64, entry: Option<&Entry>);
}

//! Plain values shared by every module: names, inode attributes, identities, flags.
//!
//! Nothing here opens a file or depends on a protocol. Names, link targets and extended attributes
//! are bytes; times are signed seconds with nanoseconds, so that times before 1970 survive.

pub mod digest;
mod graft;
pub mod hashing;
pub mod hex;
pub mod marks;
mod object;
mod program;
pub mod quantity;
pub mod size;
mod subpath;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

pub use digest::Digest;
pub use graft::{BindFlags, Graft, GraftSource};
pub use object::{BadObjectName, ContainerName, OBJECT_NAME_MAX, VolumeName};
pub use program::{Network, Program, Run, RunState};
pub use subpath::{BadSubpath, Subpath};

/// The longest name of one directory entry, in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// One component of a path, stored inline up to 16 bytes.
pub type Name = SmallVec<[u8; 16]>;

/// Makes an owned [`Name`] from bytes.
#[must_use]
pub fn name(bytes: &[u8]) -> Name {
    Name::from_slice(bytes)
}

/// Identifies an object of a mount towards the FUSE kernel client.
///
/// 1 is the root. A number is never used for two objects in the life of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of the mount, `FUSE_ROOT_ID`.
    pub const ROOT: Self = Self(1);
}

/// A point in time: seconds and nanoseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub secs: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanos: u32,
}

/// The type of a file, as `d_type` and the format bits of `st_mode` give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Unknown to the file system that listed it.
    Unknown = 0,
    /// FIFO.
    Fifo = 1,
    /// Character device.
    Char = 2,
    /// Directory.
    Dir = 4,
    /// Block device.
    Block = 6,
    /// Regular file.
    File = 8,
    /// Symbolic link.
    Symlink = 10,
    /// Socket.
    Socket = 12,
}

impl Kind {
    /// The kind in the format bits of a mode.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Self {
        Self::from_dtype(((mode >> 12) & 0o17) as u8)
    }

    /// The kind of a `d_type` value.
    #[must_use]
    pub const fn from_dtype(dtype: u8) -> Self {
        match dtype {
            1 => Self::Fifo,
            2 => Self::Char,
            4 => Self::Dir,
            6 => Self::Block,
            8 => Self::File,
            10 => Self::Symlink,
            12 => Self::Socket,
            _ => Self::Unknown,
        }
    }

    /// The format bits of `st_mode` for this kind.
    #[must_use]
    pub const fn mode_bits(self) -> u32 {
        (self as u32) << 12
    }
}

/// Set-user-ID bit.
pub const S_ISUID: u32 = 0o4000;
/// Set-group-ID bit.
pub const S_ISGID: u32 = 0o2000;
/// Group execute bit.
pub const S_IXGRP: u32 = 0o010;
/// The permission bits with set-id and sticky.
pub const MODE_MASK: u32 = 0o7777;

/// Attributes of an object, as statx(2) gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// Device number of the file system that holds the object.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Format and permission bits.
    pub mode: u32,
    /// The number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device special file (`makedev` encoding of the C library).
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// Preferred size of I/O, in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the data.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Birth, where the file system keeps it.
    pub btime: Option<Time>,
    /// Whether the object is immutable (`STATX_ATTR_IMMUTABLE`).
    pub immutable: bool,
    /// Whether the object is append-only (`STATX_ATTR_APPEND`).
    pub append_only: bool,
}

impl Stat {
    /// The kind of the object.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        Kind::from_mode(self.mode)
    }

    /// The owner of the object.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        Owner { uid: self.uid, gid: self.gid }
    }

    /// Whether the object is a character device 0:0, the overlayfs whiteout.
    #[must_use]
    pub const fn is_whiteout_device(&self) -> bool {
        matches!(self.kind(), Kind::Char) && self.rdev == 0
    }
}

/// Space and inodes of a file system, as statfs(2) gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatFs {
    /// All blocks, in units of `frsize`.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Blocks free to unprivileged users.
    pub bavail: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Preferred size of I/O in bytes.
    pub bsize: u32,
    /// Unit of the block counts in bytes.
    pub frsize: u32,
    /// Longest name in bytes.
    pub namelen: u32,
}

impl StatFs {
    /// The bytes that are free for users.
    #[must_use]
    pub fn available_bytes(&self) -> u64 {
        self.bavail.saturating_mul(u64::from(self.frsize))
    }
}

/// The limits of a volume or an upper; `None` is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The size in bytes.
    pub size_bytes: Option<u64>,
    /// The number of inodes.
    pub inodes: Option<u64>,
}

impl Limits {
    /// These limits, and those of `other` that are not given here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            size_bytes: self.size_bytes.or(other.size_bytes),
            inodes: self.inodes.or(other.inodes),
        }
    }
}

/// A limit on speed; `None` is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Requests a second.
    pub iops: Option<u64>,
    /// Bytes a second.
    pub bandwidth: Option<u64>,
}

/// The limits on the speed of a mount, by direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speed {
    /// Reads.
    pub read: Rate,
    /// Writes.
    pub write: Rate,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The time at which the change is made (`UTIME_NOW`).
    Now,
    /// The given time.
    At(Time),
}

/// A change of attributes; `None` keeps a value as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// Permission bits, [`MODE_MASK`].
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of data.
    pub mtime: Option<SetTime>,
}

impl AttrChange {
    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Owner and group for a new object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The flags of renameat2(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RenameFlags {
    /// `RENAME_NOREPLACE`.
    pub noreplace: bool,
    /// `RENAME_EXCHANGE`.
    pub exchange: bool,
    /// `RENAME_WHITEOUT`.
    pub whiteout: bool,
}

/// How a file is opened beneath the union.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `O_PATH`: for registration as passthrough backing, never for I/O by the daemon.
    Path,
    /// `O_RDONLY`.
    Read,
    /// `O_RDWR`.
    Write,
}

/// The kind of position that lseek(2) looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// `SEEK_DATA`.
    Data,
    /// `SEEK_HOLE`.
    Hole,
}

/// `XATTR_CREATE` / `XATTR_REPLACE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XattrFlags {
    /// Fail if the attribute exists.
    pub create: bool,
    /// Fail if the attribute does not exist.
    pub replace: bool,
}

/// `FS_IOC_FSGETXATTR` data (`struct fsxattr`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsXattr {
    /// `FS_XFLAG_*`.
    pub xflags: u32,
    /// Extent size hint in bytes.
    pub extsize: u32,
    /// Number of extents (read only).
    pub nextents: u32,
    /// Project.
    pub projid: u32,
    /// Copy-on-write extent size hint in bytes.
    pub cowextsize: u32,
}

/// One entry of a listing of a backing directory.
#[derive(Debug, Clone, Copy)]
pub struct RawEntry<'a> {
    /// The name; never `.` or `..`.
    pub name: &'a [u8],
    /// Inode number in the backing file system.
    pub ino: u64,
    /// The kind; may be [`Kind::Unknown`].
    pub kind: Kind,
    /// Position behind this entry, to resume from.
    pub next: u64,
}

/// A file handle of the backing file system with the identity of that file system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handle {
    /// `f_type` of name_to_handle_at(2).
    pub kind: u8,
    /// The handle.
    pub bytes: Vec<u8>,
    /// UUID of the file system (`FS_IOC_GETFSUUID`), zero where it has none.
    pub uuid: [u8; 16],
}

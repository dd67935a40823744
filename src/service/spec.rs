//! The specification of a mount, independent of a front end.

use std::path::PathBuf;

use crate::backing::stated::Form as StatOverride;
use crate::fuse::session::IoDriver;
use crate::sys::fuse::VfsFlags;
use crate::sys::mount::Propagation;
use crate::types::{Graft, Limits, Speed};
use crate::union::{IdMap, WhiteoutForm};

/// The specification of a mount.
#[derive(Debug, Clone, Default)]
pub struct MountSpec {
    /// The mount point.
    pub target: PathBuf,
    /// First column of /proc/mounts; by default `lamina`.
    pub source: Option<Vec<u8>>,
    /// The type is `fuse.SUBTYPE`; without a subtype it is `fuse`.
    pub subtype: Option<String>,
    /// Lower directories, topmost first.
    pub lowers: Vec<PathBuf>,
    /// The number of lower directories, the topmost ones, that were uppers of this tree.
    pub former: usize,
    /// Images of the store whose layers are below the lower directories, topmost first.
    pub images: Vec<String>,
    /// Layers of the store that are below the lower directories, the lowest first.
    pub layers: Vec<String>,
    /// A container whose layers are below the lower directories.
    pub container: Option<String>,
    /// Whether the mount has an upper of its own that is removed with it.
    pub ephemeral: bool,
    /// The upper, which receives changes.
    pub upper: Option<UpperDirs>,
    /// Volumes, binds and tmpfs inside the tree.
    pub grafts: Vec<Graft>,
    /// The data root, which holds volumes.
    pub root: PathBuf,
    /// The directory of the status sockets of running mounts, if there is one.
    pub runtime: Option<PathBuf>,
    /// The VFS flags.
    pub flags: VfsFlags,
    /// The propagation of mounts below it; by default that of its place.
    pub propagation: Option<Propagation>,
    /// SELinux labels in the syntax of mount(2).
    pub labels: Vec<String>,
    /// Whether users other than the one that mounted have access.
    pub allow_other: bool,
    /// Whether the kernel checks permissions.
    pub default_permissions: bool,
    /// The destination of the log, for the status.
    pub log: Option<String>,
    /// The directory of a volume whose upper may become a layer while it is mounted.
    pub freezer: Option<PathBuf>,
    /// The limits of the upper.
    pub limits: Limits,
    /// The limits on speed.
    pub speed: Speed,
    /// The rules of the union.
    pub rules: Rules,
}

/// The directories of an upper.
#[derive(Debug, Clone)]
pub struct UpperDirs {
    /// The upper directory.
    pub upper: PathBuf,
    /// The work directory. Without it the upper is the topmost layer of a read-only mount.
    pub work: Option<PathBuf>,
}

/// The rules of a union; `None` means the default for the host.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Whether marks are in `user.overlay.*`.
    pub userxattr: bool,
    /// Whether changes of attributes are copied up without data.
    pub metacopy: Option<bool>,
    /// Whether lower directories are renamed with a redirect.
    pub redirect: Option<bool>,
    /// Whether redirects are followed.
    pub follow_redirects: Option<bool>,
    /// Whether metacopy marks are followed; `None`: if they are written.
    pub follow_metacopy: Option<bool>,
    /// Whether hard links of lower layers are kept.
    pub index: Option<bool>,
    /// The form of whiteouts.
    pub whiteouts: Option<WhiteoutForm>,
    /// Whether a copy-up shares extents; with `true` the mount is refused if it cannot.
    pub reflink: Option<bool>,
    /// Whether no call waits for the disk.
    pub volatile: bool,
    /// Whether directories have a link count of 1.
    pub static_nlink: bool,
    /// Whether ACLs are ignored.
    pub no_acl: bool,
    /// The way in which open files are served; one that the kernel does not grant is refused.
    pub io: Option<IoDriver>,
    /// The way in which grafts are shown; one that the kernel does not grant is refused.
    pub graft: Option<GraftDriver>,
    /// The lifetime of names and attributes in the kernel, in seconds.
    pub timeout_secs: Option<f64>,
    /// The mapping of user ids.
    pub uid_map: IdMap,
    /// The mapping of group ids.
    pub gid_map: IdMap,
    /// The group that every object of a graft shows, with the rights of its owner.
    pub group: Option<u32>,
    /// The attribute for owner, mode and kind. A layer that already has one keeps its own.
    pub stat_override: Option<StatOverride>,
    /// The sizes of caches for images.
    pub keep: Keep,
}

/// The way in which grafts are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraftDriver {
    /// As bind mounts of the kernel over their places.
    Bind,
    /// By the daemon, through FUSE.
    Served,
}

impl GraftDriver {
    /// The name in options and in the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Served => "served",
        }
    }
}

/// The sizes of caches for images; `None` means the default for the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Bytes of memory for blocks.
    pub cache_bytes: Option<u64>,
    /// Bytes of disk for materialised files, for all mounts together; 0 for none.
    pub material_bytes: Option<u64>,
}

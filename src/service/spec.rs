//! What a mount is to be, in words of this program.

use std::path::PathBuf;

use crate::backing::stated::Form as StatOverride;
use crate::fuse::session::IoDriver;
use crate::sys::fuse::VfsFlags;
use crate::sys::mount::Propagation;
use crate::types::Graft;
use crate::union::{IdMap, WhiteoutForm};

/// A mount that is asked for.
#[derive(Debug, Clone, Default)]
pub struct MountSpec {
    /// Where it appears.
    pub target: PathBuf,
    /// First column of /proc/mounts; `lamina` without one.
    pub source: Option<Vec<u8>>,
    /// The type shown is `fuse.SUBTYPE`; without one it is `fuse`.
    pub subtype: Option<String>,
    /// Lower directories, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Images of the store whose layers lie below the directories, the topmost first.
    pub images: Vec<String>,
    /// Layers of the store that lie below the directories, the lowest first.
    pub layers: Vec<String>,
    /// A container whose layers lie below the directories.
    pub container: Option<String>,
    /// An upper of its own that goes with the mount.
    pub ephemeral: bool,
    /// The layer that takes changes.
    pub upper: Option<UpperDirs>,
    /// What appears inside the tree from elsewhere.
    pub grafts: Vec<Graft>,
    /// The data root, where volumes are.
    pub root: PathBuf,
    /// Where the sockets of running mounts are, if anywhere.
    pub runtime: Option<PathBuf>,
    /// Flags that the VFS keeps.
    pub flags: VfsFlags,
    /// How mounts below it spread; as its place says without one.
    pub propagation: Option<Propagation>,
    /// Labels of SELinux, as mount(2) takes them.
    pub labels: Vec<String>,
    /// Users other than the mounting one may enter.
    pub allow_other: bool,
    /// The kernel checks permissions.
    pub default_permissions: bool,
    /// Where the process logs, for its status.
    pub log: Option<String>,
    /// Rules of the union.
    pub rules: Rules,
}

/// The directories of an upper.
#[derive(Debug, Clone)]
pub struct UpperDirs {
    /// The upper directory.
    pub upper: PathBuf,
    /// The work directory. Without one the upper is the topmost layer of a read-only mount.
    pub work: Option<PathBuf>,
}

/// Rules of a union; `None` is what suits the host.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Marks are `user.overlay.*`.
    pub userxattr: bool,
    /// Attributes are copied up without data.
    pub metacopy: Option<bool>,
    /// Lower directories are renamed by a redirect.
    pub redirect: Option<bool>,
    /// Redirects are followed.
    pub follow_redirects: Option<bool>,
    /// Metacopy marks are followed; `None` where they are written.
    pub follow_metacopy: Option<bool>,
    /// Hard links of lower layers are kept.
    pub index: Option<bool>,
    /// How removed entries are marked.
    pub whiteouts: Option<WhiteoutForm>,
    /// A copy-up shares extents: never, or else the mount is refused where it cannot.
    pub reflink: Option<bool>,
    /// Nothing waits for the disk.
    pub volatile: bool,
    /// Directories show a link count of 1.
    pub static_nlink: bool,
    /// ACLs do not count.
    pub no_acl: bool,
    /// How open files are served; a way that the kernel does not grant is refused.
    pub io: Option<IoDriver>,
    /// How grafts are shown; a way that the kernel does not grant is refused.
    pub graft: Option<GraftDriver>,
    /// Lifetime of names and attributes in the kernel, in seconds.
    pub timeout_secs: Option<f64>,
    /// Users.
    pub uid_map: IdMap,
    /// Groups.
    pub gid_map: IdMap,
    /// Owner, mode and kind are kept in this attribute. A layer that has one keeps its own.
    pub stat_override: Option<StatOverride>,
    /// How much is kept of what was read from images.
    pub keep: Keep,
}

/// How grafts are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraftDriver {
    /// By bind mounts of the kernel over their places.
    Bind,
    /// By the daemon, through FUSE.
    Served,
}

impl GraftDriver {
    /// As options and status call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Served => "served",
        }
    }
}

/// How much is kept of what was read from images; `None` is what suits the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Bytes of blocks in memory.
    pub cache_bytes: Option<u64>,
    /// Bytes of files on the host, of all mounts together; 0 for none.
    pub material_bytes: Option<u64>,
}

//! The configuration of a mount.

use crate::types::Name;
use crate::union::layer::DirRef;

/// A mount: layers, upper, grafts and options.
pub struct Config {
    /// Lower layers, topmost first.
    pub lowers: Vec<Lower>,
    /// The writable layer; without one the mount is read-only.
    pub upper: Option<Upper>,
    /// Host trees that appear at a path of the mount.
    pub grafts: Vec<GraftTree>,
    /// Rules that differ from mount to mount.
    pub options: Options,
}

/// A layer that never changes.
#[derive(Clone)]
pub struct Lower {
    /// The root directory.
    pub root: DirRef,
    /// The name in messages.
    pub label: String,
    /// Whether the kernel maps the ids already (an id-mapped mount): they are those of the mount.
    pub shifted: bool,
    /// Whether it was the upper of a mount over the layers below, so that its numbers count.
    pub was_upper: bool,
}

/// The layer that takes all changes.
#[derive(Clone)]
pub struct Upper {
    /// The root directory.
    pub root: DirRef,
    /// A directory of the same file system that only this mount uses, empty at the start.
    pub work: DirRef,
    /// The kernel's index directory, if hard links are to be kept across copy-up.
    pub index: Option<DirRef>,
    /// The name in messages.
    pub label: String,
}

/// A host tree shown at a path of the mount: no union, no copy-up, no whiteouts inside.
#[derive(Clone)]
pub struct GraftTree {
    /// The object that is shown.
    pub root: GraftRoot,
    /// The path, as components below the root of the mount; they exist in the union.
    pub path: Vec<Name>,
    /// Whether changes are refused with `EROFS`.
    pub read_only: bool,
    /// The name in messages.
    pub label: String,
}

/// The host object behind a graft.
#[derive(Clone)]
pub enum GraftRoot {
    /// A directory and all below it.
    Dir(DirRef),
    /// A single entry of a directory, not a directory itself.
    Entry {
        /// The directory that holds it.
        dir: DirRef,
        /// The name in it.
        name: Name,
    },
}

/// The namespace of extended attributes that carries our marks in the upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Marks {
    /// `trusted.overlay.*`: needs privilege, out of reach of users.
    #[default]
    Trusted,
    /// `user.overlay.*`, as the kernel's `userxattr`.
    User,
}

/// How a removed lower entry is marked in the upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhiteoutForm {
    /// Character device 0:0.
    #[default]
    Device,
    /// Regular file `.wh.NAME`, where devices cannot be made.
    Aufs,
}

/// A run of ids: `len` ids from `disk` in the layers are shown from `shown` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the layers.
    pub disk: u32,
    /// First id in the mount.
    pub shown: u32,
    /// Count of ids.
    pub len: u32,
}

/// How ids in the layers relate to ids in the mount. Empty: they are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    /// Runs of ids; an id outside all of them shows as the overflow id 65534.
    pub ranges: Vec<IdRange>,
    /// Shows every object as of this id.
    pub squash: Option<u32>,
}

/// Default of [`Options::listing_entries`]: some 250 KB.
pub const LISTING_ENTRIES: usize = 4096;
/// Default of [`Options::listing_bytes`]: the names of one directory of four million entries.
pub const LISTING_BYTES: usize = 64 << 20;

/// Rules of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The namespace in which our marks are written.
    pub marks: Marks,
    /// Whether copy-up copies only the attributes if the data does not change.
    pub metacopy: bool,
    /// Whether directories of lower layers are renamed by a redirect mark, not by copying the tree
    /// up.
    pub redirect: bool,
    /// Whether redirect marks are followed; otherwise their targets are refused with `EPERM`.
    pub follow_redirects: bool,
    /// Whether metacopy marks are followed; otherwise their objects are refused with `EPERM`.
    pub follow_metacopy: bool,
    /// Whether hard links of lower layers stay together across copy-up.
    pub index: bool,
    /// The form in which whiteouts are written.
    pub whiteouts: WhiteoutForm,
    /// Whether copy-up tries to share extents.
    pub reflink: bool,
    /// Whether the mount never waits for the disk.
    pub volatile: bool,
    /// Whether every read of the upper changes an access time (`strictatime`).
    pub strict_atime: bool,
    /// Whether a listing of an upper directory may change its access time.
    pub dir_atime: bool,
    /// Whether directories have a link count of 1.
    pub static_nlink: bool,
    /// Whether POSIX ACLs are supported.
    pub acl: bool,
    /// The number of entries above which a merged directory is read part by part.
    pub listing_entries: usize,
    /// The number of bytes that may be kept of merged directories.
    pub listing_bytes: usize,
    /// Whether the upper may become a layer of the running mount.
    pub freezes: bool,
    /// The map of users.
    pub uid_map: IdMap,
    /// The map of groups.
    pub gid_map: IdMap,
    /// The group that every object of a graft shows, with the rights of its owner.
    pub group: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            marks: Marks::Trusted,
            metacopy: true,
            redirect: true,
            follow_redirects: true,
            follow_metacopy: true,
            index: true,
            whiteouts: WhiteoutForm::Device,
            reflink: true,
            volatile: false,
            strict_atime: false,
            dir_atime: false,
            static_nlink: false,
            acl: true,
            listing_entries: LISTING_ENTRIES,
            listing_bytes: LISTING_BYTES,
            freezes: false,
            uid_map: IdMap::default(),
            gid_map: IdMap::default(),
            group: None,
        }
    }
}

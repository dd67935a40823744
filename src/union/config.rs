//! What a mount is made of.

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
    /// Its root directory.
    pub root: DirRef,
    /// What a message calls it.
    pub label: String,
    /// The kernel maps its ids already (an id-mapped mount): they are those of the mount.
    pub shifted: bool,
}

/// The layer that takes all changes.
#[derive(Clone)]
pub struct Upper {
    /// Its root directory.
    pub root: DirRef,
    /// A directory of the same file system that is ours alone, empty at the start.
    pub work: DirRef,
    /// The kernel's index directory, if hard links are to be kept across copy-up.
    pub index: Option<DirRef>,
    /// What a message calls it.
    pub label: String,
}

/// A host tree shown at a path of the mount: no union, no copy-up, no whiteouts inside.
#[derive(Clone)]
pub struct GraftTree {
    /// What is shown.
    pub root: GraftRoot,
    /// Where, as components below the root of the mount; they exist in the union.
    pub path: Vec<Name>,
    /// Refuses changes with `EROFS`.
    pub read_only: bool,
    /// What a message calls it.
    pub label: String,
}

/// The host object behind a graft.
#[derive(Clone)]
pub enum GraftRoot {
    /// A directory and all below it.
    Dir(DirRef),
    /// A single entry of a directory that is no directory itself.
    Entry {
        /// The directory that holds it.
        dir: DirRef,
        /// Its name there.
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
    /// Where our marks are written.
    pub marks: Marks,
    /// Copies attributes alone where data stays as it is.
    pub metacopy: bool,
    /// Renames directories of lower layers by a redirect mark; otherwise by copying the tree up.
    pub redirect: bool,
    /// Follows redirect marks; otherwise what they lead to is refused with `EPERM`.
    pub follow_redirects: bool,
    /// Follows metacopy marks; otherwise what carries one is refused with `EPERM`.
    pub follow_metacopy: bool,
    /// Keeps hard links of lower layers together across copy-up.
    pub index: bool,
    /// The form of whiteouts that is written.
    pub whiteouts: WhiteoutForm,
    /// Copy-up tries to share extents.
    pub reflink: bool,
    /// Never waits for the disk.
    pub volatile: bool,
    /// Every read of the upper changes an access time (`strictatime`).
    pub strict_atime: bool,
    /// A listing of an upper directory may change its access time.
    pub dir_atime: bool,
    /// Reports a link count of 1 for directories.
    pub static_nlink: bool,
    /// Honours POSIX ACLs.
    pub acl: bool,
    /// A merged directory whose parts have more entries is read part by part.
    pub listing_entries: usize,
    /// Bytes that may be kept of merged directories.
    pub listing_bytes: usize,
    /// Users.
    pub uid_map: IdMap,
    /// Groups.
    pub gid_map: IdMap,
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
            uid_map: IdMap::default(),
            gid_map: IdMap::default(),
        }
    }
}

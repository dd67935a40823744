//! Names that mark absence in layers, for writers and readers of such layers.
//!
//! The AUFS names are those of image archives; the overlayfs names are attributes (kernel
//! `fs/overlayfs/overlayfs.h`, `ovl_xattr_table`).

/// Prefix of a whiteout in the AUFS form.
pub const WH_PREFIX: &[u8] = b".wh.";
/// Marks the directory that holds it as opaque, in the AUFS form.
pub const WH_OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of the names of AUFS's bookkeeping: `.wh..wh.plnk`, `.wh..wh.orph`, `.wh..wh.aufs`.
pub const WH_BOOKKEEPING: &[u8] = b".wh..wh.";

/// Prefix of the attributes of overlayfs, as it writes them by default.
pub const TRUSTED: &[u8] = b"trusted.overlay.";
/// Prefix of the attributes of overlayfs mounted with `userxattr`.
pub const USER: &[u8] = b"user.overlay.";
/// Prefix of the private attributes of fuse-overlayfs.
pub const FUSE_OVERLAYFS: &[u8] = b"user.fuseoverlayfs.";

/// Prefixes of the attributes in which other unions of user space keep private data.
pub const PRIVATE: [&[u8]; 4] = [
    FUSE_OVERLAYFS,
    b"security.fuseoverlayfs.",
    b"user.containers.override_stat",
    b"user.containers.override_security.",
];

/// Whether an attribute would count as a mark, or as data of one, in a layer that is read.
#[must_use]
pub fn is_reserved(key: &[u8]) -> bool {
    [TRUSTED, USER].iter().chain(&PRIVATE).any(|prefix| key.starts_with(prefix))
}

/// On a directory, `y`: it hides everything below; `x`: files in it may be whiteouts.
pub const OPAQUE: &[u8] = b"opaque";
/// On a directory or a file of metadata alone: the place of its lower part.
pub const REDIRECT: &[u8] = b"redirect";
/// On a file: its data is in a lower layer.
pub const METACOPY: &[u8] = b"metacopy";
/// On an empty file: it stands for a whiteout.
pub const WHITEOUT: &[u8] = b"whiteout";

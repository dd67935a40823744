//! The marks in a layer for everything that is not plain content.
//!
//! Names and values are those of the kernel (`fs/overlayfs/overlayfs.h`, `ovl_xattr_table`), of the
//! AUFS form that image tools unpack (`.wh.NAME`, `.wh..wh..opq`), and, for reading, of older
//! userspace unions. Our own marks are `lamina.ino`, `lamina.links` and `lamina.plain` in the same
//! namespace: the kernel shows no attribute of `trusted.overlay.` or `user.overlay.`, so it hides
//! these too.
//!
//! A user of the mount can neither see nor set a mark: `*.overlay.X` is stored as
//! `*.overlay.overlay.X` (the kernel's escape for nested overlays), the rest is refused.

use crate::types::marks::{self, FUSE_OVERLAYFS, TRUSTED, USER};
use crate::types::{Kind, Name, Stat};
use crate::union::config::Marks;

pub use crate::types::marks::{WH_OPAQUE, WH_PREFIX};

const ESCAPE: &[u8] = b"overlay.";
const PRIVATE: [&[u8]; 4] = [
    FUSE_OVERLAYFS,
    b"security.fuseoverlayfs.",
    b"user.containers.override_stat",
    b"user.containers.override_security.",
];

/// A mark that overlayfs keeps in an extended attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// `opaque`: `y` hides everything below; `x` means that files here may be `whiteout`.
    Opaque,
    /// `redirect`: the place of the lower part of a directory, or of the data of a file.
    Redirect,
    /// `metacopy`: the data is in a lower layer.
    Metacopy,
    /// `whiteout`: an empty file that stands for a whiteout.
    Whiteout,
    /// `origin`: file handle of the lower object that was copied up.
    Origin,
    /// `impure`: a directory that holds copied-up entries.
    Impure,
    /// `protattr`: the flags `i` and `a` of the lower object, which its copy does not carry.
    ProtAttr,
    /// `nlink`: link count of an indexed file relative to the upper one.
    Nlink,
    /// Ours, `lamina.ino`: the inode number shown for a copied-up object.
    Ino,
    /// Ours, `lamina.links`: the whole link count, and the relative one that it belongs to.
    Links,
    /// Ours, `lamina.plain`: an object that looks like a whiteout but is not one.
    Plain,
}

impl Mark {
    const fn suffix(self) -> &'static [u8] {
        match self {
            Self::Opaque => marks::OPAQUE,
            Self::Redirect => marks::REDIRECT,
            Self::Metacopy => marks::METACOPY,
            Self::Whiteout => marks::WHITEOUT,
            Self::Origin => b"origin",
            Self::Impure => b"impure",
            Self::ProtAttr => b"protattr",
            Self::Nlink => b"nlink",
            Self::Ino => b"lamina.ino",
            Self::Links => b"lamina.links",
            Self::Plain => b"lamina.plain",
        }
    }

    /// Returns the name of the attribute in a namespace.
    #[must_use]
    pub fn key(self, marks: Marks) -> Vec<u8> {
        let prefix = match marks {
            Marks::Trusted => TRUSTED,
            Marks::User => USER,
        };
        [prefix, self.suffix()].concat()
    }
}

/// The marks that the names of an object's attributes announce, before any value is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marked {
    /// An attribute that may make a directory opaque.
    pub opaque: bool,
    /// A redirect.
    pub redirect: bool,
    /// The data is in another layer.
    pub metacopy: bool,
    /// An xattr whiteout.
    pub whiteout: bool,
    /// Flags that the copy does not carry.
    pub protattr: bool,
    /// A stored inode number.
    pub ino: bool,
    /// A relative link count.
    pub nlink: bool,
    /// The object is not a whiteout, even if it looks like one.
    pub plain: bool,
}

impl Marked {
    /// Reads the names, in both namespaces.
    #[must_use]
    pub fn from_names(names: &[Vec<u8>]) -> Self {
        Self::read(names, |_| true)
    }

    /// Reads the names. Marks of absence, and that of a plain object, count in both namespaces;
    /// marks that lead elsewhere count if `leads` returns true for their name.
    #[must_use]
    pub fn read(names: &[Vec<u8>], leads: impl Fn(&[u8]) -> bool) -> Self {
        let mut found = Self::default();
        for name in names {
            if let Some(suffix) = strip(name, &[TRUSTED, USER]) {
                match suffix {
                    b"opaque" => found.opaque = true,
                    b"whiteout" => found.whiteout = true,
                    b"lamina.plain" => found.plain = true,
                    b"redirect" if leads(name) => found.redirect = true,
                    b"metacopy" if leads(name) => found.metacopy = true,
                    b"protattr" if leads(name) => found.protattr = true,
                    b"nlink" if leads(name) => found.nlink = true,
                    b"lamina.ino" if leads(name) => found.ino = true,
                    _ => {}
                }
            } else if name == b"user.fuseoverlayfs.opaque" {
                found.opaque = true;
            }
        }
        found
    }
}

fn strip<'a>(name: &'a [u8], prefixes: &[&[u8]]) -> Option<&'a [u8]> {
    prefixes.iter().find_map(|prefix| name.strip_prefix(*prefix))
}

/// Returns the keys under which a mark may be in a layer, the most trusted first.
#[must_use]
pub fn keys(mark: Mark) -> [Vec<u8>; 2] {
    [mark.key(Marks::Trusted), mark.key(Marks::User)]
}

/// Whether an attribute is a mark of overlayfs or ours, and never plain content.
#[must_use]
pub fn is_mark(key: &[u8]) -> bool {
    strip(key, &[TRUSTED, USER]).is_some_and(|rest| !rest.starts_with(ESCAPE)) || is_private(key)
}

/// Whether users may neither see nor set an attribute, whatever its value.
#[must_use]
pub fn is_private(key: &[u8]) -> bool {
    PRIVATE.iter().any(|prefix| key.starts_with(prefix))
}

/// Returns the name under which a user's attribute is stored.
#[must_use]
pub fn escape(key: &[u8]) -> Vec<u8> {
    for prefix in [TRUSTED, USER] {
        if let Some(rest) = key.strip_prefix(prefix) {
            return [prefix, ESCAPE, rest].concat();
        }
    }
    key.to_vec()
}

/// Returns the name under which a stored attribute is shown, or `None` if it is not shown.
#[must_use]
pub fn unescape(key: &[u8]) -> Option<Vec<u8>> {
    for prefix in [TRUSTED, USER] {
        if let Some(rest) = key.strip_prefix(prefix) {
            let shown = rest.strip_prefix(ESCAPE)?;
            return Some([prefix, shown].concat());
        }
    }
    (!is_private(key)).then(|| key.to_vec())
}

/// Returns the name of the AUFS whiteout of `name`.
#[must_use]
pub fn aufs_whiteout(name: &[u8]) -> Name {
    let mut whiteout = Name::from_slice(WH_PREFIX);
    whiteout.extend_from_slice(name);
    whiteout
}

/// Whether a name has the form of an AUFS whiteout.
#[must_use]
pub fn is_aufs_name(name: &[u8]) -> bool {
    name.starts_with(WH_PREFIX)
}

/// Whether an object may be an xattr whiteout: an empty regular file.
#[must_use]
pub const fn may_be_xattr_whiteout(stat: &Stat) -> bool {
    matches!(stat.kind(), Kind::File) && stat.size == 0
}

/// Encodes the kernel's origin mark: `struct ovl_fb` of `fs/overlayfs/overlayfs.h`, version 0.
///
/// | offset | bytes | meaning |
/// | --- | --- | --- |
/// | 0 | 1 | version, 0 |
/// | 1 | 1 | magic, 0xfb |
/// | 2 | 1 | length in all |
/// | 3 | 1 | flags: 1 = made on a big-endian machine |
/// | 4 | 1 | type of the handle |
/// | 5 | 16 | UUID of the file system |
/// | 21 | n | the handle |
#[must_use]
pub fn encode_origin(handle: &crate::types::Handle) -> Option<Vec<u8>> {
    let len = u8::try_from(21 + handle.bytes.len()).ok()?;
    let mut out = vec![0, 0xfb, len, u8::from(cfg!(target_endian = "big")), handle.kind];
    out.extend_from_slice(&handle.uuid);
    out.extend_from_slice(&handle.bytes);
    Some(out)
}

/// Returns the name of an object in the index directory: its origin in hexadecimal.
#[must_use]
pub fn index_name(origin: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble & 15)).copied().unwrap_or(b'0');
    origin.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_users_are_stored_escaped_and_shown_as_given() {
        let stored = escape(b"user.overlay.opaque");
        assert_eq!(stored, b"user.overlay.overlay.opaque");
        assert_eq!(unescape(&stored), Some(b"user.overlay.opaque".to_vec()));
        assert_eq!(unescape(b"trusted.overlay.opaque"), None);
        assert_eq!(unescape(b"user.overlay.lamina.ino"), None);
        assert_eq!(unescape(b"user.mine"), Some(b"user.mine".to_vec()));
    }

    #[test]
    fn escaped_marks_are_content() {
        assert!(is_mark(b"trusted.overlay.origin"));
        assert!(!is_mark(b"trusted.overlay.overlay.origin"));
        assert!(is_mark(b"user.fuseoverlayfs.opaque"));
        let marked = Marked::from_names(&[b"user.overlay.overlay.opaque".to_vec()]);
        assert_eq!(marked, Marked::default());
    }

    #[test]
    fn what_leads_elsewhere_counts_in_the_namespace_in_use() {
        let names = ["opaque", "redirect", "metacopy", "whiteout", "lamina.ino", "lamina.plain"];
        let names: Vec<_> = names.iter().map(|name| [USER, name.as_bytes()].concat()).collect();
        let found = Marked::read(&names, |name| name.starts_with(TRUSTED));
        let absent = Marked { opaque: true, whiteout: true, plain: true, ..Marked::default() };
        assert_eq!(found, absent);
        let all = Marked { redirect: true, metacopy: true, ino: true, ..absent };
        assert_eq!(Marked::read(&names, |name| name.starts_with(USER)), all);
    }

    #[test]
    fn index_names_are_hexadecimal() {
        assert_eq!(index_name(&[0x00, 0xfb, 0x1d]), b"00fb1d");
    }
}

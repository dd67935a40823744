//! Conversion of names in archives to places in a layer.
//!
//! A name is relative to the root of the layer, as in GNU tar: leading `/` and `./` and repeated
//! `/` are dropped. `..` is refused rather than resolved, since a link may come before it.

use crate::transfer::error::TransferError;
pub(super) use crate::tree::error::shown;
use crate::types::marks::{WH_BOOKKEEPING, WH_OPAQUE, WH_PREFIX};
use crate::types::{NAME_MAX, Name, name};

/// The longest path, `PATH_MAX` of Linux.
const PATH_MAX: usize = 4096;

/// Limit of components of a path.
const DEPTH_MAX: usize = 1024;

/// The longest name of an extended attribute, `XATTR_NAME_MAX` of Linux.
pub(super) const XATTR_NAME_MAX: usize = 255;

/// The meaning of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The object itself.
    Object(Vec<Name>),
    /// A whiteout of this object (`.wh.NAME`).
    Whiteout(Vec<Name>),
    /// An opaque directory, which hides the layers below (`.wh..wh..opq`).
    Opaque(Vec<Name>),
    /// Metadata of AUFS that belongs to no layer.
    Nothing,
}

/// Converts a name of an archive to a place.
pub(super) fn place(raw: &[u8]) -> Result<Place, &'static str> {
    let mut path = components(raw)?;
    let Some(last) = path.pop() else { return Ok(Place::Object(path)) };
    for parent in &path {
        if parent.starts_with(WH_BOOKKEEPING) {
            return Ok(Place::Nothing);
        }
        if parent.starts_with(WH_PREFIX) {
            return Err("it lies in a whiteout");
        }
    }
    if last.as_slice() == WH_OPAQUE {
        return Ok(Place::Opaque(path));
    }
    if last.starts_with(WH_BOOKKEEPING) {
        return Ok(Place::Nothing);
    }
    let Some(hidden) = last.strip_prefix(WH_PREFIX) else {
        path.push(last);
        return Ok(Place::Object(path));
    };
    if matches!(hidden, b"" | b"." | b"..") {
        return Err("it is a whiteout of nothing that a directory can hold");
    }
    path.push(name(hidden));
    Ok(Place::Whiteout(path))
}

/// Converts the target of a hard link.
pub(super) fn link_target(raw: &[u8]) -> Result<Vec<Name>, &'static str> {
    match place(raw) {
        Ok(Place::Object(path)) if path.is_empty() => Err("it is a hard link to the root"),
        Ok(Place::Object(path)) => Ok(path),
        Ok(_) => Err("it is a hard link to a whiteout"),
        Err(_) => Err("it is a hard link to a name that is empty, too long or leaves the layer"),
    }
}

/// The components of a name; empty for the root.
pub(super) fn components(raw: &[u8]) -> Result<Vec<Name>, &'static str> {
    if raw.is_empty() {
        return Err("its name is empty");
    }
    if raw.len() > PATH_MAX {
        return Err("its name is longer than 4096 bytes");
    }
    if raw.contains(&0) {
        return Err("its name holds a NUL");
    }
    let mut path = Vec::new();
    for part in raw.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its name leads upwards (`..`)"),
            _ if part.len() > NAME_MAX => {
                return Err("a component of its name is longer than 255 bytes");
            }
            _ if path.len() == DEPTH_MAX => return Err("it is more than 1024 levels deep"),
            _ => path.push(name(part)),
        }
    }
    Ok(path)
}

/// Joins components by `/`.
pub(super) fn joined(path: &[Name]) -> Vec<u8> {
    path.join(&b'/')
}

/// Returns the error for an entry.
pub(super) fn refused(raw: &[u8]) -> impl Fn(&'static str) -> TransferError + '_ {
    move |what| TransferError::Entry { name: shown(raw), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(parts: &[&str]) -> Vec<Name> {
        parts.iter().map(|part| name(part.as_bytes())).collect()
    }

    #[test]
    fn names_are_taken_relative_to_the_root() {
        for raw in ["a/b", "./a/b", "/a/b", "//a///b/", "a/./b/."] {
            assert_eq!(components(raw.as_bytes()), Ok(path(&["a", "b"])), "{raw}");
        }
        assert_eq!(components(b"./"), Ok(Vec::new()));
        assert_eq!(components(b"a/..b/...").unwrap(), path(&["a", "..b", "..."]));
    }

    #[test]
    fn names_that_no_layer_has_are_refused() {
        for raw in ["", "..", "../a", "a/../b", "a/..", "/..", "a\0b"] {
            assert!(components(raw.as_bytes()).is_err(), "{raw:?}");
        }
        assert!(components(&[b'a'; 255]).is_ok());
        assert!(components(&[b'a'; 256]).is_err());
        assert!(components(&b"a/".repeat(1024)).is_ok());
        assert!(components(&b"a/".repeat(1025)).is_err());
        assert!(components(&b"abc/".repeat(1025)).is_err());
    }

    #[test]
    fn aufs_names_are_places() {
        assert_eq!(place(b"a/.wh.b"), Ok(Place::Whiteout(path(&["a", "b"]))));
        assert_eq!(place(b".wh..wh"), Ok(Place::Whiteout(path(&[".wh"]))));
        assert_eq!(place(b"a/.wh..wh..opq"), Ok(Place::Opaque(path(&["a"]))));
        assert_eq!(place(b".wh..wh..opq"), Ok(Place::Opaque(Vec::new())));
        assert_eq!(place(b".wh..wh.plnk/1.2"), Ok(Place::Nothing));
        assert_eq!(place(b".wh..wh.aufs"), Ok(Place::Nothing));
        for raw in ["a/.wh.", ".wh..", ".wh...", "a/.wh.b/c"] {
            assert!(place(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn link_targets_stay_inside() {
        assert_eq!(link_target(b"./a/b"), Ok(path(&["a", "b"])));
        for raw in ["", "/", "../etc/passwd", "a/../../b", ".wh.a", ".wh..wh.plnk/7"] {
            assert!(link_target(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn shown_names_cannot_steer_a_terminal() {
        let text = shown("a\x1b[2Jb\u{202e}\n".as_bytes());
        assert!(text.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{text}");
        assert!(shown(&[b'a'; 5000]).len() < 300);
    }
}

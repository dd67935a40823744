//! The names that may differ between two snapshots, found in the layers that only one of them has.
//!
//! Where the layers of one snapshot are the lower part of those of the other, an object can only
//! differ if one of the further layers has an entry of its name, or if a directory on its path was
//! replaced or moved there. So a comparison needs to look at no other names. The layers never
//! change.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::super::error::{Result, VolumeError};
use super::pool::Pool;
use super::stack;
use crate::error::{Errno, Error, FromHost, Result as Answered};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{Name, name};

/// The prefix of a whiteout that is a file.
const WHITEOUT: &[u8] = b".wh.";
/// The file that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The layers that one of two snapshots has above those of the other.
#[derive(Debug)]
pub struct Delta {
    layers: Vec<File>,
}

impl Delta {
    /// Opens the further layers of two snapshots in their directories. `None` if the layers of
    /// neither are the lower part of those of the other.
    ///
    /// # Errors
    /// Errors of reading a stack; as open(2).
    pub fn between(old: &Path, new: &Path) -> Result<Option<Self>> {
        let (one, other) = (stack::read(old)?, stack::read(new)?);
        if one.image != other.image || one.upper.is_some() || other.upper.is_some() {
            return Ok(None);
        }
        let (long, short) = match one.layers.len() > other.layers.len() {
            true => (one.layers, other.layers),
            false => (other.layers, one.layers),
        };
        let Some(further) = long.strip_suffix(&*short) else { return Ok(None) };
        let pool = Pool::of(new);
        let open = |layer: &String| {
            let path = pool.content(layer);
            File::open(&path).map_err(VolumeError::io(&path))
        };
        Ok(Some(Self { layers: further.iter().map(open).collect::<Result<_>>()? }))
    }

    /// The names in a directory that may differ, sorted. `None` if all may, there and in all
    /// directories below. The caller asks for a directory below another one only if that had names.
    ///
    /// # Errors
    /// As openat2(2), getdents64(2).
    pub fn names(&self, path: &[u8]) -> Answered<Option<Vec<Name>>> {
        let mut found = Vec::new();
        for layer in &self.layers {
            let path = if path.is_empty() { b"." } else { path };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let dir = match sys::file::open_beneath_no_links(layer.as_fd(), path, flags) {
                Ok(dir) => dir,
                Err(error) if error.is(Errno::NOENT) => continue,
                // The layer hides those below.
                Err(error) if error.is(Errno::NOTDIR) || error.is(Errno::LOOP) => return Ok(None),
                Err(error) => return Err(error),
            };
            if is_apart(dir.as_fd())? || !list(dir.as_fd(), &mut found)? {
                return Ok(None);
            }
        }
        found.sort();
        found.dedup();
        Ok(Some(found))
    }
}

/// Whether a directory is not merged with those of its path in the layers below.
fn is_apart(dir: BorrowedFd<'_>) -> Answered<bool> {
    let keys = match sys::xattr::list(dir, b"") {
        Err(error) if error.is(Errno::OPNOTSUPP) => return Ok(false),
        keys => keys?,
    };
    let mut keys = keys.split(|byte| *byte == 0);
    Ok(keys.any(|key| key.ends_with(b".opaque") || key.ends_with(b".redirect")))
}

/// Adds the names of the entries of a directory, and of what they hide. Returns whether the
/// directory is merged with those below.
fn list(dir: BorrowedFd<'_>, found: &mut Vec<Name>) -> Answered<bool> {
    let mut is_merged = true;
    let listed: std::result::Result<(), Error> = sys::dir::getdents(dir, &mut |entry| {
        if let Some(hidden) = entry.name.strip_prefix(WHITEOUT) {
            is_merged &= entry.name != OPAQUE;
            found.push(name(hidden));
        }
        found.push(name(entry.name));
        true
    });
    listed.map(|()| is_merged)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::stack::Stack;
    use super::*;

    #[test]
    fn names_are_those_of_the_further_layers() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::beside(dir.path());
        let _shared = pool.share().unwrap();
        let [top, middle, low] = [(); 3].map(|()| pool.make().unwrap());
        for (layer, file) in [(&low, "d/low"), (&middle, "d/middle"), (&top, "d/e/top")] {
            let path = pool.content(layer).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(pool.content(&top).join(".wh.gone"), "").unwrap();
        fs::create_dir(pool.content(&middle).join("kind")).unwrap();
        fs::write(pool.content(&top).join("kind"), "").unwrap();
        let place = |layers: &[&String]| {
            let place = dir.path().join(layers.len().to_string());
            fs::create_dir_all(&place).unwrap();
            let layers = layers.iter().map(|layer| (*layer).clone()).collect();
            stack::write(&place, &Stack { layers, ..Stack::default() }).unwrap();
            place
        };
        let (new, old) = (place(&[&top, &middle, &low]), place(&[&low]));
        for (one, other) in [(&old, &new), (&new, &old)] {
            let delta = Delta::between(one, other).unwrap().unwrap();
            let names = |path: &[u8]| {
                let names = delta.names(path).unwrap();
                names.map(|names| names.iter().map(|name| name.to_vec()).collect::<Vec<_>>())
            };
            let own = |names: &[&[u8]]| Some(names.iter().map(|name| name.to_vec()).collect());
            assert_eq!(names(b""), own(&[b".wh.gone", b"d", b"gone", b"kind"]));
            assert_eq!(names(b"d"), own(&[b"e", b"middle"]));
            assert_eq!(names(b"d/e"), own(&[b"top"]));
            assert_eq!(names(b"kind"), None, "a file hides the directory");
            assert_eq!(names(b"other"), own(&[]));
        }
        let apart = place(&[&middle, &top]);
        assert!(Delta::between(&old, &apart).unwrap().is_none());
        fs::write(pool.content(&top).join("d/.wh..wh..opq"), "").unwrap();
        assert_eq!(Delta::between(&old, &new).unwrap().unwrap().names(b"d").unwrap(), None);
    }
}

//! Probes of one name of a directory of a layer.

use crate::error::{Errno, Result};
use crate::types::Kind;
use crate::union::layer::DirRef;
use crate::union::mark;

/// Whether a directory has an entry.
pub(super) fn exists(dir: &DirRef, entry: &[u8]) -> Result<bool> {
    match dir.stat(Some(entry)) {
        Ok(_) => Ok(true),
        Err(error) if error.is(Errno::NOENT) => Ok(false),
        Err(error) if error.is(Errno::NAMETOOLONG) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a name in the AUFS form is a mark: a regular file that was not made by a user.
pub(super) fn is_aufs_whiteout(dir: &DirRef, name: &[u8]) -> Result<bool> {
    match dir.stat(Some(name)) {
        Ok(stat) => Ok(stat.kind() == Kind::File && !is_plain(dir, name)?),
        Err(error) if error.is(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an object that looks like a whiteout was made by a user and is not one.
///
/// # Errors
/// As reading its attributes.
pub(super) fn is_plain(dir: &DirRef, name: &[u8]) -> Result<bool> {
    Ok(mark::Marked::from_names(&dir.xattr_names(Some(name))?).plain)
}

//! Empties a directory of a layer, however deep it is.

use crate::error::Result;
use crate::types::{Kind, Name};
use crate::union::layer::DirRef;

/// A directory that is being emptied: its name in its parent, and the entries left to remove.
struct Level {
    dir: DirRef,
    name: Name,
    rest: std::vec::IntoIter<Name>,
}

impl Level {
    fn new(dir: DirRef, name: Name) -> Result<Self> {
        let mut names: Vec<Name> = Vec::new();
        dir.list(0, &mut |entry| {
            names.push(Name::from_slice(entry.name));
            true
        })?;
        Ok(Self { dir, name, rest: names.into_iter() })
    }
}

/// Removes everything in a directory.
///
/// # Errors
/// As removing the entries.
pub fn empty_dir(dir: &DirRef) -> Result<()> {
    let mut levels = vec![Level::new(dir.clone(), Name::new())?];
    while let Some(level) = levels.last_mut() {
        match level.rest.next() {
            Some(entry) if level.dir.stat(Some(&entry))?.kind() == Kind::Dir => {
                let below = Level::new(level.dir.dir(&entry), entry)?;
                levels.push(below);
            }
            Some(entry) => level.dir.unlink(&entry)?,
            None => {
                let emptied = levels.pop();
                if let (Some(emptied), Some(above)) = (emptied, levels.last()) {
                    above.dir.rmdir(&emptied.name)?;
                }
            }
        }
    }
    Ok(())
}

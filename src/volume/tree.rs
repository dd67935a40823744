//! The space that a directory tree takes.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use walkdir::WalkDir;

use super::driver::Usage;
use super::error::{Result, VolumeError};
use crate::error::FromHost;

/// The space that a tree takes on its file system, as du(1) counts it: hard links once, mounts
/// below left out. Entries that vanish meanwhile do not count.
///
/// # Errors
/// As readdir(3) and lstat(2).
pub(crate) fn usage(root: &Path) -> Result<Usage> {
    let (mut usage, mut linked) = (Usage::default(), HashSet::new());
    let mut inodes = 0;
    for entry in WalkDir::new(root).same_file_system(true).follow_links(false) {
        let found = entry.and_then(|entry| entry.metadata());
        let found = match found.map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.map_err(VolumeError::io(root))?,
        };
        if !found.is_dir() && found.nlink() > 1 && !linked.insert((found.dev(), found.ino())) {
            continue;
        }
        usage.used_bytes += found.blocks() * 512;
        inodes += 1;
    }
    usage.host_bytes = usage.used_bytes;
    usage.used_inodes = Some(inodes);
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), vec![1; 1 << 20]).unwrap();
        let one = usage(dir.path()).unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        let two = usage(dir.path()).unwrap();
        assert_eq!((one.used_bytes, one.used_inodes), (two.used_bytes, Some(2)));
        assert!(one.used_bytes >= 1 << 20, "{one:?}");
    }
}

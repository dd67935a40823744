//! Directories of the host that are volumes of Kubernetes: what its recycler and its deleter do.
//!
//! Neither touches the data root, or a directory above it, as `/` is one.

use std::io;
use std::path::{Path, PathBuf};

use crate::sys;

/// The only directory below which a volume's directory is deleted, as in Kubernetes.
const DELETABLE: &str = "/tmp";

/// Removes all that is in a directory, and keeps the directory. A directory that does not exist is
/// empty.
///
/// # Errors
/// As the system calls; `ELOOP` for a link on the way; `EXDEV` where a file system is mounted
/// below, whose content stays. Links are removed, and lead nowhere. A path that is relative, or
/// that leads to the data root `root` or above or below it, is refused.
pub fn scrub(path: &Path, root: &Path) -> io::Result<()> {
    match sys::remove::empty_found(path, |found| require_outside(found, root)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Removes a directory below `/tmp` with all in it. One that is gone already is not an error.
///
/// # Errors
/// As [`scrub`], and an invalid path for one elsewhere.
pub fn delete(path: &Path, root: &Path) -> io::Result<()> {
    let below = path.strip_prefix(DELETABLE).map_err(|_| io::ErrorKind::InvalidInput)?;
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => require_outside(&found?, root)?,
    }
    sys::remove::remove_beneath(Path::new(DELETABLE), below)
}

/// Removes a directory of our own with all in it, however deep it is. One that is gone is not an
/// error.
///
/// # Errors
/// As [`scrub`].
pub fn remove_own(path: &Path) -> io::Result<()> {
    match sys::remove::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Refuses the data root, what is in it, and what it is in.
fn require_outside(found: &Path, root: &Path) -> io::Result<()> {
    let root: PathBuf = root.canonicalize()?;
    if !found.starts_with(&root) && !root.starts_with(found) {
        return Ok(());
    }
    let text = format!("the data root {} is not the content of a volume", root.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn neither_a_relative_path_nor_the_data_root_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        let root = at.join("root");
        fs::create_dir_all(root.join("volumes/v")).unwrap();
        fs::create_dir_all(at.join("data/sub")).unwrap();
        std::os::unix::fs::symlink(&at, at.join("link")).unwrap();
        let refused = [".", "src", "/", "/proc/self/cwd", "/proc/self/root"].map(PathBuf::from);
        let own = ["", "root", "root/volumes", "root/volumes/v", "link/data", "link"];
        for path in refused.into_iter().chain(own.map(|path| at.join(path))) {
            scrub(&path, &root).unwrap_err();
        }
        for path in [&at, &root, &root.join("volumes/v")] {
            if path.starts_with(DELETABLE) {
                delete(path, &root).unwrap_err();
            }
        }
        assert!(root.join("volumes/v").is_dir() && at.join("data/sub").is_dir());
        scrub(&at.join("none"), &root).unwrap();
        scrub(&at.join("data"), &root).unwrap();
        assert_eq!(fs::read_dir(at.join("data")).unwrap().count(), 0);
    }
}

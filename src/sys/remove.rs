//! Removing whole trees, however deep.
//!
//! The standard library holds a descriptor and a stack frame for each level. This module holds one
//! or two descriptors: it goes up by `..` and compares the directory there with the one that it
//! came from, so that a directory that is moved meanwhile leads nowhere else. It enters no mount:
//! what is mounted below belongs to others.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, unlinkat,
};
use rustix::io::Errno;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that is being emptied.
struct Level {
    /// The name in the level above.
    name: Vec<u8>,
    /// Device and inode.
    id: (u64, u64),
    /// Directories in it that are still there.
    rest: Vec<Vec<u8>>,
}

/// Removes a directory and all in it, as [`std::fs::remove_dir_all`] does. Entries that others
/// remove meanwhile are not an error.
///
/// # Errors
/// As openat2(2), getdents64(2) and unlinkat(2). `EXDEV` where a file system is mounted below,
/// whose content stays. `ESTALE` where a directory was moved away meanwhile.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    let here = match openat(CWD, path, DIRECTORY, Mode::empty()) {
        // A link is removed, but not its target.
        Err(Errno::LOOP | Errno::NOTDIR) if path.is_symlink() => {
            return std::fs::remove_file(path);
        }
        opened => opened?,
    };
    empty(here)?;
    std::fs::remove_dir(path)
}

/// Removes all that is in a directory, and keeps the directory.
///
/// # Errors
/// As [`remove_dir_all`].
pub fn empty_dir(path: &Path) -> io::Result<()> {
    let follow = DIRECTORY.difference(OFlags::NOFOLLOW);
    empty(openat(CWD, path, follow, Mode::empty())?)
}

/// As [`empty_dir`], for a path that is absolute and leads over no link. `check` gets the path of
/// the directory that was found, and may refuse it.
///
/// # Errors
/// As [`remove_dir_all`]; `ELOOP` for a link on the way; those of `check`.
pub fn empty_found(path: &Path, check: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    if !path.is_absolute() {
        let text = "the path is relative: only absolute ones mean the same everywhere";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(CWD, path, DIRECTORY, Mode::empty(), resolve)?;
    check(&std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))?)?;
    empty(found)
}

/// Removes a file, a link, or a directory with all in it. The path is resolved beneath `root`, and
/// leads over no link. What is gone already is not an error.
///
/// # Errors
/// As [`remove_dir_all`]; `ELOOP` for a link on the way, `EXDEV` for a path that leads out.
pub fn remove_beneath(root: &Path, path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let root = openat(CWD, root, DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let parent = openat2(&root, parent, DIRECTORY, Mode::empty(), resolve);
    let Some(parent) = unless_gone(parent)? else { return Ok(()) };
    match openat(&parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::LOOP | Errno::NOTDIR) => {
            unless_gone(unlinkat(&parent, name, AtFlags::empty()))?;
        }
        opened => {
            let Some(dir) = unless_gone(opened)? else { return Ok(()) };
            empty(dir)?;
            unless_gone(unlinkat(&parent, name, AtFlags::REMOVEDIR))?;
        }
    }
    Ok(())
}

fn empty(mut here: OwnedFd) -> io::Result<()> {
    let mut levels = vec![enter(&here, Vec::new())?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.rest.pop() {
            let resolve = ResolveFlags::NO_XDEV;
            let below = openat2(&here, &*name, DIRECTORY, Mode::empty(), resolve);
            let Some(below) = unless_gone(below)? else { continue };
            levels.push(enter(&below, name)?);
            here = below;
            continue;
        }
        let emptied = levels.pop();
        if let (Some(emptied), Some(above)) = (emptied, levels.last()) {
            here = openat(&here, c"..", DIRECTORY, Mode::empty())?;
            if id(&here)? != above.id {
                return Err(Errno::STALE.into());
            }
            unless_gone(unlinkat(&here, &*emptied.name, AtFlags::REMOVEDIR))?;
        }
    }
    Ok(())
}

fn unless_gone<T>(done: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match done {
        Err(Errno::NOENT) => Ok(None),
        done => done.map(Some),
    }
}

fn id(dir: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    fstat(dir).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Removes all entries but directories, and returns a level with those.
fn enter(dir: &OwnedFd, name: Vec<u8>) -> rustix::io::Result<Level> {
    let mut rest = Vec::new();
    for entry in Dir::read_from(dir.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => unless_gone(is_directory(dir, name))?.unwrap_or(false),
            _ => false,
        };
        if is_dir {
            rest.push(name.to_vec());
        } else {
            unless_gone(unlinkat(dir, name, AtFlags::empty()))?;
        }
    }
    Ok(Level { name, id: id(dir)?, rest })
}

fn is_directory(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<bool> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_ten_thousand_levels_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut here = openat(CWD, &top, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..10_000 {
            rustix::fs::mkdirat(&here, "d", Mode::from_raw_mode(0o755)).unwrap();
            rustix::fs::symlinkat("/", &here, "link").unwrap();
            here = openat(&here, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        drop(here);
        remove_dir_all(&top).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let kind = remove_dir_all(&top).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::NotFound);
    }

    #[test]
    fn an_emptied_directory_stays_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (top, outside) = (dir.path().join("top"), dir.path().join("outside"));
        std::fs::create_dir_all(top.join("a/.b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        std::fs::write(top.join("..x"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("a/link")).unwrap();
        empty_dir(&top).unwrap();
        assert_eq!(std::fs::read_dir(&top).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn a_path_beneath_a_root_leads_over_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir_all(outside.join("kept")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        let remove = |path: &str| remove_beneath(&root, Path::new(path));
        assert!(remove("link/kept").is_err() && remove("../outside").is_err());
        assert!(outside.join("kept").exists());
        for gone in ["a", "link", "none/b"] {
            remove(gone).unwrap();
        }
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn a_link_is_removed_and_not_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, link) = (dir.path().join("kept"), dir.path().join("link"));
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&kept, &link).unwrap();
        remove_dir_all(&link).unwrap();
        assert!(kept.join("file").exists() && !link.exists());
    }
}

//! Closes the data root to everyone except its owner.
//!
//! Every function that makes a directory or a record below the root already uses a narrow mode.
//! This module closes a root that already exists, since earlier versions, or an administrator who
//! made it by hand, may have left it open. The contents of volumes and the upper directories of
//! containers keep their modes: the directories above them already block access.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The entries of a data root. A directory with any other entry also has another purpose, and keeps
/// its mode.
const OURS: [&str; 19] = [
    "catalog.db",
    "catalog.db-shm",
    "catalog.db-wal",
    "containers",
    "downloads",
    "holder.lock",
    "holder.sock",
    "holder.sock.new",
    "images",
    "kube",
    "layers",
    "lost+found",
    "materials",
    "names",
    "packed",
    "pods",
    "publications",
    "recipes",
    "volumes",
];

/// The directories that keep their mode, together with their content.
const KEEPS_ITS_MODE: [&str; 5] = ["_data", "lost+found", "merged", "upper", "work"];

/// The permission bits of everyone except the owner.
const OTHERS: u32 = 0o077;

/// `S_ISVTX`: a directory for all users.
const STICKY: u32 = 0o1000;

/// Closes an existing data root and its content. A root that does not exist, or that belongs to
/// another user, is left alone.
///
/// # Errors
/// As readdir(3) and chmod(2).
pub fn close(root: &Path) -> io::Result<()> {
    let Some(meta) = own_directory(root)? else { return Ok(()) };
    let names = fs::read_dir(root)?.map(|entry| Ok(entry?.file_name()));
    let names: Vec<OsString> = names.collect::<io::Result<_>>()?;
    let is_ours = |name: &OsString| name.to_str().is_some_and(|name| OURS.contains(&name));
    if meta.mode() & STICKY != 0 || !names.iter().all(is_ours) {
        return Ok(());
    }
    let was_open = meta.mode() & OTHERS != 0;
    close_one(root, &meta)?;
    for name in names {
        let path = root.join(name);
        let Some(meta) = own_directory(&path)? else { continue };
        if was_open || meta.mode() & OTHERS != 0 {
            close_below(&path, &meta)?;
        }
    }
    Ok(())
}

fn own_directory(path: &Path) -> io::Result<Option<Metadata>> {
    let (uid, _) = crate::sys::process::effective_ids();
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta).filter(|meta| meta.is_dir() && meta.uid() == uid)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn close_one(path: &Path, meta: &Metadata) -> io::Result<()> {
    if meta.mode() & OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o700))
}

fn close_below(dir: &Path, meta: &Metadata) -> io::Result<()> {
    let mut open = vec![(dir.to_owned(), meta.clone())];
    while let Some((path, meta)) = open.pop() {
        let name = path.file_name().and_then(OsStr::to_str);
        if name.is_some_and(|name| KEEPS_ITS_MODE.contains(&name)) {
            continue;
        }
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() || meta.is_file() => open.push((entry.path(), meta)),
                    // Another kind of object, or removed in the meantime.
                    Ok(_) | Err(_) => {}
                }
            }
        }
        match close_one(&path, &meta) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn make(path: &Path, bits: u32) {
        if path.extension().is_some() {
            fs::write(path, "").unwrap();
        } else {
            fs::create_dir_all(path).unwrap();
        }
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    }

    #[test]
    fn an_open_root_is_closed_with_what_is_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join("root").join(path);
        let open = ["volumes", "volumes/a", "volumes/a/volume.json", "layers", "layers/x.index"];
        let kept = ["volumes/a/_data", "volumes/a/_data/f.txt", "containers/c/upper"];
        for path in open.iter().chain(&kept) {
            make(&at(path), 0o777);
        }
        make(&at(""), 0o711);
        close(&at("")).unwrap();
        assert_eq!(mode(&at("")), 0o700);
        for path in open {
            assert_eq!(mode(&at(path)), 0o700, "{path}");
        }
        for path in kept {
            assert_eq!(mode(&at(path)), 0o777, "{path}");
        }
        assert_eq!(mode(&at("containers")), 0o700);
    }

    #[test]
    fn a_directory_with_something_else_in_it_keeps_its_modes() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bits) in [("other", 0o755), ("volumes", 0o711), ("", 0o755)] {
            make(&dir.path().join(name), bits);
        }
        close(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o755);
        assert_eq!(mode(&dir.path().join("other")), 0o755);
        assert_eq!(mode(&dir.path().join("volumes")), 0o711);
        close(&dir.path().join("absent")).unwrap();
        fs::remove_dir(dir.path().join("other")).unwrap();
        make(dir.path(), 0o1777);
        close(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o1777, "a directory for everybody");
    }
}

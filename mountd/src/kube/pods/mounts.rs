//! Mounts below the directory of a pod.
//!
//! They are in the mount namespace of the host, so that `lamina pod mount` shows them and a volume
//! can be mounted into it from a container. What a pod leaves behind is found in the table of
//! mounts by its directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use laminafs::service::{Propagation, mounts};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};

use crate::container::files::make_dir;
use crate::container::own;

/// The longest chain of directories of a subpath.
const DEPTH_MAX: usize = 256;

/// Whether something is mounted on a path.
///
/// # Errors
/// As read(2) of the table of mounts.
pub fn is_mounted(at: &Path) -> io::Result<bool> {
    Ok(mounts::on(&real(at)).map_err(io::Error::other)?.is_some())
}

/// A path as the table of mounts has it.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The peer groups of the mounts that are shared, by the numbers of the mounts.
fn peer_groups() -> io::Result<BTreeMap<u64, u64>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let of = |line: &str| {
        let mut fields = line.split(' ');
        let id = fields.next()?.parse().ok()?;
        let mut optional = fields.skip(5).take_while(|field| *field != "-");
        let group = optional.find_map(|field| field.strip_prefix("shared:"))?;
        Some((id, group.parse().ok()?))
    };
    Ok(String::from_utf8_lossy(&table).lines().filter_map(of).collect())
}

/// A mount that went along with another one, or that cannot be reached behind one whose process
/// was killed: it ends with that one.
fn unless_gone(done: rustix::io::Result<()>) -> io::Result<()> {
    match done {
        Err(Errno::INVAL | Errno::NOENT | Errno::NOTCONN | Errno::CONNABORTED) => Ok(()),
        done => Ok(done?),
    }
}

/// Ends all mounts at and below a directory, the last one first. One that is in use ends with its
/// last user. Mounts elsewhere stay, also those that mounts below the directory were cloned from.
///
/// # Errors
/// As mount(2) and umount2(2).
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(dir);
    if matches!(found, Err(error) if error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    let dir = real(dir);
    let all = mounts::read().map_err(io::Error::other)?;
    let groups = peer_groups()?;
    let (mut ours, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|one| one.target.starts_with(&dir));
    // The end of a mount below a peer of a mount of the host would end it there too. The others
    // stay shared, so that their ends reach copies in other mount namespaces.
    let shared: BTreeSet<_> = others.iter().filter_map(|one| groups.get(&one.id)).collect();
    for one in &ours {
        if groups.get(&one.id).is_some_and(|group| shared.contains(group)) {
            unless_gone(mount_change(&one.target, MountPropagationFlags::PRIVATE))?;
        }
    }
    // A mount on another one comes after it.
    ours.reverse();
    ours.sort_by_key(|one| std::cmp::Reverse(one.target.components().count()));
    for one in ours {
        // What is left below it was hidden, and could not be reached before.
        let whole = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        unless_gone(mount_change(&one.target, whole))?;
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        unless_gone(unmount(&one.target, flags))?;
    }
    Ok(())
}

/// Makes a directory that is open to all, unless it is there. It appears with its mode: a process
/// that was killed here leaves no closed one, and what its users made of the mode stays.
///
/// # Errors
/// As mkdir(2), chmod(2) and rename(2).
pub fn open_dir(at: &Path) -> io::Result<()> {
    if at.exists() {
        return Ok(());
    }
    let new = at.with_file_name("_new");
    make_dir(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o777))?;
    fs::rename(&new, at)
}

/// Mounts a file system in memory, unless something is mounted there already.
///
/// # Errors
/// As mount(2).
pub fn tmpfs(at: &Path, size: Option<u64>, mode: u32) -> io::Result<()> {
    make_dir(at)?;
    if is_mounted(at)? {
        return Ok(());
    }
    let size = size.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let data = CString::new(format!("mode={mode:o}{size}")).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("tmpfs", at, "tmpfs", flags, Some(&*data))?)
}

/// Runs `lamina mount` with these words, which end with a mount point.
///
/// # Errors
/// What the command says.
pub fn lamina(words: &[&str], at: &Path, root: &Path) -> io::Result<()> {
    make_dir(at)?;
    let words = words.iter().map(OsStr::new);
    let ends = [OsStr::new("--root"), root.as_os_str(), at.as_os_str()];
    own::run(&[OsStr::new("mount")].into_iter().chain(words).chain(ends).collect::<Vec<_>>())?;
    Ok(())
}

/// Ends a mount whose process was killed.
///
/// # Errors
/// As umount2(2).
pub fn end_if_dead(at: &Path) -> io::Result<()> {
    let is_dead = |error: &io::Error| {
        error.raw_os_error().map(Errno::from_raw_os_error) == Some(Errno::NOTCONN)
    };
    match fs::metadata(at) {
        Err(error) if is_dead(&error) => {
            Ok(unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
        }
        _ => Ok(()),
    }
}

/// A directory on disk that holds at most some bytes: an empty union with a counted upper.
///
/// # Errors
/// As [`lamina`].
pub fn sized(at: &Path, bytes: u64, root: &Path) -> io::Result<()> {
    end_if_dead(at)?;
    make_dir(at)?;
    // No user has it before this file is there: until then its mode is not theirs.
    let ready = at.with_file_name("_ready");
    if !is_mounted(at)? {
        match fs::remove_file(&ready) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => lamina(&["--ephemeral", "--size", &bytes.to_string(), "-o", "rw"], at, root)?,
        }
    }
    if !ready.exists() {
        fs::set_permissions(at, fs::Permissions::from_mode(0o777))?;
        fs::write(&ready, "")?;
    }
    Ok(())
}

/// Finds an object beneath the root of a volume. What is missing of the path is made as
/// directories, with the mode of the root.
///
/// # Errors
/// `EXDEV` for a path that leads out, be it by a link; as openat2(2) and mkdirat(2).
fn beneath(root: &Path, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let root = openat2(
        CWD,
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::empty(),
    )?;
    let mode = Mode::from_raw_mode(fstat(&root)?.st_mode & 0o777);
    let mut at = PathBuf::from(".");
    let mut here = openat2(&root, &at, flags, Mode::empty(), resolve)?;
    for (depth, part) in Path::new(path).components().enumerate() {
        let name = match part {
            Component::Normal(name) if depth < DEPTH_MAX => name,
            Component::CurDir => continue,
            _ => return Err(Errno::XDEV.into()),
        };
        at.push(name);
        let opened = || openat2(&root, &at, flags, Mode::empty(), resolve);
        here = match opened() {
            Err(Errno::NOENT) => {
                // A link that leads to nothing is found in the next try.
                match mkdirat(&here, name, mode) {
                    Err(Errno::EXIST) => {}
                    made => made?,
                }
                opened()?
            }
            found => found?,
        };
    }
    Ok(here)
}

/// A clone of the mounts at an object.
fn clone(object: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(object, "", flags)?)
}

/// Puts a clone of the mounts at an object over a place, and returns its root. `Shared` leaves the
/// clones peers of the mounts of the host; else they are no peers by the time they have a place,
/// so that the end of a clone is not the end of a mount of the host.
fn attach(object: &OwnedFd, place: &OwnedFd, how: Propagation) -> io::Result<OwnedFd> {
    let tree = clone(object)?;
    let parted = match how {
        Propagation::Shared => Ok(()),
        how => how.set_tree(tree.as_fd()),
    };
    let is_late = matches!(&parted, Err(error) if error.is(laminafs::error::Errno::NOSYS));
    if !is_late {
        parted.map_err(io::Error::other)?;
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", place, "", flags)?;
    if is_late {
        // An older kernel changes it at its place only.
        let kind = match how {
            Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
            _ => MountPropagationFlags::PRIVATE,
        };
        mount_change(proc_path(&tree), kind | MountPropagationFlags::REC)?;
    }
    Ok(tree)
}

fn is_dir(object: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::FileType::from_raw_mode(fstat(object)?.st_mode).is_dir())
}

/// Mounts a part of a volume at a place of the pod. The kernel resolves the path beneath the root
/// of the volume, and the object that it found is mounted whatever its names lead to by then.
/// `how` is how mounts spread between the volume and the place.
///
/// # Errors
/// As [`beneath`], and as move_mount(2).
pub fn part(volume: &Path, path: &str, at: &Path, how: Propagation) -> io::Result<()> {
    let object = beneath(volume, path)?;
    unmount_below(at)?;
    if let Some(above) = at.parent() {
        make_dir(above)?;
    }
    if is_dir(&object)? {
        if at.is_file() {
            fs::remove_file(at)?;
        }
        make_dir(at)?;
    } else {
        if at.is_dir() {
            fs::remove_dir(at)?;
        }
        fs::File::options().create(true).append(true).open(at)?;
    }
    let place = rustix::fs::open(at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(&object, &place, how).map(drop)
}

/// Mounts a directory or file at a path of a container's root, whose missing parts are made. Links
/// lead to where they lead in the container. Later mounts spread neither way: nothing runs there.
///
/// # Errors
/// As openat2(2) and move_mount(2).
pub fn within(root: &Path, path: &str, source: &Path, read_only: bool) -> io::Result<()> {
    let whole = OFlags::PATH | OFlags::CLOEXEC;
    let source = rustix::fs::open(source, whole, Mode::empty())?;
    let root = rustix::fs::open(root, whole | OFlags::DIRECTORY, Mode::empty())?;
    let place = made_place(&root, path, is_dir(&source)?)?;
    let tree = attach(&source, &place, Propagation::Private)?;
    if read_only {
        let at = proc_path(&tree);
        rustix::mount::mount_remount(&at, MountFlags::BIND | MountFlags::RDONLY, "")?;
    }
    Ok(())
}

fn proc_path(object: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", object.as_fd().as_raw_fd()))
}

/// The place of a mount in a root.
fn made_place(root: &OwnedFd, path: &str, is_dir: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let parts: Vec<_> = Path::new(path)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            _ => None,
        })
        .collect();
    let mut at = PathBuf::from("/");
    let mut here = openat2(root, &at, flags, Mode::empty(), resolve)?;
    for (index, name) in parts.iter().enumerate() {
        at.push(name);
        let opened = || openat2(root, &at, flags, Mode::empty(), resolve);
        let is_last = index + 1 == parts.len();
        here = match opened() {
            Err(Errno::NOENT) => {
                let made = if is_last && !is_dir {
                    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    let mode = Mode::from_raw_mode(0o644);
                    rustix::fs::openat(&here, name, create, mode).map(drop)
                } else {
                    mkdirat(&here, name, Mode::from_raw_mode(0o755))
                };
                match (made, opened()) {
                    (Err(Errno::EXIST), Err(Errno::NOENT)) => return Err(leads_nowhere(&at)),
                    // Another process was faster.
                    (Err(Errno::EXIST), found) => found?,
                    (made, found) => {
                        made?;
                        found?
                    }
                }
            }
            found => found?,
        };
    }
    Ok(here)
}

fn leads_nowhere(link: &Path) -> io::Error {
    let text = format!("the link {} of the image leads nowhere", link.display());
    io::Error::new(ErrorKind::NotFound, text)
}

/// What a failure to find a subpath is called.
pub fn subpath_fault(path: &str, error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::XDEV | Errno::LOOP) => {
            format!("subPath {path:?} leads out of its volume")
        }
        _ if error.kind() == ErrorKind::NotADirectory => {
            format!("subPath {path:?} goes through a file")
        }
        _ => format!("subPath {path:?}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_subpath_is_made_beneath_the_volume_and_no_link_leads_out() {
        let site = tempfile::tempdir().unwrap();
        let volume = site.path().join("volume");
        fs::create_dir_all(volume.join("inside")).unwrap();
        fs::create_dir_all(site.path().join("outside")).unwrap();
        symlink("inside", volume.join("good")).unwrap();
        symlink("../outside", volume.join("bad")).unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        beneath(&volume, "new/deep").unwrap();
        beneath(&volume, "good/more").unwrap();
        assert!(volume.join("new/deep").is_dir() && volume.join("inside/more").is_dir());
        for out in ["bad", "bad/x", "absolute", "absolute/x", "..", "a/../..", "/etc"] {
            let error = beneath(&volume, out).unwrap_err();
            assert!(subpath_fault(out, &error).contains("leads out"), "{out}: {error}");
        }
        assert_eq!(fs::read_dir(site.path().join("outside")).unwrap().count(), 0);
    }

    #[test]
    fn a_place_behind_a_link_that_leads_nowhere_is_refused_by_its_name() {
        let image = tempfile::tempdir().unwrap();
        fs::create_dir(image.path().join("there")).unwrap();
        symlink("/nowhere", image.path().join("data")).unwrap();
        symlink("/there", image.path().join("good")).unwrap();
        let root = rustix::fs::open(image.path(), OFlags::PATH, Mode::empty()).unwrap();
        for (path, is_dir) in [("/data/x", true), ("/data", true), ("/data", false)] {
            let error = made_place(&root, path, is_dir).unwrap_err();
            assert_eq!(error.to_string(), "the link /data of the image leads nowhere");
        }
        made_place(&root, "/good/x", true).unwrap();
        assert!(image.path().join("there/x").is_dir());
    }

    #[test]
    fn a_directory_is_open_to_all_from_the_start_and_keeps_the_mode_of_its_users() {
        let site = tempfile::tempdir().unwrap();
        let at = site.path().join("volume/_data");
        let mode = || fs::metadata(&at).unwrap().permissions().mode() & 0o777;
        // A process was killed between the two steps.
        make_dir(&site.path().join("volume/_new")).unwrap();
        open_dir(&at).unwrap();
        assert_eq!(mode(), 0o777);
        fs::set_permissions(&at, fs::Permissions::from_mode(0o700)).unwrap();
        open_dir(&at).unwrap();
        assert_eq!(mode(), 0o700);
    }
}

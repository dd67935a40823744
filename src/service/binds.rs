//! Grafts as bind mounts of the kernel: cloned, attached to their places, and taken down.
//!
//! The union below serves every graft as well. A place that is not covered by its bind mount
//! (before it is made, in a copy of the mount without those beneath, while an unmount is tried)
//! shows the same object. So writes there never go to the upper.
//!
//! Places are found by descriptor beneath the root of the mount, without following symbolic links.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::failure::ServiceResult;
use super::holders::{self, Wanted};
use super::mounts::{self, MountEntry};
use super::spec::{GraftDriver, MountSpec};
use super::status::GraftStatus;
use super::utab::{Bound, Row};
use super::{Failure, VfsFlags};
use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::sys::bind;
use crate::sys::file::OFlags;
use crate::types::{BindFlags, Graft, Name};

/// Errnos of the kernel if this process may not mount, or a mount beneath is locked.
const REFUSALS: [Errno; 3] = [Errno::PERM, Errno::INVAL, Errno::NOSYS];

/// A graft that is to be attached to its place.
pub(super) struct Bind {
    mount: OwnedFd,
    path: Vec<u8>,
    shown: String,
    recursive: bool,
}

/// The effective flags of a graft: its own and those of the surrounding mount.
fn flags(spec: &MountSpec, graft: &Graft) -> BindFlags {
    graft.flags.or(of_union(spec.flags))
}

const fn of_union(flags: VfsFlags) -> BindFlags {
    let VfsFlags { read_only, nosuid, nodev, noexec, .. } = flags;
    BindFlags { read_only, nosuid, nodev, noexec }
}

/// Sets the flags of the grafts bound beneath the mount on `target`: their own and the new ones of
/// the mount.
///
/// # Errors
/// As mount_setattr(2).
pub(super) fn follow(target: &Path, flags: VfsFlags, grafts: &[GraftStatus]) -> Result<()> {
    let root = sys::file::find_directory(target)?;
    for entry in mounts::read()? {
        let Ok(path) = entry.target.strip_prefix(target) else { continue };
        let path = path.as_os_str().as_bytes();
        let found = sys::file::open_beneath_no_links(root.as_fd(), path, OFlags::PATH);
        let Ok(place) = found else { continue };
        if sys::file::mount_id(place.as_fd(), b"")? != entry.id {
            continue;
        }
        let stat = sys::file::statx(place.as_fd(), b"")?;
        let is_own = |graft: &&GraftStatus| (graft.device, graft.inode) == (stat.dev, stat.ino);
        let is_here = |graft: &&GraftStatus| graft.path.as_bytes().strip_prefix(b"/") == Some(path);
        // If two grafts of one directory were moved, both get the flags of both.
        let mut all = grafts.iter().filter(is_own);
        let here = all.clone().find(is_here).map(|graft| graft.flags);
        let any = || all.next().map(|first| all.fold(first.flags, |sum, one| sum.or(one.flags)));
        let Some(own) = here.or_else(any) else { continue };
        let set = own.or(of_union(flags));
        bind::set_flags(place.as_fd(), set, set.others())?;
    }
    Ok(())
}

fn joined(path: &[Name]) -> Vec<u8> {
    path.join(&b'/')
}

/// Clones the source of a graft. Returns `None` if the graft is to be served.
pub(super) fn prepare(
    spec: &MountSpec,
    graft: &Graft,
    source: BorrowedFd<'_>,
    path: &[Name],
) -> ServiceResult<Option<Bind>> {
    let refused =
        |option: &str, reason: String| Err(Failure::Driver { option: option.to_owned(), reason });
    let reason = match spec.rules.graft {
        Some(GraftDriver::Served) => "graft=served is given".to_owned(),
        wanted => match cloned(source, graft.recursive, flags(spec, graft)) {
            Ok(mount) => {
                let (path, shown) = (joined(path), graft.shown_path());
                return Ok(Some(Bind { mount, path, shown, recursive: graft.recursive }));
            }
            Err(error) if !REFUSALS.contains(&error.errno()) => {
                return Err(Failure::Graft { path: graft.shown_path(), error });
            }
            Err(error) if wanted == Some(GraftDriver::Bind) => {
                return refused("graft=bind", format!("{}: {error}", graft.source.label()));
            }
            Err(error) => error.to_string(),
        },
    };
    let BindFlags { nosuid, nodev, noexec, .. } = graft.flags;
    for (set, word) in [(nosuid, "nosuid"), (nodev, "nodev"), (noexec, "noexec")] {
        if set {
            let label = graft.source.label();
            return refused(word, format!("{label} cannot be a bind mount ({reason})"));
        }
    }
    tracing::info!(path = %graft.shown_path(), reason, "the graft is served");
    Ok(None)
}

fn cloned(source: BorrowedFd<'_>, recursive: bool, flags: BindFlags) -> Result<OwnedFd> {
    let mount = match bind::clone_tree(source, recursive) {
        // A mount that a more privileged namespace made beneath must not be uncovered.
        Err(error) if error.is(Errno::INVAL) && !recursive => bind::clone_tree(source, true),
        cloned => cloned,
    }?;
    bind::restrict(mount.as_fd(), flags, true)?;
    Ok(mount)
}

/// The numbers of the mounts of grafts.
pub(super) fn bound(binds: &[Bind]) -> Vec<Bound> {
    let number = |bind: &Bind| {
        let mount = sys::file::mount_id(bind.mount.as_fd(), b"").ok()?;
        Some(Bound { mount, recursive: bind.recursive })
    };
    binds.iter().filter_map(number).collect()
}

/// Attaches the grafts to their places in the mount on `target`, which is already served.
///
/// The thread that walks there is a client of its own process. It holds no descriptor of the FUSE
/// device, so when the process is killed the device is closed and the walk ends.
pub(super) fn attach(target: &Path, binds: Vec<Bind>) -> ServiceResult<()> {
    if binds.is_empty() {
        return Ok(());
    }
    let walk = || -> ServiceResult<()> {
        let kept: Vec<BorrowedFd<'_>> = binds.iter().map(|bind| bind.mount.as_fd()).collect();
        let wrap = |error| Failure::Mount { path: target.to_owned(), error };
        sys::process::leave_other_descriptors(&kept).map_err(wrap)?;
        // The path was resolved before the mount was made: no link may lead elsewhere by now.
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let root = sys::file::open_resolved(target, directory).map_err(wrap)?;
        for bind in &binds {
            let broken = |error| Failure::Graft { path: bind.shown.clone(), error };
            put(root.as_fd(), &bind.path, bind.mount.as_fd()).map_err(broken)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| match scope.spawn(walk).join() {
        Ok(done) => done,
        Err(_) => Err(Failure::Mount {
            path: target.to_owned(),
            error: Error::os("move_mount", Errno::IO),
        }),
    })
}

fn put(root: BorrowedFd<'_>, path: &[u8], mount: BorrowedFd<'_>) -> Result<()> {
    let place = sys::file::open_beneath_no_links(root, path, OFlags::PATH)?;
    bind::attach(mount, place.as_fd())
}

/// A graft that was taken down, and a clone of its mount.
struct Taken {
    path: Vec<u8>,
    copy: OwnedFd,
}

/// Unmounts `target` together with the grafts bound beneath it, if none of them is in use: all or
/// nothing. A place that is uncovered in the meantime is served by the union.
///
/// # Errors
/// As umount2(2); `EBUSY` also if something else is mounted beneath.
pub(super) fn unmount_with(
    target: &Path,
    grafts: &[GraftStatus],
    unmount: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let table = mounts::read()?;
    let top = table.iter().rev().find(|entry| entry.target == target);
    let is_graft = |entry: &MountEntry| graft_at(&entry.target, grafts);
    let Some(beneath) = top.and_then(|top| own_beneath(&table, top, is_graft)) else {
        return unmount();
    };
    let mut taken = Vec::new();
    let done = beneath
        .iter()
        .rev()
        .try_for_each(|entry| take(target, entry).map(|one| taken.push(one)))
        .and_then(|()| unmount());
    if done.is_err() {
        put_back(target, taken);
    }
    done
}

/// Whether a mount whose daemon was killed and the grafts bound beneath it are all unused. The
/// kernel cannot resolve the path of a graft there, so they can only be removed together.
pub(super) fn is_abandoned(target: &Path, row: &Row) -> bool {
    let table = mounts::read().unwrap_or_default();
    let Some(top) = table.iter().rev().find(|entry| entry.target == target) else { return false };
    if top.device != row.device || row.is_served() || !is_dead(target) {
        return false;
    }
    let is_graft = |entry: &MountEntry| row.graft(entry.id).map(|graft| graft.recursive);
    let Some(beneath) = own_beneath(&table, top, is_graft) else { return false };
    let is_free = |entry: &MountEntry| {
        let is_shared = entry.id != top.id;
        let wanted = Wanted { device: &entry.device, mount: Some(entry.id), is_shared };
        holders::processes(wanted).is_empty()
    };
    is_free(top) && beneath.into_iter().all(is_free)
}

/// Whether the file system has lost its daemon.
fn is_dead(target: &Path) -> bool {
    let root = sys::file::open_path(target, OFlags::PATH | OFlags::DIRECTORY);
    let asked = root.and_then(|root| sys::file::fstatfs(root.as_fd()));
    asked.is_err_and(|error| error.is(Errno::NOTCONN))
}

/// The mounts beneath a mount, parents first; `None` if one of them does not belong to a graft.
/// `is_graft` returns for the mount of a graft whether the mounts beneath it belong to it.
fn own_beneath<'a>(
    table: &'a [MountEntry],
    top: &MountEntry,
    is_graft: impl Fn(&MountEntry) -> Option<bool>,
) -> Option<Vec<&'a MountEntry>> {
    let mut found = Vec::new();
    let mut next = vec![(top.id, false)];
    while let Some((parent, is_whole)) = next.pop() {
        let is_child = |entry: &&MountEntry| entry.parent == parent && entry.id != parent;
        for child in table.iter().filter(is_child) {
            let graft = is_graft(child);
            if graft.is_none() && !is_whole {
                return None;
            }
            found.push(child);
            next.push((child.id, is_whole || graft == Some(true)));
        }
    }
    Some(found)
}

/// Returns whether the graft bound on a path includes the mounts beneath its source; `None` if
/// there is no graft. Two grafts may show one directory.
fn graft_at(path: &Path, grafts: &[GraftStatus]) -> Option<bool> {
    let fd = sys::file::open_path(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
    let stat = sys::file::statx(fd.as_fd(), b"").ok()?;
    let object = (stat.dev, stat.ino);
    let found = grafts.iter().filter(|graft| (graft.device, graft.inode) == object);
    found.map(|graft| graft.recursive).reduce(|one, other| one || other)
}

/// Takes one mount down and keeps a clone of it.
fn take(target: &Path, entry: &MountEntry) -> Result<Taken> {
    let gone = || Error::os("umount2", Errno::BUSY);
    let path = entry.target.strip_prefix(target).map_err(|_| gone())?;
    let (parent, name) = (path.parent().ok_or_else(gone)?, path.file_name().ok_or_else(gone)?);
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let root = sys::file::find_directory(target)?;
    let dir = sys::file::open_beneath_no_links(root.as_fd(), parent.as_os_str().as_bytes(), flags)?;
    let name = name.as_bytes();
    let copy = {
        let place = sys::file::openat(dir.as_fd(), name, OFlags::PATH)?;
        if sys::file::mount_id(place.as_fd(), b"")? != entry.id {
            return Err(gone());
        }
        bind::clone_tree(place.as_fd(), false)?
    };
    bind::unmount_at(dir.as_fd(), name)?;
    Ok(Taken { path: path.as_os_str().as_bytes().to_vec(), copy })
}

fn put_back(target: &Path, taken: Vec<Taken>) {
    for one in taken.into_iter().rev() {
        let put = sys::file::find_directory(target)
            .and_then(|root| put(root.as_fd(), &one.path, one.copy.as_fd()));
        if let Err(error) = put {
            let path = String::from_utf8_lossy(&one.path).into_owned();
            tracing::error!(%error, path, "a graft is served from now on");
        }
    }
}

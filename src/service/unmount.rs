//! Unmounting and changing mounts of Lamina, and of no other program.
//!
//! A mount belongs to Lamina if its type is `fuse.lamina`, or if a running daemon reports that it
//! serves the file system. Calls that may wait for an unresponsive daemon are made by a child, so
//! that a time limit always holds.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::failure::ServiceResult;
use super::holders::{self, Wanted};
use super::mounts::{self, MountEntry};
use super::status::{self, GraftStatus, MountStatus};
use super::utab::{self, Row};
use super::{Failure, VfsFlags, binds};
use crate::error::{Errno, Error};
use crate::sys::fuse::{UnmountFlags, unmount};
use crate::sys::process::{self, Side, Watched};

/// The type of a mount of Lamina, unless an option sets another.
const KIND: &str = "fuse.lamina";

/// The time for which `EBUSY` is retried: the daemon itself accesses its mount now and then.
const BUSY: Duration = Duration::from_millis(300);

/// The time after which a mount that did not exist before counts as one of the same file system,
/// while the daemon still runs: the kernel reuses the number of an unmounted file system.
const NEWCOMERS: Duration = Duration::from_secs(1);

/// The interval of checks.
const STEP: Duration = Duration::from_millis(100);

/// An unmount request.
#[derive(Debug, Clone)]
pub struct UnmountRequest {
    /// The mount point; links are followed.
    pub target: PathBuf,
    /// The flags.
    pub how: UnmountFlags,
    /// Whether a busy mount is made read-only instead.
    pub or_read_only: bool,
    /// The time limit for the whole operation.
    pub timeout: Duration,
    /// The directory of the status sockets of mounts.
    pub runtime: Option<PathBuf>,
}

/// The result of an unmount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmounted {
    /// The mount is gone, and its daemon has left unless it was a lazy unmount.
    Gone,
    /// The mount is gone; the file system is mounted elsewhere too, and its daemon goes on.
    Elsewhere {
        /// The process id of the daemon, if it is known.
        pid: Option<u32>,
        /// The other places where it is mounted.
        places: Vec<String>,
    },
    /// The mount was busy and is read-only now.
    ReadOnly,
}

/// The grafts of a mount: from the status of its daemon, and from the row of one that was killed.
struct Grafts<'a> {
    told: &'a [GraftStatus],
    left: Option<Row>,
}

struct Ours {
    entry: MountEntry,
    daemon: Option<MountStatus>,
}

/// Finds the mount on a path, which must be a mount of Lamina.
fn find(target: &Path, runtime: Option<&Path>) -> ServiceResult<Ours> {
    let as_given = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
    let wrap = Failure::system("the mount table");
    let entry = match mounts::on(&as_given).map_err(&wrap)? {
        Some(entry) => entry,
        None => {
            let resolved = std::fs::canonicalize(target).map_err(|error| {
                let errno = Errno(error.raw_os_error().unwrap_or(Errno::IO.0));
                let (what, path) = ("mount point", target.to_owned());
                Failure::Path { what, path, error: Error::os("open", errno) }
            })?;
            let found = mounts::on(&resolved).map_err(&wrap)?;
            found.ok_or(Failure::NotMounted { path: resolved })?
        }
    };
    let all = runtime.and_then(|dir| status::list(dir).ok()).unwrap_or_default();
    let daemon = all.into_iter().find(|one| one.device.as_ref() == Some(&entry.device));
    if entry.kind != KIND && daemon.is_none() {
        return Err(Failure::Foreign { path: entry.target.clone(), what: entry.label() });
    }
    Ok(Ours { entry, daemon })
}

/// Unmounts, and waits until the daemon has ended unless the file system is still in use.
///
/// The process must have only one thread, see [`process::fork`].
///
/// # Errors
/// [`Failure::NotMounted`], [`Failure::Foreign`], [`Failure::Busy`] with the users,
/// [`Failure::Late`]; otherwise as umount2(2).
pub fn run(request: &UnmountRequest) -> ServiceResult<Unmounted> {
    let deadline = Instant::now() + request.timeout;
    let Ours { entry, daemon } = find(&request.target, request.runtime.as_deref())?;
    let grafts = Grafts {
        told: daemon.as_ref().map_or(&[][..], |daemon| &daemon.graft_mounts),
        left: if daemon.is_none() { utab::of(&entry.device) } else { None },
    };
    let watched = daemon.as_ref().and_then(|daemon| Watched::open(daemon.pid).ok());
    let before = elsewhere(&entry).into_iter().map(|(_, other)| other.id).collect();
    let busy_until = (Instant::now() + BUSY).min(deadline);
    loop {
        match in_child(&entry.target, request.how, &grafts, deadline)? {
            Ok(()) => break,
            Err(Errno::BUSY) if Instant::now() < busy_until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(Errno::BUSY) if request.or_read_only => {
                let flags = VfsFlags { read_only: true, ..entry.flags() };
                super::mount::remount(&entry.target, flags)?;
                return Ok(Unmounted::ReadOnly);
            }
            Err(Errno::BUSY) => return Err(busy(&entry, &grafts)),
            Err(errno) => return Err(refused(&entry.target, errno)),
        }
    }
    let pid = daemon.as_ref().map(|daemon| daemon.pid);
    let done = match request.how.lazy {
        true => Ok(Unmounted::Gone),
        false => wait(&entry, &before, (pid, watched.as_ref()), deadline),
    };
    // A daemon that was killed left its row.
    utab::sweep();
    done
}

fn refused(target: &Path, errno: Errno) -> Failure {
    let error = Error::os("umount2", errno);
    Failure::Unmount { path: target.to_owned(), error }
}

/// The users of a mount: mounts beneath that are not of grafts, and processes on it and on its
/// grafts.
fn busy(entry: &MountEntry, grafts: &Grafts<'_>) -> Failure {
    let table = mounts::read().unwrap_or_default();
    let is_graft = |other: &MountEntry| {
        let is_told = grafts.told.iter().any(|graft| {
            let place = entry.target.join(graft.path.trim_start_matches('/'));
            other.target.starts_with(place)
        });
        is_told || grafts.left.as_ref().is_some_and(|row| row.graft(other.id).is_some())
    };
    let own = std::process::id();
    let mut by = Vec::new();
    let mut next = vec![entry];
    while let Some(mount) = next.pop() {
        if mount.id == entry.id || is_graft(mount) {
            let is_shared = mount.id != entry.id;
            let wanted = Wanted { device: &mount.device, mount: Some(mount.id), is_shared };
            let mut users = holders::processes(wanted);
            // This process has the working directory of the shell that started it.
            if users.len() > 1 {
                users.retain(|one| one.pid != own);
            }
            by.extend(users.iter().map(ToString::to_string));
        } else {
            by.push(format!("mount on {}: {}", mount.target.display(), mount.label()));
        }
        next.extend(table.iter().filter(|other| other.parent == mount.id && other.id != mount.id));
    }
    Failure::Busy { path: entry.target.clone(), by }
}

/// Other mounts that may be of the same file system, in all mount namespaces.
fn elsewhere(entry: &MountEntry) -> Vec<(Option<u32>, MountEntry)> {
    let mut others = holders::mounts_of(&entry.device);
    others.retain(|(pid, other)| {
        let is_itself = pid.is_none() && other.id == entry.id && other.target == entry.target;
        !is_itself && (&other.kind, &other.source) == (&entry.kind, &entry.source)
    });
    others
}

/// Waits until the daemon ends, or until the reason why it does not is found. `before` holds the
/// mounts of the file system before the unmount.
fn wait(
    entry: &MountEntry,
    before: &HashSet<u64>,
    (pid, watched): (Option<u32>, Option<&Watched>),
    deadline: Instant,
) -> ServiceResult<Unmounted> {
    let start = Instant::now();
    loop {
        let mut others = elsewhere(entry);
        if watched.is_none() || start.elapsed() < NEWCOMERS {
            others.retain(|(_, other)| before.contains(&other.id));
        }
        if !others.is_empty() {
            let places = others.iter().map(holders::mount_label).collect();
            return Ok(Unmounted::Elsewhere { pid, places });
        }
        let Some(daemon) = watched else { return Ok(Unmounted::Gone) };
        let left = deadline.saturating_duration_since(Instant::now());
        if daemon.ends_within(STEP.min(left)) {
            return Ok(Unmounted::Gone);
        }
        if left.is_zero() {
            let wanted = Wanted { device: &entry.device, mount: None, is_shared: false };
            let by = holders::processes(wanted).iter().map(ToString::to_string).collect();
            return Err(Failure::Late { path: entry.target.clone(), pid, by });
        }
    }
}

/// Unmounts in a child, which is killed at the deadline.
fn in_child(
    target: &Path,
    how: UnmountFlags,
    grafts: &Grafts<'_>,
    deadline: Instant,
) -> ServiceResult<Result<(), Errno>> {
    let wrap = Failure::system("starting a process");
    let child = match process::fork().map_err(&wrap)? {
        Side::Parent(child) => child,
        Side::Child => process::exit_now(match end_with(target, how, grafts) {
            Ok(()) => 0,
            Err(error) => u8::try_from(error.errno().0).unwrap_or(u8::MAX),
        }),
    };
    loop {
        match process::try_wait_for(child).map_err(&wrap)? {
            Some(0) => return Ok(Ok(())),
            Some(code) => return Ok(Err(Errno(i32::from(code)))),
            None if Instant::now() >= deadline => {
                process::kill(child).map_err(&wrap)?;
                let by = Vec::new();
                return Err(Failure::Late { path: target.to_owned(), pid: None, by });
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Unmounts together with the grafts bound beneath, if none is in use. A lazy or forced unmount
/// takes them along in any case.
fn end_with(target: &Path, how: UnmountFlags, grafts: &Grafts<'_>) -> Result<(), Error> {
    let call = |how| end(target, how).map_err(|errno| Error::os("umount2", errno));
    let plain = || call(how);
    if !how.lazy && !grafts.told.is_empty() {
        return binds::unmount_with(target, grafts.told, plain);
    }
    match (plain(), &grafts.left) {
        (Err(error), Some(row)) if error.is(Errno::BUSY) && binds::is_abandoned(target, row) => {
            call(UnmountFlags { lazy: true, ..how })
        }
        (done, _) => done,
    }
}

/// Unmounts, with `fusermount3` if this process may not.
///
/// # Errors
/// As umount2(2).
pub(super) fn end(target: &Path, how: UnmountFlags) -> Result<(), Errno> {
    match unmount(target, how) {
        Err(Errno::PERM) if !super::process::is_root() => by_fusermount(target, how),
        done => done,
    }
}

/// Unmounts with `fusermount3`, which is set-user-ID root and unmounts what the same user mounted.
pub(super) fn by_fusermount(target: &Path, how: UnmountFlags) -> Result<(), Errno> {
    use std::process::{Command, Stdio};
    let flags = if how.lazy { "-uqz" } else { "-uq" };
    let mut command = Command::new("fusermount3");
    command.arg(flags).arg("--").arg(target);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        // It reports no reason, and a busy mount is the only one left.
        Ok(_) => Err(Errno::BUSY),
        Err(error) => Err(Errno(error.raw_os_error().unwrap_or(Errno::NOENT.0))),
    }
}

/// Changes the VFS flags of a mount of Lamina with `change`.
///
/// # Errors
/// [`Failure::NotMounted`], [`Failure::Foreign`]; as mount(2) with `MS_REMOUNT`.
pub fn remount(
    target: &Path,
    runtime: Option<&Path>,
    change: impl FnOnce(VfsFlags) -> VfsFlags,
) -> ServiceResult<()> {
    let Ours { entry, daemon } = find(target, runtime)?;
    let (present, wanted) = (entry.flags(), change(entry.flags()));
    if (present.sync, present.dirsync) != (wanted.sync, wanted.dirsync) {
        let option = if present.sync == wanted.sync { "dirsync" } else { "sync" };
        let reason = "it is decided when the mount is made: unmount, and mount with it".to_owned();
        return Err(Failure::Driver { option: option.to_owned(), reason });
    }
    super::mount::remount(&entry.target, wanted)?;
    let grafts = daemon.as_ref().map_or(&[][..], |daemon| &daemon.graft_mounts);
    binds::follow(&entry.target, wanted, grafts)
        .map_err(|error| Failure::Mount { path: entry.target.clone(), error })
}

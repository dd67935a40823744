//! Roots of trees: how a directory of the host becomes a layer.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::sys::file::OFlags;
use crate::sys::mount::AccessTimes;
use crate::types::Kind;
use crate::union::layer::DirRef;

use super::cache::{DirFd, FdCache};
use super::place::HostDir;

/// The flags for a directory that is only a place.
const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// How other file systems that are mounted beneath a tree appear in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submounts {
    /// They are hidden, mounted before or later: the tree is a private clone of the mount, through
    /// which no device can be opened. Where the kernel refuses the clone, they are shown.
    Hidden,
    /// As `Hidden`, and nothing can be changed through the tree, not even an access time.
    Sealed,
    /// All of them are shown, as for any process that walks the path.
    Shown,
}

/// State that all places of a tree share.
pub(super) struct Tree {
    pub(super) cache: Arc<FdCache>,
    pub(super) root: Arc<DirFd>,
    /// The clone in which the root was opened; it ends with this descriptor.
    _mount: Option<Arc<OwnedFd>>,
    pub(super) cloned: bool,
    /// The number of moves of directories under way; `moves` counts all moves so far.
    moving: AtomicU64,
    moves: AtomicU64,
    /// The UUIDs of file systems by device number, each determined once.
    uuids: Mutex<HashMap<u64, Uuid>>,
}

/// The UUID of a file system, zero where it has none; `None` where its handles are valid in one
/// mount only.
pub(super) type Uuid = Option<[u8; 16]>;

impl Tree {
    /// Counts the beginning or the end of a move.
    pub(super) fn moving(&self, begins: bool) {
        if begins {
            self.moves.fetch_add(1, Ordering::SeqCst);
            self.moving.fetch_add(1, Ordering::SeqCst);
        } else {
            self.moving.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Returns the UUID of the file system `dev`; calls `ask` for it once.
    pub(super) fn uuid(&self, dev: u64, ask: impl FnOnce() -> Result<Uuid>) -> Result<Uuid> {
        if let Some(uuid) = self.uuids.lock().get(&dev) {
            return Ok(*uuid);
        }
        let uuid = ask()?;
        self.uuids.lock().insert(dev, uuid);
        Ok(uuid)
    }

    /// The number of moves of directories so far.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::SeqCst)
    }

    /// Whether all places were right from when `moves` was read until now.
    pub(super) fn is_still(&self, moves: u64) -> bool {
        self.moving.load(Ordering::SeqCst) == 0 && self.moves() == moves
    }
}

/// Opens directories of the host as trees. Each is held by descriptor: it stays the same directory
/// if paths are renamed or mounted over later.
pub struct HostTree;

impl HostTree {
    /// Opens a path as the kernel resolves it, following symbolic links.
    ///
    /// Nothing can be linked or renamed between two trees with [`Submounts::Hidden`], even of one
    /// file system; [`HostTree::open_together`] is for that.
    ///
    /// # Errors
    /// As open(2); `ENOTDIR` for anything but a directory.
    pub fn open(path: &Path, submounts: Submounts, cache: &Arc<FdCache>) -> Result<DirRef> {
        if submounts != Submounts::Shown {
            let place = sys::file::open_path(path, PLACE)?;
            let sealed = submounts == Submounts::Sealed;
            if let Some(mount) = clone_of(place.as_fd(), sealed, AccessTimes::default())? {
                let root = DirFd::new(mount, false);
                return Ok(Self::root(root, None, true, cache));
            }
        }
        let root = DirFd::open_path(path)?;
        Ok(Self::root(root, None, false, cache))
    }

    /// Makes a tree of an open directory.
    ///
    /// # Errors
    /// `ENOTDIR` for anything but a directory.
    pub fn from_fd(fd: OwnedFd, cache: &Arc<FdCache>) -> Result<DirRef> {
        if sys::file::statx(fd.as_fd(), b"")?.kind() != Kind::Dir {
            return Err(Error::os("statx", Errno::NOTDIR));
        }
        let readable = !sys::file::is_path_only(fd.as_fd())?;
        Ok(Self::root(DirFd::new(fd, readable), None, false, cache))
    }

    /// Opens several directories between which files are renamed and linked: an upper and its work
    /// directory. If all are of one mount and the kernel permits it, they are opened within one
    /// clone of it with these access times, as with [`Submounts::Hidden`]; otherwise as with
    /// [`Submounts::Shown`].
    ///
    /// # Errors
    /// As [`HostTree::open`].
    pub fn open_together(
        paths: &[&Path],
        times: AccessTimes,
        cache: &Arc<FdCache>,
    ) -> Result<Vec<DirRef>> {
        let places = paths
            .iter()
            .map(|path| sys::file::open_path(path, PLACE))
            .collect::<Result<Vec<OwnedFd>>>()?;
        if let Some(roots) = open_in_clone(&places, times, cache)? {
            return Ok(roots);
        }
        let open = |path: &&Path| Ok(Self::root(DirFd::open_path(path)?, None, false, cache));
        paths.iter().map(open).collect()
    }

    /// Makes a tree. `cloned` is whether it is within a clone of its mount; `mount` keeps the clone
    /// if the root itself does not.
    fn root(
        root: DirFd,
        mount: Option<Arc<OwnedFd>>,
        cloned: bool,
        cache: &Arc<FdCache>,
    ) -> DirRef {
        let (cache, root) = (Arc::clone(cache), Arc::new(root));
        let (moving, moves) = (AtomicU64::new(0), AtomicU64::new(0));
        let uuids = Mutex::default();
        HostDir::root(Arc::new(Tree { cache, root, _mount: mount, cloned, moving, moves, uuids }))
    }
}

impl DirFd {
    /// Opens a path as the kernel resolves it.
    fn open_path(path: &Path) -> Result<Self> {
        let place = sys::file::open_path(path, PLACE)?;
        // Opened through the descriptor, so that a link in the path is resolved once.
        match Self::open_to_read(place.as_fd(), b".") {
            Ok(fd) => Ok(Self::new(fd, true)),
            Err(error) if error.is(Errno::ACCESS) => Ok(Self::new(place, false)),
            Err(error) => Err(error),
        }
    }
}

/// A private clone of a mount with this directory as its root; `None` where the kernel refuses:
/// without the privilege (`EPERM`), beneath locked mounts (`EINVAL`), before Linux 5.2 (`ENOSYS`).
fn clone_of(dir: BorrowedFd<'_>, sealed: bool, times: AccessTimes) -> Result<Option<OwnedFd>> {
    let refusals = [Errno::PERM, Errno::INVAL, Errno::NOSYS];
    let mount = match sys::mount::clone_mount(dir) {
        Ok(mount) => mount,
        Err(error) if refusals.contains(&error.errno()) => return Ok(None),
        Err(error) => return Err(error),
    };
    match sys::mount::seclude(mount.as_fd(), sealed, times) {
        Ok(()) => Ok(Some(mount)),
        // A clone that receives new mounts would be worse than none: it cannot be seen.
        Err(error) if refusals.contains(&error.errno()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the directories again within one clone of their mount, if they have one mount.
fn open_in_clone(
    places: &[OwnedFd],
    times: AccessTimes,
    cache: &Arc<FdCache>,
) -> Result<Option<Vec<DirRef>>> {
    let Some((above, beneath)) = common_ancestor(places)? else { return Ok(None) };
    let Some(mount) = clone_of(above.as_fd(), false, times)?.map(Arc::new) else { return Ok(None) };
    let mut roots = Vec::with_capacity(places.len());
    for (place, path) in places.iter().zip(&beneath) {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let path = path.as_os_str().as_bytes();
        let Ok(again) = sys::file::open_beneath_no_links(mount.as_fd(), path, PLACE) else {
            return Ok(None);
        };
        // Paths only help to find the directories: each must be the one that was opened first.
        let (is, must) =
            (sys::file::statx(again.as_fd(), b"")?, sys::file::statx(place.as_fd(), b"")?);
        if (is.dev, is.ino) != (must.dev, must.ino) {
            return Ok(None);
        }
        let root = DirFd::open(again.as_fd(), b".")?;
        roots.push(HostTree::root(root, Some(Arc::clone(&mount)), true, cache));
    }
    Ok(Some(roots))
}

/// Returns the deepest directory of the same mount above all of these, and their paths beneath it.
fn common_ancestor(places: &[OwnedFd]) -> Result<Option<(OwnedFd, Vec<PathBuf>)>> {
    let mut mounts = Vec::with_capacity(places.len());
    let mut paths = Vec::with_capacity(places.len());
    for place in places {
        mounts.push(sys::file::mount_id(place.as_fd(), b"")?);
        paths.push(PathBuf::from(std::ffi::OsString::from_vec(sys::file::path_of(place.as_fd())?)));
    }
    let (Some(first), Some(mount)) = (paths.first(), mounts.first()) else { return Ok(None) };
    let Some(above) = first.ancestors().find(|dir| paths.iter().all(|path| path.starts_with(dir)))
    else {
        return Ok(None);
    };
    let Ok(fd) = sys::file::open_path(above, PLACE) else { return Ok(None) };
    if mounts.iter().any(|other| other != mount) || sys::file::mount_id(fd.as_fd(), b"")? != *mount
    {
        return Ok(None);
    }
    let beneath = paths
        .iter()
        .filter_map(|path| path.strip_prefix(above).ok().map(Path::to_path_buf))
        .collect();
    Ok(Some((fd, beneath)))
}

//! The layers of a mount: found, checked, locked, opened. From here on they are held by descriptor.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::ServiceResult;
use super::images::{Images, stacked};
use super::spec::MountSpec;
use super::{Failure, mounts, status};
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::backing::stated;
use crate::error::{Errno, Error, Result};
use crate::store::{Layer, StoreStats};
use crate::sys;
use crate::sys::file::OFlags;
use crate::sys::mount::AccessTimes;
use crate::types::{Kind, Owner, Stat};
use crate::union::{DirRef, Lower, ORPHANS, empty_dir};

/// The directory in the work directory for our own use; the name is the kernel's.
const WORK: &[u8] = b"work";
/// The kernel's index directory.
const INDEX: &[u8] = b"index";
/// The mark of a volatile upper (`ovl_create_volatile_dirty()` in the kernel's
/// fs/overlayfs/super.c).
const INCOMPAT: &[u8] = b"incompat";
const VOLATILE: &[u8] = b"volatile";

/// The default ACL that a directory passes on to new objects, and the ACL that it inherited.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_default", b"system.posix_acl_access"];

/// Marks an upper whose whiteouts are `.wh.` files; the kernel ignores it.
const FILES: &[u8] = b"lamina.whiteout-files";

/// The time for which a mount waits for a daemon whose mount is already gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// Descriptors reserved for open files, sockets and other uses.
const RESERVED: u64 = 320;

/// The locks of an upper and its work directory, held until this is dropped.
#[derive(Debug)]
pub(super) struct Locks(#[allow(dead_code)] Vec<OwnedFd>);

/// An upper, opened and locked, with an empty work directory.
pub(super) struct OpenUpper {
    pub(super) root: DirRef,
    pub(super) work: DirRef,
    base: DirRef,
    pub(super) own: Owner,
    pub(super) locks: Locks,
    volatile: bool,
    form: Option<stated::Form>,
}

/// Creates a cache of directories that fits the limit of descriptors with this many layers. The
/// descriptor table gets its final size here, since the process has no other threads yet. A program
/// that serves mounts raises the limit first, see [`super::process::raise_open_files`].
pub(super) fn fd_cache(layers: usize) -> Arc<FdCache> {
    let limit = sys::process::open_files_max();
    let taken = RESERVED.saturating_add(u64::try_from(layers).unwrap_or(u64::MAX));
    let room = usize::try_from(limit.saturating_sub(taken)).unwrap_or(usize::MAX);
    let room = room.clamp(32, FdCache::DEFAULT_CAPACITY);
    if let Err(error) = sys::process::grow_descriptors(taken.saturating_add(room as u64)) {
        tracing::debug!(%error, "the table of descriptors grows later");
    }
    FdCache::new(room)
}

/// Resolves a path to an absolute path, as the kernel does.
pub(super) fn resolved(path: &Path) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let fd = sys::file::open_path(path, OFlags::PATH)?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(sys::file::path_of(fd.as_fd())?)))
}

fn directory(what: &'static str, path: &Path) -> ServiceResult<PathBuf> {
    let fd = sys::file::open_path(path, OFlags::PATH).map_err(Failure::path(what, path))?;
    let stat = sys::file::statx(fd.as_fd(), b"").map_err(Failure::path(what, path))?;
    if stat.kind() != Kind::Dir {
        let error = Error::os("open", Errno::NOTDIR);
        return Err(Failure::Path { what, path: path.to_owned(), error });
    }
    resolved(path).map_err(Failure::path(what, path))
}

/// Checks the mount point and returns its absolute path.
pub(super) fn target(path: &Path) -> ServiceResult<PathBuf> {
    let refuse = |error| Failure::Target { path: path.to_owned(), error };
    let absolute = resolved(path).map_err(refuse)?;
    let stat = sys::file::statx(sys::file::CWD, absolute.as_os_str().as_encoded_bytes());
    match stat.map_err(refuse)?.kind() {
        Kind::Dir => Ok(absolute),
        _ => Err(refuse(Error::os("stat", Errno::NOTDIR))),
    }
}

fn outside(what: &'static str, path: &Path, target: Option<&Path>) -> ServiceResult<()> {
    let Some(target) = target else { return Ok(()) };
    if path != target && path.starts_with(target) {
        let (path, target) = (path.to_owned(), target.to_owned());
        return Err(Failure::Inside { what, path, target });
    }
    Ok(())
}

/// Opens the lower layers.
pub(super) fn open_lowers(
    spec: &MountSpec,
    target: Option<&Path>,
    cache: &Arc<FdCache>,
) -> ServiceResult<Vec<Lower>> {
    let mapped = !spec.rules.uid_map.is_identity() || !spec.rules.gid_map.is_identity();
    let table = if mapped { mounts::read().unwrap_or_default() } else { Vec::new() };
    let open = |path: &PathBuf| {
        let shifted = mapped && is_idmapped(path, &table);
        Ok(Lower { shifted, ..open_sealed("lower directory", path, target, cache)? })
    };
    spec.lowers.iter().map(open).collect()
}

/// The open layers of images, and functions for their counters and their end.
#[derive(Default)]
pub(super) struct OpenImages {
    pub(super) lowers: Vec<Lower>,
    pub(super) counters: Option<StoreCounters>,
    pub(super) early: Early,
    pub(super) settle: Option<Settle>,
}

/// Called after everything else of a mount has ended.
pub(super) type Settle = Box<dyn FnOnce() + Send>;

/// Layers that may not be shown yet.
#[derive(Default)]
pub(super) struct Early {
    name: String,
    root: PathBuf,
    layers: Vec<Arc<Layer>>,
}

impl Early {
    /// Waits until each index is compared with the id of its layer.
    pub(super) fn confirm(&self) -> ServiceResult<()> {
        let all = self.layers.iter().try_for_each(|layer| layer.confirm());
        all.map_err(|error| {
            let (name, root) = (self.name.clone(), self.root.clone());
            Failure::Image { name, root, error: Box::new(error.into()) }
        })
    }
}

impl Early {
    /// Starts to fetch the missing parts of layers in the background.
    pub(super) fn complete_beside(&self) {
        Layer::complete_beside(&self.layers);
    }

    /// Whether reads may have to fetch data over a network.
    pub(super) fn is_remote(&self) -> bool {
        self.layers.iter().any(|layer| layer.missing() > 0)
    }
}

/// Returns the counters of the store.
pub(super) type StoreCounters = Box<dyn Fn() -> StoreStats + Send + Sync>;

/// Opens the layers of the images.
pub(super) fn open_images(spec: &MountSpec) -> ServiceResult<OpenImages> {
    let first = spec.images.first().or(spec.container.as_ref()).or(spec.layers.first());
    let Some(first) = first else {
        return Ok(OpenImages::default());
    };
    let refuse = |name: &str| {
        let (name, root) = (name.to_owned(), spec.root.clone());
        move |error| Failure::Image { name, root, error: Box::new(error) }
    };
    let images = Images::open_with(&spec.root, spec.rules.keep).map_err(refuse(first))?;
    // The topmost image is named first. All layers form one stack, whichever image they belong to.
    let mut layers = Vec::new();
    for name in spec.images.iter().rev() {
        layers.extend(images.layers_by_name(name).map_err(refuse(name))?);
    }
    if let Some(name) = spec.layers.first() {
        layers.extend(images.layers_by_id(&spec.layers).map_err(refuse(name))?);
    }
    if let Some(name) = &spec.container {
        layers.extend(images.layers_of_container(name).map_err(refuse(name))?);
    }
    let lowers = stacked(layers);
    let early = Early { name: first.clone(), root: spec.root.clone(), layers: images.early() };
    let counters: StoreCounters = Box::new(images.store.counters());
    let used: Vec<_> = early.layers.iter().map(Arc::downgrade).collect();
    let settling = images.store.settling();
    let settle: Settle = Box::new(move || {
        Layer::write_down(&used);
        settling();
    });
    Ok(OpenImages { lowers, counters: Some(counters), early, settle: Some(settle) })
}

/// Whether a path is on a mount with mapped ids.
fn is_idmapped(path: &Path, table: &[mounts::MountEntry]) -> bool {
    let id = sys::file::open_path(path, OFlags::PATH)
        .and_then(|fd| sys::file::mount_id(fd.as_fd(), b""));
    let Ok(id) = id else { return false };
    table.iter().find(|entry| entry.id == id).is_some_and(mounts::MountEntry::is_idmapped)
}

fn open_sealed(
    what: &'static str,
    path: &Path,
    target: Option<&Path>,
    cache: &Arc<FdCache>,
) -> ServiceResult<Lower> {
    let absolute = directory(what, path)?;
    outside(what, &absolute, target)?;
    let mut root =
        HostTree::open(path, Submounts::Sealed, cache).map_err(Failure::path(what, path))?;
    if let Some(form) = stated::form_of(&root).map_err(Failure::path(what, path))? {
        root = stated::wrap(root, form, Owner::default());
    }
    let label = absolute.display().to_string();
    Ok(Lower { root, label, shifted: false, was_upper: false })
}

/// Opens an upper without a work directory: as the topmost lower, without changes.
pub(super) fn open_upper_to_read(
    path: &Path,
    target: Option<&Path>,
    cache: &Arc<FdCache>,
) -> ServiceResult<Lower> {
    open_sealed("upper directory", path, target, cache)
}

/// Where open files without a name are, below a work directory.
pub(super) fn orphans(work: &Path) -> PathBuf {
    work.join(OsStr::from_bytes(WORK)).join(OsStr::from_bytes(ORPHANS))
}

/// Locks and opens an upper with its work directory, and empties the work directory.
pub(super) fn open_upper(
    spec: &MountSpec,
    (upper, work): (&Path, &Path),
    target: Option<&Path>,
    cache: &Arc<FdCache>,
) -> ServiceResult<OpenUpper> {
    let absolute = directory("upper directory", upper)?;
    let broken = |error| Failure::Work { path: work.to_owned(), error };
    let fd = sys::file::open_path(work, OFlags::PATH | OFlags::DIRECTORY).map_err(broken)?;
    drop(fd);
    let base = resolved(work).map_err(broken)?;
    outside("upper directory", &absolute, target)?;
    outside("work directory", &base, target)?;
    if absolute.starts_with(&base) || base.starts_with(&absolute) {
        return Err(Failure::Nested { upper: absolute, work: base });
    }
    let locks = lock(spec, &absolute, &base)?;
    let flags = spec.flags;
    let times =
        AccessTimes { none: flags.noatime, strict: flags.strictatime, no_dirs: flags.nodiratime };
    let roots = HostTree::open_together(&[upper, work], times, cache)
        .map_err(Failure::path("upper directory", upper))?;
    let [root, base_dir] =
        <[DirRef; 2]>::try_from(roots).map_err(|_| broken(Error::os("open", Errno::IO)))?;
    let stat = root.stat(None).map_err(Failure::path("upper directory", upper))?;
    let base_stat = base_dir.stat(None).map_err(broken)?;
    if stat.dev != base_stat.dev {
        return Err(Failure::Apart { upper: absolute, work: base });
    }
    let own = owner(&base_stat);
    let work_dir = own_directory(&base_dir, WORK, own).map_err(broken)?;
    if is_dirty(&work_dir).map_err(broken)? {
        let mark = base.join("work/incompat/volatile");
        return Err(Failure::Unclean { path: absolute, mark });
    }
    empty_dir(&work_dir).map_err(broken)?;
    let volatile = spec.rules.volatile;
    if volatile {
        let incompat = ensure(&work_dir, INCOMPAT, 0o700, own).map_err(broken)?;
        ensure(&incompat, VOLATILE, 0o700, own).map_err(broken)?;
    }
    Ok(OpenUpper { root, work: work_dir, base: base_dir, own, locks, volatile, form: None })
}

// New objects in the work directory are made with the rights of this process.
fn owner(base: &Stat) -> Owner {
    let (uid, gid) = sys::process::effective_ids();
    match uid {
        0 => Owner { uid: 0, gid: 0 },
        _ => Owner { uid: base.uid, gid },
    }
}

pub(super) fn ensure(dir: &DirRef, name: &[u8], mode: u32, own: Owner) -> Result<DirRef> {
    match dir.mkdir(name, mode, own) {
        Err(error) if error.is(Errno::EXIST) => {}
        made => made?,
    }
    Ok(dir.dir(name))
}

/// A directory in which new objects are made. They must not inherit an ACL, so the directory has
/// none (`ovl_workdir_create()` in fs/overlayfs/super.c).
fn own_directory(base: &DirRef, name: &[u8], own: Owner) -> Result<DirRef> {
    let dir = ensure(base, name, 0o700, own)?;
    for key in ACLS {
        match dir.remove_xattr(None, key) {
            Err(error) if error.is(Errno::NODATA) || error.is(Errno::OPNOTSUPP) => {}
            removed => removed?,
        }
    }
    Ok(dir)
}

fn is_dirty(work: &DirRef) -> Result<bool> {
    match work.dir(INCOMPAT).stat(Some(VOLATILE)) {
        Ok(_) => Ok(true),
        Err(error) if error.is(Errno::NOENT) || error.is(Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error),
    }
}

impl OpenUpper {
    /// Whether a crash of the mount makes the upper unusable.
    pub(super) const fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Turns on the storage of owner, mode and kind in an attribute: in the form that the upper
    /// has, or else in `wanted`. Returns whether it is on.
    pub(super) fn state(&mut self, wanted: Option<stated::Form>) -> Result<bool> {
        let found = stated::form_of(&self.root)?;
        let Some(form) = found.or(wanted) else { return Ok(false) };
        if found.is_none() {
            stated::switch_on(&self.root, form)?;
        }
        for dir in [&mut self.root, &mut self.work] {
            *dir = stated::wrap(Arc::clone(dir), form, self.own);
        }
        self.form = Some(form);
        Ok(true)
    }

    /// Returns whether the whiteouts of this upper are files: because they already were, or from
    /// now on because of `files`.
    pub(super) fn writes_files(&self, files: bool) -> Result<bool> {
        match self.base.stat(Some(FILES)) {
            Ok(_) => return Ok(true),
            Err(error) if error.is(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        if files {
            ensure(&self.base, FILES, 0o700, self.own)?;
        }
        Ok(files)
    }

    /// The index directory; it is made if it is missing.
    pub(super) fn index(&self) -> Result<DirRef> {
        let index = own_directory(&self.base, INDEX, self.own)?;
        Ok(match self.form {
            Some(form) => stated::wrap(index, form, self.own),
            None => index,
        })
    }

    /// Returns the clean-up after a regular end: it removes the mark of a volatile mount.
    pub(super) fn cleaner(&self) -> impl Fn() -> Result<()> + use<> {
        let (work, volatile) = (Arc::clone(&self.work), self.volatile);
        move || {
            if !volatile {
                return Ok(());
            }
            empty_dir(&work)
        }
    }
}

/// Locks an upper against mounts; fails if a mount may be writing to it.
pub(super) fn lock_unmounted(spec: &MountSpec, upper: &Path) -> ServiceResult<OwnedFd> {
    let absolute = directory("upper directory", upper)?;
    refuse_kernel_mount(&absolute)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let what = "upper directory";
    let fd = sys::file::open_path(&absolute, flags).map_err(Failure::path(what, &absolute))?;
    lock_one(spec, what, &absolute, &fd)?;
    Ok(fd)
}

fn lock(spec: &MountSpec, upper: &Path, work: &Path) -> ServiceResult<Locks> {
    refuse_kernel_mount(upper)?;
    let mut locks = Vec::new();
    for (what, path) in [("upper directory", upper), ("work directory", work)] {
        locks.push(lock_path(spec, what, path)?);
    }
    Ok(Locks(locks))
}

/// Locks the directory at a path. A snapshot of a container exchanges its directories: then the one
/// that is there now is locked.
fn lock_path(spec: &MountSpec, what: &'static str, path: &Path) -> ServiceResult<OwnedFd> {
    let id = |fd: &OwnedFd| sys::file::statx(fd.as_fd(), b"").map(|stat| (stat.dev, stat.ino));
    let open = || sys::file::open_path(path, OFlags::RDONLY | OFlags::DIRECTORY);
    loop {
        let fd = open().map_err(Failure::path(what, path))?;
        lock_one(spec, what, path, &fd)?;
        let is_current = || Ok(id(&fd)? == id(&open()?)?);
        if is_current().map_err(Failure::path(what, path))? {
            return Ok(fd);
        }
    }
}

// A daemon without a mount will end soon, so wait for it; one with a live mount keeps the lock.
fn lock_one(spec: &MountSpec, what: &'static str, path: &Path, fd: &OwnedFd) -> ServiceResult<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        match sys::file::try_flock(fd.as_fd()) {
            Ok(()) => return Ok(()),
            Err(error) if error.is(Errno::AGAIN) => {}
            Err(error) => return Err(Failure::path(what, path)(error)),
        }
        let holder = spec.runtime.as_deref().and_then(|dir| status::holder_of(dir, path));
        if let Some(holder) = &holder
            && holder.is_mounted()
        {
            let (pid, target) = (Some(holder.pid), holder.target.display().to_string());
            return Err(Failure::InUse { what, path: path.to_owned(), holder: target, pid });
        }
        if Instant::now() >= deadline {
            let holder = holder.map_or_else(
                || "another process".to_owned(),
                |holder| holder.target.display().to_string(),
            );
            return Err(Failure::InUse { what, path: path.to_owned(), holder, pid: None });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

// The kernel's overlayfs and Lamina do not see each other's locks, so look at its mount options.
fn refuse_kernel_mount(upper: &Path) -> ServiceResult<()> {
    let Some(upper_text) = upper.to_str() else { return Ok(()) };
    let needle = format!("upperdir={upper_text}");
    let table = mounts::read().unwrap_or_default();
    let uses = |entry: &&mounts::MountEntry| {
        entry.kind == "overlay" && entry.options.split(',').any(|word| word == needle)
    };
    match table.iter().find(uses) {
        Some(entry) => Err(Failure::InUse {
            what: "upper directory",
            path: upper.to_owned(),
            holder: entry.target.display().to_string(),
            pid: None,
        }),
        None => Ok(()),
    }
}

/// Whether a path leads to a directory, with links followed; `ENOENT` if it does not exist.
pub(super) fn is_directory(path: &Path) -> Result<bool> {
    let fd = sys::file::open_path(path, OFlags::PATH)?;
    Ok(sys::file::statx(fd.as_fd(), b"")?.kind() == Kind::Dir)
}

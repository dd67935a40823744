//! A mount from its specification to its end.
//!
//! [`Prepared::new`] opens and locks everything, so that errors are found before anything is
//! mounted. [`Prepared::mount`] mounts and starts the threads. [`Live::wait`] returns after the
//! unmount, when all requests are answered and the work directory is empty again.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::containers::stacks;
use super::ending::{Ender, Helper};
use super::failure::ServiceResult;
use super::layers::{self, Early, Locks, Settle, StoreCounters};
use super::made::Made;
use super::served::{Control, Freezer, Limited};
use super::sizes::Counted;
use super::spec::{MountSpec, UpperDirs};
use super::status::{self, Answering, Drivers, GraftStatus, MountStatus};
use super::{Failure, binds, confine, containers, grafts, mounts, overlap, probe, utab};
use crate::catalog::containers::{Containers, Ephemeral};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::OpenVolume;
use crate::error::{Errno, Error, Result};
use crate::fuse::gate::Gate;
use crate::fuse::session::{IoDriver, Running, Session, Setup};
use crate::fuse::throttle::Throttle;
use crate::sys;
use crate::sys::file::OFlags;
use crate::sys::fuse::UnmountFlags;
use crate::sys::mount::Propagation;
use crate::sys::process::{self, Capability};
use crate::types::{Kind, Stat};
use crate::union::{Config, GraftTree, Lower, Marks, Options, Union, Upper, WhiteoutForm};

/// A mount that is ready to be attached.
pub struct Prepared {
    union: Arc<Gate>,
    setup: Setup,
    status: MountStatus,
    counters: Option<StoreCounters>,
    early: Early,
    settle: Option<Settle>,
    runtime: Option<PathBuf>,
    binds: Vec<binds::Bind>,
    propagation: Option<Propagation>,
    made: Option<Made>,
    freezer: Option<Freezer>,
    held: Resources,
}

/// Resources that live as long as the mount.
struct Resources {
    _locks: Option<Locks>,
    _volumes: Vec<OpenVolume>,
    _ephemeral: Option<Ephemeral>,
    clean: Box<dyn Fn() -> Result<()> + Send>,
}

/// A mount that is served.
pub struct Live {
    union: Arc<Gate>,
    running: Running,
    held: Resources,
    answering: Option<Answering>,
    control: Option<Control>,
    row: Option<utab::Entry>,
    settle: Option<Settle>,
    target: PathBuf,
    entry: Option<mounts::MountEntry>,
    network: bool,
}

struct Layers {
    lowers: Vec<Lower>,
    upper: Option<Upper>,
    options: Options,
    counters: Option<StoreCounters>,
    early: Early,
    settle: Option<Settle>,
    locks: Option<Locks>,
    counted: Option<Counted>,
    /// Whether another upper can take the place of the upper while the mount is used.
    freezes: bool,
    clean: Box<dyn Fn() -> Result<()> + Send>,
}

impl Layers {
    fn open(
        spec: &MountSpec,
        target: Option<&Path>,
        cache: &Arc<crate::backing::host::FdCache>,
    ) -> ServiceResult<Self> {
        overlap::check(spec)?;
        let mut lowers = layers::open_lowers(spec, target, cache)?;
        // What an image has was never an upper.
        lowers.iter_mut().take(spec.former).for_each(|lower| lower.was_upper = true);
        let images = layers::open_images(spec)?;
        lowers.extend(images.lowers);
        let nothing = || Ok(());
        let writes = spec.upper.is_some() && !spec.flags.read_only;
        if let Some((option, reason)) = probe::conflict(&spec.rules, writes) {
            let (option, reason) = (option.to_owned(), reason.to_owned());
            return Err(Failure::Driver { option, reason });
        }
        // Without the right to read `trusted.` marks, those in `user.` are read.
        let trusted = process::has_host_capability(process::thread_id(), Capability::SysAdmin);
        let all = probe::Abilities { trusted, user: true, whiteouts: true, reflink: false };
        let mut found = Self {
            lowers: Vec::new(),
            upper: None,
            options: probe::options(&spec.rules, all),
            counters: images.counters,
            early: images.early,
            settle: images.settle,
            locks: None,
            counted: None,
            freezes: false,
            clean: Box::new(nothing),
        };
        if let Some(UpperDirs { upper, work }) = &spec.upper {
            match work.as_ref().filter(|_| !spec.flags.read_only) {
                Some(work) => found.open_upper(spec, (upper, work), target, cache)?,
                // Another mount may have it open for writing, so nothing is locked or changed.
                None => lowers.insert(0, layers::open_upper_to_read(upper, target, cache)?),
            }
        }
        if lowers.is_empty() && found.upper.is_none() {
            return Err(Failure::NoLayer);
        }
        if let (true, Some(dirs), Some(top)) = (spec.ephemeral, &spec.upper, lowers.first()) {
            let upper = &dirs.upper;
            containers::root_like(top, upper).map_err(Failure::path("upper directory", upper))?;
        }
        found.options.freezes = found.freezes;
        found.lowers = lowers;
        Ok(found)
    }

    fn open_upper(
        &mut self,
        spec: &MountSpec,
        (upper, work): (&Path, &Path),
        target: Option<&Path>,
        cache: &Arc<crate::backing::host::FdCache>,
    ) -> ServiceResult<()> {
        let mut open = layers::open_upper(spec, (upper, work), target, cache)?;
        stacks::require_current(spec)?;
        let broken = |error| Failure::Work { path: work.to_owned(), error };
        let can = probe::probe(&open.work, open.own).map_err(broken)?;
        if let Some((option, reason)) = probe::impossible(&spec.rules, can) {
            let reason = format!("{}: {reason}", upper.display());
            open.cleaner()().map_err(broken)?;
            return Err(Failure::Driver { option: option.to_owned(), reason });
        }
        self.options = probe::options(&spec.rules, can);
        self.options.strict_atime = spec.flags.strictatime;
        self.options.dir_atime = !spec.flags.noatime && !spec.flags.nodiratime;
        let files = self.options.whiteouts == WhiteoutForm::Aufs;
        if open.writes_files(files).map_err(broken)? {
            if spec.rules.whiteouts == Some(WhiteoutForm::Device) {
                let reason = format!("those of {} are files", upper.display());
                open.cleaner()().map_err(broken)?;
                return Err(Failure::Driver { option: "whiteouts=device".to_owned(), reason });
            }
            self.options.whiteouts = WhiteoutForm::Aufs;
        }
        let wanted = spec.rules.stat_override;
        let stated = open.state(wanted).map_err(Failure::path("upper directory", upper))?;
        // The file system would check and inherit ACLs by the modes of the host inodes.
        self.options.acl &= !stated;
        self.freezes = spec.freezer.is_some() && !stated && !open.is_volatile();
        self.freezes &= self.options.whiteouts == WhiteoutForm::Device;
        let index = match self.options.index {
            true => Some(open.index().map_err(broken)?),
            false => None,
        };
        self.clean = Box::new(open.cleaner());
        let label = upper.display().to_string();
        let upper = Upper { root: open.root, work: open.work, index, label };
        let mut count = || -> Result<Upper> {
            self.counted = Counted::open(spec, &upper)?;
            self.counted.as_ref().map_or(Ok(upper.clone()), |counted| counted.wrap(upper.clone()))
        };
        let failed = Failure::path("upper directory", Path::new(&upper.label));
        self.upper = Some(count().map_err(failed)?);
        self.locks = Some(open.locks);
        Ok(())
    }

    fn union(&self, grafts: &[GraftTree]) -> Result<Union> {
        Union::new(Config {
            lowers: self.lowers.clone(),
            upper: self.upper.clone(),
            grafts: grafts.to_vec(),
            options: self.options.clone(),
        })
    }
}

/// A union in this process, without a mount: it shows what a mount would show.
pub(super) struct View {
    pub(super) union: Union,
    layers: Layers,
}

impl View {
    pub(super) fn open(spec: &MountSpec) -> ServiceResult<Self> {
        let cache = layers::fd_cache(spec.lowers.len() + spec.images.len());
        let mut spec = spec.clone();
        // The mount that wrote the upper may have had other options.
        spec.rules.follow_redirects.get_or_insert(true);
        spec.rules.follow_metacopy.get_or_insert(true);
        let layers = Layers::open(&spec, None, &cache)?;
        layers.early.confirm()?;
        let union = layers.union(&[]).map_err(Failure::system("the union"))?;
        Ok(Self { union, layers })
    }

    /// Whether the index is empty, so that no copied-up file has further names.
    pub(super) fn has_empty_index(&self) -> Result<bool> {
        let index = self.layers.upper.as_ref().and_then(|upper| upper.index.as_ref());
        let Some(index) = index else { return Ok(true) };
        let mut empty = true;
        index.list(0, &mut |_| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    /// Cleans the work directory up, as an unmount does.
    pub(super) fn end(self) -> ServiceResult<()> {
        let wrap = Failure::system("emptying the work directory");
        self.union.shutdown().map_err(&wrap)?;
        (self.layers.clean)().map_err(&wrap)
    }
}

/// Finds the mount point, once, and follows links as mount(8) does. A link in its place is refused
/// where another user may exchange it: that one would choose where the mount goes.
fn target(path: &Path) -> ServiceResult<PathBuf> {
    let wrap = |error| Failure::Target { path: path.to_owned(), error };
    // Without a slash at the end, which would follow the link.
    let plain: PathBuf = path.components().collect();
    let Some(entry) = plain.file_name() else { return layers::target(path) };
    let above = plain.parent().filter(|above| !above.as_os_str().is_empty());
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    let above = sys::file::open_path(above.unwrap_or(Path::new(".")), directory).map_err(wrap)?;
    let held = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let object = sys::file::openat(above.as_fd(), entry.as_encoded_bytes(), OFlags::PATH);
    let mut object = object.map_err(wrap)?;
    let stat = sys::file::statx(object.as_fd(), b"").map_err(wrap)?;
    if stat.kind() == Kind::Symlink {
        if !is_ours(&stat, &sys::file::statx(above.as_fd(), b"").map_err(wrap)?) {
            return Err(wrap(Error::os("open", Errno::LOOP)));
        }
        object = sys::file::open_path(&held(&above).join(entry), OFlags::PATH).map_err(wrap)?;
    }
    layers::target(&held(&object)).map_err(|failure| match failure {
        Failure::Target { error, .. } => wrap(error),
        other => other,
    })
}

/// Whether only root and the caller may exchange a link: it and its directory are theirs, and no
/// other user may write to the directory, or only to entries of their own (sticky).
fn is_ours(link: &Stat, directory: &Stat) -> bool {
    let (caller, _) = process::effective_ids();
    let owned = |stat: &Stat| stat.uid == 0 || stat.uid == caller;
    owned(link) && owned(directory) && (directory.mode & 0o022 == 0 || directory.mode & 0o1000 != 0)
}

impl Prepared {
    /// Opens, checks and locks the parts of a mount. The process must be prepared before, see
    /// [`super::process`].
    ///
    /// # Errors
    /// [`Failure`]; nothing is mounted then.
    pub fn new(spec: &MountSpec) -> ServiceResult<Self> {
        let target = target(&spec.target)?;
        let cache = layers::fd_cache(spec.lowers.len() + spec.grafts.len());
        let mut own = spec.clone();
        let ephemeral = if spec.ephemeral { Some(make_ephemeral(&mut own)?) } else { None };
        own.target.clone_from(&target);
        let spec = &own;
        let layers = Layers::open(spec, Some(&target), &cache)?;
        let grafts = grafts::open(spec, &cache, &|grafts| layers.union(grafts))?;
        let union = layers.union(&grafts.grafts).map_err(Failure::system("the union"))?;
        let writes = layers.upper.is_some() || grafts.grafts.iter().any(|graft| !graft.read_only);
        let mut flags = spec.flags;
        flags.read_only |= !writes;
        let source = spec.source.clone().unwrap_or_else(|| b"lamina".to_vec());
        let mut status = status_of(spec, &target, &source, &layers, &grafts.grafts);
        status.graft_mounts = grafts.status;
        let setup = Setup {
            target,
            source,
            subtype: spec.subtype.clone(),
            flags,
            allow_other: spec.allow_other,
            default_permissions: spec.default_permissions,
            labels: match sys::fuse::has_selinux() {
                true => spec.labels.clone(),
                false => Vec::new(),
            },
            acl: layers.options.acl,
            io: spec.rules.io,
            unchanging: !writes && grafts.grafts.is_empty(),
            waits: layers.early.is_remote(),
            grafts: !grafts.grafts.is_empty(),
            locks: status.graft_mounts.iter().any(GraftStatus::is_served),
            throttle: Arc::new(Throttle::new(spec.speed)),
            ahead: !writes && can_list_ahead(spec),
            timeout_secs: spec.rules.timeout_secs,
        };
        let upper = layers.upper.as_ref().map(|upper| Arc::clone(&upper.root));
        let made = grafts.made.map(|made| made.within(upper));
        let limits =
            Limited { counted: layers.counted.clone(), throttle: Arc::clone(&setup.throttle) };
        let freezer = Freezer::new(spec, &layers.options, limits)?;
        let (counters, early, settle) = (layers.counters, layers.early, layers.settle);
        let held = Resources {
            _locks: layers.locks,
            _volumes: grafts.volumes,
            _ephemeral: ephemeral,
            clean: layers.clean,
        };
        let (union, runtime, binds) =
            (Arc::new(Gate::new(union)), spec.runtime.clone(), grafts.binds);
        let propagation = spec.propagation;
        Ok(Self {
            union,
            setup,
            status,
            counters,
            early,
            settle,
            runtime,
            propagation,
            made,
            freezer,
            binds,
            held,
        })
    }

    /// Mounts and starts to serve.
    ///
    /// # Errors
    /// [`Failure`]; then nothing stays mounted, and volumes that it made are removed.
    pub fn mount(mut self) -> ServiceResult<Live> {
        let made = self.made.take();
        self.mount_held().inspect_err(|_| made.into_iter().for_each(Made::undo_later))
    }

    fn mount_held(self) -> ServiceResult<Live> {
        let target = self.setup.target.clone();
        let session = Session::mount(Arc::clone(&self.union), &self.setup).map_err(|error| {
            let missing = std::fs::File::options().read(true).write(true).open("/dev/fuse");
            match missing {
                Err(_) if !error.is(Errno::BUSY) => Failure::Device { error },
                _ => Failure::Mount { path: target.clone(), error },
            }
        })?;
        let granted = session.granted();
        let other = self.setup.io.filter(|io| *io != granted.io);
        let spread = self.propagation.map_or(Ok(()), |how| propagate(&target, how));
        // Nothing is visible yet: requests wait until a thread serves them.
        let wrong = other.map_or(Ok(()), |io| Err(refused(io, self.setup.flags.sync)));
        if let Err(failure) = wrong.and(spread).and_then(|()| self.early.confirm()) {
            unmount(&target, true)?;
            // Nothing was written, so a volatile upper is as clean as before.
            (self.held.clean)().map_err(Failure::system("emptying the work directory"))?;
            return Err(failure);
        }
        let counters = session.counters();
        let store = self.counters;
        let running =
            session.start().map_err(|error| Failure::Mount { path: target.clone(), error })?;
        let bound = binds::bound(&self.binds);
        let listen = |freezer: Freezer| freezer.listen(Arc::clone(&self.union));
        let attached = binds::attach(&target, self.binds);
        let control = match attached.and_then(|()| self.freezer.map(listen).transpose()) {
            Ok(control) => control,
            Err(failure) => {
                unmount(&target, true)?;
                running.wait();
                (self.held.clean)().map_err(Failure::system("emptying the work directory"))?;
                return Err(failure);
            }
        };
        self.early.complete_beside();
        let mut status = self.status;
        granted.io.name().clone_into(&mut status.drivers.io);
        let entry = mounts::on(&target).ok().flatten();
        status.device = entry.as_ref().map(|entry| entry.device.clone());
        let row = (status.device.as_ref().filter(|_| !bound.is_empty()))
            .and_then(|device| utab::enter(&target, device, bound));
        let (union, upper) = (Arc::clone(&self.union), control.as_ref().map(Control::upper));
        let answering = self.runtime.and_then(|dir| {
            let say = move || MountStatus {
                union: union.enter().stats(),
                requests: counters.values(),
                store: store.as_ref().map(|stats| stats()),
                upper: upper.as_ref().map(|path| path.lock().clone()).or(status.upper.clone()),
                ..status.clone()
            };
            status::answer(&dir, say)
                .inspect_err(|error| {
                    tracing::debug!(%error, dir = %dir.display(), "no status from this mount");
                })
                .ok()
        });
        let (union, held, settle) = (self.union, self.held, self.settle);
        let network = self.setup.waits;
        Ok(Live { union, running, held, answering, control, row, settle, target, entry, network })
    }
}

impl Live {
    /// Returns a way to end the mount from another thread, through `helper` if this process may not
    /// unmount.
    #[must_use]
    pub fn ender(&self, helper: Helper) -> Ender {
        Ender::new(self.target.clone(), self.entry.clone(), helper)
    }

    /// Gives up the rights that only making the mount needed, for all threads of the process.
    pub fn seal(&self) {
        confine::seal(self.network);
    }

    /// Waits for the unmount and cleans up.
    ///
    /// # Errors
    /// Errors of emptying the work directory; the next mount removes the remains.
    pub fn wait(self) -> ServiceResult<()> {
        self.running.wait();
        if let Some(control) = &self.control {
            control.end();
        }
        drop(self.row);
        drop(self.answering);
        drop(self.control);
        let wrap = Failure::system("emptying the work directory");
        self.union.enter().shutdown().map_err(&wrap)?;
        (self.held.clean)().map_err(&wrap)?;
        drop(self.held);
        // After the locks are released, so that the next mount of the upper need not wait for it.
        if let Some(settle) = self.settle {
            settle();
        }
        Ok(())
    }
}

/// With a shorter timeout the kernel drops the listings before the reader gets to them.
const LONG: f64 = 60.0;

/// Whether all layers are mapped layers of the store and the kernel keeps entries long enough.
fn can_list_ahead(spec: &MountSpec) -> bool {
    let mapped = spec.lowers.is_empty() && spec.upper.is_none() && spec.grafts.is_empty();
    mapped && spec.rules.timeout_secs.is_none_or(|secs| secs >= LONG)
}

fn propagate(target: &Path, how: Propagation) -> ServiceResult<()> {
    match sys::mount::set_propagation(target, how) {
        // The propagation of a mount through `fusermount3` is that of its place.
        Err(error) if error.is(Errno::PERM) && how == Propagation::Private => Ok(()),
        done => done.map_err(|error| Failure::Mount { path: target.to_owned(), error }),
    }
}

fn refused(io: IoDriver, sync: bool) -> Failure {
    let reason = match io {
        IoDriver::Passthrough if sync => "a mount with sync writes through the daemon",
        IoDriver::Passthrough => "the kernel grants it to CAP_SYS_ADMIN of the host alone",
        IoDriver::NoOpen => "only a mount without upper and grafts never changes",
        IoDriver::Cached => "the kernel does not grant it",
    };
    Failure::Driver { option: format!("io={}", io.name()), reason: reason.to_owned() }
}

/// Adds an upper that is removed with the mount, so nothing in it waits for the disk.
fn make_ephemeral(spec: &mut MountSpec) -> ServiceResult<Ephemeral> {
    let refuse = |error: CatalogError| {
        let (root, error) = (spec.root.clone(), Box::new(error.into()));
        Failure::Ephemeral { root, error }
    };
    let made = Containers::open(&spec.root).and_then(|containers| containers.ephemeral());
    let made = made.map_err(refuse)?;
    spec.upper = Some(UpperDirs { upper: made.upper(), work: Some(made.work()) });
    spec.rules.volatile = true;
    Ok(made)
}

/// Changes the VFS flags of a mount.
///
/// # Errors
/// As mount(2) with `MS_REMOUNT`.
pub(super) fn remount(target: &Path, flags: super::VfsFlags) -> ServiceResult<()> {
    sys::fuse::remount(target, flags).map_err(|errno| Failure::Mount {
        path: target.to_owned(),
        error: Error::os("mount", errno),
    })
}

/// Unmounts, as umount(8) does; with `lazy` the mount is taken out of the tree at once and ends
/// when it is no longer used.
///
/// # Errors
/// As umount2(2); `EBUSY` while it is in use, unless `lazy`.
fn unmount(target: &Path, lazy: bool) -> ServiceResult<()> {
    let how = UnmountFlags { lazy, force: false };
    super::unmount::end(target, how).map_err(|errno| Failure::Unmount {
        path: target.to_owned(),
        error: Error::os("umount2", errno),
    })
}

fn status_of(
    spec: &MountSpec,
    target: &Path,
    source: &[u8],
    layers: &Layers,
    grafts: &[GraftTree],
) -> MountStatus {
    let resolved = |path: &PathBuf| layers::resolved(path).unwrap_or_else(|_| path.clone());
    let held = layers.upper.as_ref().and(spec.upper.as_ref());
    let place = |graft: &GraftTree| {
        let parts = graft.path.iter().map(|part| String::from_utf8_lossy(part));
        let path = parts.fold(String::new(), |path, part| path + "/" + &part);
        format!("{} at {path}", graft.label)
    };
    let options = &layers.options;
    MountStatus {
        pid: std::process::id(),
        target: target.to_owned(),
        source: String::from_utf8_lossy(source).into_owned(),
        lowers: layers.lowers.iter().map(|lower| lower.label.clone()).collect(),
        upper: held.map(|dirs| resolved(&dirs.upper)),
        work: held.and_then(|dirs| dirs.work.as_ref()).map(resolved),
        grafts: grafts.iter().map(place).collect(),
        graft_mounts: Vec::new(),
        device: None,
        drivers: Drivers {
            io: String::new(),
            marks: match options.marks {
                Marks::Trusted => "trusted".to_owned(),
                Marks::User => "user".to_owned(),
            },
            whiteouts: match options.whiteouts {
                WhiteoutForm::Device => "device".to_owned(),
                WhiteoutForm::Aufs => "file".to_owned(),
            },
            copy: if options.reflink { "reflink" } else { "data" }.to_owned(),
            metacopy: options.metacopy,
            redirect: options.redirect,
            index: options.index,
            volatile: options.volatile,
        },
        union: crate::union::Stats::default(),
        requests: crate::fuse::counters::CounterValues::default(),
        log: spec.log.clone(),
        store: None,
    }
}

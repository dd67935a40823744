//! Sessions: mount a union, negotiate the kernel's features, and start the threads that serve it.
//!
//! fuser does the handshake, the mount through `fusermount3` for users who may not mount, and the
//! registration of backing files. Our own loop reads requests from the descriptor of fuser's
//! session and replies to them, because fuser's dispatch shows inode numbers as node numbers and
//! hides requests that a union needs (`FUSE_TMPFILE`, `FUSE_STATX`, the kill-privilege flags).
//!
//! A session ends when any process unmounts the file system.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use fuser::{InitFlags, KernelConfig, MountOption, SessionACL};

use crate::error::{Errno, Error, Result};
use crate::fuse::ahead::Ahead;
use crate::fuse::convert::Lifetime;
use crate::fuse::counters::Counters;
use crate::fuse::gate::Gate;
use crate::fuse::locks::Locks;
use crate::fuse::ops::{Adapter, Synchronous};
use crate::fuse::throttle::Throttle;
use crate::fuse::turn::Turn;
use crate::fuse::wire::abi::MAX_WRITE;
use crate::fuse::wire::notify;
use crate::fuse::worker::{Pace, Workers};
use crate::sys::fuse::{Device, FuseMount, UnmountFlags, VfsFlags, may_pass_through, mount};
use crate::types::NodeId;
use crate::union::{File, Kernel};

/// Threads of a session: one reads, the others stand by for long requests.
pub const THREADS: usize = 4;

/// Threads where requests wait for a network: more than the requests that the kernel has under way
/// for one reader.
pub const THREADS_WAITING: usize = 96;

/// Background requests (read-ahead, RELEASE) that the kernel may have under way.
const MAX_BACKGROUND: u16 = 64;

/// A mount that no thread serves is detached at once.
const LAZY: UnmountFlags = UnmountFlags { lazy: true, force: false };

/// Settings of a session beyond the union.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The mount point.
    pub target: PathBuf,
    /// First column of /proc/mounts.
    pub source: Vec<u8>,
    /// The subtype: the file system type is `fuse.SUBTYPE`.
    pub subtype: Option<String>,
    /// Flags that the VFS keeps.
    pub flags: VfsFlags,
    /// Whether users other than the mounting one may enter.
    pub allow_other: bool,
    /// Whether the kernel checks permissions by mode bits and ACLs.
    pub default_permissions: bool,
    /// Labels of SELinux, where it is in force.
    pub labels: Vec<String>,
    /// Whether POSIX ACLs count.
    pub acl: bool,
    /// How open files are served; `None` is the best way that the kernel grants.
    pub io: Option<IoDriver>,
    /// Whether nothing of the mount ever changes, so that files may be opened without a request.
    pub unchanging: bool,
    /// Whether requests may wait for a network, so that more threads stand by.
    pub waits: bool,
    /// Whether others change what is grafted.
    pub grafts: bool,
    /// Whether grafts are served, so that locks are to be forwarded.
    pub locks: bool,
    /// Limits on speed.
    pub throttle: Arc<Throttle>,
    /// Whether directories may be listed ahead: no layer needs a descriptor for it.
    pub ahead: bool,
    /// How long the kernel may use names and attributes, in seconds; `None` is for ever.
    pub timeout_secs: Option<f64>,
}

/// How open files are served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IoDriver {
    /// By the kernel from the layer, for large files and files that are written.
    Passthrough,
    /// Through the page cache, from the daemon.
    #[default]
    Cached,
    /// As `Cached`, but without OPEN requests: for a mount in which nothing changes.
    NoOpen,
}

impl IoDriver {
    /// The name in options and in the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Cached => "cached",
            Self::NoOpen => "noopen",
        }
    }
}

/// The features that the kernel granted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Granted {
    /// Minor version of the protocol.
    pub minor: u32,
    /// How open files are served.
    pub io: IoDriver,
    /// Whether the mount can be id-mapped.
    pub idmap: bool,
}

/// Negotiates, and does nothing else: requests never reach fuser's dispatch.
#[derive(Debug)]
struct Handshake {
    wanted: InitFlags,
    no_open: bool,
    granted: Arc<OnceLock<Granted>>,
}

impl fuser::Filesystem for Handshake {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let mut flags = self.wanted & config.capabilities();
        // Without OPEN requests, O_TRUNC has to come as SETATTR, which is refused even after root
        // remounts the mount writable.
        if self.no_open && !flags.contains(InitFlags::FUSE_PASSTHROUGH) {
            flags.remove(InitFlags::FUSE_ATOMIC_O_TRUNC);
        }
        // 1: layers may stand on a plain file system, this mount below another stacked one.
        let taken = config.add_capabilities(flags).is_ok()
            && config.set_max_write(MAX_WRITE).is_ok()
            && config.set_max_background(MAX_BACKGROUND).is_ok()
            && config.set_max_stack_depth(1).is_ok();
        if !taken {
            return Err(std::io::Error::from_raw_os_error(Errno::OPNOTSUPP.0));
        }
        let granted = Granted {
            minor: config.kernel_abi().1,
            io: match (flags.contains(InitFlags::FUSE_PASSTHROUGH), self.no_open) {
                (true, _) => IoDriver::Passthrough,
                (false, true) => IoDriver::NoOpen,
                (false, false) => IoDriver::Cached,
            },
            idmap: flags.contains(InitFlags::FUSE_ALLOW_IDMAP),
        };
        if self.granted.set(granted).is_err() {
            tracing::warn!("negotiated twice");
        }
        Ok(())
    }
}

fn wanted(setup: &Setup) -> InitFlags {
    let mut flags = InitFlags::FUSE_ASYNC_READ
        | InitFlags::FUSE_ATOMIC_O_TRUNC
        | InitFlags::FUSE_EXPORT_SUPPORT
        | InitFlags::FUSE_BIG_WRITES
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_HAS_IOCTL_DIR
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_MAX_PAGES
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_NO_OPENDIR_SUPPORT
        | InitFlags::FUSE_SETXATTR_EXT
        | InitFlags::FUSE_HAS_RESEND;
    flags.set(InitFlags::FUSE_POSIX_ACL, setup.acl);
    flags.set(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP, setup.grafts);
    flags.set(InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS, setup.locks);
    let passthrough = setup.io.is_none_or(|io| io == IoDriver::Passthrough);
    // The kernel does not sync the data that it writes by itself.
    let passthrough = passthrough && !setup.flags.sync;
    flags.set(InitFlags::FUSE_PASSTHROUGH, passthrough && may_pass_through());
    // The kernel refuses the mount otherwise (`process_init_reply()` in fs/fuse/inode.c).
    flags.set(InitFlags::FUSE_ALLOW_IDMAP, setup.default_permissions);
    flags
}

impl Kernel for Arc<Device> {
    fn register(&self, file: &dyn File) -> Result<u32> {
        const OP: &str = "FUSE_DEV_IOC_BACKING_OPEN";
        let fd = file.fd().ok_or(Error::os(OP, Errno::OPNOTSUPP))?;
        let registered = fuser::BackingId::create_raw(self.as_ref(), fd);
        registered.map_err(|error| Error::os(OP, raw(&error)))
    }

    fn release(&self, backing_id: u32) {
        if let Err(errno) = self.close_backing(backing_id) {
            tracing::debug!(backing_id, %errno, "backing file was not released");
        }
    }

    fn changed(&self, node: NodeId) {
        match notify::forget_attributes(self, node) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => tracing::debug!(?node, %errno, "attributes stay in the kernel"),
        }
    }

    fn now_ms(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        let passed = START.get_or_init(Instant::now).elapsed().as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    fn drop_listing(&self, node: NodeId) {
        match notify::forget_pages(self, node) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => tracing::debug!(?node, %errno, "a listing stays in the kernel"),
        }
    }

    fn store(&self, node: NodeId, data: &[u8]) -> Result<()> {
        notify::store(self, node, data).map_err(|errno| Error::os("FUSE_NOTIFY_STORE", errno))
    }
}

fn raw(error: &std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(Errno::IO.0))
}

/// A mounted union that no thread serves yet: requests wait in the kernel.
pub struct Session {
    fuser: fuser::Session<Handshake>,
    workers: Arc<Workers>,
    granted: Granted,
    threads: usize,
}

impl Session {
    /// Mounts a union.
    ///
    /// # Errors
    /// As open(2) of `/dev/fuse`, mount(2), or what `fusermount3` or the handshake refused.
    pub fn mount(union: Arc<Gate>, setup: &Setup) -> Result<Self> {
        let granted = Arc::new(OnceLock::new());
        let no_open = setup.unchanging && setup.io != Some(IoDriver::Cached);
        let handshake = Handshake { wanted: wanted(setup), no_open, granted: Arc::clone(&granted) };
        let fuser = match mount_directly(setup) {
            Ok(device) => negotiate(handshake, device, setup)?,
            Err(error) if error.is(Errno::PERM) || error.is(Errno::ACCESS) => {
                mount_with_helper(handshake, setup)?
            }
            Err(error) => return Err(error),
        };
        let granted = granted.get().copied().unwrap_or_default();
        let device = Device::duplicate(fuser.as_fd()).map_err(|errno| Error::os("fcntl", errno))?;
        let device = Arc::new(device);
        let passthrough = granted.io == IoDriver::Passthrough;
        union.enter().set_kernel(Arc::new(Arc::clone(&device)), passthrough);
        let counters = Arc::new(Counters::default());
        let session = RandomState::new().hash_one(std::process::id()) as u32;
        let lifetime = Lifetime::from_secs(setup.timeout_secs).in_session(session);
        let ahead = setup.ahead && thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        let ahead =
            ahead.then(|| Ahead::new(setup.target.clone(), &union, &counters).ok()).flatten();
        let locks = setup.locks.then(|| Locks::new(&union, &device));
        let workers = Workers {
            device,
            turn: Turn::new(Arc::clone(&counters)),
            adapter: Adapter {
                union,
                lifetime,
                no_open: granted.io == IoDriver::NoOpen,
                counters: Arc::clone(&counters),
                ahead,
                synchronous: Synchronous {
                    names: setup.flags.sync || setup.flags.dirsync,
                    attributes: setup.flags.sync,
                },
                locks,
            },
            counters,
            pace: Pace::default(),
            throttle: Arc::clone(&setup.throttle),
            xattr_ext: granted.minor >= 33,
        };
        let waits = setup.waits || setup.throttle.is_on();
        let threads = if waits { THREADS_WAITING } else { THREADS };
        Ok(Self { fuser, workers: Arc::new(workers), granted, threads })
    }

    /// The features that the kernel granted.
    #[must_use]
    pub const fn granted(&self) -> Granted {
        self.granted
    }

    /// The counters of the session.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.workers.counters)
    }

    /// Starts the threads that serve.
    ///
    /// # Errors
    /// As pthread_create(3).
    pub fn start(self) -> Result<Running> {
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name).spawn(run);
            thread.map_err(|error| Error::os("pthread_create", raw(&error)))
        };
        let mut threads = Vec::with_capacity(self.threads + 1);
        for number in 0..self.threads {
            let workers = Arc::clone(&self.workers);
            let body = move || {
                if let Err(errno) = workers.run() {
                    tracing::error!(%errno, "the FUSE device failed");
                }
            };
            threads.push(spawn(format!("fuse-{number}"), Box::new(body))?);
        }
        let workers = Arc::clone(&self.workers);
        threads.push(spawn("fuse-watch".to_owned(), Box::new(move || workers.turn.watch()))?);
        Ok(Running { _fuser: self.fuser, threads })
    }
}

/// A session that is served.
pub struct Running {
    _fuser: fuser::Session<Handshake>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Running {
    /// Waits until the file system is unmounted and every request under way is completed.
    pub fn wait(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the session panicked");
            }
        }
    }
}

fn mount_directly(setup: &Setup) -> Result<Device> {
    let device = Device::open().map_err(|errno| Error::os("open /dev/fuse", errno))?;
    let what = FuseMount {
        source: &setup.source,
        subtype: setup.subtype.as_deref(),
        flags: setup.flags,
        allow_other: setup.allow_other,
        default_permissions: setup.default_permissions,
        labels: &setup.labels,
    };
    mount(&device, &setup.target, &what).map_err(|errno| Error::os("mount", errno))?;
    Ok(device)
}

fn acl(setup: &Setup) -> SessionACL {
    if setup.allow_other { SessionACL::All } else { SessionACL::Owner }
}

fn negotiate(
    handshake: Handshake,
    device: Device,
    setup: &Setup,
) -> Result<fuser::Session<Handshake>> {
    let config = fuser::Config::default();
    fuser::Session::from_fd(handshake, device.into_fd(), acl(setup), config).map_err(|error| {
        // No thread would serve it: the mount must not stay.
        if let Err(errno) = crate::sys::fuse::unmount(&setup.target, LAZY) {
            tracing::error!(%errno, "the mount stays without a daemon");
        }
        Error::os("FUSE_INIT", raw(&error))
    })
}

/// Mounts through `fusermount3`, which is set-user-ID root: for users without CAP_SYS_ADMIN.
fn mount_with_helper(handshake: Handshake, setup: &Setup) -> Result<fuser::Session<Handshake>> {
    helper_can(setup.flags)?;
    let mut config = fuser::Config::default();
    config.acl = acl(setup);
    config.mount_options = helper_options(setup);
    fuser::Session::new(handshake, &setup.target, &config)
        .map_err(|error| Error::os("fusermount3", raw(&error)))
}

/// Refuses flags that `fusermount3` does not support.
fn helper_can(flags: VfsFlags) -> Result<()> {
    let table = [
        (flags.nosymfollow, "nosymfollow through fusermount3"),
        (flags.strictatime, "strictatime through fusermount3"),
        (flags.nodiratime, "nodiratime through fusermount3"),
        (flags.lazytime, "lazytime through fusermount3"),
    ];
    match table.into_iter().find(|(set, _)| *set) {
        Some((_, what)) => Err(Error::os(what, Errno::OPNOTSUPP)),
        None => Ok(()),
    }
}

fn helper_options(setup: &Setup) -> Vec<MountOption> {
    let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_string_lossy().into_owned();
    let mut options = vec![MountOption::FSName(text(&setup.source))];
    options.extend(setup.subtype.clone().map(MountOption::Subtype));
    options.extend(setup.labels.iter().cloned().map(MountOption::CUSTOM));
    let flags = setup.flags;
    let table = [
        (setup.default_permissions, MountOption::DefaultPermissions),
        (flags.read_only, MountOption::RO),
        (flags.nosuid, MountOption::NoSuid),
        (flags.nodev, MountOption::NoDev),
        (flags.noexec, MountOption::NoExec),
        (flags.noatime, MountOption::NoAtime),
        (flags.sync, MountOption::Sync),
        (flags.dirsync, MountOption::DirSync),
    ];
    options.extend(table.into_iter().filter(|(set, _)| *set).map(|(_, option)| option));
    options
}

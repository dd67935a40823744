//! The mounts of volumes of the driver `union` and of containers, and their control sockets.
//!
//! The process that serves such a mount is asked over a socket to make its upper a layer. It does
//! so between two requests of its users: none sees a state in between. A freeze of several mounts
//! holds the users of all of them first.
//!
//! The upper of a volume is a layer of the pool from the start. That of a container is `upper` in
//! its directory: a freeze exchanges it with the empty layer of the pool, and its work directory.

mod home;

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLockWriteGuard};

use super::failure::{Refusal, ServiceResult};
use super::images::{Images, stacked};
use super::layers::{self, Locks};
use super::sizes::{Counted, layer_used, used_in};
use super::spec::{MountSpec, UpperDirs};
use super::{Failure, containers};
use crate::backing::counted::{BLOCK, Used};
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::error::{Errno, Error, FromHost, Result};
use crate::fuse::gate::Gate;
use crate::fuse::session::IoDriver;
use crate::fuse::throttle::Throttle;
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{Limits, Speed};
use crate::union::{Lower, Options, Union, Upper};
use crate::volume::union::pool::{Pool, Shared};
use crate::volume::union::stack::{self, Stack};
use crate::volume::union::wire::{Answer, Connection, Directory, HOLD_MAX, Request, UsedSpace};
use crate::volume::{VolumeError, union};
use home::Home;

/// The time limit of a client that asks.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time for which a freeze stays prepared, while others are.
const PREPARED_MAX: Duration = Duration::from_secs(60);
/// The time for which requests of users may hold a freeze up.
const QUIET: Duration = Duration::from_secs(10);
/// Descriptors of directories that a new upper may keep open.
const KEPT_DIRS: usize = 64;

/// The specification of the mount of the volume in a directory. With `read_only` it is that of a
/// snapshot. A volume without an upper gets one.
///
/// # Errors
/// [`Failure::Volume`].
pub fn spec(
    directory: &Path,
    read_only: bool,
    (limits, speed): (Limits, Speed),
) -> ServiceResult<MountSpec> {
    let wrap = |error: Refusal| {
        let name = directory.display().to_string();
        Failure::Volume { name, error: Box::new(error) }
    };
    let pool = Pool::of(directory);
    let mut stack = stack::read(directory).map_err(|error| wrap(error.into()))?;
    if !read_only && stack.upper.is_none() {
        stack = begin(directory, &pool, stack).map_err(wrap)?;
    }
    let upper = stack.upper.filter(|_| !read_only);
    let upper = upper.map(|id| UpperDirs { upper: pool.content(&id), work: Some(pool.work(&id)) });
    let mut spec = MountSpec {
        target: directory.join("_data"),
        source: Some(b"lamina".to_vec()),
        subtype: Some("lamina".to_owned()),
        lowers: stack.layers.iter().map(|id| pool.content(id)).collect(),
        former: if upper.is_some() { stack.layers.len() } else { 0 },
        layers: stack.image,
        root: data_root(directory),
        allow_other: true,
        default_permissions: true,
        freezer: upper.is_some().then(|| directory.to_owned()),
        limits,
        speed,
        upper,
        ..MountSpec::default()
    };
    spec.flags.read_only = read_only;
    if spec.upper.is_some() {
        // A file that the kernel writes to by itself could not become part of a layer.
        spec.rules.io = Some(IoDriver::Cached);
    }
    Ok(spec)
}

/// Makes an empty upper. Its root looks as that of the topmost layer before anybody sees it.
fn begin(directory: &Path, pool: &Pool, stack: Stack) -> std::result::Result<Stack, Refusal> {
    let _shared = pool.share()?;
    let id = pool.make()?;
    let dressed = dress(directory, pool, &stack, &id);
    dressed.inspect_err(|_| pool.discard(&id))?;
    let stack = Stack { upper: Some(id), ..stack };
    stack::write(directory, &stack)?;
    Ok(stack)
}

/// Gives the root of an empty upper the attributes that the volume shows there.
fn dress(
    directory: &Path,
    pool: &Pool,
    stack: &Stack,
    upper: &str,
) -> std::result::Result<(), Refusal> {
    let upper = pool.content(upper);
    let top = if let Some(top) = stack.layers.first() {
        let content = pool.content(top);
        let root = HostTree::open(&content, Submounts::Sealed, &FdCache::new(KEPT_DIRS));
        let root = root.map_err(VolumeError::host(&content))?;
        let label = content.display().to_string();
        Some(Lower { root, label, shifted: false, was_upper: true })
    } else if stack.image.is_empty() {
        None
    } else {
        let layers = Images::open(&data_root(directory))?.layers_by_id(&stack.image)?;
        stacked(layers).into_iter().next()
    };
    let dressed = top.map_or(Ok(()), |top| containers::root_like(&top, &upper));
    Ok(dressed.map_err(VolumeError::host(&upper))?)
}

/// The data root of the volume in a directory.
fn data_root(directory: &Path) -> PathBuf {
    directory.ancestors().nth(2).unwrap_or(directory).to_owned()
}

/// The part of a mount that makes its upper a layer.
pub(super) struct Freezer {
    spec: MountSpec,
    directory: Arc<Directory>,
    home: Home,
    options: Options,
    limited: Limited,
    upper: Arc<Mutex<PathBuf>>,
    ended: Arc<Mutex<bool>>,
    /// The device of the mount, once it is served.
    device: u64,
}

/// What holds the limits of a mount.
pub(super) struct Limited {
    pub(super) counted: Option<Counted>,
    pub(super) throttle: Arc<Throttle>,
}

/// The control socket of a volume or container, which is removed on drop.
pub(super) struct Control {
    directory: Arc<Directory>,
    upper: Arc<Mutex<PathBuf>>,
    ended: Arc<Mutex<bool>>,
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(self.directory.socket()) {
            tracing::debug!(%error, "control socket stays");
        }
    }
}

impl Control {
    /// Lets nothing be changed from now on: the locks of the mount are about to be released, and
    /// another one may use the upper.
    pub(super) fn end(&self) {
        *self.ended.lock() = true;
    }

    /// The upper at present.
    pub(super) fn upper(&self) -> Arc<Mutex<PathBuf>> {
        Arc::clone(&self.upper)
    }
}

impl Freezer {
    /// `None` for a mount of neither a volume nor a container.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn new(
        spec: &MountSpec,
        options: &Options,
        limited: Limited,
    ) -> ServiceResult<Option<Self>> {
        let Some(path) = &spec.freezer else { return Ok(None) };
        let directory = Directory::open(path).map_err(refuse(path))?;
        let upper = spec.upper.as_ref().map(|dirs| dirs.upper.clone()).unwrap_or_default();
        let directory = Arc::new(directory);
        Ok(Some(Self {
            spec: spec.clone(),
            home: Home::new(spec, path, &directory),
            directory,
            options: options.clone(),
            limited,
            upper: Arc::new(Mutex::new(upper)),
            ended: Arc::new(Mutex::new(false)),
            device: 0,
        }))
    }

    /// Answers on the control socket of the volume or container.
    ///
    /// # Errors
    /// As bind(2).
    pub(super) fn listen(mut self, gate: Arc<Gate>) -> ServiceResult<Control> {
        let socket = self.directory.socket();
        let listener = || -> std::io::Result<UnixListener> {
            match std::fs::remove_file(&socket) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(UnixListener::from(sys::process::listen(&socket)?)),
            }
        };
        let wrap = refuse(&self.spec.target);
        let listener = listener().map_err(&wrap)?;
        let root = sys::file::find_directory(&self.spec.target);
        let stat = root.and_then(|root| sys::file::statx(root.as_fd(), b""));
        let failed = Failure::path("mount point", &self.spec.target);
        self.device = stat.map_err(failed)?.dev;
        let (upper, directory) = (Arc::clone(&self.upper), Arc::clone(&self.directory));
        let ended = Arc::clone(&self.ended);
        let thread = std::thread::Builder::new().name("control".to_owned());
        let started = thread.spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let told = stream.and_then(|stream| self.answer(&gate, stream, &mut held));
                if let Err(error) = told {
                    tracing::debug!(%error, "a request of the volume was not answered");
                }
            }
        });
        started.map_err(wrap)?;
        Ok(Control { directory, upper, ended })
    }

    /// Answers the requests of a connection: it prepares a freeze, holds the users, and freezes.
    fn answer(
        &self,
        gate: &Gate,
        stream: UnixStream,
        held: &mut Vec<Locks>,
    ) -> std::io::Result<()> {
        let mut client = Connection::new(stream, PATIENCE)?;
        let asked = client.receive(Instant::now() + PATIENCE)?;
        let layer = match asked {
            Some(Request::Prepare { layer }) => layer,
            Some(Request::Used) => return client.send(&self.used()),
            Some(Request::Resize { limits }) => return client.send(&self.resize(gate, limits)),
            Some(Request::Throttle { speed }) => {
                self.limited.throttle.set(speed);
                return client.send(&Answer::default());
            }
            _ => return refuse_order(&mut client),
        };
        let next = match self.prepare(gate, &layer) {
            Ok(next) => next,
            Err(failure) => return client.send(&Answer::failed(&failure)),
        };
        client.send(&Answer::default())?;
        let asked = client.receive(Instant::now() + PREPARED_MAX)?;
        let Some(Request::Hold) = asked else { return refuse_order(&mut client) };
        let Some(union) = gate.alone(QUIET) else {
            let busy =
                Failure::system("making the upper a layer")(Error::os("freeze", Errno::BUSY));
            return client.send(&Answer::failed(&busy));
        };
        let deadline = Instant::now() + HOLD_MAX;
        client.send(&Answer::default())?;
        let asked = client.receive(deadline)?;
        let Some(Request::Freeze) = asked else { return refuse_order(&mut client) };
        let ended = self.ended.lock();
        if *ended {
            let gone =
                Failure::system("making the upper a layer")(Error::os("mount", Errno::NOENT));
            return client.send(&Answer::failed(&gone));
        }
        match self.freeze(union, next) {
            Ok((layers, locks)) => {
                // A layer stays locked against other mounts that would write to it.
                held.extend(locks);
                client.send(&Answer { layers: Some(layers), ..Answer::default() })
            }
            Err(failure) => client.send(&Answer::failed(&failure)),
        }
    }

    fn used(&self) -> Answer {
        let space = |counted: &Counted| {
            let used = counted.used();
            UsedSpace { bytes: used.blocks.saturating_mul(BLOCK), inodes: used.inodes }
        };
        let counted = self.limited.counted.as_ref().filter(|counted| counted.counts());
        Answer { used: counted.map(space), ..Answer::default() }
    }

    fn resize(&self, gate: &Gate, asked: Limits) -> Answer {
        let resize = || -> std::result::Result<(), String> {
            let text = |error: Refusal| error.to_string();
            let counted = self.limited.counted.as_ref();
            let counted = counted.ok_or("it was mounted without limits: stop its users first")?;
            let ended = self.ended.lock();
            if *ended {
                return Err("its mount has ended: try again".to_owned());
            }
            let limits = self.home.limits(asked).map_err(text)?;
            let before = counted.limits();
            if counted.counts() {
                counted.resize(limits)?;
            } else {
                self.begin_to_count(gate, counted, limits)?;
            }
            self.home.set_limits(limits).map_err(|error| {
                // What was written meanwhile may need the new ones.
                let back = counted.resize(before);
                back.err().into_iter().fold(text(error), |said, more| format!("{said}; {more}"))
            })
        };
        Answer { error: resize().err(), ..self.used() }
    }

    /// Counts a mount that had no limits. Its users wait while its upper is read.
    fn begin_to_count(
        &self,
        gate: &Gate,
        counted: &Counted,
        limits: Limits,
    ) -> std::result::Result<(), String> {
        if limits == Limits::default() {
            return Ok(());
        }
        let text = |error: Error| error.to_string();
        let stack = self.home.stack().map_err(|error| error.to_string())?;
        let (upper, work) = self.home.upper(&stack).ok_or("it has no upper")?;
        // Files without a name that are still open.
        let orphans = layers::orphans(&work);
        let mut layers = Used::default();
        for layer in &stack.layers {
            layers = layers.and(layer_used(&self.home.pool.content(layer)).map_err(text)?);
        }
        let alone = gate.alone(QUIET).ok_or("its users are busy: try again")?;
        let index = work.join("index");
        let mut directories: Vec<&Path> = vec![&upper, &orphans];
        // A mount without an index has none.
        directories.extend(index.exists().then_some(&*index));
        let used = used_in(&directories).map_err(text)?;
        counted.begin(limits, used.and(layers))?;
        drop(alone);
        Ok(())
    }

    fn failed(&self, error: impl Into<Refusal>) -> Failure {
        let name = self.spec.target.display().to_string();
        Failure::Volume { name, error: Box::new(error.into()) }
    }

    /// Writes to the upper what was written through mappings: it belongs to what is frozen.
    fn flush(&self) -> ServiceResult<()> {
        let flush = || {
            let root = sys::file::find_directory(&self.spec.target)?;
            if sys::file::statx(root.as_fd(), b"")?.dev != self.device {
                return Err(Error::os("the mount is not at its place any more", Errno::NOENT));
            }
            let root = sys::file::open_again(root.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?;
            sys::file::syncfs(root.as_fd())
        };
        flush().map_err(Failure::path("mount point", &self.spec.target))
    }

    /// Opens an empty layer of the pool, and does beside other requests what takes long.
    fn prepare(&self, gate: &Gate, layer: &str) -> ServiceResult<Next> {
        let (home, pool) = (&self.home, &self.home.pool);
        if !self.options.freezes {
            let (driver, verb) = (union::NAME, "a snapshot of what is mounted");
            let reason = "stat_override, volatile, whiteouts=file and a mount without root keep \
                          the upper as it is; stop its users first"
                .to_owned();
            return Err(self.failed(VolumeError::Unsupported { driver, verb, reason }));
        }
        let shared = pool.share().map_err(|error| self.failed(error))?;
        self.flush()?;
        let before = home.stack().map_err(|error| self.failed(error))?;
        let stack = home.after(&before, layer);
        let (content, work) = (pool.content(layer), pool.work(layer));
        let (cache, target) = (FdCache::new(KEPT_DIRS), Some(&*self.spec.target));
        let open = layers::open_upper(&self.spec, (&content, &work), target, &cache)?;
        let broken = |error| Failure::Work { path: work.clone(), error };
        let index = if self.options.index { Some(open.index().map_err(broken)?) } else { None };
        let label = content.display().to_string();
        let upper = Upper { root: open.root, work: open.work, index, label };
        let upper = match &self.limited.counted {
            Some(counted) => counted.wrap(upper).map_err(broken)?,
            None => upper,
        };
        gate.enter().name_indexed().map_err(Failure::system("making the upper a layer"))?;
        home.note_index().map_err(|error| self.failed(error))?;
        Ok(Next { upper, content, before, stack, locks: open.locks, _shared: shared })
    }

    /// Makes the upper a layer, and what was prepared the upper. An upper to which nothing was
    /// written stays, and there are no locks. Returns the layers below the upper.
    fn freeze(
        &self,
        mut union: RwLockWriteGuard<'_, Union>,
        next: Next,
    ) -> ServiceResult<(Vec<String>, Option<Locks>)> {
        if self.home.is_unwritten(&next.before).map_err(|error| self.failed(error))? {
            return Ok((next.before.layers, None));
        }
        let commit = || -> Result<()> {
            self.home.freeze(&next.stack, &next.content).map_err(|error| {
                tracing::error!(%error, "the upper did not become a layer");
                Error::os("write", Errno::IO)
            })
        };
        let frozen = union.freeze(&next.upper, commit);
        frozen.map_err(Failure::system("making the upper a layer"))?;
        if !self.home.is_container {
            *self.upper.lock() = next.content;
        }
        Ok((next.stack.layers, Some(next.locks)))
    }
}

/// An empty layer that becomes the upper.
struct Next {
    upper: Upper,
    content: PathBuf,
    before: Stack,
    stack: Stack,
    locks: Locks,
    /// The layer is not removed before the stack names it.
    _shared: Shared,
}

/// Answers a request that does not belong here. The end of the connection, or of the time, is none.
fn refuse_order(client: &mut Connection) -> std::io::Result<()> {
    let error = Some("the requests of a freeze are prepare, hold, freeze".to_owned());
    client.send(&Answer { error, ..Answer::default() })
}

fn refuse(path: &Path) -> impl Fn(std::io::Error) -> Failure + use<> {
    let path = path.to_owned();
    move |error| Failure::Volume {
        name: path.display().to_string(),
        error: Box::new(VolumeError::io(&path)(error).into()),
    }
}

//! The mount of a volume of the driver `union`, and its control socket.
//!
//! The process that serves such a volume is asked over a socket to make its upper a layer. It does
//! so between two requests of its users: none sees a state in between.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::failure::{Refusal, ServiceResult};
use super::layers::{self, Locks};
use super::spec::{MountSpec, UpperDirs};
use super::{Failure, containers};
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::error::{Errno, Error, FromHost, Result};
use crate::fuse::gate::Gate;
use crate::fuse::session::IoDriver;
use crate::sys;
use crate::union::{Lower, Upper};
use crate::volume::VolumeError;
use crate::volume::union::pool::Pool;
use crate::volume::union::stack::{self, Stack};
use crate::volume::union::wire::{self, Answer, LINE_MAX, Request};

/// The time limit of a client that asks.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time for which requests of users may hold a freeze up.
const QUIET: Duration = Duration::from_secs(10);
/// Descriptors of directories that a new upper may keep open.
const KEPT_DIRS: usize = 64;

/// The specification of the mount of the volume in a directory. With `read_only` it is that of a
/// snapshot. A volume without an upper gets one.
///
/// # Errors
/// [`Failure::Volume`].
pub fn spec(directory: &Path, read_only: bool) -> ServiceResult<MountSpec> {
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
        allow_other: true,
        default_permissions: true,
        freezer: upper.is_some().then(|| directory.to_owned()),
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
    if let Some(top) = stack.layers.first() {
        let content = pool.content(top);
        let dress = || {
            let root = HostTree::open(&content, Submounts::Sealed, &FdCache::new(KEPT_DIRS))?;
            let label = content.display().to_string();
            let top = Lower { root, label, shifted: false, was_upper: true };
            containers::root_like(&top, &pool.content(&id))
        };
        let dressed = dress().map_err(VolumeError::host(&content));
        dressed.inspect_err(|_| pool.discard(&id))?;
    }
    let stack = Stack { upper: Some(id), ..stack };
    stack::write(directory, &stack)?;
    Ok(stack)
}

/// The part of a mount that makes its upper a layer.
pub(super) struct Freezer {
    spec: MountSpec,
    /// The directory of the volume, which may get another name.
    directory: Directory,
    pool: Pool,
    index: bool,
    upper: Arc<Mutex<PathBuf>>,
}

/// A directory that is found under any name that it has.
#[derive(Clone)]
struct Directory(Arc<std::fs::File>);

impl Directory {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// The control socket of a volume, which is removed on drop.
pub(super) struct Control {
    directory: Directory,
    upper: Arc<Mutex<PathBuf>>,
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(wire::socket(&self.directory.path())) {
            tracing::debug!(%error, "control socket stays");
        }
    }
}

impl Control {
    /// The upper at present.
    pub(super) fn upper(&self) -> Arc<Mutex<PathBuf>> {
        Arc::clone(&self.upper)
    }
}

impl Freezer {
    /// `None` for a mount that is not that of a volume; `index` is whether it has an index.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn new(spec: &MountSpec, index: bool) -> ServiceResult<Option<Self>> {
        let Some(path) = &spec.freezer else { return Ok(None) };
        let opened = std::fs::File::open(path).map_err(|error| refuse(path)(error))?;
        let upper = spec.upper.as_ref().map(|dirs| dirs.upper.clone()).unwrap_or_default();
        Ok(Some(Self {
            spec: spec.clone(),
            directory: Directory(Arc::new(opened)),
            pool: Pool::of(path),
            index,
            upper: Arc::new(Mutex::new(upper)),
        }))
    }

    /// Answers on the control socket of the volume.
    ///
    /// # Errors
    /// As bind(2).
    pub(super) fn listen(self, gate: Arc<Gate>) -> ServiceResult<Control> {
        // The path of a socket may not be long.
        let socket = wire::socket(&self.directory.path());
        let listener = || -> std::io::Result<UnixListener> {
            match std::fs::remove_file(&socket) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(UnixListener::from(sys::process::listen(&socket)?)),
            }
        };
        let wrap = refuse(&self.spec.target);
        let listener = listener().map_err(&wrap)?;
        let (upper, directory) = (Arc::clone(&self.upper), self.directory.clone());
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
        Ok(Control { directory, upper })
    }

    fn answer(
        &self,
        gate: &Gate,
        stream: UnixStream,
        held: &mut Vec<Locks>,
    ) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new((&stream).take(LINE_MAX)).read_line(&mut line)?;
        let done = match serde_json::from_str(&line)? {
            Request::Freeze { layer } => self.freeze(gate, &layer),
        };
        let answer = match done {
            Ok(locks) => {
                // A layer stays locked against other mounts that would write to it.
                held.push(locks);
                Answer::default()
            }
            Err(failure) => Answer { error: Some(failure.to_string()) },
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        (&stream).write_all(&text)
    }

    /// Makes the upper a layer, and an empty layer of the pool the upper.
    fn freeze(&self, gate: &Gate, layer: &str) -> ServiceResult<Locks> {
        let directory = self.directory.path();
        let wrap = |error: VolumeError| {
            let name = self.spec.target.display().to_string();
            Failure::Volume { name, error: Box::new(error.into()) }
        };
        let next = stack::read(&directory).map_err(wrap)?.frozen(layer.to_owned());
        let (content, work) = (self.pool.content(layer), self.pool.work(layer));
        let (cache, target) = (FdCache::new(KEPT_DIRS), Some(&*self.spec.target));
        let open = layers::open_upper(&self.spec, (&content, &work), target, &cache)?;
        let broken = |error| Failure::Work { path: work.clone(), error };
        let index = if self.index { Some(open.index().map_err(broken)?) } else { None };
        let label = content.display().to_string();
        let upper = Upper { root: open.root, work: open.work, index, label };
        // What takes long is done beside other requests; what is left of it, alone.
        let failed = Failure::system("making the upper a layer");
        gate.enter().name_indexed().map_err(&failed)?;
        let commit = || -> Result<()> {
            stack::write(&directory, &next).map_err(|error| {
                tracing::error!(%error, "the record of a volume was not written");
                Error::os("write", Errno::IO)
            })
        };
        let busy = || failed(Error::os("freeze", Errno::BUSY));
        gate.alone(QUIET).ok_or_else(busy)?.freeze(&upper, commit).map_err(&failed)?;
        *self.upper.lock() = content;
        Ok(open.locks)
    }
}

fn refuse(path: &Path) -> impl Fn(std::io::Error) -> Failure + use<> {
    let path = path.to_owned();
    move |error| Failure::Volume {
        name: path.display().to_string(),
        error: Box::new(VolumeError::io(&path)(error).into()),
    }
}

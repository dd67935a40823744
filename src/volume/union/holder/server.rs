//! The side of the holder that starts processes.
//!
//! A client that sends nothing, garbage or half a request is dropped after two seconds; while as
//! many as [`CLIENTS`] do so, others wait. A start has no time limit, as without a holder: of
//! these there are [`STARTS`] at most.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::super::error::{Result, VolumeError};
use super::super::wire::Connection;
use super::children::Children;
use super::{Answer, Ended, Outcome, PATIENCE, Place, Request, SOCKET, VERSION, failed, receive};
use crate::error::{Errno, FromHost};
use crate::sys;

/// The file whose lock the holder of a data root has.
const LOCK: &str = "holder.lock";
/// The name under which the socket is made; it gets its own when it listens.
const MADE: &str = "holder.sock.new";
/// Clients whose request was not received yet.
const CLIENTS: usize = 64;
/// Programs that are being started.
const STARTS: usize = 256;
/// What is passed on of a standard error.
const STDERR_MAX: u64 = 16 << 10;
/// The pause after an error of the host, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// What a holder starts.
#[derive(Debug, Clone)]
pub struct Starter {
    /// The program.
    pub program: PathBuf,
    /// The words with which the arguments begin, in any of these forms; others are refused.
    pub commands: Vec<Vec<&'static str>>,
    /// Variables that the program gets beside those of the holder.
    pub variables: Vec<(&'static str, String)>,
}

/// The holder of a data root.
#[derive(Debug)]
pub struct Holder {
    place: Place,
    starter: Starter,
    listener: UnixListener,
    children: Children,
    clients: Arc<Slots>,
    starts: Arc<Slots>,
    ends: AtomicBool,
    /// Held as long as the process runs, so that no other one takes the socket.
    _lock: File,
}

/// A number of places, each for one thread.
#[derive(Debug, Default)]
struct Slots {
    taken: Mutex<usize>,
    change: Condvar,
}

/// A place that is taken until it is dropped.
struct Slot(Arc<Slots>);

impl Slots {
    fn wait(self: &Arc<Self>, limit: usize) -> Slot {
        let mut taken = self.taken.lock();
        while *taken >= limit {
            self.change.wait(&mut taken);
        }
        *taken += 1;
        Slot(Arc::clone(self))
    }

    fn try_take(self: &Arc<Self>, limit: usize) -> Option<Slot> {
        let mut taken = self.taken.lock();
        let is_free = *taken < limit;
        *taken += usize::from(is_free);
        is_free.then(|| Slot(Arc::clone(self)))
    }

    fn await_none(&self) {
        let mut taken = self.taken.lock();
        while *taken > 0 {
            self.change.wait(&mut taken);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.taken.lock() -= 1;
        self.0.change.notify_all();
    }
}

impl Holder {
    /// Becomes the holder of a data root, which must exist. The socket of one that was killed is
    /// replaced.
    ///
    /// # Errors
    /// [`VolumeError::Program`] if another holder runs; [`VolumeError::Host`].
    pub fn open(root: &Path, starter: Starter) -> Result<Arc<Self>> {
        let wrap = |error| VolumeError::io(root)(error);
        let place = Place::open(root).map_err(wrap)?;
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(place.at(LOCK)).map_err(wrap)?;
        match sys::file::try_flock(lock.as_fd()) {
            Err(error) if error.is(Errno::AGAIN) => {
                let root = root.display();
                return Err(failed(format!("another one runs for {root}: end it first")));
            }
            locked => locked.map_err(VolumeError::host(root))?,
        }
        let listener = || -> io::Result<UnixListener> {
            let made = place.at(MADE);
            match std::fs::remove_file(&made) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::from(sys::process::listen(&made)?);
            // A client never sees a socket of ours that does not listen.
            std::fs::rename(&made, place.at(SOCKET))?;
            Ok(listener)
        };
        let listener = listener().map_err(wrap)?;
        Ok(Arc::new(Self {
            place,
            starter,
            listener,
            children: Children::default(),
            clients: Arc::default(),
            starts: Arc::default(),
            ends: AtomicBool::new(false),
            _lock: lock,
        }))
    }

    /// Starts the threads that answer clients, and take the ends of processes.
    ///
    /// # Errors
    /// As pthread_create(3).
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let (reaps, accepts) = (Arc::clone(self), Arc::clone(self));
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        named("children").spawn(move || reaps.children.reap())?;
        named("clients").spawn(move || accepts.accept())?;
        Ok(())
    }

    fn accept(self: &Arc<Self>) {
        loop {
            let slot = self.clients.wait(CLIENTS);
            let accepted = self.listener.accept();
            let spawned = accepted.and_then(|(stream, _)| {
                let holder = Arc::clone(self);
                let thread = std::thread::Builder::new().name("client".to_owned());
                thread.spawn(move || holder.answer(stream, slot))
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "a request was not accepted");
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn answer(&self, stream: UnixStream, slot: Slot) {
        let received = receive(&stream, Instant::now() + PATIENCE);
        drop(slot);
        let outcome = match received {
            Ok((request, input)) => self.run(&request, input),
            Err(error) => {
                tracing::warn!(%error, "a client sent no request");
                Outcome::Refused(format!("no request was received: {error}"))
            }
        };
        if let Outcome::Refused(reason) = &outcome {
            tracing::warn!("refused: {reason}");
        }
        let answer = Answer { version: VERSION, outcome };
        let sent = Connection::new(stream, PATIENCE).and_then(|mut to| to.send(&answer));
        if let Err(error) = sent {
            tracing::debug!(%error, "a client did not take its answer");
        }
    }

    fn run(&self, request: &Request, input: Option<OwnedFd>) -> Outcome {
        let refused = |reason: &str| Outcome::Refused(reason.to_owned());
        if request.version != VERSION {
            let asked = request.version;
            return Outcome::Refused(format!(
                "version {asked} of requests is unknown to this holder, which has {VERSION}: \
                 restart it when no volume is in use"
            ));
        }
        let Some(input) = input else { return refused("the request came without a descriptor") };
        let begins = |command: &Vec<&str>| {
            request.arguments.get(..command.len()).is_some_and(|words| words == &command[..])
        };
        if !self.starter.commands.iter().any(begins) {
            return refused("the holder starts only the commands that serve volumes");
        }
        let Some(_slot) = self.starts.try_take(STARTS) else {
            return refused("too many processes are being started; try again");
        };
        // After the place is taken: the end waits for it, or is seen here.
        if self.ends.load(Ordering::SeqCst) {
            return refused("the holder ends; try again when the next one runs");
        }
        match self.spawn(&request.arguments, input) {
            Ok(ended) => Outcome::Ended(ended),
            Err(error) => {
                let program = self.starter.program.display();
                Outcome::Refused(format!("starting {program}: {error}"))
            }
        }
    }

    fn spawn(&self, arguments: &[String], input: OwnedFd) -> io::Result<Ended> {
        let (stderr, code) = {
            let mut command = Command::new(&self.starter.program);
            command.args(arguments).stdin(Stdio::from(input));
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command.envs(self.starter.variables.iter().map(|(name, value)| (name, value)));
            self.children.start(&mut command)?
            // The lock of the volume, the standard input, is closed here.
        };
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            stderr.by_ref().take(STDERR_MAX).read_to_end(&mut text)?;
            io::copy(&mut stderr, &mut io::sink())?;
        }
        let code = code.recv().map_err(io::Error::other)?;
        let stderr = String::from_utf8_lossy(&text).into_owned();
        let directory = arguments.get(2).map_or("", String::as_str);
        match code {
            0 => tracing::info!("{directory} is served"),
            _ => tracing::warn!("{directory}: exit code {code}: {}", stderr.trim()),
        }
        Ok(Ended { code, stderr })
    }

    /// Starts nothing any more: clients are refused, and try again later. Returns when all starts
    /// that are under way are done.
    pub fn end(&self) {
        self.ends.store(true, Ordering::SeqCst);
        self.starts.await_none();
    }

    /// Waits until no child of this process is left.
    pub fn await_children(&self) {
        self.children.await_none();
    }

    /// Removes the socket: clients start processes themselves.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn close(&self) -> io::Result<()> {
        std::fs::remove_file(self.place.at(SOCKET))
    }
}

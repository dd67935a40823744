//! The process that serves a volume: its start, its end, and requests to it. The one that serves a
//! container answers the same requests.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::driver::Place;
use super::super::error::{Result, VolumeError};
use super::super::mounted;
use super::holder::{self, Asked, Ended};
use super::pool::{Pool, Shared};
use super::wire::{Answer, Connection, Directory, Request, UsedSpace};
use super::{pool, stack};
use crate::error::{Errno, FromHost};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{Limits, Speed};

/// The time limit of a step of a freeze: requests that are under way end first.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time limit of an answer that can be done without.
const SOON: Duration = Duration::from_secs(1);
/// The time limit of the end of a process whose mount is gone.
const ENDING: Duration = Duration::from_secs(20);

/// The file whose lock is held while a process starts to serve a volume.
const STARTING: &str = "starting";

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Names the program that serves volumes by its command `volume serve`; the first call counts.
pub fn set_program(path: PathBuf) {
    drop(PROGRAM.set(path));
}

static HOLDER_REQUIRED: AtomicBool = AtomicBool::new(false);

/// Lets this process start none that serves a volume by itself: it would end with this one.
pub fn require_holder() {
    HOLDER_REQUIRED.store(true, Ordering::Relaxed);
}

fn failed(reason: impl Into<String>) -> VolumeError {
    VolumeError::Program { program: "lamina volume serve".to_owned(), reason: reason.into() }
}

/// Whether a process serves a directory, so that it answers requests.
#[must_use]
pub fn is_answering(directory: &Path) -> bool {
    connect(directory).is_ok()
}

/// Takes the lock of a volume whose process starts.
fn lock_start(place: &Place) -> Result<File> {
    let path = place.directory().join(STARTING);
    let mut options = File::options();
    let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = opened.map_err(VolumeError::io(&path))?;
    sys::file::flock(lock.as_fd()).map_err(VolumeError::host(&path))?;
    Ok(lock)
}

/// Waits while a process starts to serve a volume. The caller holds the state lock of the volume,
/// so only one is meant that was started by a process that was killed.
///
/// # Errors
/// As open(2) and flock(2).
pub(super) fn await_start(place: &Place) -> Result<()> {
    lock_start(place).map(drop)
}

/// The arguments of the process of a volume.
fn arguments(place: &Place, limits: Limits, speed: Speed) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["volume".into(), "serve".into(), place.directory().into()];
    if place.is_snapshot() {
        words.push("--read-only".into());
    }
    for (option, limit) in [
        ("--size-bytes", limits.size_bytes),
        ("--inodes", limits.inodes),
        ("--read-iops", speed.read.iops),
        ("--read-bandwidth", speed.read.bandwidth),
        ("--write-iops", speed.write.iops),
        ("--write-bandwidth", speed.write.bandwidth),
    ] {
        if let Some(limit) = limit {
            words.extend([option.into(), limit.to_string().into()]);
        }
    }
    words
}

/// Starts the process of a volume, and returns when it serves. If this process is killed, the
/// other one goes on, and [`await_start`] waits for it. The holder of the data root starts it if
/// one runs, so that it is no child of this process.
///
/// # Errors
/// [`VolumeError::Program`].
pub(super) fn start(place: &Place, limits: Limits, speed: Speed) -> Result<()> {
    let arguments = arguments(place, limits, speed);
    let root = place.directory().ancestors().nth(2).unwrap_or_else(|| place.directory());
    let mut asked = start_for(root, &arguments, lock_start(place)?)?;
    if matches!(asked, Asked::Lost) {
        // The holder may have started it.
        if super::is_served(place)? {
            return Ok(());
        }
        asked = start_for(root, &arguments, lock_start(place)?)?;
    }
    let Asked::Ran(ended) = asked else {
        return Err(failed("the holder ended before it answered: try again"));
    };
    check(&ended)?;
    if mounted::is_mounted(place)? { Ok(()) } else { Err(unseen(place)) }
}

/// Runs the program with arguments, and a lock as its standard input, which it closes when it
/// serves. The holder of the data root runs it if there is one.
///
/// # Errors
/// [`VolumeError::Program`].
pub fn start_for(root: &Path, arguments: &[OsString], lock: File) -> Result<Asked> {
    match holder::ask(root, arguments, lock.as_fd())? {
        Asked::Nobody if HOLDER_REQUIRED.load(Ordering::Relaxed) => {
            let root = root.display();
            Err(failed(format!("no holder runs for {root}: start `lamina volume holder`")))
        }
        Asked::Nobody => Ok(Asked::Ran(run(arguments, lock)?)),
        asked => Ok(asked),
    }
}

/// Runs the program as a child of this process.
fn run(arguments: &[OsString], lock: File) -> Result<Ended> {
    let unnamed = || failed("the program is not known to this process");
    let program = PROGRAM.get().ok_or_else(unnamed)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::from(lock));
    let ran = command.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let ran = ran.map_err(|error| failed(format!("{}: {error}", program.display())))?;
    let signal = || ran.status.signal().map(|signal| 128 + signal);
    let code = ran.status.code().or_else(signal).and_then(|code| u8::try_from(code).ok());
    let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
    Ok(Ended { code: code.unwrap_or(1), stderr })
}

/// Whether the program put a process into the background.
fn check(ended: &Ended) -> Result<()> {
    let said = ended.stderr.trim().trim_start_matches("lamina: ");
    match (ended.code, said) {
        (0, _) => Ok(()),
        (code, "") => Err(failed(format!("exit code {code}"))),
        (_, said) => Err(failed(said)),
    }
}

/// The holder mounted a volume where this process does not see it.
fn unseen(place: &Place) -> VolumeError {
    failed(format!(
        "the holder serves {} in a mount namespace whose mounts do not appear here: give both \
         processes the data root with the mount propagation Bidirectional",
        place.data().display()
    ))
}

/// Waits until the process of a volume that is not mounted any more has ended.
///
/// # Errors
/// [`VolumeError::Busy`].
pub(super) fn await_end(place: &Place) -> Result<()> {
    let Ok(stack) = stack::read(place.directory()) else { return Ok(()) };
    let Some(upper) = stack.upper else { return Ok(()) };
    let path = pool(place).content(&upper);
    let opened = sys::file::open_path(&path, OFlags::RDONLY | OFlags::DIRECTORY);
    let opened = opened.map_err(VolumeError::host(&path))?;
    let deadline = Instant::now() + ENDING;
    loop {
        match sys::file::try_flock(opened.as_fd()) {
            Ok(()) => return Ok(()),
            Err(error) if !error.is(Errno::AGAIN) => return Err(VolumeError::host(&path)(error)),
            Err(_) if Instant::now() > deadline => {
                return Err(VolumeError::Busy { path: place.data() });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// What a mounted volume uses; `None` if it has no limits.
///
/// # Errors
/// [`VolumeError::Host`] for a process that does not answer.
pub(super) fn used(place: &Place) -> Result<Option<UsedSpace>> {
    Ok(ask(place.directory(), &Request::Used)?.used)
}

/// As [`used`], for a caller that goes on without an answer.
///
/// # Errors
/// [`VolumeError::Host`] for a process that does not answer within a second.
pub(super) fn used_soon(place: &Place) -> Result<Option<UsedSpace>> {
    Ok(ask_within(place.directory(), &Request::Used, SOON)?.used)
}

/// Changes the limits on speed of a mounted volume.
///
/// # Errors
/// [`VolumeError::Host`] for a process that does not answer.
pub(super) fn throttle(place: &Place, speed: Speed) -> Result<()> {
    ask(place.directory(), &Request::Throttle { speed }).map(drop)
}

/// Changes the limits of a mounted volume or container, by its directory. One that had none gets
/// them while its users wait for its files to be counted.
///
/// # Errors
/// [`VolumeError::TooSmall`]; then the old limits hold.
pub fn resize(directory: &Path, limits: Limits) -> Result<()> {
    let answer = ask(directory, &Request::Resize { limits })?;
    answer.error.map_or(Ok(()), |what| Err(VolumeError::TooSmall { what }))
}

fn connect(directory: &Path) -> Result<Connection> {
    let connect = || -> std::io::Result<Connection> {
        let stream = UnixStream::connect(Directory::open(directory)?.socket())?;
        Connection::new(stream, PATIENCE)
    };
    connect().map_err(VolumeError::io(directory))
}

/// Sends a request that is answered at once.
fn ask(directory: &Path, request: &Request) -> Result<Answer> {
    ask_within(directory, request, PATIENCE)
}

fn ask_within(directory: &Path, request: &Request, patience: Duration) -> Result<Answer> {
    let mut connection = connect(directory)?;
    let asked = connection.send(request);
    let received = asked.and_then(|()| connection.receive(Instant::now() + patience));
    let answer: Option<Answer> = received.map_err(VolumeError::io(directory))?;
    answer.ok_or_else(|| failed(format!("{}: it did not answer; try again", directory.display())))
}

/// A connection to a process, the upper of whose mount is to become a layer.
pub(super) struct Freeze {
    directory: PathBuf,
    connection: Connection,
    pool: Pool,
    layer: String,
    /// Whether the stack may name the layer.
    is_used: bool,
    /// No layer is removed before the stack names it.
    _shared: Shared,
}

impl Freeze {
    /// Prepares the process that serves a directory for a freeze. Its users do not wait.
    ///
    /// # Errors
    /// [`VolumeError::Program`]; then the volume is as it was.
    pub(super) fn prepare(directory: &Path, pool: Pool) -> Result<Self> {
        let connection = connect(directory)?;
        let shared = pool.share()?;
        let (directory, layer) = (directory.to_owned(), pool.make()?);
        let mut made = Self { directory, connection, pool, layer, is_used: false, _shared: shared };
        let layer = made.layer.clone();
        drop(made.ask(&Request::Prepare { layer })?);
        Ok(made)
    }

    /// Lets no request of users pass until [`Freeze::freeze`], until the value is dropped, or for
    /// [`HOLD_MAX`](super::wire::HOLD_MAX). Whoever holds a volume may not use its content.
    pub(super) fn hold(&mut self) -> Result<()> {
        self.ask(&Request::Hold).map(drop)
    }

    /// Makes the upper a layer, unless nothing was written to it. The stack says whether an error
    /// came after that. Returns the layers below the upper.
    pub(super) fn freeze(&mut self) -> Result<Vec<String>> {
        self.is_used = true;
        let layers = self.ask(&Request::Freeze)?.layers.unwrap_or_default();
        let stack = stack::read_any(&self.directory)?;
        self.is_used = stack.upper.iter().chain(&stack.layers).any(|id| *id == self.layer);
        Ok(layers)
    }

    fn ask(&mut self, request: &Request) -> Result<Answer> {
        let asked = self.connection.send(request);
        let received = asked.and_then(|()| self.connection.receive(Instant::now() + PATIENCE));
        let answer: Option<Answer> = received.map_err(VolumeError::io(&self.directory))?;
        match answer {
            Some(Answer { error: Some(reason), .. }) => Err(failed(reason)),
            Some(answer) => Ok(answer),
            None => {
                let directory = self.directory.display();
                Err(failed(format!("{directory}: it ended the freeze; try again")))
            }
        }
    }
}

impl Drop for Freeze {
    fn drop(&mut self) {
        if !self.is_used {
            self.pool.discard(&self.layer);
        }
    }
}

//! The process that serves a volume: its start, its end, and requests to it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::super::driver::Place;
use super::super::error::{Result, VolumeError};
use super::wire::{self, Answer, LINE_MAX, Request};
use super::{pool, stack};
use crate::error::{Errno, FromHost};
use crate::sys;
use crate::sys::file::OFlags;

/// The time limit of a freeze: requests that are under way end first.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time limit of the end of a process whose mount is gone.
const ENDING: Duration = Duration::from_secs(20);

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Names the program that serves volumes by its command `volume serve`; the first call counts.
pub fn set_program(path: PathBuf) {
    drop(PROGRAM.set(path));
}

fn failed(reason: impl Into<String>) -> VolumeError {
    VolumeError::Program { program: "lamina volume serve".to_owned(), reason: reason.into() }
}

/// Starts the process of a volume, and returns when it serves.
///
/// # Errors
/// [`VolumeError::Program`].
pub(super) fn start(place: &Place) -> Result<()> {
    let unnamed = || failed("the program is not known to this process");
    let program = PROGRAM.get().ok_or_else(unnamed)?;
    let mut command = Command::new(program);
    command.args(["volume", "serve"]).arg(place.directory());
    if place.is_snapshot() {
        command.arg("--read-only");
    }
    let ran = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let ran = ran.map_err(|error| failed(format!("{}: {error}", program.display())))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let said = said.trim().trim_start_matches("lamina: ");
    Err(failed(if said.is_empty() { ran.status.to_string() } else { said.to_owned() }))
}

/// Whether the process that served a mounted volume has died.
pub(super) fn is_dead(place: &Place) -> bool {
    let opened = sys::file::open_path(&place.data(), OFlags::RDONLY | OFlags::DIRECTORY);
    opened.is_err_and(|error| error.is(Errno::NOTCONN))
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

/// Makes the upper of a mounted volume a layer, and `layer` its upper.
///
/// # Errors
/// [`VolumeError::Program`]. The stack of the volume says what became of it.
pub(super) fn freeze(place: &Place, layer: &str) -> Result<()> {
    // Pages that were written through a mapping belong to what is frozen, and what is written
    // before takes no time then.
    let data = place.data();
    let root = sys::file::find_directory(&data).map_err(VolumeError::host(&data))?;
    let flushed = sys::file::open_again(root.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)
        .and_then(|root| sys::file::syncfs(root.as_fd()));
    flushed.map_err(VolumeError::host(&data))?;
    ask(place, &Request::Freeze { layer: layer.to_owned() })
}

fn ask(place: &Place, request: &Request) -> Result<()> {
    let directory = place.directory();
    let answer = || -> std::io::Result<Answer> {
        // The path of a socket may not be long.
        let opened = fs::File::open(directory)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let mut stream = UnixStream::connect(wire::socket(&short))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut text = String::new();
        BufReader::new(stream.take(LINE_MAX)).read_line(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    };
    match answer().map_err(VolumeError::io(&wire::socket(directory)))?.error {
        Some(reason) => Err(failed(reason)),
        None => Ok(()),
    }
}

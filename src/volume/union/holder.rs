//! The holder: a small process that starts the processes which serve volumes, for others that may
//! end before these do, and with all that they started: a driver in a container of its own.
//!
//! Over the socket `holder.sock` of a data root, which only its owner may use, a client sends one
//! line of JSON, `Request`, and with its first byte the descriptor that the process gets as its
//! standard input: the lock of the volume. The answer is one line, `Answer`, when the process
//! has gone to the background or has failed. A client that ends does not end the process.
//!
//! | a client sees | it means |
//! | --- | --- |
//! | no socket, or one that refuses | no holder runs: the client starts the process itself |
//! | `Outcome::Ended` | the program was started, and said this |
//! | `Outcome::Refused` | nothing was started |
//! | the end of the connection | the holder ended: the process may serve, or not |
//!
//! `server` is the other side. It keeps no state: what it started is known by its mounts.

mod children;
mod server;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::error::{Result, VolumeError};
use super::wire::{Connection, LINE_MAX};
use crate::error::FromHost;
use crate::sys;

pub use server::{Holder, Starter};

/// The name of the socket in the data root.
const SOCKET: &str = "holder.sock";
/// The version of requests and answers. Fields may be added to it, and are ignored by older sides.
const VERSION: u32 = 1;
/// The time limit of a connection, and of a request.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time limit of an answer. A process that counts the files of a large volume takes minutes.
const ANSWERING: Duration = Duration::from_secs(3600);

/// A request: start the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    /// [`VERSION`].
    version: u32,
    /// The arguments of the program.
    arguments: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    /// [`VERSION`].
    version: u32,
    /// What happened.
    outcome: Outcome,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// The program ended, which leaves the process in the background if the code is 0.
    Ended(Ended),
    /// Nothing was started, for this reason.
    Refused(String),
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The exit code; 128 and more for a signal.
    pub code: u8,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// What became of a request, for the client.
#[derive(Debug)]
pub enum Asked {
    /// No holder runs.
    Nobody,
    /// The holder ran the program.
    Ran(Ended),
    /// The holder ended before it answered.
    Lost,
}

fn failed(reason: impl Into<String>) -> VolumeError {
    VolumeError::Program { program: "lamina volume holder".to_owned(), reason: reason.into() }
}

/// A directory, opened: the path of a socket may not be long.
#[derive(Debug)]
struct Place(File);

impl Place {
    fn open(root: &Path) -> io::Result<Self> {
        File::open(root).map(Self)
    }

    fn at(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}

/// Asks the holder of a data root to run the program with arguments, and this as its standard
/// input. Waits until the program ends.
///
/// # Errors
/// [`VolumeError::Program`] for a holder that refuses or does not answer, and for arguments that
/// are not UTF-8; [`VolumeError::Host`]. The process may have been started then.
pub fn ask(root: &Path, arguments: &[OsString], input: BorrowedFd<'_>) -> Result<Asked> {
    let wrap = |error| VolumeError::io(root)(error);
    let place = match Place::open(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Asked::Nobody),
        opened => opened.map_err(wrap)?,
    };
    let stream = match sys::socket::connect_within(&place.at(SOCKET), PATIENCE) {
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return Ok(Asked::Nobody);
        }
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            return Err(failed("it accepts no request; try again"));
        }
        connected => connected.map_err(wrap)?,
    };
    let text = |argument: &OsString| argument.to_str().map(str::to_owned);
    let utf8: Option<Vec<String>> = arguments.iter().map(text).collect();
    let arguments = utf8.ok_or_else(|| failed("the data root has a path that is not UTF-8"))?;
    match exchange(stream, &Request { version: VERSION, arguments }, input) {
        Ok(Some(Answer { outcome: Outcome::Ended(ended), .. })) => Ok(Asked::Ran(ended)),
        Ok(Some(Answer { outcome: Outcome::Refused(reason), .. })) => Err(failed(reason)),
        Ok(None) => Ok(Asked::Lost),
        Err(error) if is_lost(error.kind()) => Ok(Asked::Lost),
        Err(error) => Err(failed(format!("it gave no answer ({error}); try again"))),
    }
}

/// Whether an error says that the other side of a connection has ended.
const fn is_lost(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

fn exchange(
    mut stream: UnixStream,
    request: &Request,
    input: BorrowedFd<'_>,
) -> io::Result<Option<Answer>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(PATIENCE))?;
    let sent = sys::socket::send_with(&stream, &line, input)?;
    stream.write_all(line.get(sent..).unwrap_or_default())?;
    Connection::new(stream, PATIENCE)?.receive(Instant::now() + ANSWERING)
}

/// Receives a request and its descriptor before a deadline.
fn receive(stream: &UnixStream, deadline: Instant) -> io::Result<(Request, Option<OwnedFd>)> {
    let (mut line, mut passed) = (Vec::new(), None);
    let mut part = [0; 4096];
    while line.last() != Some(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of zero is none.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let (received, fd) = sys::socket::receive_with(stream, &mut part)?;
        line.extend_from_slice(part.get(..received).unwrap_or_default());
        passed = passed.or(fd);
        if received == 0 || left.is_zero() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if line.len() as u64 > LINE_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "the line is too long"));
        }
    }
    Ok((serde_json::from_slice(&line)?, passed))
}

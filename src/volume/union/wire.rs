//! What the process that serves a volume or a container is asked over its socket, `control` in the
//! directory of either: lines of JSON, and one as the answer to each.
//!
//! A snapshot takes three requests over one connection, so that several volumes can be prepared
//! first, then held together, and then frozen: no user sees one frozen and another not. The end of
//! the connection at any step lets the users go on, and nothing has changed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::{Limits, Speed};

/// The name of the socket.
const SOCKET: &str = "control";
/// No line is longer.
pub const LINE_MAX: u64 = 1 << 16;

/// Requests of users wait no longer than this for a freeze that does not come.
pub const HOLD_MAX: Duration = Duration::from_secs(10);

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Prepare to make the upper a layer, and this layer the upper. Users do not wait.
    Prepare {
        /// The id of an empty layer.
        layer: String,
    },
    /// Let no request of users pass from now on, for at most [`HOLD_MAX`].
    Hold,
    /// Make the upper a layer, and let the users go on.
    Freeze,
    /// Tell what is used.
    Used,
    /// Change the limits, unless more is used.
    Resize {
        /// The new limits.
        limits: Limits,
    },
    /// Change the limits on speed.
    Throttle {
        /// The new limits.
        speed: Speed,
    },
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Why the request failed; `None` for success.
    pub error: Option<String>,
    /// What is used, if it is counted: by a mount that was made with limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<UsedSpace>,
    /// The layers below the upper after a freeze, the topmost first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<String>>,
}

/// What a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedSpace {
    /// Bytes of data.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Answer {
    /// The answer to a request that failed.
    #[must_use]
    pub fn failed(error: &impl std::fmt::Display) -> Self {
        Self { error: Some(error.to_string()), ..Self::default() }
    }
}

/// The directory of a volume, opened: the path of a socket may not be long.
#[derive(Debug)]
pub struct Directory(File);

impl Directory {
    /// Opens the directory.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// A short path of the directory, for this process.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// The path of the socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path().join(SOCKET)
    }
}

/// A connection, for both of its ends.
#[derive(Debug)]
pub struct Connection(BufReader<UnixStream>);

impl Connection {
    /// A connection that waits for `patience` at most where it writes.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn new(stream: UnixStream, patience: Duration) -> io::Result<Self> {
        stream.set_write_timeout(Some(patience))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a line.
    ///
    /// # Errors
    /// As send(2).
    pub fn send(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)
    }

    /// Receives a line before a deadline; `None` at the end of the connection.
    ///
    /// # Errors
    /// As recv(2): `EAGAIN` when the time is over; a line that is not of this form.
    pub fn receive<T: DeserializeOwned>(&mut self, deadline: Instant) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            // A timeout of zero is none.
            let left = deadline.saturating_duration_since(Instant::now());
            self.0.get_mut().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let room = LINE_MAX.saturating_sub(line.len() as u64);
            if self.0.by_ref().take(room).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Connection, Connection) {
        let (one, other) = UnixStream::pair().unwrap();
        let connect = |stream| Connection::new(stream, Duration::from_secs(5)).unwrap();
        (connect(one), connect(other))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[test]
    fn lines_are_received_in_order_until_the_end_or_the_deadline() {
        let (mut one, mut other) = pair();
        let layer = "0".repeat(32);
        one.send(&Request::Prepare { layer: layer.clone() }).unwrap();
        one.send(&Request::Hold).unwrap();
        let first: Option<Request> = other.receive(soon()).unwrap();
        assert_eq!(first, Some(Request::Prepare { layer }));
        assert_eq!(other.receive(soon()).unwrap(), Some(Request::Hold));
        let late = other.receive::<Request>(soon()).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert_eq!(other.receive::<Request>(soon()).unwrap(), None);
    }

    #[test]
    fn a_line_without_an_end_is_not_received() {
        let (mut one, mut other) = pair();
        one.0.get_mut().write_all(b"\"hold\"").unwrap();
        drop(one);
        assert_eq!(other.receive::<Request>(soon()).unwrap(), None);
    }
}

//! A client of HTTP/1.1 over Unix sockets: one request for each connection, with a limit for all of
//! its time, its head and its body, or for the time between two parts of a body that is read as a
//! stream. The server is not trusted with memory or time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys::socket::connect_within;

/// The longest head of a reply, and the longest line of a chunk.
const HEAD_MAX: usize = 16 << 10;
/// The longest body.
const BODY_MAX: usize = 1 << 20;
/// The most headers.
const HEADERS_MAX: usize = 64;
/// The most interim replies (1xx) before the final one.
const INTERIM_MAX: usize = 4;
/// The media type of the protocol.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// A request without a body of its own kind.
pub(crate) struct Request<'a> {
    /// `GET`, `POST` or `DELETE`.
    pub method: &'static str,
    /// The path with its query, without spaces or control characters.
    pub path: &'a str,
    /// The media type that is accepted and sent.
    pub media_type: &'static str,
    /// The body.
    pub body: &'a [u8],
}

/// A reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The status code.
    pub code: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Sends a call of the protocol and reads the reply.
///
/// # Errors
/// As [`send`].
pub(super) fn post(socket: &Path, path: &str, body: &[u8], limit: Duration) -> io::Result<Reply> {
    let request = Request { method: "POST", path, media_type: MEDIA_TYPE, body };
    send(socket, &request, limit, BODY_MAX)
}

/// Sends a request and reads the reply, whose body has at most `most` bytes.
///
/// # Errors
/// `TimedOut` after `limit`, `UnexpectedEof` where the connection ends first, `InvalidData` for
/// what is not HTTP or too long; as connect(2).
pub(crate) fn send(
    socket: &Path,
    request: &Request<'_>,
    limit: Duration,
    most: usize,
) -> io::Result<Reply> {
    let mut wire = Wire::new(socket, Patience::Until(Instant::now() + limit), limit)?;
    wire.body_max = most;
    // A server may answer before it has read all, and close.
    let sent = wire.send(&request.bytes());
    let reply = wire.reply();
    match (sent, reply) {
        (_, Ok(reply)) => Ok(reply),
        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
    }
}

/// Sends a request and returns the code of the reply and its body as a stream. `limit` is the
/// longest time without a byte.
///
/// # Errors
/// As [`send`].
pub(crate) fn open(
    socket: &Path,
    request: &Request<'_>,
    limit: Duration,
) -> io::Result<(u16, Body)> {
    let mut wire = Wire::new(socket, Patience::Idle(limit), limit)?;
    wire.send(&request.bytes())?;
    for _ in 0..=INTERIM_MAX {
        let (code, length) = wire.head()?;
        if !(100..200).contains(&code) {
            let left = match length {
                Length::Bytes(len) => len,
                Length::Chunks => 0,
                Length::UntilEnd => usize::MAX,
            };
            return Ok((code, Body { wire, length, left, is_first: true }));
        }
    }
    Err(nonsense("too many interim replies"))
}

impl Request<'_> {
    fn bytes(&self) -> Vec<u8> {
        let Self { method, path, media_type, body } = self;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: local\r\nAccept: {media_type}\r\nContent-Type: \
             {media_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the reply is not HTTP/1.1: {what}"))
}

fn too_long(what: &str, most: usize) -> io::Error {
    let text = format!("the {what} of the reply is longer than {most} bytes");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// How the length of a body is known.
enum Length {
    Bytes(usize),
    Chunks,
    UntilEnd,
}

/// How long a connection is waited for.
enum Patience {
    /// All of it ends at this time.
    Until(Instant),
    /// Each byte comes this soon after the one before.
    Idle(Duration),
}

/// A connection with a limit.
struct Wire {
    stream: UnixStream,
    patience: Patience,
    body_max: usize,
    /// What was read and not used.
    buffer: Vec<u8>,
}

impl Wire {
    fn new(socket: &Path, patience: Patience, limit: Duration) -> io::Result<Self> {
        let stream = connect_within(socket, limit)?;
        Ok(Self { stream, patience, body_max: BODY_MAX, buffer: Vec::new() })
    }

    fn left(&self) -> io::Result<Duration> {
        let left = match self.patience {
            Patience::Until(end) => end.saturating_duration_since(Instant::now()),
            Patience::Idle(limit) => limit,
        };
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(self.left()?))?;
            match self.stream.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) => retry(error)?,
            }
        }
        Ok(())
    }

    /// Reads more into the buffer, and returns whether there was more.
    fn fill(&mut self) -> io::Result<bool> {
        let mut part = [0; 8 << 10];
        loop {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(&mut part) {
                Ok(count) => {
                    self.buffer.extend_from_slice(part.get(..count).unwrap_or_default());
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => retry(error)?,
            }
        }
    }

    fn fill_or_end(&mut self) -> io::Result<()> {
        let text = "the connection was closed before the end of the reply";
        let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, text);
        if self.fill()? { Ok(()) } else { Err(ended()) }
    }

    fn reply(&mut self) -> io::Result<Reply> {
        for _ in 0..=INTERIM_MAX {
            let (code, length) = self.head()?;
            match code {
                100..200 => {}
                204 | 304 => return Ok(Reply { code, body: Vec::new() }),
                _ => return Ok(Reply { code, body: self.body(&length)? }),
            }
        }
        Err(nonsense("too many interim replies"))
    }

    /// Reads a head and takes it out of the buffer.
    fn head(&mut self) -> io::Result<(u16, Length)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut head = httparse::Response::new(&mut headers);
            let parsed = head.parse(&self.buffer).map_err(|error| nonsense(&error.to_string()))?;
            if let httparse::Status::Complete(len) = parsed {
                let code = head.code.ok_or_else(|| nonsense("it has no status code"))?;
                let length = length(head.headers)?;
                self.buffer.drain(..len);
                return Ok((code, length));
            }
            if self.buffer.len() >= HEAD_MAX {
                return Err(too_long("head", HEAD_MAX));
            }
            self.fill_or_end()?;
        }
    }

    fn body(&mut self, length: &Length) -> io::Result<Vec<u8>> {
        match *length {
            Length::Bytes(len) if len > self.body_max => Err(too_long("body", self.body_max)),
            Length::Bytes(len) => self.take(len),
            Length::Chunks => self.chunks(),
            Length::UntilEnd => {
                while self.fill()? {
                    if self.buffer.len() > self.body_max {
                        return Err(too_long("body", self.body_max));
                    }
                }
                Ok(std::mem::take(&mut self.buffer))
            }
        }
    }

    fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < len {
            self.fill_or_end()?;
        }
        Ok(self.buffer.drain(..len).collect())
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            // What follows the last chunk is not needed: the connection is not used again.
            let len = self.chunk_len()?;
            if len == 0 {
                return Ok(body);
            }
            if len > self.body_max - body.len() {
                return Err(too_long("body", self.body_max));
            }
            body.extend(self.take(len)?);
            self.end_chunk()?;
        }
    }

    fn chunk_len(&mut self) -> io::Result<usize> {
        loop {
            let parsed = httparse::parse_chunk_size(&self.buffer);
            match parsed.map_err(|_| nonsense("a chunk has no length"))? {
                httparse::Status::Partial if self.buffer.len() >= HEAD_MAX => {
                    return Err(too_long("chunk head", HEAD_MAX));
                }
                httparse::Status::Partial => self.fill_or_end()?,
                httparse::Status::Complete((at, len)) => {
                    self.buffer.drain(..at);
                    return Ok(usize::try_from(len).unwrap_or(usize::MAX));
                }
            }
        }
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.take(2)? == b"\r\n" {
            return Ok(());
        }
        Err(nonsense("a chunk has another length"))
    }
}

/// The body of a reply, read as a stream.
pub(crate) struct Body {
    wire: Wire,
    length: Length,
    /// Bytes of the body, or of the current chunk, that are still to come.
    left: usize,
    is_first: bool,
}

impl Body {
    /// Begins the next chunk. Returns whether there is one.
    fn next_chunk(&mut self) -> io::Result<bool> {
        if !self.is_first {
            self.wire.end_chunk()?;
        }
        self.is_first = false;
        self.left = self.wire.chunk_len()?;
        if self.left == 0 {
            self.length = Length::Bytes(0);
        }
        Ok(self.left > 0)
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && (!matches!(self.length, Length::Chunks) || !self.next_chunk()?) {
            return Ok(0);
        }
        if self.wire.buffer.is_empty() && !buf.is_empty() {
            match self.length {
                Length::UntilEnd if !self.wire.fill()? => return Ok(0),
                Length::UntilEnd => {}
                _ => self.wire.fill_or_end()?,
            }
        }
        let len = self.wire.buffer.len().min(buf.len()).min(self.left);
        for (to, from) in buf.iter_mut().zip(self.wire.buffer.drain(..len)) {
            *to = from;
        }
        if !matches!(self.length, Length::UntilEnd) {
            self.left -= len;
        }
        Ok(len)
    }
}

/// An interrupted call is made again.
fn retry(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
        _ => Err(error),
    }
}

fn length(headers: &[httparse::Header<'_>]) -> io::Result<Length> {
    let mut length = None;
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return match header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                true => Ok(Length::Chunks),
                false => Err(nonsense("unknown transfer encoding")),
            };
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).unwrap_or_default().trim();
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let found: usize = text.parse().map_err(|_| nonsense("invalid length"))?;
            if !is_number || length.is_some_and(|other| other != found) {
                return Err(nonsense("invalid length"));
            }
            length = Some(found);
        }
    }
    Ok(length.map_or(Length::UntilEnd, Length::Bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn answer(bytes: Vec<u8>, limit: Duration, hangs: bool) -> io::Result<Reply> {
        answer_to(|path, limit| post(path, "/Call", b"{}", limit), bytes, limit, hangs)
    }

    /// The same, with the body read as a stream.
    fn streamed(text: &str) -> io::Result<Reply> {
        let ask = |path: &Path, limit| {
            let request =
                Request { method: "POST", path: "/Call", media_type: MEDIA_TYPE, body: b"{}" };
            let (code, mut from) = open(path, &request, limit)?;
            let mut body = Vec::new();
            from.read_to_end(&mut body)?;
            Ok(Reply { code, body })
        };
        answer_to(ask, text.as_bytes().to_vec(), LIMIT, false)
    }

    /// Serves one connection with these bytes, and keeps it open if it is to hang.
    fn answer_to(
        ask: impl FnOnce(&Path, Duration) -> io::Result<Reply>,
        bytes: Vec<u8>,
        limit: Duration,
        hangs: bool,
    ) -> io::Result<Reply> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::scope(|scope| {
            let server = scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).unwrap();
                // The client may have closed.
                let sent = stream.write_all(&bytes);
                if hangs {
                    let ended = stream.read(&mut [0; 1]);
                    assert!(sent.is_err() || ended.is_err() || ended.unwrap() == 0);
                }
                String::from_utf8(request[..count].to_vec()).unwrap()
            });
            let reply = ask(&path, limit);
            let request = server.join().unwrap();
            assert!(request.starts_with("POST /Call HTTP/1.1\r\n"), "{request}");
            assert!(request.contains("\r\nContent-Length: 2\r\n"), "{request}");
            reply
        })
    }

    fn whole(text: &str) -> Reply {
        answer(text.as_bytes().to_vec(), LIMIT, false).unwrap()
    }

    #[test]
    fn bodies_of_every_form_are_read() {
        let reply = Reply { code: 200, body: b"{\"a\":1}".to_vec() };
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}more",
            "HTTP/1.1 200 OK\r\ncontent-length:7\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
            "HTTP/1.1 200 OK\r\n\r\n{\"a\":1}",
            "HTTP/1.0 200 OK\r\n\r\n{\"a\":1}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n\
             0\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
        ] {
            assert_eq!(whole(text), reply, "{text}");
            assert_eq!(streamed(text).unwrap(), reply, "{text}");
        }
        let long = "x".repeat(BODY_MAX + 1);
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}", long.len());
        assert_eq!(streamed(&text).unwrap().body.len(), BODY_MAX + 1);
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n",
        ] {
            assert!(streamed(text).is_err(), "{text}");
        }
        assert_eq!(whole("HTTP/1.1 204 No\r\n\r\n"), Reply { code: 204, body: Vec::new() });
        assert_eq!(whole("HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n").code, 500);
    }

    #[test]
    fn what_is_not_a_reply_is_an_error() {
        let huge = "x".repeat(BODY_MAX + 1);
        let headers = "A: b\r\n".repeat(HEADERS_MAX + 1);
        let chunk =
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n{huge}");
        let interim = "HTTP/1.1 100 C\r\n\r\n".repeat(INTERIM_MAX + 1);
        for (text, word) in [
            ("\x16\x03\x01\x00", "not HTTP"),
            ("SSH-2.0-x\r\n", "not HTTP"),
            ("", "closed before"),
            ("HTTP/1.1 200 OK\r\nContent-Le", "closed before"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "closed before"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", "invalid length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}", "invalid length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\n{}", "invalid"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "invalid length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n", "longer than"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "encoding"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "length"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n",
                "longer than",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n", "another"),
            (&format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD_MAX)), "head"),
            (&format!("HTTP/1.1 200 OK\r\n{headers}\r\n"), "not HTTP"),
            (&format!("HTTP/1.1 200 OK\r\n\r\n{huge}"), "longer than"),
            (&chunk, "longer than"),
            (&interim, "interim"),
        ] {
            let error = answer(text.as_bytes().to_vec(), LIMIT, false).unwrap_err().to_string();
            let shown: String = text.chars().take(80).collect();
            assert!(error.contains(word), "{shown:?}: {error}");
        }
    }

    #[test]
    fn a_server_that_hangs_has_a_limit() {
        let limit = Duration::from_millis(50);
        for text in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
            let start = Instant::now();
            let error = answer(text.as_bytes().to_vec(), limit, true).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{text}");
            assert!(start.elapsed() >= limit && start.elapsed() < LIMIT, "{text}");
        }
    }
}

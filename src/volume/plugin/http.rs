//! A client of HTTP/1.1 over Unix sockets: one POST for each connection, with a limit for all of
//! its time, its head and its body. The server is not trusted with memory or time.

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

/// A reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// The status code.
    pub code: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Sends a request and reads the reply.
///
/// # Errors
/// `TimedOut` after `limit`, `UnexpectedEof` where the connection ends first, `InvalidData` for
/// what is not HTTP or too long; as connect(2).
pub(super) fn post(socket: &Path, path: &str, body: &[u8], limit: Duration) -> io::Result<Reply> {
    let deadline = Instant::now() + limit;
    let stream = connect_within(socket, limit)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: plugin\r\nAccept: {MEDIA_TYPE}\r\nContent-Type: \
         {MEDIA_TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut wire = Wire { stream, deadline, buffer: Vec::new() };
    // A server may answer before it has read all, and close.
    let sent = wire.send(&[head.as_bytes(), body].concat());
    let reply = wire.reply();
    match (sent, reply) {
        (_, Ok(reply)) => Ok(reply),
        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
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

/// A connection with a deadline.
struct Wire {
    stream: UnixStream,
    deadline: Instant,
    /// What was read and not used.
    buffer: Vec<u8>,
}

impl Wire {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
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
            Length::Bytes(len) if len > BODY_MAX => Err(too_long("body", BODY_MAX)),
            Length::Bytes(len) => self.take(len),
            Length::Chunks => self.chunks(),
            Length::UntilEnd => {
                while self.fill()? {
                    if self.buffer.len() > BODY_MAX {
                        return Err(too_long("body", BODY_MAX));
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
            let parsed = httparse::parse_chunk_size(&self.buffer);
            match parsed.map_err(|_| nonsense("a chunk has no length"))? {
                httparse::Status::Partial if self.buffer.len() >= HEAD_MAX => {
                    return Err(too_long("chunk head", HEAD_MAX));
                }
                httparse::Status::Partial => self.fill_or_end()?,
                // What follows is not needed: the connection is not used again.
                httparse::Status::Complete((_, 0)) => return Ok(body),
                httparse::Status::Complete((at, len)) => {
                    let len = usize::try_from(len).unwrap_or(usize::MAX);
                    if len > BODY_MAX - body.len() {
                        return Err(too_long("body", BODY_MAX));
                    }
                    self.buffer.drain(..at);
                    body.extend(self.take(len)?);
                    if self.take(2)? != b"\r\n" {
                        return Err(nonsense("a chunk has another length"));
                    }
                }
            }
        }
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

    /// Serves one connection with these bytes, and keeps it open if it is to hang.
    fn answer(bytes: Vec<u8>, limit: Duration, hangs: bool) -> io::Result<Reply> {
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
            let reply = post(&path, "/Call", b"{}", limit);
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

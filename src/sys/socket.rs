//! Connections to sockets of the host.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Connects to a Unix socket. A listener whose queue is full is waited for, but not longer than the
/// limit.
///
/// # Errors
/// As connect(2); `TimedOut` at the limit, `ENAMETOOLONG` for a path of more than 107 bytes.
pub fn connect_within(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A limit of zero would be none.
    set_socket_timeout(&socket, Timeout::Send, Some(limit.max(Duration::from_millis(1))))?;
    match connect(&socket, &address) {
        Err(rustix::io::Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(UnixStream::from(socket)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_full_queue_is_waited_for_until_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let limit = Duration::from_millis(50);
        // The length of the queue is a setting of the host.
        let mut open = Vec::new();
        let error = loop {
            let start = Instant::now();
            match connect_within(&path, limit) {
                Ok(stream) => open.push(stream),
                Err(error) => break (error, start.elapsed()),
            }
            assert!(open.len() < 10_000);
        };
        assert_eq!(error.0.kind(), io::ErrorKind::TimedOut);
        assert!(error.1 >= limit && error.1 < Duration::from_secs(5), "{:?}", error.1);
    }

    #[test]
    fn a_socket_without_a_listener_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        drop(UnixListener::bind(&path).unwrap());
        let error = connect_within(&path, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let long = dir.path().join("x".repeat(200));
        assert!(connect_within(&long, Duration::from_secs(1)).is_err());
    }
}

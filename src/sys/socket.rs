//! Connections to sockets of the host, and descriptors that are passed over them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg,
    sendmsg, socket_with,
};

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

/// Sends bytes and a descriptor with the first of them. Returns how many bytes were sent, at least
/// one. A peer that is gone raises no signal.
///
/// # Errors
/// As sendmsg(2): `EAGAIN` at the limit of the socket for writing.
pub fn send_with(stream: &UnixStream, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    Ok(sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives bytes, and the descriptor that came with them, closed on exec. Of several descriptors
/// the kernel passes one on and closes the others. No bytes are the end of the connection.
///
/// # Errors
/// As recvmsg(2): `EAGAIN` at the limit of the socket for reading.
pub fn receive_with(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(bytes)];
    let received = recvmsg(stream.as_fd(), &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((received.bytes, passed))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
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

    #[test]
    fn a_descriptor_comes_with_the_first_bytes() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"passed").unwrap();
        file.rewind().unwrap();
        assert_eq!(send_with(&one, b"hello", file.as_fd()).unwrap(), 5);
        drop(file);
        let mut bytes = [0; 2];
        let (received, fd) = receive_with(&other, &mut bytes).unwrap();
        assert_eq!((received, &bytes), (2, b"he"));
        let mut text = String::new();
        std::fs::File::from(fd.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "passed");
        drop(one);
        let mut rest = [0; 8];
        let (received, none) = receive_with(&other, &mut rest).unwrap();
        assert_eq!((received, none.is_none()), (3, true));
        assert_eq!(receive_with(&other, &mut rest).unwrap().0, 0);
    }
}

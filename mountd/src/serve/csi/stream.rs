//! The connection of a client: what it sends passes through [`Rewriter`], and what it begins has to
//! be complete in time.
//!
//! An idle connection may stay. It is counted, and holds its place, until it is dropped.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::authority::Rewriter;
use crate::serve::metrics::Connection;

/// What is read at once.
const CHUNK: usize = 8 << 10;

/// A connection.
pub struct ClientStream<S = UnixStream> {
    stream: S,
    rewriter: Rewriter,
    limit: Duration,
    /// When the frame of this number, or its header block, has to be complete.
    deadline: Option<(u64, Pin<Box<Sleep>>)>,
    chunk: Box<[u8]>,
    /// What of the chunk was read and is not rewritten.
    unread: (usize, usize),
    output: Vec<u8>,
    /// What of the output was passed on.
    passed: usize,
    _held: (Option<OwnedSemaphorePermit>, Option<Connection>),
}

impl<S> ClientStream<S> {
    /// Wraps a stream, for as long as which a place and a count are held.
    pub fn new(
        stream: S,
        limit: Duration,
        held: (Option<OwnedSemaphorePermit>, Option<Connection>),
    ) -> Self {
        Self {
            stream,
            rewriter: Rewriter::default(),
            limit,
            deadline: None,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            unread: (0, 0),
            output: Vec::new(),
            passed: 0,
            _held: held,
        }
    }

    /// Passes output on; whether there was any.
    fn pass(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let waiting = self.output.get(self.passed..).unwrap_or_default();
        let Some(part) = waiting.get(..waiting.len().min(buf.remaining())) else { return false };
        if part.is_empty() {
            return false;
        }
        buf.put_slice(part);
        self.passed += part.len();
        if self.passed == self.output.len() {
            self.passed = 0;
            self.output.clear();
            // Large header blocks are rare.
            self.output.shrink_to(CHUNK);
        }
        true
    }

    /// Rewrites what was read; whether there was anything.
    fn rewrite(&mut self) -> bool {
        let (start, end) = self.unread;
        let Some(mut input) = self.chunk.get(start..end).filter(|input| !input.is_empty()) else {
            return false;
        };
        self.rewriter.step(&mut input, &mut self.output);
        self.unread.0 = end - input.len();
        true
    }

    /// Whether what was begun is late.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(number) = self.rewriter.begun() else {
            self.deadline = None;
            return false;
        };
        if self.deadline.as_ref().is_none_or(|(of, _)| *of != number) {
            self.deadline = Some((number, Box::pin(tokio::time::sleep(self.limit))));
        }
        let deadline = self.deadline.as_mut();
        deadline.is_some_and(|(_, deadline)| deadline.as_mut().poll(cx).is_ready())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if buf.remaining() == 0 || this.pass(buf) {
                return Poll::Ready(Ok(()));
            }
            if this.rewrite() {
                continue;
            }
            let mut chunk = ReadBuf::new(&mut this.chunk);
            let read = Pin::new(&mut this.stream).poll_read(cx, &mut chunk);
            let len = chunk.filled().len();
            if read.is_pending() && this.is_late(cx) {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            ready!(read)?;
            this.unread = (0, len);
            if len == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S> Connected for ClientStream<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    #[tokio::test]
    async fn frames_pass_in_pieces_of_any_size() {
        let (mut theirs, ours) = duplex(7);
        let mut ours = ClientStream::new(ours, LIMIT * 100, (None, None));
        let sent = [PREFACE, &PING.repeat(1000)].concat();
        let text = sent.clone();
        let writer = tokio::spawn(async move {
            theirs.write_all(&text).await.unwrap();
        });
        let mut read = Vec::new();
        ours.read_to_end(&mut read).await.unwrap();
        writer.await.unwrap();
        assert_eq!(read, sent);
    }

    #[tokio::test]
    async fn an_idle_connection_waits_and_what_has_begun_does_not() {
        for begun in [&[][..], &PREFACE[..5], &[PREFACE, &PING[..3]].concat()] {
            let (mut theirs, ours) = duplex(64);
            let mut ours = ClientStream::new(ours, LIMIT, (None, None));
            theirs.write_all(begun).await.unwrap();
            let error = ours.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{begun:?}");
        }
        let (mut theirs, ours) = duplex(64);
        let mut ours = ClientStream::new(ours, LIMIT, (None, None));
        theirs.write_all(&[PREFACE, PING].concat()).await.unwrap();
        let mut read = [0; 41];
        ours.read_exact(&mut read).await.unwrap();
        let mut byte = [0];
        assert!(tokio::time::timeout(LIMIT * 4, ours.read(&mut byte)).await.is_err());
    }
}

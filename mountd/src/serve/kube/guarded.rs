//! A connection that ends when it is idle for too long, or when its client does not read.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a connection and its client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Without a request.
    pub idle: Duration,
    /// For the client to read something of what is sent.
    pub write: Duration,
}

/// Requests under way on a connection: each holds a copy until its answer is complete.
#[derive(Debug)]
pub struct Serving(Arc<AtomicUsize>);

/// The count of a connection, and no request of its own.
pub type Count = Arc<AtomicUsize>;

impl Serving {
    /// Counts a request.
    pub fn new(count: &Count) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Clone for Serving {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A stream with limits.
pub struct Guarded<S> {
    stream: S,
    limits: Limits,
    serving: Count,
    idle: Option<Pin<Box<Sleep>>>,
    write: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    /// Wraps a stream, with the count of its requests.
    pub const fn new(stream: S, limits: Limits, serving: Count) -> Self {
        Self { stream, limits, serving, idle: None, write: None }
    }
}

/// Fails when a time that begins now, or began with an earlier call, is over.
fn expire(
    timer: &mut Option<Pin<Box<Sleep>>>,
    limit: Duration,
    cx: &mut Context<'_>,
) -> Poll<io::Error> {
    let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
    timer.as_mut().poll(cx).map(|()| io::Error::from(ErrorKind::TimedOut))
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if read.is_ready() || this.serving.load(Ordering::Acquire) > 0 {
            this.idle = None;
            return read;
        }
        expire(&mut this.idle, this.limits.idle, cx).map(Err)
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Passes on what a write came to, and ends one that waits for too long.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream), cx);
        if written.is_ready() {
            self.write = None;
            return written;
        }
        expire(&mut self.write, self.limits.write, cx).map(Err)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().written(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().written(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().written(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn an_idle_connection_ends_and_one_under_way_does_not() {
        let (_theirs, ours) = duplex(64);
        let count = Count::default();
        let serving = Serving::new(&count);
        let limits = Limits { idle: SHORT, write: SHORT };
        let mut ours = Guarded::new(ours, limits, Arc::clone(&count));
        let mut byte = [0];
        let waited = tokio::time::timeout(SHORT * 4, ours.read(&mut byte)).await;
        assert!(waited.is_err());
        drop(serving);
        let error = ours.read(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_dropped() {
        let (mut theirs, ours) = duplex(64);
        let limits = Limits { idle: SHORT, write: SHORT };
        let mut ours = Guarded::new(ours, limits, Arc::default());
        ours.write_all(&[0; 64]).await.unwrap();
        let mut read = [0; 64];
        theirs.read_exact(&mut read).await.unwrap();
        ours.write_all(&[0; 64]).await.unwrap();
        let error = ours.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}

//! A connection that may be idle for as long as it likes, but must finish what it begins.
//!
//! hyper's own limit for heads counts idle time too. If the daemon closes an idle connection just
//! when dockerd sends a request on it, dockerd repeats the request without its body. So the limit
//! here begins with the first byte of a head.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What the service of a connection tells its stream.
#[derive(Debug, Default)]
pub struct Progress {
    /// A request is under way: its body has a limit of its own.
    is_serving: AtomicBool,
    /// Requests that were answered.
    answered: AtomicU64,
}

impl Progress {
    /// A whole head was read.
    pub fn begin(&self) {
        self.is_serving.store(true, Ordering::Release);
    }

    /// The request was answered.
    pub fn end(&self) {
        self.answered.fetch_add(1, Ordering::AcqRel);
        self.is_serving.store(false, Ordering::Release);
    }
}

/// A stream with a limit for heads.
pub struct Patient<S> {
    stream: S,
    limit: Duration,
    progress: Arc<Progress>,
    /// When the head that began has to be whole, and the number of its request.
    deadline: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<S> Patient<S> {
    /// Wraps a stream.
    pub const fn new(stream: S, limit: Duration, progress: Arc<Progress>) -> Self {
        Self { stream, limit, progress, deadline: None }
    }

    /// Drops the deadline of a head that became whole.
    fn look(&mut self) {
        let answered = self.progress.answered.load(Ordering::Acquire);
        let is_over = self.deadline.as_ref().is_some_and(|(number, _)| *number != answered);
        if is_over || self.progress.is_serving.load(Ordering::Acquire) {
            self.deadline = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.look();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if read.is_ready() {
            let is_serving = this.progress.is_serving.load(Ordering::Acquire);
            if buf.filled().len() > before && !is_serving && this.deadline.is_none() {
                let number = this.progress.answered.load(Ordering::Acquire);
                this.deadline = Some((number, Box::pin(tokio::time::sleep(this.limit))));
            }
            return read;
        }
        if let Some((_, deadline)) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::from(ErrorKind::TimedOut)));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    fn pair() -> (DuplexStream, Patient<DuplexStream>, Arc<Progress>) {
        let (theirs, ours) = duplex(64);
        let progress = Arc::new(Progress::default());
        (theirs, Patient::new(ours, LIMIT, Arc::clone(&progress)), progress)
    }

    /// Whether a read is still waiting after a time longer than the limit.
    async fn waits(stream: &mut Patient<DuplexStream>) -> bool {
        let mut byte = [0];
        tokio::time::timeout(LIMIT * 4, stream.read(&mut byte)).await.is_err()
    }

    #[tokio::test]
    async fn an_idle_connection_waits_and_half_a_head_does_not() {
        let (mut theirs, mut ours, progress) = pair();
        assert!(waits(&mut ours).await);
        theirs.write_all(b"x").await.unwrap();
        let mut byte = [0];
        ours.read_exact(&mut byte).await.unwrap();
        let error = ours.read_exact(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(progress);
    }

    #[tokio::test]
    async fn a_request_under_way_has_no_limit_here_and_neither_has_the_time_after_it() {
        let (mut theirs, mut ours, progress) = pair();
        let mut byte = [0];
        theirs.write_all(b"h").await.unwrap();
        ours.read_exact(&mut byte).await.unwrap();
        progress.begin();
        assert!(waits(&mut ours).await);
        theirs.write_all(b"b").await.unwrap();
        ours.read_exact(&mut byte).await.unwrap();
        progress.end();
        assert!(waits(&mut ours).await, "idle again");
        theirs.write_all(b"h").await.unwrap();
        ours.read_exact(&mut byte).await.unwrap();
        assert!(ours.read_exact(&mut byte).await.is_err(), "the next head has a limit");
    }
}

//! A minimum rate for streams of a registry: a long transfer is allowed, a stalled one is not.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

/// Fewer bytes than this within the time limit count as a stall.
pub(super) const LEAST: u64 = 4 << 10;

/// A reader that fails if its stream stalls.
pub(super) struct Paced<R> {
    inner: R,
    patience: Duration,
    since: Instant,
    bytes: u64,
}

impl<R> Paced<R> {
    pub(super) fn new(inner: R, patience: Duration) -> Self {
        Self { inner, patience, since: Instant::now(), bytes: 0 }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.bytes += len as u64;
        let took = self.since.elapsed();
        if took >= self.patience {
            if len > 0 && self.bytes < LEAST {
                let what = format!("{} bytes came in {} s", self.bytes, took.as_secs());
                return Err(io::Error::new(ErrorKind::TimedOut, what));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns this many bytes at a time, after a pause each.
    struct Slow(usize, Duration);

    impl Read for Slow {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(self.1);
            Ok(self.0.min(buf.len()))
        }
    }

    #[test]
    fn a_trickle_is_given_up_and_a_slow_stream_is_not() {
        let read = |bytes, patience| {
            let slow = Slow(bytes, Duration::from_millis(2));
            let mut from = Paced::new(slow, Duration::from_millis(patience)).take(40 << 10);
            io::copy(&mut from, &mut io::sink())
        };
        assert_eq!(read(1, 20).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(read(1 << 10, 20).unwrap(), 40 << 10, "4 KiB take 8 ms");
    }
}

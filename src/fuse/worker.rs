//! The threads that read and serve requests.
//!
//! A worker owns one buffer for requests and grows others as replies need them; nothing is
//! allocated per request. [`crate::fuse::turn`] decides which worker reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use crate::error::Errno;
use crate::fuse::counters::Counters;
use crate::fuse::ops::{Adapter, Scratch};
use crate::fuse::throttle::{Cost, Throttle};
use crate::fuse::turn::{Turn, WorkerThread};
use crate::fuse::wire::abi;
use crate::fuse::wire::abi::MAX_WRITE;
use crate::fuse::wire::reply::{Before, Reply};
use crate::fuse::wire::request::{Malformed, Operation, Request, decode};
use crate::sys::fuse::Device;

/// Bytes that the kernel wants free in the buffer in addition to the data of a WRITE.
const HEADERS: usize = 4096;

/// Data longer than this justifies waking another reader: copying it takes longer.
const LONG_DATA: u32 = 128 << 10;

/// Operations that lately took longer than this on average hand over the place beforehand.
const LONG_TIME: Duration = Duration::from_micros(500);

/// State that all workers of a session share.
#[derive(Debug)]
pub struct Workers {
    pub(super) device: Arc<Device>,
    pub(super) turn: Turn,
    pub(super) adapter: Adapter,
    pub(super) counters: Arc<Counters>,
    pub(super) pace: Pace,
    pub(super) throttle: Arc<Throttle>,
    pub(super) xattr_ext: bool,
}

impl Workers {
    /// Serves until the file system is unmounted; the body of each worker thread.
    ///
    /// # Errors
    /// The error of read(2) of the device, unless it means that the mount has ended.
    pub fn run(&self) -> Result<(), Errno> {
        let thread = WorkerThread::here();
        let mut buffer = vec![0_u64; (usize::try_from(MAX_WRITE).unwrap_or(0) + HEADERS) / 8];
        let mut scratch = Scratch::default();
        while self.turn.wait(&thread) {
            let led = self.lead(buffer.as_mut_slice().as_mut_bytes(), &mut scratch);
            if let Err(errno) = led {
                self.turn.end();
                self.throttle.end();
                self.adapter.end();
                return match errno {
                    Errno::NODEV => Ok(()),
                    errno => Err(errno),
                };
            }
        }
        Ok(())
    }

    /// Reads and serves until another thread takes the place.
    fn lead(&self, buffer: &mut [u8], scratch: &mut Scratch) -> Result<(), Errno> {
        loop {
            let len = match self.device.read(buffer) {
                Ok(len) => len,
                // Interrupted, or the request was withdrawn before it was read.
                Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => continue,
                Err(errno) => return Err(errno),
            };
            let serving = self.turn.begin();
            let bytes = buffer.get(..len).unwrap_or_default();
            match decode(bytes, self.xattr_ext) {
                Ok(request) => {
                    let turn = Cost::of(&request.op).and_then(|cost| self.throttle.place(cost));
                    if turn.is_some() || self.pace.is_long(&request) {
                        self.turn.hand_over(serving);
                    }
                    if let Some(turn) = turn {
                        turn.wait();
                    }
                    self.serve(&request, scratch);
                }
                Err(malformed) => self.refuse(malformed),
            }
            if !self.turn.finish(serving) {
                return Ok(());
            }
        }
    }

    fn serve(&self, request: &Request<'_>, scratch: &mut Scratch) {
        self.counters.request(request.header.opcode);
        if matches!(request.op, Operation::CopyFileRange { .. }) && self.throttle.is_on() {
            // The kernel copies by reads and writes then, which are limited.
            Reply::new(&self.device, request.header.unique).errno(Errno::OPNOTSUPP);
            return;
        }
        let start = Instant::now();
        let settle = || {
            self.counters.synced();
            self.adapter.union.enter_again().sync_fs()
        };
        let before: Before<'_> = &settle;
        let before = self.adapter.is_synchronous(&request.op).then_some(before);
        let reply = Reply::new(&self.device, request.header.unique).after(before);
        self.adapter.serve(request, &reply, scratch);
        self.pace.note(request.header.opcode, start.elapsed());
    }

    fn refuse(&self, malformed: Malformed) {
        self.counters.malformed();
        tracing::error!(%malformed, "request refused");
        match malformed {
            Malformed::Header { .. }
            | Malformed::Arguments { opcode: abi::FORGET | abi::BATCH_FORGET, .. } => {}
            Malformed::Arguments { unique, errno, .. } => {
                Reply::new(&self.device, unique).errno(errno);
            }
        }
    }
}

/// How long each operation took lately: a moving average in microseconds.
#[derive(Debug)]
pub struct Pace([AtomicU32; 64]);

impl Default for Pace {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; 64])
    }
}

impl Pace {
    fn average(&self, opcode: u32) -> Option<&AtomicU32> {
        self.0.get(usize::try_from(opcode).ok()?)
    }

    /// Whether a request is expected to keep its thread for long.
    fn is_long(&self, request: &Request<'_>) -> bool {
        let data = match &request.op {
            Operation::Read(arg) => arg.size,
            Operation::Write { arg, .. } => arg.size,
            _ => 0,
        };
        let average = self.average(request.header.opcode);
        let micros = average.map_or(0, |average| average.load(Ordering::Relaxed));
        data > LONG_DATA || Duration::from_micros(micros.into()) > LONG_TIME
    }

    /// The newest time counts for an eighth of the average. Of two threads at once one may lose its
    /// time, which does not matter.
    fn note(&self, opcode: u32, time: Duration) {
        let Some(average) = self.average(opcode) else { return };
        let new = u32::try_from(time.as_micros()).unwrap_or(u32::MAX) / 8;
        let old = average.load(Ordering::Relaxed);
        let sum = (old - old / 8).saturating_add(new);
        if sum != old {
            average.store(sum, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(opcode: u32, op: Operation<'a>) -> Request<'a> {
        Request { header: abi::InHeader { opcode, ..Default::default() }, op }
    }

    #[test]
    fn large_data_is_long() {
        let pace = Pace::default();
        let read = |size| abi::ReadIn { size, ..Default::default() };
        assert!(!pace.is_long(&request(abi::READ, Operation::Read(read(LONG_DATA)))));
        assert!(pace.is_long(&request(abi::READ, Operation::Read(read(LONG_DATA + 1)))));
    }

    #[test]
    fn an_operation_that_takes_long_is_long_until_it_is_fast_again() {
        let pace = Pace::default();
        let fsync = || request(abi::FSYNC, Operation::Fsync { data_only: false });
        assert!(!pace.is_long(&fsync()));
        pace.note(abi::FSYNC, Duration::from_millis(20));
        assert!(pace.is_long(&fsync()));
        assert!(!pace.is_long(&request(abi::LOOKUP, Operation::Lookup { name: b"a" })));
        for _ in 0..64 {
            pace.note(abi::FSYNC, Duration::from_micros(3));
        }
        assert!(!pace.is_long(&fsync()));
    }
}

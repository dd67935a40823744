//! Compresses frames in up to two threads and returns them in the order in which they were sent.
//!
//! Each frame is compressed by itself, so the output does not depend on the number of threads. With
//! two threads, the import of a Debian tree takes about a seventh less time: the thread that reads,
//! hashes and writes remains the slowest.
//!
//! Memory is bounded by [`IN_FLIGHT`] frames; a caller that sends more must take the oldest first.

use std::io;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// The default level of zstd.
const LEVEL: i32 = 3;
const THREADS_MAX: usize = 2;
/// Frames that are sent and not yet taken: enough to keep two threads busy while the sender hashes
/// the next content.
const IN_FLIGHT: usize = 8;

/// A compressed frame.
pub(super) struct Packed {
    /// The compressed bytes.
    pub(super) stored: Vec<u8>,
    /// The BLAKE3 of the compressed bytes.
    pub(super) digest: [u8; 32],
    /// The buffer of the uncompressed content, to be reused.
    pub(super) content: Vec<u8>,
}

struct Worker {
    jobs: Option<Sender<Vec<u8>>>,
    done: Receiver<io::Result<Packed>>,
    thread: Option<JoinHandle<()>>,
}

/// The compression threads. None is started before the first frame is sent.
pub(super) struct Packer {
    threads: usize,
    workers: Vec<Worker>,
    sent: usize,
    taken: usize,
}

impl Packer {
    /// Creates a packer with as many threads as there are processors, at most two.
    pub(super) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Self::with_threads(processors.min(THREADS_MAX))
    }

    pub(super) const fn with_threads(threads: usize) -> Self {
        Self { threads, workers: Vec::new(), sent: 0, taken: 0 }
    }

    /// The number of frames that were sent and not taken.
    pub(super) const fn in_flight(&self) -> usize {
        self.sent - self.taken
    }

    /// Whether the oldest frame must be taken before another is sent.
    pub(super) const fn is_full(&self) -> bool {
        self.in_flight() >= IN_FLIGHT
    }

    /// Sends a frame to be compressed.
    pub(super) fn send(&mut self, content: Vec<u8>) -> io::Result<()> {
        while self.workers.len() < self.threads {
            self.workers.push(Worker::start()?);
        }
        // Round robin, so that the order of the results is known.
        let worker = self.workers.get(self.sent % self.threads).ok_or_else(ended)?;
        let jobs = worker.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(content).map_err(|_| ended())?;
        self.sent += 1;
        Ok(())
    }

    /// Waits for the oldest frame; `None` where none is in flight.
    pub(super) fn take(&mut self) -> io::Result<Option<Packed>> {
        if self.in_flight() == 0 {
            return Ok(None);
        }
        let worker = self.workers.get(self.taken % self.threads).ok_or_else(ended)?;
        let packed = worker.done.recv().map_err(|_| ended())?;
        self.taken += 1;
        packed.map(Some)
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // Closing its queue ends the thread.
            worker.jobs = None;
            if let Some(Err(_)) = worker.thread.take().map(JoinHandle::join) {
                tracing::warn!("a thread that compresses frames panicked");
            }
        }
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let (jobs, queue) = channel::<Vec<u8>>();
        let (finished, done) = channel();
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        let work = move || {
            for content in queue {
                let stored = compressor.compress(&content);
                let packed = stored.map(|stored| {
                    let digest = *blake3::hash(&stored).as_bytes();
                    Packed { stored, digest, content }
                });
                if finished.send(packed).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("lamina-pack".to_owned()).spawn(work)?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread) })
    }
}

fn ended() -> io::Error {
    io::Error::other("a thread that compresses frames has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(threads: usize) -> Vec<Packed> {
        let mut packer = Packer::with_threads(threads);
        let mut all = Vec::new();
        for n in 0..50_u32 {
            if packer.is_full() {
                all.push(packer.take().unwrap().unwrap());
            }
            // Frames of very different cost, so that a later one is ready before an earlier one.
            let len = if n % 3 == 0 { 100_000 } else { 100 };
            packer.send(n.to_le_bytes().repeat(len / 4)).unwrap();
            assert!(packer.in_flight() <= IN_FLIGHT);
        }
        while let Some(packed) = packer.take().unwrap() {
            all.push(packed);
        }
        all
    }

    #[test]
    fn frames_come_back_in_order_whatever_the_number_of_threads() {
        let (one, two) = (packed(1), packed(2));
        assert_eq!((one.len(), two.len()), (50, 50));
        for (n, (one, two)) in one.iter().zip(&two).enumerate() {
            assert_eq!(one.content.get(..4), Some(&(n as u32).to_le_bytes()[..]));
            assert_eq!((&one.stored, one.digest), (&two.stored, two.digest));
            assert_eq!(zstd::decode_all(&one.stored[..]).unwrap(), one.content);
        }
    }
}

//! Counters of the front end. Every counter only grows and is read without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// One more than the highest operation number with a counter of its own.
const OPERATIONS: usize = 64;

/// Counters of one session.
#[derive(Debug)]
pub struct Counters {
    by_opcode: [AtomicU64; OPERATIONS],
    malformed: AtomicU64,
    panics: AtomicU64,
    handovers: AtomicU64,
    takeovers: AtomicU64,
    listed_ahead: AtomicU64,
    synced: AtomicU64,
}

/// A reading of [`Counters`].
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CounterValues {
    /// Requests read from the kernel.
    pub requests: u64,
    /// Requests by operation number of the protocol; operations that never came are left out.
    pub by_opcode: Vec<(u32, u64)>,
    /// Requests that could not be decoded.
    pub malformed: u64,
    /// Handlers that panicked; the reply was `EIO`.
    pub panics: u64,
    /// Times that the reading thread passed its place on before a long request.
    pub handovers: u64,
    /// Times that its place was taken during a request that turned out to be long.
    pub takeovers: u64,
    /// Directories that were listed before a walk came to them.
    #[serde(default)]
    pub listed_ahead: u64,
    /// Replies that waited until the change was on the disk (`sync`, `dirsync`).
    #[serde(default)]
    pub synced: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            by_opcode: [const { AtomicU64::new(0) }; OPERATIONS],
            malformed: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            handovers: AtomicU64::new(0),
            takeovers: AtomicU64::new(0),
            listed_ahead: AtomicU64::new(0),
            synced: AtomicU64::new(0),
        }
    }
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn request(&self, opcode: u32) {
        let index = usize::try_from(opcode).unwrap_or(0);
        if let Some(counter) = self.by_opcode.get(index).or_else(|| self.by_opcode.first()) {
            bump(counter);
        }
    }

    pub(super) fn malformed(&self) {
        bump(&self.malformed);
    }

    pub(super) fn panic(&self) {
        bump(&self.panics);
    }

    pub(super) fn handover(&self) {
        bump(&self.handovers);
    }

    pub(super) fn takeover(&self) {
        bump(&self.takeovers);
    }

    pub(super) fn listed_ahead(&self) {
        bump(&self.listed_ahead);
    }

    pub(super) fn synced(&self) {
        bump(&self.synced);
    }

    /// The present values.
    #[must_use]
    pub fn values(&self) -> CounterValues {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = (0..).zip(self.by_opcode.iter().map(read));
        let by_opcode: Vec<_> = counts.filter(|&(_, count)| count > 0).collect();
        CounterValues {
            requests: by_opcode.iter().map(|&(_, count)| count).sum(),
            by_opcode,
            malformed: read(&self.malformed),
            panics: read(&self.panics),
            handovers: read(&self.handovers),
            takeovers: read(&self.takeovers),
            listed_ahead: read(&self.listed_ahead),
            synced: read(&self.synced),
        }
    }
}

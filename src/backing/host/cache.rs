//! Open directories, and the bounded cache of them that the trees of a process share.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};

use crate::error::{Errno, Result};
use crate::sys::file::{OFlags, openat};

use super::names::ITSELF;

/// The flags for a readable directory, where they are allowed: the access time stays as it is.
const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOATIME);

/// The number of a root, which is never in the cache.
pub(super) const ROOT: u64 = 0;

/// An open directory.
pub(super) struct DirFd {
    fd: OwnedFd,
    readable: bool,
    listing: Mutex<()>,
}

impl DirFd {
    /// Opens an entry of an open directory, with `O_PATH` if it may not be read.
    pub(super) fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Self> {
        match Self::open_to_read(parent, name) {
            Ok(fd) => Ok(Self::new(fd, true)),
            Err(error) if error.is(Errno::ACCESS) => {
                let fd = openat(parent, name, OFlags::PATH | OFlags::DIRECTORY)?;
                Ok(Self::new(fd, false))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens an entry of an open directory for reading; `O_NOATIME` is left out for a user who does
    /// not own it.
    pub(super) fn open_to_read(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
        match openat(parent, name, READ) {
            Err(error) if error.is(Errno::PERM) => {
                openat(parent, name, READ.difference(OFlags::NOATIME))
            }
            opened => opened,
        }
    }

    /// Takes a descriptor of a directory, `readable` unless it is an `O_PATH` one.
    pub(super) fn new(fd: OwnedFd, readable: bool) -> Self {
        Self { fd, readable, listing: Mutex::new(()) }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether the descriptor serves more than names and attributes.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// The name of this directory for calls that take no `O_PATH` descriptor by itself.
    pub(super) fn readable_name(&self) -> &'static [u8] {
        if self.readable { ITSELF } else { b"." }
    }

    /// Returns the right to use the position of the descriptor, if it is free and can be read.
    pub(super) fn listing(&self) -> Option<MutexGuard<'_, ()>> {
        self.readable.then(|| self.listing.try_lock()).flatten()
    }
}

/// Keeps a bounded number of directories open; the least recently used is closed first.
pub struct FdCache {
    open: Mutex<LruCache<u64, Arc<DirFd>>>,
    next: AtomicU64,
}

impl FdCache {
    /// The default number of directories that are kept open: half of the usual limit of 1,024
    /// descriptors.
    pub const DEFAULT_CAPACITY: usize = 512;

    /// Makes a cache for up to `capacity` directories, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        Arc::new(Self { open: Mutex::new(LruCache::new(capacity)), next: AtomicU64::new(ROOT + 1) })
    }

    /// The number of directories that the cache holds open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// The number of directories on the path from a root to a place that are worth keeping.
    pub(super) fn way(&self) -> usize {
        (self.open.lock().cap().get() / 4).max(1)
    }

    /// Whether the cache holds no directory open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes all directories that are not in use.
    pub fn clear(&self) {
        self.close_down_to(0);
    }

    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn find(&self, id: u64) -> Option<Arc<DirFd>> {
        self.open.lock().get(&id).map(Arc::clone)
    }

    // The evicted directory is closed after the lock is released, here and below.
    pub(super) fn keep(&self, id: u64, dir: &Arc<DirFd>) {
        let evicted = self.open.lock().push(id, Arc::clone(dir));
        drop(evicted);
    }

    pub(super) fn forget(&self, id: u64) {
        let closed = self.open.lock().pop(&id);
        drop(closed);
    }

    /// Opens an object; when the process has no descriptor left, closes half of the cache and
    /// retries.
    pub(super) fn with_room<T>(&self, open: impl Fn() -> Result<T>) -> Result<T> {
        match open() {
            Err(error) if error.is(Errno::MFILE) || error.is(Errno::NFILE) => {
                self.close_down_to(self.len() / 2);
                open()
            }
            opened => opened,
        }
    }

    fn close_down_to(&self, count: usize) {
        let mut closed = Vec::new();
        let mut open = self.open.lock();
        while open.len() > count
            && let Some((_, dir)) = open.pop_lru()
        {
            closed.push(dir);
        }
        drop(open);
        drop(closed);
    }
}

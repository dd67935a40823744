//! Locks of a mount that serves grafts: flock(2) and fcntl(2).
//!
//! The kernel forwards all locks of a mount or none. Locks of a file in a graft are taken on the
//! file of the host, so that they exclude processes that lock it there; locks of a file of the
//! union are taken on a file in memory. Each owner (a process, an open file) has an open file of
//! its own, and locks are those of open files (`F_OFD_SETLK`), so that the kernel decides which
//! locks conflict.
//!
//! One thread retries the locks that have to wait, at first every millisecond. A deadlock between
//! two waiting owners of ranges is not detected (`EDEADLK`); either can be interrupted.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Errno, Error, Result};
use crate::fuse::gate::Gate;
use crate::fuse::wire::reply::Reply;
use crate::sys;
use crate::sys::file::OFlags;
use crate::sys::fuse::Device;
use crate::sys::lock::{self, LockKind, RangeLock};
use crate::types::NodeId;

/// The interval between two tries of the waiting locks, at first and at last.
const STEP: Duration = Duration::from_millis(1);
const STEP_MAX: Duration = Duration::from_millis(16);

/// Opens a file once more, for writing where that is allowed.
fn open_again(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    let open = |flags| sys::file::open_again(file, flags);
    open(OFlags::RDWR).or_else(|_| open(OFlags::RDONLY))
}

/// The owner of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The number that the kernel gives the owner.
    pub id: u64,
    /// Whether the locks are of whole files (flock(2)); these are independent of locks of ranges.
    pub is_whole: bool,
}

/// A request for a lock.
#[derive(Debug, Clone, Copy)]
pub struct LockRequest {
    /// The file.
    pub node: NodeId,
    /// The handle through which the lock is requested.
    pub fh: u64,
    /// The owner of the lock.
    pub owner: Owner,
    /// The lock; a lock of a whole file has no range.
    pub lock: RangeLock,
}

/// The open file of one owner, and the handles through which it locked.
struct Holder {
    file: OwnedFd,
    handles: Vec<u64>,
}

#[derive(Default)]
struct Files {
    holders: HashMap<NodeId, HashMap<Owner, Holder>>,
    /// Files in memory, for files of the union.
    anonymous: HashMap<NodeId, OwnedFd>,
    waiting: Vec<(u64, LockRequest)>,
    is_started: bool,
    is_ended: bool,
}

/// The locks of a session.
pub struct Locks {
    union: Arc<Gate>,
    device: Arc<Device>,
    files: Mutex<Files>,
    news: Condvar,
    this: Weak<Self>,
}

impl std::fmt::Debug for Locks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locks").finish_non_exhaustive()
    }
}

impl Locks {
    /// The locks of a session on `device`.
    #[must_use]
    pub fn new(union: &Arc<Gate>, device: &Arc<Device>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            union: Arc::clone(union),
            device: Arc::clone(device),
            files: Mutex::default(),
            news: Condvar::new(),
            this: this.clone(),
        })
    }

    /// Sets or releases a lock, without waiting.
    ///
    /// # Errors
    /// `EAGAIN` while another owner holds it.
    pub fn set(&self, wish: &LockRequest) -> Result<()> {
        self.set_in(&mut self.files.lock(), wish)
    }

    /// Sets a lock, and replies to the request once the lock is held.
    pub fn set_waiting(&self, unique: u64, wish: &LockRequest) {
        let reply = Reply::new(&self.device, unique);
        let mut files = self.files.lock();
        match self.set_in(&mut files, wish) {
            Ok(()) => drop(reply.ok()),
            Err(error) if error.is(Errno::AGAIN) => {
                files.waiting.push((unique, *wish));
                if !files.is_started && !self.start() {
                    files.waiting.clear();
                    drop(files);
                    reply.errno(Errno::NOLCK);
                    return;
                }
                files.is_started = true;
                self.news.notify_one();
            }
            Err(error) => drop(reply.error(&error)),
        }
    }

    /// The lock that prevents another one.
    ///
    /// # Errors
    /// As fcntl(2).
    pub fn find(&self, wish: &LockRequest) -> Result<RangeLock> {
        let mut files = self.files.lock();
        let file = self.open(&mut files, wish)?;
        lock::find_range(file, &wish.lock)
    }

    /// Replies `EINTR` to a request that still waits.
    pub fn interrupt(&self, unique: u64) {
        let mut files = self.files.lock();
        let waiting = files.waiting.iter().position(|(other, _)| *other == unique);
        if let Some(at) = waiting {
            files.waiting.swap_remove(at);
            drop(files);
            Reply::new(&self.device, unique).errno(Errno::INTR);
        }
    }

    /// Releases the locks of ranges of an owner that closes a descriptor.
    pub fn flush(&self, node: NodeId, owner: u64) {
        let owner = Owner { id: owner, is_whole: false };
        self.drop_where(node, |other, _| *other == owner);
    }

    /// Releases the locks that were set through a handle that is closed.
    pub fn release(&self, node: NodeId, fh: u64) {
        self.drop_where(node, |_, holder| holder.handles.contains(&fh));
    }

    fn drop_where(&self, node: NodeId, is_gone: impl Fn(&Owner, &Holder) -> bool) {
        let mut files = self.files.lock();
        let Some(holders) = files.holders.get_mut(&node) else { return };
        holders.retain(|owner, holder| !is_gone(owner, holder));
        if holders.is_empty() {
            files.holders.remove(&node);
            files.anonymous.remove(&node);
        }
        self.news.notify_one();
    }

    /// Ends the thread. Waiting requests get no reply, since the session has ended.
    pub fn end(&self) {
        let mut files = self.files.lock();
        files.is_ended = true;
        files.waiting.clear();
        self.news.notify_one();
    }

    fn set_in(&self, files: &mut Files, wish: &LockRequest) -> Result<()> {
        let file = self.open(files, wish)?;
        match (wish.owner.is_whole, wish.lock.kind) {
            (false, _) => lock::set_range(file, &wish.lock),
            (true, LockKind::Read) => sys::file::try_flock_shared(file),
            (true, LockKind::Write) => sys::file::try_flock(file),
            (true, LockKind::None) => sys::file::unlock(file),
        }
        .map_err(|error| match error.errno() {
            Errno::ACCESS => Error::os("fcntl", Errno::AGAIN),
            _ => error,
        })
    }

    /// Returns the open file of an owner, and opens it if there is none.
    fn open<'a>(&self, files: &'a mut Files, wish: &LockRequest) -> Result<BorrowedFd<'a>> {
        let Files { holders, anonymous, .. } = files;
        let holders = holders.entry(wish.node).or_default();
        let holder = match holders.entry(wish.owner) {
            std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let shared = self.union.enter_again().lock_file(wish.node);
                let file = match shared.as_ref().and_then(|file| file.fd()) {
                    Some(file) => open_again(file)?,
                    None => match anonymous.entry(wish.node) {
                        std::collections::hash_map::Entry::Occupied(found) => {
                            open_again(found.get().as_fd())?
                        }
                        std::collections::hash_map::Entry::Vacant(place) => {
                            open_again(place.insert(lock::anonymous()?).as_fd())?
                        }
                    },
                };
                place.insert(Holder { file, handles: Vec::new() })
            }
        };
        if !holder.handles.contains(&wish.fh) {
            holder.handles.push(wish.fh);
        }
        Ok(holder.file.as_fd())
    }

    fn start(&self) -> bool {
        let Some(locks) = self.this.upgrade() else { return false };
        let run = move || locks.retry();
        std::thread::Builder::new().name("fuse-locks".to_owned()).spawn(run).is_ok()
    }

    // The body of the thread.
    fn retry(&self) {
        let mut step = STEP;
        let mut files = self.files.lock();
        while !files.is_ended {
            if files.waiting.is_empty() {
                self.news.wait(&mut files);
                step = STEP;
                continue;
            }
            let waiting = std::mem::take(&mut files.waiting);
            for (unique, wish) in waiting {
                let reply = Reply::new(&self.device, unique);
                match self.set_in(&mut files, &wish) {
                    Ok(()) => drop(reply.ok()),
                    Err(error) if error.is(Errno::AGAIN) => files.waiting.push((unique, wish)),
                    Err(error) => drop(reply.error(&error)),
                }
            }
            // The holder of a lock on the host sends no notice when it releases the lock.
            self.news.wait_for(&mut files, step);
            step = (step * 2).min(STEP_MAX);
        }
    }
}

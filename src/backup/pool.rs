//! Parallel transfers with a bounded number of chunks in memory.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use parking_lot::{Condvar, Mutex};

use super::error::{BackupError, Result};
use super::repository::{Known, Repository};
use super::seal::Id;

/// Transfers at once. Each holds up to three copies of a chunk.
const WORKERS: usize = 8;
/// Chunks that wait for a transfer.
const WAITING: usize = 4;

/// Sends chunks that the repository does not have.
pub(super) struct Sending {
    queue: Option<SyncSender<(Id, Vec<u8>)>>,
    shared: Arc<SendingShared>,
    known: Known,
}

#[derive(Default)]
struct SendingShared {
    failure: Mutex<Option<BackupError>>,
    has_failed: AtomicBool,
    chunks: AtomicU64,
    busy: Mutex<usize>,
    idle: Condvar,
}

fn next<T>(jobs: &Mutex<Receiver<T>>) -> Option<T> {
    jobs.lock().recv().ok()
}

impl Sending {
    /// Starts the threads. They end with the value.
    pub(super) fn start<'s, 'e>(
        scope: &'s Scope<'s, 'e>,
        repository: &'e Repository,
        known: Known,
    ) -> Self {
        let (queue, jobs) = sync_channel::<(Id, Vec<u8>)>(WAITING);
        let (jobs, shared) = (Arc::new(Mutex::new(jobs)), Arc::new(SendingShared::default()));
        let is_complete = known.is_complete;
        for _ in 0..WORKERS {
            let (jobs, shared) = (Arc::clone(&jobs), Arc::clone(&shared));
            scope.spawn(move || {
                while let Some((id, content)) = next(&jobs) {
                    if !shared.has_failed.load(Ordering::Acquire) {
                        shared.take(repository, (id, &content), is_complete);
                    }
                    let mut busy = shared.busy.lock();
                    *busy = busy.saturating_sub(1);
                    shared.idle.notify_all();
                }
            });
        }
        Self { queue: Some(queue), shared, known }
    }

    /// Whether a chunk is in the repository, or on its way. Unknown where only a part of the names
    /// is known.
    pub(super) fn has(&self, id: Id) -> bool {
        !self.known.is_complete || self.known.ids.contains(&id)
    }

    /// Sends a chunk unless it is there.
    pub(super) fn send(&mut self, id: Id, content: Vec<u8>) -> Result<()> {
        self.check()?;
        if !self.known.ids.insert(id) {
            return Ok(());
        }
        *self.shared.busy.lock() += 1;
        if let Some(queue) = &self.queue
            && queue.send((id, content)).is_err()
        {
            return Err(BackupError::Remote {
                object: id.to_string(),
                what: "the threads that send have ended".to_owned(),
            });
        }
        Ok(())
    }

    /// Waits until all is sent. Returns the number of chunks that the repository did not have.
    pub(super) fn finish(&self) -> Result<u64> {
        let mut busy = self.shared.busy.lock();
        while *busy > 0 {
            self.shared.idle.wait(&mut busy);
        }
        drop(busy);
        self.check()?;
        Ok(self.shared.chunks.load(Ordering::Acquire))
    }

    fn check(&self) -> Result<()> {
        self.shared.failure.lock().take().map_or(Ok(()), Err)
    }
}

impl SendingShared {
    fn take(&self, repository: &Repository, (id, content): (Id, &[u8]), is_complete: bool) {
        let sent = match is_complete {
            true => Ok(false),
            false => repository.has(id),
        };
        let sent = sent.and_then(|has| match has {
            true => Ok(()),
            false => {
                self.chunks.fetch_add(1, Ordering::AcqRel);
                repository.send(id, content)
            }
        });
        if let Err(error) = sent {
            self.has_failed.store(true, Ordering::Release);
            self.failure.lock().get_or_insert(error);
        }
    }
}

/// A chunk that is being fetched.
#[derive(Default)]
pub(super) struct Slot {
    content: Mutex<Option<Result<Arc<Vec<u8>>>>>,
    is_there: Condvar,
}

impl Slot {
    /// Waits for the content. The first caller gets the error, if there is one.
    pub(super) fn wait(&self) -> Result<Arc<Vec<u8>>> {
        let mut content = self.content.lock();
        while content.is_none() {
            self.is_there.wait(&mut content);
        }
        match &*content {
            Some(Ok(bytes)) => Ok(Arc::clone(bytes)),
            _ => content.take().unwrap_or_else(|| Ok(Arc::default())),
        }
    }
}

/// Fetches chunks.
pub(super) struct Fetching {
    queue: SyncSender<(Id, Arc<Slot>)>,
}

impl Fetching {
    /// Starts the threads. They end with the value.
    pub(super) fn start<'s, 'e>(scope: &'s Scope<'s, 'e>, repository: &'e Repository) -> Self {
        let (queue, jobs) = sync_channel::<(Id, Arc<Slot>)>(WAITING);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..WORKERS {
            let jobs = Arc::clone(&jobs);
            scope.spawn(move || {
                while let Some((id, slot)) = next(&jobs) {
                    // Nobody waits for it any more.
                    if Arc::strong_count(&slot) == 1 {
                        continue;
                    }
                    let fetched = repository.fetch(id).map(Arc::new);
                    *slot.content.lock() = Some(fetched);
                    slot.is_there.notify_all();
                }
            });
        }
        Self { queue }
    }

    /// Begins to fetch a chunk.
    pub(super) fn fetch(&self, id: Id) -> Arc<Slot> {
        let slot = Arc::new(Slot::default());
        if self.queue.send((id, Arc::clone(&slot))).is_err() {
            let (object, what) = (id.to_string(), "the threads that fetch have ended".to_owned());
            *slot.content.lock() = Some(Err(BackupError::Remote { object, what }));
        }
        slot
    }
}

/// Names that were seen.
pub(super) type Seen = HashSet<Id>;

//! Deferred work: files too large to be made during OPEN, and the sync of files that were written.
//!
//! One thread does it with the lowest priority while there are no reads, so that a walk through an
//! image or the start of a program has the processors and the disk to itself. A task that has
//! waited long enough is done in any case.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use super::{Materials, SYNCED, Source};
use crate::format::layout::Inode;
use crate::sys;

/// Limit of tasks on the way to the thread; the next OPEN requests a dropped file again.
const QUEUE: usize = 128;
/// Limit of files that wait to be made.
const MAKES_MAX: usize = 128;
/// Limit of files that wait to be synced; further files stay without the mark.
const SYNCS_MAX: usize = 4096;
/// Without a read for this long, the system counts as idle.
const QUIET: Duration = Duration::from_millis(100);
/// The time for which reads take precedence over making a file.
const MAKE_WITHIN: Duration = Duration::from_secs(10);
/// The delay before a file is synced, so that the files of one program start are synced together.
const SYNC_AFTER: Duration = Duration::from_secs(5);
/// The time for which reads take precedence over a sync. The kernel itself writes after half of it.
const SYNC_WITHIN: Duration = Duration::from_secs(60);

pub(super) enum Task {
    Make(Arc<dyn Source>, Inode),
    /// Sync a file; a file that the disk refuses is removed.
    Sync(PathBuf),
    /// Sync all waiting files and report back.
    Finish(Sender<()>),
}

/// The queue of the thread, which the first task starts.
#[derive(Default)]
pub(super) struct IdleQueue(OnceLock<Option<SyncSender<Task>>>);

impl IdleQueue {
    pub(super) fn add(&self, materials: &Arc<Materials>, task: Task) {
        let start = || {
            let (sender, receiver) = sync_channel(QUEUE);
            let materials = Arc::downgrade(materials);
            let body = move || work(&materials, &receiver);
            let thread = std::thread::Builder::new().name("materialise".to_owned());
            thread.spawn(body).ok().map(|_| sender)
        };
        let Some(queue) = self.0.get_or_init(start) else { return };
        if queue.try_send(task).is_err() {
            tracing::debug!("the queue of files to materialise is full");
        }
    }
}

/// The time for which the end of a process waits for syncs.
const FINISH_WITHIN: Duration = Duration::from_secs(20);

impl IdleQueue {
    /// Does the pending syncs and waits for them.
    pub(super) fn finish(&self) {
        let Some(Some(queue)) = self.0.get() else { return };
        let (sender, done) = channel();
        if queue.try_send(Task::Finish(sender)).is_ok()
            && let Err(error) = done.recv_timeout(FINISH_WITHIN)
        {
            tracing::debug!(%error, "materialised files are left to the next process");
        }
    }
}

/// Waiting tasks and the times at which they were added.
#[derive(Default)]
struct Waiting {
    makes: VecDeque<(Instant, Arc<dyn Source>, Inode)>,
    syncs: VecDeque<(Instant, PathBuf)>,
}

impl Waiting {
    fn push(&mut self, task: Task) {
        match task {
            Task::Make(layer, inode) if self.makes.len() < MAKES_MAX => {
                let same = |(_, other, known): &(Instant, Arc<dyn Source>, Inode)| {
                    other.number() == layer.number() && known.digest == inode.digest
                };
                if !self.makes.iter().any(same) {
                    self.makes.push_back((Instant::now(), layer, inode));
                }
            }
            Task::Sync(path) if self.syncs.len() < SYNCS_MAX => {
                self.syncs.push_back((Instant::now(), path));
            }
            Task::Make(..) | Task::Sync(_) => {}
            Task::Finish(done) => {
                for (_, path) in self.syncs.drain(..) {
                    settle(&path);
                }
                if done.send(()).is_err() {
                    tracing::debug!("no thread waited for the sync of materialised files");
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.makes.is_empty() && self.syncs.is_empty()
    }

    /// Takes the next task that is due.
    fn take(&mut self, quiet: bool) -> Option<Task> {
        let due = |since: &Instant, least, most| {
            let age = since.elapsed();
            age >= most || (quiet && age >= least)
        };
        if self.makes.front().is_some_and(|(since, ..)| due(since, Duration::ZERO, MAKE_WITHIN)) {
            return self.makes.pop_front().map(|(_, layer, inode)| Task::Make(layer, inode));
        }
        if self.syncs.front().is_some_and(|(since, _)| due(since, SYNC_AFTER, SYNC_WITHIN)) {
            return self.syncs.pop_front().map(|(_, path)| Task::Sync(path));
        }
        None
    }
}

fn work(materials: &Weak<Materials>, tasks: &Receiver<Task>) {
    if let Err(error) = sys::process::yield_to_others() {
        tracing::debug!(%error, "files are materialised with the priority of the rest");
    }
    let mut waiting = Waiting::default();
    let (mut reads, mut looked) = (0, Instant::now());
    loop {
        let task = if waiting.is_empty() {
            tasks.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            tasks.recv_timeout(QUIET.saturating_sub(looked.elapsed()))
        };
        match task {
            Ok(task) => waiting.push(task),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if looked.elapsed() < QUIET {
            continue;
        }
        let Some(materials) = materials.upgrade() else { return };
        let now = materials.cache.requests();
        let quiet = std::mem::replace(&mut reads, now) == now;
        looked = Instant::now();
        while let Some(task) = waiting.take(quiet) {
            materials.run(task);
            // Readers that arrived in the meantime take precedence over the next task.
            if materials.cache.requests() != reads {
                break;
            }
        }
    }
}

impl Materials {
    fn run(self: &Arc<Self>, task: Task) {
        match task {
            Task::Make(layer, inode) => {
                let digest = layer.digest(&inode);
                let size = inode.size.get();
                if digest.and_then(|digest| self.find(digest, size, u64::MAX)).is_none() {
                    drop(self.make(&layer, &inode, None));
                }
            }
            Task::Sync(path) => settle(&path),
            Task::Finish(_) => {}
        }
    }
}

/// Syncs a file and marks it as synced; removes it if the sync fails.
pub(super) fn settle(path: &Path) {
    let sync = || -> io::Result<()> {
        let file = File::open(path)?;
        file.sync_data()?;
        file.set_permissions(fs::Permissions::from_mode(SYNCED))
    };
    match sync() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "a materialised file is lost");
            drop(fs::remove_file(path));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(age: Duration) -> Instant {
        Instant::now().checked_sub(age).unwrap()
    }

    #[test]
    fn readers_come_first_but_not_for_ever() {
        let mut waiting = Waiting::default();
        waiting.push(Task::Sync(PathBuf::from("a")));
        assert!(waiting.take(true).is_none(), "too soon");
        waiting.syncs[0].0 = since(SYNC_AFTER);
        assert!(waiting.take(false).is_none(), "somebody reads");
        assert!(matches!(waiting.take(true), Some(Task::Sync(_))));
        waiting.syncs.push_back((since(SYNC_WITHIN), PathBuf::from("b")));
        assert!(matches!(waiting.take(false), Some(Task::Sync(_))));
        assert!(waiting.is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut waiting = Waiting::default();
        for _ in 0..SYNCS_MAX + 10 {
            waiting.push(Task::Sync(PathBuf::from("a")));
        }
        assert_eq!(waiting.syncs.len(), SYNCS_MAX);
    }
}

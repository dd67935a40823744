//! Leases: a backup and a prune never work at the same time.
//!
//! Both write their lease first and list the leases then, so of two at least one sees the other,
//! and that one withdraws. A lease that was not renewed for 30 minutes, by the clock of the server,
//! is that of a process that ended; a prune removes it. A process whose lease is gone ends without
//! a manifest.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::error::{BackupError, Result};
use super::repository::{LEASES, Repository, random_digits};

/// A lease that was not renewed for this long has ended.
const LIFE: Duration = Duration::from_secs(30 * 60);
const RENEWAL: Duration = Duration::from_secs(4 * 60);

/// What a lease is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Backup,
    Prune,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Prune => "prune",
        }
    }

    /// Whether a lease of another process forbids this one.
    fn excludes(self, other: &str) -> bool {
        self == Self::Prune || other == Self::Prune.name()
    }
}

/// A lease. It is renewed by a thread and withdrawn at the end.
pub(super) struct Lease {
    repository: Arc<Repository>,
    name: String,
    renewed: Arc<Mutex<SystemTime>>,
    ending: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The time of the server when the lease began.
    pub(super) began: i64,
}

impl Lease {
    /// Takes a lease.
    pub(super) fn take(repository: &Arc<Repository>, purpose: Purpose) -> Result<Self> {
        let name = format!("{LEASES}/{}-{}", purpose.name(), random_digits(16)?);
        repository.leases.lock().push(name.clone());
        repository.remote.put(&name, b"{}".to_vec())?;
        let lost = || BackupError::LeaseLost { url: repository.url().to_owned() };
        let now = repository.remote.modified(&name)?.ok_or_else(lost)?;
        let renewed = Arc::new(Mutex::new(SystemTime::now()));
        let repository = Arc::clone(repository);
        let mut lease = Self { repository, name, renewed, ending: None, thread: None, began: now };
        lease.refuse_others(purpose)?;
        lease.start()?;
        Ok(lease)
    }

    fn refuse_others(&self, purpose: Purpose) -> Result<()> {
        let (mut busy, mut ended) = (None, Vec::new());
        let life = i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX);
        self.repository.remote.list(LEASES, &mut |found| {
            let name = format!("{LEASES}/{}", found.name);
            let left = found.modified + life - self.began;
            let other = found.name.split('-').next().unwrap_or_default();
            if name == self.name {
            } else if left <= 0 {
                ended.push(name);
            } else if purpose.excludes(other) {
                busy = Some(format!(
                    "a {other} (if it was killed, for {} more minutes)",
                    left / 60 + 1
                ));
            }
            Ok(true)
        })?;
        if let Some(by) = busy {
            return Err(BackupError::Busy { url: self.repository.url().to_owned(), by });
        }
        if purpose == Purpose::Prune {
            // Their processes find them gone, and write no manifest.
            ended.iter().try_for_each(|name| self.repository.remote.remove(name))?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let (ending, ended) = channel();
        let (repository, name) = (Arc::clone(&self.repository), self.name.clone());
        let renewed = Arc::clone(&self.renewed);
        let renew = move || {
            while ended.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
                let now = SystemTime::now();
                let is_there = repository.remote.modified(&name);
                match is_there {
                    Ok(Some(_)) => {}
                    // Another process removed it: it is not taken again.
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(%error, "a lease is not renewed");
                        continue;
                    }
                }
                match repository.remote.put(&name, b"{}".to_vec()) {
                    Ok(()) => *renewed.lock() = now,
                    Err(error) => tracing::warn!(%error, "a lease is not renewed"),
                }
            }
        };
        let thread = std::thread::Builder::new().name("lease".to_owned()).spawn(renew);
        let thread = thread.map_err(|error| BackupError::Remote {
            object: self.name.clone(),
            what: format!("no thread to renew it: {error}"),
        })?;
        (self.ending, self.thread) = (Some(ending), Some(thread));
        Ok(())
    }

    /// Refuses to go on after the lease was lost.
    pub(super) fn check(&self) -> Result<()> {
        let lost = || BackupError::LeaseLost { url: self.repository.url().to_owned() };
        let age = SystemTime::now().duration_since(*self.renewed.lock());
        // The clock of the host may have been set back.
        if age.is_ok_and(|age| age > LIFE / 2) {
            return Err(lost());
        }
        self.repository.remote.modified(&self.name)?.map(drop).ok_or_else(lost)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.ending.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        if let Err(error) = self.repository.remote.remove(&self.name) {
            tracing::warn!(%error, "a lease stays until it ends by itself");
        }
        self.repository.leases.lock().retain(|name| *name != self.name);
    }
}

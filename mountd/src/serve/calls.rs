//! Blocking calls of front ends, in lanes.
//!
//! A call runs on a thread of its own. Calls of one lane run one by one, in their order; a lane is
//! a volume with a kind of call. A call takes a thread only when its turn has come, so that a
//! volume that hangs holds one thread for each kind, and calls for other volumes pass it.
//!
//! A client waits for a limited time and then receives an error. A call that runs goes on. One that
//! is still waiting is dropped with its client, unless it has to happen ([`Order::must_run`]): a
//! removal that was reported as failed must not happen later.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use laminafs::types::VolumeName;
use tokio::sync::{Semaphore, oneshot};

/// Calls that read records and run at the same time.
const READS: usize = 64;
/// Measurements of used space that run at the same time.
const MEASURES: usize = 4;

/// What a call does with a volume. Each kind has threads of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Changes the volume or its mount.
    Change,
    /// Reads its record.
    Read,
    /// Measures its used space.
    Measure,
}

/// The lane of a call. No volume stands for all of them.
pub type LaneName = (Kind, Option<VolumeName>);

/// Why a call has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It goes on, or waits for another one.
    #[error("not done within {} s", .0.as_secs())]
    Late(Duration),
    /// Too many calls wait.
    #[error("{0} calls wait for it already")]
    Full(usize),
    /// It panicked, or the daemon ends.
    #[error("the call was interrupted")]
    Interrupted,
}

/// How a call is run.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its lane.
    pub lane: LaneName,
    /// How long the client waits.
    pub limit: Duration,
    /// Whether it runs though its client is gone before its turn.
    pub must_run: bool,
}

#[derive(Debug, Default)]
struct Lane {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Calls that wait or run.
    entered: AtomicUsize,
    /// When the running call started.
    since: Mutex<Option<Instant>>,
}

/// What runs and waits at this time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls that run.
    pub running: usize,
    /// Calls that wait for their turn.
    pub waiting: usize,
    /// The time since the start of the oldest running call.
    pub oldest: Duration,
}

/// The lanes, and the limits of all of them together.
#[derive(Debug)]
pub struct Calls {
    lanes: Mutex<HashMap<LaneName, Arc<Lane>>>,
    changes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    measures: Arc<Semaphore>,
    waiting_max: usize,
}

/// A place in a lane. The lane is dropped with its last call.
#[derive(Debug)]
struct Place {
    calls: Arc<Calls>,
    name: LaneName,
    lane: Arc<Lane>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lanes = lock(&self.calls.lanes);
        if self.lane.entered.fetch_sub(1, Ordering::Relaxed) == 1 {
            lanes.remove(&self.name);
        }
    }
}

/// A panic in a call poisons nothing: what these locks protect is whole after each statement.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    /// Lanes with limits for the calls that change volumes, and for those that wait in one lane.
    #[must_use]
    pub fn new(changes: usize, waiting_max: usize) -> Arc<Self> {
        Arc::new(Self {
            lanes: Mutex::default(),
            changes: Arc::new(Semaphore::new(changes)),
            reads: Arc::new(Semaphore::new(READS)),
            measures: Arc::new(Semaphore::new(MEASURES)),
            waiting_max,
        })
    }

    /// The threads that calls may take.
    #[must_use]
    pub const fn threads(changes: usize) -> usize {
        changes + READS + MEASURES
    }

    /// What runs and waits.
    #[must_use]
    pub fn load(&self) -> Load {
        let mut load = Load::default();
        for lane in lock(&self.lanes).values() {
            let since = *lock(&lane.since);
            let entered = lane.entered.load(Ordering::Relaxed);
            load.running += usize::from(since.is_some());
            load.waiting += entered.saturating_sub(usize::from(since.is_some()));
            load.oldest = load.oldest.max(since.map_or(Duration::ZERO, |since| since.elapsed()));
        }
        load
    }

    /// Whether a call of a lane waits or runs.
    #[must_use]
    pub fn is_busy(&self, name: &LaneName) -> bool {
        lock(&self.lanes).contains_key(name)
    }

    fn enter(self: &Arc<Self>, name: LaneName) -> Result<Place, CallError> {
        let mut lanes = lock(&self.lanes);
        let lane = Arc::clone(lanes.entry(name.clone()).or_default());
        let entered = lane.entered.load(Ordering::Relaxed);
        if entered > self.waiting_max {
            return Err(CallError::Full(entered - 1));
        }
        lane.entered.fetch_add(1, Ordering::Relaxed);
        Ok(Place { calls: Arc::clone(self), name, lane })
    }

    /// Runs a call and waits for its result. `unclaimed` receives a result that nobody waits for.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        order: Order,
        work: impl FnOnce() -> T + Send + 'static,
        unclaimed: impl FnOnce(T) + Send + 'static,
    ) -> Result<T, CallError> {
        let (mut give, take) = oneshot::channel();
        let place = self.enter(order.lane)?;
        let must_run = order.must_run;
        tokio::spawn(async move {
            let turn = place.turn();
            // A client that is gone comes first.
            let permit = tokio::select! {
                biased;
                () = give.closed(), if !must_run => return,
                permit = turn => permit,
            };
            let lane = Arc::clone(&place.lane);
            let done = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                *lock(&lane.since) = Some(Instant::now());
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                *lock(&lane.since) = None;
                done
            });
            match done.await {
                Ok(Ok(done)) => {
                    drop(place);
                    if let Err(done) = give.send(done) {
                        unclaimed(done);
                    }
                }
                Ok(Err(_)) | Err(_) => tracing::error!("a call on a volume panicked"),
            }
        });
        match tokio::time::timeout(order.limit, take).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(CallError::Interrupted),
            Err(_) => Err(CallError::Late(order.limit)),
        }
    }
}

/// The right to run: the turn of the lane, and a thread.
type Permit = (tokio::sync::OwnedMutexGuard<()>, Option<tokio::sync::OwnedSemaphorePermit>);

impl Place {
    /// Waits for the turn first: a call that waits for its volume keeps no thread from others.
    fn turn(&self) -> impl Future<Output = Permit> + Send + use<> {
        let turn = Arc::clone(&self.lane.turn);
        let threads = Arc::clone(match self.name.0 {
            Kind::Change => &self.calls.changes,
            Kind::Read => &self.calls.reads,
            Kind::Measure => &self.calls.measures,
        });
        async move {
            let turn = turn.lock_owned().await;
            // It is never closed.
            (turn, threads.acquire_owned().await.ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn order(kind: Kind, name: &str, limit_ms: u64) -> Order {
        let lane = (kind, Some(name.parse().unwrap()));
        Order { lane, limit: Duration::from_millis(limit_ms), must_run: false }
    }

    fn no_rest<T>(_: T) {}

    /// Holds a lane until the sender is dropped.
    async fn hang(calls: &Arc<Calls>, name: &str) -> mpsc::Sender<()> {
        let (release, wait) = mpsc::channel::<()>();
        let late = calls.run(order(Kind::Change, name, 20), move || wait.recv().is_err(), no_rest);
        assert_eq!(late.await, Err(CallError::Late(Duration::from_millis(20))));
        release
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_volume_that_hangs_delays_no_other() {
        let calls = Calls::new(2, 8);
        let release = hang(&calls, "a").await;
        // Those that wait for it take no thread.
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let calls = Arc::clone(&calls);
                tokio::spawn(async move {
                    calls.run(order(Kind::Change, "a", 5000), || 1, no_rest).await
                })
            })
            .collect();
        for number in 0..20 {
            let done = calls.run(order(Kind::Change, "b", 1000), move || number, no_rest).await;
            assert_eq!(done, Ok(number));
        }
        assert_eq!(calls.run(order(Kind::Read, "a", 1000), || 7, no_rest).await, Ok(7));
        let load = calls.load();
        assert_eq!((load.running, load.waiting), (1, 4));
        drop(release);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok(1));
        }
        assert!(calls.lanes.lock().unwrap().is_empty(), "a lane goes with its last call");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_late_call_goes_on_and_one_that_waits_goes_with_its_client() {
        let calls = Calls::new(4, 8);
        let (release, wait) = mpsc::channel::<()>();
        let (rest, unclaimed) = mpsc::channel();
        let work = move || wait.recv().is_err();
        let late = calls.run(order(Kind::Change, "a", 20), work, move |done| {
            rest.send(done).unwrap();
        });
        assert!(late.await.is_err());
        let (ran, runs) = mpsc::channel();
        for must_run in [false, true] {
            let ran = ran.clone();
            let order = Order { must_run, ..order(Kind::Change, "a", 20) };
            let late = calls.run(order, move || ran.send(must_run).unwrap(), no_rest).await;
            assert!(matches!(late, Err(CallError::Late(_))));
        }
        drop((release, ran));
        assert!(unclaimed.recv().unwrap());
        assert_eq!(runs.iter().collect::<Vec<_>>(), [true]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_lane_refuses_and_a_panic_ends_one_call() {
        let calls = Calls::new(4, 1);
        let release = hang(&calls, "a").await;
        let second = {
            let calls = Arc::clone(&calls);
            tokio::spawn(async move {
                calls.run(order(Kind::Change, "a", 5000), || panic!("a test"), no_rest::<()>).await
            })
        };
        while calls.load().waiting == 0 {
            tokio::task::yield_now().await;
        }
        let third = calls.run(order(Kind::Change, "a", 5000), || 1, no_rest).await;
        assert_eq!(third, Err(CallError::Full(1)));
        drop(release);
        assert_eq!(second.await.unwrap(), Err(CallError::Interrupted));
        assert_eq!(calls.run(order(Kind::Change, "a", 5000), || 1, no_rest).await, Ok(1));
    }
}

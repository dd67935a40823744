//! Decides which thread reads `/dev/fuse`.
//!
//! The kernel wakes the reader that waits longest, most often on another processor, which costs
//! several times a whole request. So one thread, the *leader*, reads and serves; the others are
//! parked. A thread stops being the leader in one of two ways: it hands over before a request that
//! is known to be long, or the watch thread takes its place when one request has kept it for longer
//! than `PATIENCE`. A thread that lost the place finishes its request and parks.
//!
//! Invariants: at most one thread is leader, and only the leader reads. `state` is odd while the
//! leader serves and even while it reads; it only grows, so a place that was lost is never
//! mistaken for one that is held. The watch sleeps while no request comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use crate::fuse::counters::Counters;

/// How long a request may keep the others waiting.
const PATIENCE: Duration = Duration::from_millis(1);

/// The number of looks without a request after which the watch goes to sleep.
const QUIET_LOOKS: u32 = 20;

/// A worker thread that can be woken.
#[derive(Debug)]
pub struct WorkerThread {
    thread: Thread,
    called: AtomicBool,
}

impl WorkerThread {
    /// The calling thread.
    pub fn here() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), called: AtomicBool::new(false) })
    }

    fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// The place of the leader.
#[derive(Debug)]
pub struct Turn {
    state: AtomicU64,
    watch_sleeps: AtomicBool,
    ended: AtomicBool,
    waiting: Mutex<Waiting>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Waiting {
    /// Whether the place is free: no worker has come yet.
    vacant: bool,
    /// Parked workers; the last one is woken first, since its caches are warmest.
    parked: Vec<Arc<WorkerThread>>,
    watch: Option<Thread>,
}

/// A request that the leader is serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving(u64);

impl Turn {
    /// A place that the first worker takes.
    pub fn new(counters: Arc<Counters>) -> Self {
        Self {
            state: AtomicU64::new(0),
            watch_sleeps: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            waiting: Mutex::new(Waiting { vacant: true, parked: Vec::new(), watch: None }),
            counters,
        }
    }

    /// Parks until the calling thread is leader. Returns false when the session has ended.
    pub fn wait(&self, worker: &Arc<WorkerThread>) -> bool {
        {
            let mut waiting = self.waiting.lock();
            if self.ended.load(Ordering::Acquire) {
                return false;
            }
            if std::mem::take(&mut waiting.vacant) {
                return true;
            }
            waiting.parked.push(Arc::clone(worker));
        }
        while !worker.called.swap(false, Ordering::Acquire) {
            thread::park();
        }
        !self.ended.load(Ordering::Acquire)
    }

    /// Notes that the leader begins to serve a request.
    pub fn begin(&self) -> Serving {
        let now = self.state.load(Ordering::Relaxed) + 1;
        // As the watch orders its own operations the same way, one of the two sees the other's.
        self.state.store(now, Ordering::SeqCst);
        if self.watch_sleeps.load(Ordering::SeqCst)
            && self.watch_sleeps.swap(false, Ordering::SeqCst)
            && let Some(watch) = &self.waiting.lock().watch
        {
            watch.unpark();
        }
        Serving(now)
    }

    /// Notes that the request is served; returns whether the thread is still leader.
    pub fn finish(&self, serving: Serving) -> bool {
        let Serving(now) = serving;
        self.state.compare_exchange(now, now + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Passes the place to a parked thread while the request is served; without one, keeps it.
    pub fn hand_over(&self, serving: Serving) {
        if self.pass_on(serving) {
            self.counters.handover();
        }
    }

    /// Whether the place went to another thread just now.
    fn pass_on(&self, Serving(now): Serving) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.parked.is_empty() || !self.finish(Serving(now)) {
            return false;
        }
        match waiting.parked.pop() {
            Some(worker) => {
                worker.call();
                true
            }
            None => false,
        }
    }

    /// Ends the session: every parked thread returns from [`Turn::wait`] with false.
    pub fn end(&self) {
        let mut waiting = self.waiting.lock();
        self.ended.store(true, Ordering::Release);
        for worker in waiting.parked.drain(..) {
            worker.call();
        }
        if let Some(watch) = &waiting.watch {
            watch.unpark();
        }
    }

    /// Takes the place from a leader that serves one request for too long. Runs on a thread of its
    /// own until the session ends.
    pub fn watch(&self) {
        self.waiting.lock().watch = Some(thread::current());
        let mut seen = self.state.load(Ordering::SeqCst);
        let mut quiet = 0;
        while !self.ended.load(Ordering::Acquire) {
            thread::park_timeout(PATIENCE);
            let now = self.state.load(Ordering::SeqCst);
            if now != seen {
                (seen, quiet) = (now, 0);
            } else if now % 2 == 1 {
                if self.pass_on(Serving(now)) {
                    self.counters.takeover();
                }
            } else {
                quiet += 1;
                if quiet >= QUIET_LOOKS {
                    self.sleep(now);
                    quiet = 0;
                }
            }
        }
    }

    /// Parks the watch until the state is no longer `seen`.
    fn sleep(&self, seen: u64) {
        self.watch_sleeps.store(true, Ordering::SeqCst);
        while self.watch_sleeps.load(Ordering::SeqCst)
            && self.state.load(Ordering::SeqCst) == seen
            && !self.ended.load(Ordering::Acquire)
        {
            thread::park();
        }
        self.watch_sleeps.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    fn turn() -> Arc<Turn> {
        Arc::new(Turn::new(Arc::new(Counters::default())))
    }

    /// A worker that reports when it became leader and ends the session.
    fn follower(turn: &Arc<Turn>, sender: mpsc::Sender<bool>) -> thread::JoinHandle<()> {
        let turn = Arc::clone(turn);
        thread::spawn(move || sender.send(turn.wait(&WorkerThread::here())).unwrap())
    }

    fn wait_for_parked(turn: &Turn) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while turn.waiting.lock().parked.is_empty() {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
    }

    #[test]
    fn the_leader_keeps_its_place_over_short_requests() {
        let turn = turn();
        assert!(turn.wait(&WorkerThread::here()));
        for _ in 0..3 {
            let serving = turn.begin();
            assert!(turn.finish(serving));
        }
    }

    #[test]
    fn without_a_parked_thread_the_place_is_kept() {
        let turn = turn();
        assert!(turn.wait(&WorkerThread::here()));
        let serving = turn.begin();
        turn.hand_over(serving);
        assert!(turn.finish(serving));
        assert_eq!(turn.counters.values().handovers, 0);
    }

    #[test]
    fn a_place_that_was_handed_over_is_lost() {
        let turn = turn();
        assert!(turn.wait(&WorkerThread::here()));
        let (sender, receiver) = mpsc::channel();
        let other = follower(&turn, sender);
        wait_for_parked(&turn);
        let serving = turn.begin();
        turn.hand_over(serving);
        assert!(receiver.recv_timeout(Duration::from_secs(10)).unwrap());
        assert!(!turn.finish(serving));
        assert_eq!(turn.counters.values().handovers, 1);
        other.join().unwrap();
    }

    #[test]
    fn the_watch_takes_the_place_of_a_stuck_leader() {
        let turn = turn();
        assert!(turn.wait(&WorkerThread::here()));
        let (sender, receiver) = mpsc::channel();
        let other = follower(&turn, sender);
        let watch = {
            let turn = Arc::clone(&turn);
            thread::spawn(move || turn.watch())
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !turn.watch_sleeps.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        let serving = turn.begin();
        assert!(receiver.recv_timeout(Duration::from_secs(10)).unwrap());
        assert!(!turn.finish(serving));
        turn.end();
        // The watch counts after it has woken the worker.
        watch.join().unwrap();
        assert_eq!(turn.counters.values().takeovers, 1);
        other.join().unwrap();
    }

    #[test]
    fn the_end_calls_everyone() {
        let turn = turn();
        assert!(turn.wait(&WorkerThread::here()));
        let (sender, receiver) = mpsc::channel();
        let other = follower(&turn, sender);
        wait_for_parked(&turn);
        turn.end();
        assert!(!receiver.recv_timeout(Duration::from_secs(10)).unwrap());
        assert!(!turn.wait(&WorkerThread::here()));
        other.join().unwrap();
    }
}

//! Orders to drivers: each runs on a thread of its own, one for a volume at a time.
//!
//! An order that ended well is remembered until the decision that it belongs to comes again and
//! goes on behind it. One that failed waits longer each time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use laminafs::claim::Action;
use laminafs::claim::failure::Failure;
use laminafs::claim::object::Key;

use super::Signal;
use super::driver::Drivers;

/// Orders at the same time.
pub(super) const RUNNING_MAX: usize = 64;
/// The first wait after a failure; each further one doubles it.
const WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// How an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It can be carried out, or is.
    Ready,
    /// It runs, or another one of its volume does, or it waits until a time.
    Wait(Option<Instant>),
}

/// An order that ended.
#[derive(Debug)]
pub(super) struct Done {
    /// What the decision was about.
    pub(super) key: Key,
    /// The order.
    pub(super) order: Action,
    /// The actions behind it.
    pub(super) rest: Vec<Action>,
    /// Its result.
    pub(super) result: Result<(), Failure>,
}

#[derive(Debug)]
struct Backoff {
    count: u32,
    until: Instant,
}

/// The orders of this host.
pub(super) struct Orders {
    pub(super) drivers: Arc<Drivers>,
    sender: Sender<Signal>,
    running: HashSet<String>,
    finished: HashMap<Key, Action>,
    backoffs: HashMap<String, Backoff>,
    blocked: Vec<Key>,
}

/// Whether an action is an order.
pub(super) fn is_order(action: &Action) -> bool {
    subject(action).is_some()
}

/// The volume or the content that an order is about. A content is told from a volume of its name.
fn subject(action: &Action) -> Option<String> {
    match action {
        Action::Provision(order) => Some(order.volume.meta.name.clone()),
        Action::DeleteBacking { volume }
        | Action::Recycle { volume }
        | Action::Expand { volume, .. }
        | Action::Modify { volume, .. }
        | Action::StandIn { volume } => Some(volume.clone()),
        Action::TakeSnapshot { content, .. }
        | Action::FindSnapshot { content, .. }
        | Action::DeleteSnapshot { content, .. } => Some(format!("content/{content}")),
        _ => None,
    }
}

impl Orders {
    pub(super) fn new(drivers: Arc<Drivers>, sender: Sender<Signal>) -> Self {
        Self {
            drivers,
            sender,
            running: HashSet::new(),
            finished: HashMap::new(),
            backoffs: HashMap::new(),
            blocked: Vec::new(),
        }
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// How an order stands.
    pub(super) fn standing(&self, order: &Action, now: Instant) -> Standing {
        let Some(name) = subject(order) else { return Standing::Ready };
        if self.running.contains(&name) {
            return Standing::Wait(None);
        }
        match self.backoffs.get(&name) {
            Some(backoff) if backoff.until > now => Standing::Wait(Some(backoff.until)),
            _ => Standing::Ready,
        }
    }

    /// The order of a key that has ended well since the last decision about the key.
    pub(super) fn take_finished(&mut self, key: &Key) -> Option<Action> {
        self.finished.remove(key)
    }

    /// Carries out an order, whose result is sent. A time where it could not be started.
    pub(super) fn start(&mut self, key: &Key, order: Action, rest: Vec<Action>) -> Option<Instant> {
        let name = subject(&order)?;
        if self.running.len() >= RUNNING_MAX {
            self.blocked.push(key.clone());
            return None;
        }
        let (drivers, sender, key) = (Arc::clone(&self.drivers), self.sender.clone(), key.clone());
        let thread = std::thread::Builder::new().name("kube-order".to_owned());
        let started = thread.spawn(move || {
            let result = drivers.carry_out(&order);
            // Nobody receives it if the daemon ends: the order comes again after the next start.
            drop(sender.send(Signal::Done(Box::new(Done { key, order, rest, result }))));
        });
        match started {
            Ok(_) => {
                self.running.insert(name);
                None
            }
            Err(error) => {
                tracing::error!("starting a thread: {error}");
                Some(self.back_off(&name))
            }
        }
    }

    /// Notes that an order ended well.
    pub(super) fn succeeded(&mut self, key: &Key, order: &Action) {
        if let Some(name) = subject(order) {
            self.running.remove(&name);
            self.backoffs.remove(&name);
            self.finished.insert(key.clone(), order.clone());
        }
    }

    /// Notes that an order failed. When it is tried again.
    pub(super) fn failed(&mut self, order: &Action) -> Instant {
        match subject(order) {
            Some(name) => {
                self.running.remove(&name);
                self.back_off(&name)
            }
            None => Instant::now(),
        }
    }

    fn back_off(&mut self, name: &str) -> Instant {
        let count = self.backoffs.get(name).map_or(0, |backoff| backoff.count);
        let wait = WAIT.saturating_mul(1 << count.min(16)).min(WAIT_MAX);
        let until = Instant::now() + wait;
        self.backoffs.insert(name.to_owned(), Backoff { count: count + 1, until });
        until
    }

    /// The keys whose orders found no free thread.
    pub(super) fn take_blocked(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.blocked)
    }
}

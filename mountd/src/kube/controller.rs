//! The controller: it carries out what [`laminafs::claim`] decides.
//!
//! One thread keeps all objects in memory, fed by the changes of the store, and a queue of keys.
//! For each key it asks for a decision and carries the actions out, one write after the other; a
//! write that finds another version of its object than the decision saw ends the turn, and the key
//! is decided anew. Orders to drivers run on threads of their own ([`orders`]).
//!
//! Of several daemons on one data root, one has the controller, by a lock that ends with it. Where
//! there is none, a command that changes objects carries out what is due before it ends ([`Turn`]).
//!
//! Nothing but events and backoffs lives here alone: a process that is killed between any two
//! writes goes on with the decisions of the next one.
//!
//! | file | its part |
//! | --- | --- |
//! | `mirror` | the objects in memory |
//! | `carry` | carrying out an action |
//! | `events` | events: counted, and gone after an hour |
//! | `lead`, `settle` | which process has the controller; the controller of a command |
//! | `orders` | orders under way, finished, and failed |
//! | `driver`, `snapshot`, `mapping` | what an order is to the volumes of this host |
//! | `csi` | what it is to the CSI driver |

mod carry;
mod csi;
mod driver;
mod events;
mod lead;
mod mapping;
mod mirror;
mod orders;
mod settle;
mod snapshot;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use laminafs::claim::object::{Key, PodPhase};
use laminafs::claim::{Action, decide, failure, touched};
use laminafs::service::volumes::VolumeService;
use tokio::sync::watch;

use self::carry::Next;
use self::driver::Drivers;
use self::events::Events;
use self::lead::{Leader, take};
use self::mirror::Mirror;
use self::orders::{Done, Orders, Standing};
use super::objects::{DeleteOptions, Store};
use super::pods::{self, manage::Manager};
use super::status::{Answer, Failure};

pub use self::mapping::Map;
pub use self::settle::Turn;

/// Between two looks for events in memory that are too old.
const FORGET: Duration = Duration::from_secs(60);
/// The first pause after a write that failed; each further one doubles it.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Between two tries to be the only controller.
const LEAD: Duration = Duration::from_secs(1);
/// How long the end waits for orders that are under way.
const LAST: Duration = Duration::from_secs(10);
/// Keys that are decided between two looks for changes.
const TURN: usize = 64;

/// What the controller waits for.
#[derive(Debug)]
enum Signal {
    /// The store changed.
    Changed,
    /// An order ended.
    Done(Box<Done>),
    /// The daemon ends.
    End,
}

/// What a controller needs.
pub struct Setup {
    /// A file that the one controller of a data root locks.
    pub lock: PathBuf,
    /// The objects.
    pub store: Arc<Store>,
    /// The volumes.
    pub volumes: Arc<VolumeService>,
    /// The name of this node.
    pub node: String,
    /// Provisioners that drivers of this host stand in for.
    pub map: Map,
    /// The pods of this node, for a daemon.
    pub pods: Option<Manager>,
    /// The socket of the CSI driver, if this daemon serves one for controllers.
    pub csi: Option<PathBuf>,
}

/// The controller.
pub struct Controller {
    lock: PathBuf,
    root: PathBuf,
    pods: Option<Manager>,
    store: Arc<Store>,
    mirror: Mirror,
    events: Events,
    orders: Orders,
    queue: VecDeque<Key>,
    queued: HashSet<Key>,
    /// Whether what waits for a volume, class or node may find one now.
    has_news: bool,
    /// When keys are decided again.
    timers: BTreeMap<(Instant, u64), Key>,
    timer_count: u64,
    /// Writes that failed in a row.
    failed: HashMap<Key, u32>,
    /// The last version of the store that was looked at.
    seen: u64,
    forgot: Instant,
    signals: Receiver<Signal>,
    sender: Sender<Signal>,
}

impl Controller {
    /// Reads all objects.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub fn new(setup: Setup) -> Answer<Self> {
        let Setup { lock, store, volumes, node, map, pods, csi: socket } = setup;
        let root = volumes.root().to_owned();
        let (sender, signals) = channel();
        let seen = store.version()?;
        let mut mirror = Mirror::load(&store)?;
        mirror.objects.host.serves = map.served();
        mirror.objects.host.sources = map.sources();
        mirror.objects.host.node.clone_from(&node);
        let events = Events::load(&store, &node)?;
        let csi = csi::client(socket, &volumes, &node)?;
        let drivers = Arc::new(Drivers { volumes, store: Arc::clone(&store), map, node, csi });
        let orders = Orders::new(drivers, sender.clone());
        let mut controller = Self {
            lock,
            root,
            pods,
            store,
            mirror,
            events,
            orders,
            queue: VecDeque::new(),
            queued: HashSet::new(),
            has_news: false,
            timers: BTreeMap::new(),
            timer_count: 0,
            failed: HashMap::new(),
            seen,
            forgot: Instant::now(),
            signals,
            sender,
        };
        controller.enqueue(controller.mirror.objects.keys());
        Ok(controller)
    }

    /// Forwards the changes of the store and the end of the daemon to the controller.
    pub fn follow(&self, mut ending: watch::Receiver<bool>) -> impl Future<Output = ()> + use<> {
        let mut versions = self.store.subscribe();
        let sender = self.sender.clone();
        async move {
            loop {
                let (signal, is_last) = tokio::select! {
                    changed = versions.changed() => (Signal::Changed, changed.is_err()),
                    _ = ending.wait_for(|ending| *ending) => (Signal::End, true),
                };
                if sender.send(signal).is_err() || is_last {
                    return;
                }
            }
        }
    }

    /// Waits until no other daemon has the controller of this data root. `None` if this one ends.
    fn lead(&mut self) -> Option<File> {
        loop {
            match take(&self.lock, Leader::Daemon) {
                Ok(Ok(file)) => return Some(file),
                Ok(Err(_)) => {}
                Err(error) => tracing::error!("{}: {error}", self.lock.display()),
            }
            let deadline = Instant::now() + LEAD;
            while let Ok(signal) =
                self.signals.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                if matches!(signal, Signal::End) {
                    return None;
                }
            }
        }
    }

    /// Decides and carries out until the daemon ends.
    pub fn run(mut self) {
        let Some(_lock) = self.lead() else { return };
        if let Err(failure) = self.reload() {
            tracing::error!("reading the objects: {failure}");
        }
        drop(self.orders.drivers.remove_orphans(&self.mirror.objects));
        let _managing = self.manage();
        loop {
            if let Err(failure) = self.look() {
                tracing::error!("reading changes: {failure}");
            }
            self.turn();
            let is_idle = self.queue.is_empty() && !self.has_news;
            let wait = if is_idle { self.patience() } else { Duration::ZERO };
            match self.signals.recv_timeout(wait) {
                Ok(signal) => {
                    if !self.receive(signal) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.ring();
        }
        self.end();
    }

    /// Starts the thread that manages the pods of this node. It ends when the result is dropped.
    fn manage(&mut self) -> Option<Sender<()>> {
        let manager = self.pods.take()?;
        let (held, ends) = channel();
        let thread = std::thread::Builder::new().name("kube-pods".to_owned());
        match thread.spawn(move || manager.run(&ends)) {
            Ok(_) => Some(held),
            Err(error) => {
                tracing::error!("starting a thread: {error}");
                None
            }
        }
    }

    /// Takes a signal, and those behind it. Whether to go on.
    fn receive(&mut self, signal: Signal) -> bool {
        let mut next = Some(signal);
        while let Some(signal) = next {
            match signal {
                Signal::Changed => {}
                Signal::Done(done) => self.finish(*done),
                Signal::End => return false,
            }
            next = self.signals.try_recv().ok();
        }
        true
    }

    /// Waits for the orders that are under way.
    fn end(&mut self) {
        let deadline = Instant::now() + LAST;
        while self.orders.running() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.signals.recv_timeout(left) {
                Ok(Signal::Done(done)) => self.finish(*done),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        if self.orders.running() > 0 {
            tracing::warn!("{} orders to volume drivers are left", self.orders.running());
        }
    }

    /// How long there is nothing to do but wait.
    fn patience(&self) -> Duration {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        let next = timer.into_iter().chain([self.forgot + FORGET]).min();
        next.map_or(FORGET, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Does what is due by the clock.
    fn ring(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.timers.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            self.enqueue([key]);
        }
        if now.saturating_duration_since(self.forgot) >= FORGET {
            self.forgot = now;
            self.events.forget();
        }
    }

    fn enqueue(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if self.queued.insert(key.clone()) {
                self.queue.push_back(key);
            }
        }
    }

    fn enqueue_at(&mut self, at: Instant, key: Key) {
        self.timer_count += 1;
        self.timers.insert((at, self.timer_count), key);
    }

    /// Takes over the changes of the store.
    fn look(&mut self) -> Answer<()> {
        loop {
            let events = match self.store.since(self.seen) {
                Some(events) => events,
                None => match self.store.log_since(self.seen) {
                    Ok(events) => events,
                    Err(failure) if failure.reason == "Expired" => return self.reload(),
                    Err(failure) => return Err(failure),
                },
            };
            let Some(last) = events.last().map(|event| event.version) else { return Ok(()) };
            for event in &events {
                if self.mirror.knows(event) {
                    continue;
                }
                let change = self.mirror.refresh(&self.store, event)?;
                self.note(change);
            }
            self.seen = last;
        }
    }

    /// Reads everything anew: the log of changes does not reach back far enough.
    fn reload(&mut self) -> Answer<()> {
        let seen = self.store.version()?;
        let host = self.mirror.objects.host.clone();
        self.mirror = Mirror::load(&self.store)?;
        self.mirror.objects.host = host;
        self.seen = seen;
        self.enqueue(self.mirror.objects.keys());
        Ok(())
    }

    /// Queues what a change concerns.
    fn note(&mut self, change: mirror::Change) {
        self.has_news |= change.is_news;
        self.enqueue(change.keys);
    }

    /// Decides about some of the keys in the queue.
    fn turn(&mut self) {
        if self.queue.is_empty() && std::mem::take(&mut self.has_news) {
            self.enqueue(self.mirror.objects.waiting());
        }
        for _ in 0..TURN {
            let Some(key) = self.queue.pop_front() else { return };
            self.queued.remove(&key);
            match self.settle(&key) {
                Ok(()) => {
                    self.failed.remove(&key);
                }
                Err(failure) => self.retry(key, &failure),
            }
        }
    }

    /// Decides again about a key whose write failed: at once if the object had changed.
    fn retry(&mut self, key: Key, failure: &Failure) {
        if matches!(failure.code, 404 | 409) {
            match self.mirror.refresh_key(&self.store, &key) {
                Ok(change) => self.note(change),
                Err(failure) => tracing::error!("reading {key:?}: {failure}"),
            }
        } else {
            tracing::warn!("{key:?}: {failure}");
        }
        let count = self.failed.entry(key.clone()).or_default();
        *count += 1;
        let pause = PAUSE.saturating_mul(1 << (*count - 1).min(16)).min(PAUSE_MAX);
        let pause = if *count == 1 && failure.code == 409 { Duration::ZERO } else { pause };
        self.enqueue_at(Instant::now() + pause, key);
    }

    /// Carries out what is due for a key.
    fn settle(&mut self, key: &Key) -> Answer<()> {
        self.end_pod(key)?;
        // It counts for this decision alone: a later order of the same words is carried out.
        let mut finished = self.orders.take_finished(key);
        let mut actions = decide(&self.mirror.objects, key);
        let now = Instant::now();
        let held = actions.iter().position(|action| {
            orders::is_order(action)
                && matches!(self.orders.standing(action, now), Standing::Wait(_))
        });
        if let Some(at) = held {
            if let Some(Standing::Wait(Some(until))) =
                actions.get(at).map(|order| self.orders.standing(order, now))
            {
                self.enqueue_at(until, key.clone());
            }
            actions.truncate(at);
            // They came with the order's first attempt.
            actions.retain(|action| !action.is_event());
        }
        let mut rest = actions.into_iter();
        while let Some(action) = rest.next() {
            let is_done = finished.take_if(|finished| *finished == action).is_some();
            if orders::is_order(&action) && !is_done {
                if let Some(at) = self.orders.start(key, action, rest.collect()) {
                    self.enqueue_at(at, key.clone());
                }
                return Ok(());
            }
            if self.carry(key, &action)? == Next::Decide {
                self.enqueue([key.clone()]);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Removes a pod that is being deleted, unless a process of this host holds it or held it.
    fn end_pod(&mut self, key: &Key) -> Answer<()> {
        let Key::Pod(id) = key else { return Ok(()) };
        let Some(pod) = self.mirror.objects.pods.get(id) else { return Ok(()) };
        let is_here = pod.node.is_empty() || pod.node == self.mirror.objects.host.node;
        let is_idle = is_here || pod.phase == PodPhase::Pending;
        // A process that runs a pod makes its directory before it looks whether it may.
        if !pod.meta.deleting || !is_idle || pods::has_home(&self.root, &pod.meta.uid) {
            return Ok(());
        }
        let options = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
        mirror::with_target(key, |target| self.store.delete(target, &options))?;
        let seen = self.mirror.version(key);
        let change = self.mirror.refresh_key(&self.store, key)?;
        // One that a finalizer holds stays as it is, and waits for its next change.
        if self.mirror.version(key) != seen {
            self.note(change);
        }
        Ok(())
    }

    /// Takes the result of an order.
    fn finish(&mut self, done: Done) {
        let Done { key, order, rest, result } = done;
        let outcome = match result {
            Ok(()) => {
                self.orders.succeeded(&key, &order);
                self.made(&key, &order, rest)
            }
            Err(failure) => {
                let until = self.orders.failed(&order);
                self.enqueue_at(until, key.clone());
                let actions = failure::after(&self.mirror.objects, &order, &failure);
                actions.iter().try_for_each(|action| self.carry(&key, action).map(drop))
            }
        };
        if let Err(failure) = outcome {
            self.retry(key.clone(), &failure);
        }
        // Others may have waited for a free thread.
        let waiting = self.orders.take_blocked();
        self.enqueue(waiting);
        self.enqueue(touched(&self.mirror.objects, &key));
        self.enqueue([key]);
    }

    /// Takes over the object of a volume that was made, or of a content that got its snapshot.
    fn made(&mut self, key: &Key, order: &Action, rest: Vec<Action>) -> Answer<()> {
        let written = match order {
            Action::Provision(order) => Key::Volume(order.volume.meta.name.clone()),
            Action::TakeSnapshot { content, .. } | Action::FindSnapshot { content, .. } => {
                Key::Content(content.clone())
            }
            _ => return Ok(()),
        };
        let change = self.mirror.refresh_key(&self.store, &written)?;
        self.note(change);
        for action in rest.iter().filter(|action| action.is_event()) {
            self.carry(key, action)?;
        }
        Ok(())
    }
}

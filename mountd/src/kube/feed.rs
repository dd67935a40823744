//! The changes of objects, for watches and for the controller.
//!
//! One task reads the log of the catalogue whenever this process wrote, and several times a second
//! for what other processes wrote. It keeps the last changes in memory, read once for all who
//! follow them, and announces the last version. Who is further behind reads the log.
//!
//! A change is kept as text, and becomes an object, which takes up to ten times as many bytes, for
//! the first watch that shows it: the controller needs the name alone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use laminafs::service::objects::{Change, Key, Limits};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::kinds::Kind;
use super::objects::{Store, with_version};
use super::select::Filter;
use super::status::{Answer, Failure};

/// Between two looks for changes of other processes.
const LOOK: Duration = Duration::from_millis(200);
/// The most changes in memory.
const EVENTS_MAX: usize = 1024;
/// The most bytes of their texts.
const BYTES_MAX: usize = 2 << 20;
/// What is read of the log at once.
const LOOK_LIMITS: Limits = Limits { count: 256, bytes: 1 << 20 };
/// What a watch takes at once. One that is behind holds as much.
const BATCH: Limits = Limits { count: 256, bytes: 256 << 10 };

/// A change of an object.
#[derive(Debug)]
pub struct Event {
    /// The version that it made.
    pub version: u64,
    /// The kind of the object.
    pub kind: &'static Kind,
    /// The name of the object.
    pub key: Key,
    /// The object before; none for a new one.
    old: Text,
    /// The object after; none for a removed one.
    new: Text,
    len: usize,
}

/// The text of an object, if there is one, and the object once somebody asked for it.
#[derive(Debug)]
struct Text {
    text: Option<String>,
    object: OnceLock<Option<Value>>,
}

impl Text {
    const fn new(text: Option<String>) -> Self {
        Self { text, object: OnceLock::new() }
    }

    fn object(&self, version: u64) -> Option<&Value> {
        let read = || match serde_json::from_str(self.text.as_deref()?) {
            Ok(object) => Some(with_version(object, version)),
            Err(error) => {
                tracing::error!("change {version} in the catalogue: {error}");
                None
            }
        };
        self.object.get_or_init(read).as_ref()
    }
}

/// What a change is to a watch with selectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The object is selected now.
    Added,
    /// It still is.
    Modified,
    /// It is not any more.
    Deleted,
}

impl Seen {
    /// The name in the stream.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

impl Event {
    fn new(change: Change) -> Option<Self> {
        let kind = Kind::of_record(&change.key.kind)?;
        let len = change.text_bytes();
        let Change { version, key, old, new } = change;
        Some(Self { version, kind, key, old: Text::new(old), new: Text::new(new), len })
    }

    /// What the change is to a watch of a kind, with the object that it shows.
    #[must_use]
    pub fn seen_by(&self, kind: &Kind, filter: &Filter) -> Option<(Seen, &Value)> {
        if self.kind != kind {
            return None;
        }
        let (old, new) = (self.old.object(self.version), self.new.object(self.version));
        let selected = |object: Option<&Value>| object.is_some_and(|one| filter.selects(one));
        match (selected(old), selected(new)) {
            (false, true) => new.map(|object| (Seen::Added, object)),
            (true, true) => new.map(|object| (Seen::Modified, object)),
            (true, false) => old.map(|object| (Seen::Deleted, object)),
            (false, false) => None,
        }
    }
}

/// The last changes, all after `floor` and up to `last`.
#[derive(Debug)]
struct Recent {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    floor: u64,
    last: u64,
}

/// The changes of a store.
#[derive(Debug)]
pub struct Feed {
    recent: Mutex<Recent>,
    poke: Notify,
    announced: watch::Sender<u64>,
}

impl Feed {
    pub(super) fn new(version: u64) -> Self {
        let recent = Recent { events: VecDeque::new(), bytes: 0, floor: version, last: version };
        let (recent, announced) = (Mutex::new(recent), watch::Sender::new(version));
        Self { recent, poke: Notify::new(), announced }
    }

    /// Has the task look now.
    pub(super) fn poke(&self) {
        self.poke.notify_one();
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        // What it protects is whole after each statement.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn push(&mut self, event: Event) {
        self.last = event.version;
        self.bytes += event.len;
        self.events.push_back(Arc::new(event));
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(first) = self.events.pop_front() else { break };
            self.bytes -= first.len;
            self.floor = first.version;
        }
    }
}

impl Store {
    /// The last version that was announced, and each one after it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.feed.announced.subscribe()
    }

    /// Reads the new changes of the log and announces them. It blocks.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub fn look(&self) -> Answer<()> {
        loop {
            let last = self.feed.recent().last;
            if self.objects.version()? == last {
                break;
            }
            let changes = self.objects.changes(last, LOOK_LIMITS)?;
            let mut recent = self.feed.recent();
            match changes {
                Some(changes) if changes.is_empty() => break,
                Some(changes) => {
                    for change in changes.into_iter().filter(|change| change.version > last) {
                        let version = change.version;
                        match Event::new(change) {
                            Some(event) => recent.push(event),
                            None => recent.last = version,
                        }
                    }
                }
                None => {
                    let version = self.objects.version()?;
                    *recent =
                        Recent { events: VecDeque::new(), bytes: 0, floor: version, last: version };
                }
            }
        }
        let last = self.feed.recent().last;
        self.feed.announced.send_if_modified(|seen| std::mem::replace(seen, last) != last);
        Ok(())
    }

    /// Looks for changes until the process ends.
    pub async fn follow(self: Arc<Self>) {
        loop {
            let store = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || store.look()).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => tracing::error!("reading changes: {failure}"),
                Err(error) => tracing::error!("reading changes: {error}"),
            }
            tokio::select! {
                () = self.feed.poke.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// The changes after a version that are in memory, a batch at most; `None` where the version
    /// is before them, and [`Store::log_since`] has to be asked.
    #[must_use]
    pub fn since(&self, version: u64) -> Option<Vec<Arc<Event>>> {
        let recent = self.feed.recent();
        if version < recent.floor {
            return None;
        }
        let start = recent.events.partition_point(|event| event.version <= version);
        let mut left = BATCH.bytes;
        let fits = |event: &&Arc<Event>| {
            let is_left = left > 0;
            left = left.saturating_sub(event.len);
            is_left
        };
        Some(recent.events.iter().skip(start).take(BATCH.count).take_while(fits).cloned().collect())
    }

    /// The changes after a version, from the log, a batch at most. It blocks.
    ///
    /// # Errors
    /// The version is forgotten.
    pub fn log_since(&self, version: u64) -> Answer<Vec<Arc<Event>>> {
        let Some(changes) = self.objects.changes(version, BATCH)? else {
            let last = self.objects.version()?;
            let text = format!("too old resource version: {version} ({last})");
            return Err(Failure::expired(text));
        };
        Ok(changes.into_iter().filter_map(Event::new).map(Arc::new).collect())
    }
}

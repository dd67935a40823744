//! Events, as `kubectl describe` shows them.
//!
//! The same event of the same object is one object with a count. What repeats within seconds is not
//! counted: a decision is asked for more often than anything happens. One that goes on repeating is
//! counted less and less often. Events live for an hour.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use laminafs::claim::object::{Key, Meta};
use laminafs::claim::{Event, Objects};
use serde_json::{Value, json};

use super::mirror::kind;
use crate::kube::kinds::Kind;
use crate::kube::meta::{new_uid, now, set, text};
use crate::kube::objects::{ListOptions, Part, Store, Target, WriteOptions};
use crate::kube::status::{Answer, Failure};

/// How long an event lives.
pub(super) const LIFE: Duration = Duration::from_secs(3600);
/// The shortest time between the first two counts of an event; each further one doubles it.
const PACE: Duration = Duration::from_secs(10);
/// The longest such time.
const PACE_MAX: Duration = Duration::from_secs(300);
/// An event that did not repeat for so long begins anew with the shortest time.
const QUIET: Duration = Duration::from_secs(900);
/// The namespace of events of objects without one.
const NOWHERE: &str = "default";

/// The uid of the object, the reason and the message.
type Same = (String, String, String);

#[derive(Debug)]
struct Known {
    namespace: String,
    name: String,
    counted: Instant,
    /// How long it is not counted again.
    pace: Duration,
}

/// The events of this host.
#[derive(Debug)]
pub(super) struct Events {
    known: HashMap<Same, Known>,
    node: String,
}

fn same(event: &Value) -> Same {
    let string = |pointer| text(event, pointer).to_owned();
    (string("/involvedObject/uid"), string("/reason"), string("/message"))
}

/// Kubernetes' program that records events of a reason.
fn component(reason: &str, node: &str) -> String {
    match reason {
        "Scheduled" | "FailedScheduling" => "default-scheduler".to_owned(),
        "Provisioning" | "ProvisioningSucceeded" | "ProvisioningFailed" => {
            format!("lamina.dev/volume_{node}")
        }
        "Resizing" | "VolumeResizeFailed" | "VolumeResizeSuccessful" => {
            "external-resizer csi.lamina.dev".to_owned()
        }
        "SnapshotCreationFailed"
        | "SnapshotContentCheckandUpdateFailed"
        | "SnapshotDeleteError" => "csi-snapshotter csi.lamina.dev".to_owned(),
        snapshots if snapshots.contains("Snapshot") => "snapshot-controller".to_owned(),
        _ => "persistentvolume-controller".to_owned(),
    }
}

/// The kind of an object, and its metadata.
fn involved<'a>(objects: &'a Objects, key: &Key) -> Option<(&'static str, &'a Meta)> {
    Some(match key {
        Key::Snapshot(id) => ("VolumeSnapshot", &objects.snapshots.get(id)?.meta),
        Key::Content(name) => ("VolumeSnapshotContent", &objects.contents.get(name)?.meta),
        Key::Volume(name) => ("PersistentVolume", &objects.volume(name)?.meta),
        Key::Claim(id) => ("PersistentVolumeClaim", &objects.claims.get(id)?.meta),
        Key::Pod(id) => ("Pod", &objects.pods.get(id)?.meta),
    })
}

impl Events {
    /// Reads the events that exist.
    pub(super) fn load(store: &Store, node: &str) -> Answer<Self> {
        // Whatever happens from now on counts.
        let start = Instant::now().checked_sub(PACE).unwrap_or_else(Instant::now);
        let mut known = HashMap::new();
        for event in store.list(kind("events")?, &ListOptions::default())?.items {
            let namespace = text(&event, "/metadata/namespace").to_owned();
            let name = text(&event, "/metadata/name").to_owned();
            known.insert(same(&event), Known { namespace, name, counted: start, pace: PACE });
        }
        Ok(Self { known, node: node.to_owned() })
    }

    /// Records an event. One of an object that is gone is dropped.
    pub(super) fn record(&mut self, store: &Store, objects: &Objects, event: &Event) -> Answer<()> {
        let Some((of, meta)) = involved(objects, &event.object) else { return Ok(()) };
        let kind = kind("events")?;
        let same = (meta.uid.clone(), event.reason.to_owned(), event.message.clone());
        if let Some(known) = self.known.get_mut(&same) {
            let past = known.counted.elapsed();
            if past < known.pace {
                return Ok(());
            }
            known.pace = next_pace(known.pace, past);
            known.counted = Instant::now();
            if count(store, kind, known)? {
                return Ok(());
            }
        }
        let namespace = if meta.namespace.is_empty() { NOWHERE } else { &meta.namespace };
        let name = format!("{}.{}", meta.name, new_uid().replace('-', "").split_at(16).0);
        let object = self.object((of, meta), event, &name);
        let target = Target { kind, namespace, name: "" };
        match store.create(&target, object, &WriteOptions::default()) {
            // The namespace ends: its events are of no use to anybody.
            Err(failure) if matches!(failure.code, 403 | 404) => return Ok(()),
            done => drop(done?),
        }
        let namespace = namespace.to_owned();
        let counted = Instant::now();
        self.known.insert(same, Known { namespace, name, counted, pace: PACE });
        Ok(())
    }

    fn object(&self, (of, meta): (&str, &Meta), event: &Event, name: &str) -> Value {
        let component = component(event.reason, &self.node);
        let group = if of.starts_with("VolumeSnapshot") { "snapshot.storage.k8s.io/" } else { "" };
        let mut involved = json!({
            "apiVersion": format!("{group}v1"),
            "kind": of,
            "name": meta.name,
            "uid": meta.uid,
        });
        let mut namespace = NOWHERE;
        if !meta.namespace.is_empty() {
            namespace = &meta.namespace;
            set(&mut involved, "namespace", Some(namespace.into()));
        }
        let now = now();
        json!({
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "reason": event.reason,
            "message": event.message,
            "type": if event.is_warning { "Warning" } else { "Normal" },
            "source": {"component": component},
            "reportingComponent": component,
            "reportingInstance": "",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        })
    }

    /// Forgets the events that are gone by their age: the store removes them.
    pub(super) fn forget(&mut self) {
        self.known.retain(|_, known| known.counted.elapsed() < LIFE);
    }
}

/// How long an event that repeats after `past` is not counted again.
fn next_pace(pace: Duration, past: Duration) -> Duration {
    if past >= QUIET { PACE } else { pace.saturating_mul(2).min(PACE_MAX) }
}

/// Counts an event once more. Whether it still exists.
fn count(store: &Store, kind: &'static Kind, known: &Known) -> Answer<bool> {
    let target = Target { kind, namespace: &known.namespace, name: &known.name };
    let counted = store.change(&target, Part::Whole, &WriteOptions::default(), &|current| {
        let gone = || Failure::not_found(kind, &known.name);
        let mut event = current.cloned().ok_or_else(gone)?;
        let count = event.get("count").and_then(Value::as_u64).unwrap_or(1);
        set(&mut event, "count", Some((count + 1).into()));
        set(&mut event, "lastTimestamp", Some(now().into()));
        Ok(event)
    });
    match counted {
        Err(failure) if failure.code == 404 => Ok(false),
        counted => counted.map(|_| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_repeats_is_counted_less_and_less_often() {
        let mut pace = PACE;
        let mut seconds = Vec::new();
        for _ in 0..7 {
            seconds.push(pace.as_secs());
            pace = next_pace(pace, pace);
        }
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(next_pace(pace, QUIET), PACE);
    }
}

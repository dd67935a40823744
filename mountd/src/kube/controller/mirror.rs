//! The objects in memory, as the store has them.

use std::collections::{BTreeSet, HashMap};

use laminafs::claim::object::{Claim, Id, Key};
use laminafs::claim::{Objects, touched};
use serde_json::Value;

use crate::kube::convert;
use crate::kube::feed::Event;
use crate::kube::kinds::Kind;
use crate::kube::meta::text;
use crate::kube::objects::{ListOptions, Store, Target};
use crate::kube::status::{Answer, Failure};

/// The kinds that decisions depend on.
const KINDS: [&str; 9] = [
    "persistentvolumes",
    "persistentvolumeclaims",
    "pods",
    "nodes",
    "storageclasses.storage.k8s.io",
    "volumeattributesclasses.storage.k8s.io",
    "volumesnapshotclasses.snapshot.storage.k8s.io",
    "volumesnapshots.snapshot.storage.k8s.io",
    "volumesnapshotcontents.snapshot.storage.k8s.io",
];

/// What a change of an object concerns.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// What is decided about again.
    pub(super) keys: Vec<Key>,
    /// Whether all that waits may gain.
    pub(super) is_news: bool,
}

/// The objects, and their versions.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub(super) objects: Objects,
    versions: HashMap<Key, u64>,
    // Claims with a data source, by namespace and name of the source, of whatever kind it is.
    sourced: HashMap<Id, BTreeSet<Id>>,
}

/// The kind of a record.
pub(super) fn kind(record: &str) -> Answer<&'static Kind> {
    Kind::of_record(record).ok_or_else(|| Failure::internal(&format!("no kind {record}")))
}

/// Calls with the object of a key.
pub(super) fn with_target<T>(key: &Key, call: impl FnOnce(&Target<'_>) -> Answer<T>) -> Answer<T> {
    let (record, namespace, name) = match key {
        Key::Volume(name) => ("persistentvolumes", "", name),
        Key::Claim(id) => ("persistentvolumeclaims", &id.namespace[..], &id.name),
        Key::Pod(id) => ("pods", &id.namespace[..], &id.name),
        Key::Snapshot(id) => {
            ("volumesnapshots.snapshot.storage.k8s.io", &id.namespace[..], &id.name)
        }
        Key::Content(name) => ("volumesnapshotcontents.snapshot.storage.k8s.io", "", name),
    };
    call(&Target { kind: kind(record)?, namespace, name })
}

fn key(kind: &Kind, namespace: &str, name: &str) -> Option<Key> {
    let id = || Id::new(namespace, name);
    Some(match kind.kind {
        "PersistentVolume" => Key::Volume(name.to_owned()),
        "PersistentVolumeClaim" => Key::Claim(id()),
        "Pod" => Key::Pod(id()),
        "VolumeSnapshot" => Key::Snapshot(id()),
        "VolumeSnapshotContent" => Key::Content(name.to_owned()),
        _ => return None,
    })
}

fn object_key(kind: &Kind, object: &Value) -> Option<Key> {
    key(kind, text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

fn found(answer: Answer<Value>) -> Answer<Option<Value>> {
    match answer {
        Err(failure) if failure.code == 404 => Ok(None),
        answer => answer.map(Some),
    }
}

impl Mirror {
    /// Reads all objects.
    pub(super) fn load(store: &Store) -> Answer<Self> {
        let mut mirror = Self::default();
        for record in KINDS {
            let kind = kind(record)?;
            for object in store.list(kind, &ListOptions::default())?.items {
                mirror.put(kind, &object);
            }
        }
        Ok(mirror)
    }

    /// The version of an object that decisions see.
    pub(super) fn version(&self, key: &Key) -> Option<u64> {
        self.versions.get(key).copied()
    }

    /// Whether a change is in memory already, or concerns no decision.
    pub(super) fn knows(&self, event: &Event) -> bool {
        if !KINDS.contains(&&event.key.kind[..]) {
            return true;
        }
        let key = key(event.kind, &event.key.namespace, &event.key.name);
        key.and_then(|key| self.version(&key)).is_some_and(|version| version >= event.version)
    }

    /// Reads the object of a change again.
    pub(super) fn refresh(&mut self, store: &Store, event: &Event) -> Answer<Change> {
        let kind = event.kind;
        let (namespace, name) = (&event.key.namespace[..], &event.key.name[..]);
        let now = found(store.get(&Target { kind, namespace, name }))?;
        let Some(key) = key(kind, namespace, name) else {
            match now {
                Some(object) => self.put(kind, &object),
                None => self.remove_other(kind, name),
            }
            let is_modified = kind.kind == "VolumeAttributesClass";
            let claims = self.objects.claims.keys().filter(|_| is_modified);
            let keys = claims.cloned().map(Key::Claim).collect();
            return Ok(Change { keys, is_news: true });
        };
        Ok(self.replace(&key, kind, now.as_ref()))
    }

    /// Reads the object of a key again.
    pub(super) fn refresh_key(&mut self, store: &Store, key: &Key) -> Answer<Change> {
        with_target(key, |target| {
            let now = found(store.get(target))?;
            Ok(self.replace(key, target.kind, now.as_ref()))
        })
    }

    /// Puts an object in the place of what was there.
    pub(super) fn replace(
        &mut self,
        key: &Key,
        kind: &'static Kind,
        now: Option<&Value>,
    ) -> Change {
        let mut keys = touched(&self.objects, key);
        let was_open = self.is_open(key);
        match now {
            Some(object) => self.put(kind, object),
            None => self.remove(key),
        }
        keys.extend(touched(&self.objects, key));
        keys.extend(self.waiting_for(key));
        let is_open = self.is_open(key);
        let is_news = match key {
            Key::Volume(_) => is_open,
            // The end of a pod may free a claim for another one.
            Key::Pod(_) => was_open && !is_open,
            Key::Claim(_) | Key::Snapshot(_) | Key::Content(_) => false,
        };
        Change { keys, is_news }
    }

    /// The claims without a volume whose first content is that of the object.
    fn waiting_for<'a>(&'a self, key: &Key) -> impl Iterator<Item = Key> + use<'a> {
        let claims = match key {
            Key::Claim(id) | Key::Snapshot(id) => self.sourced.get(id),
            Key::Volume(_) | Key::Pod(_) | Key::Content(_) => None,
        };
        let is_open = |id: &&Id| {
            self.objects.claims.get(id).is_some_and(|claim| claim.volume_name.is_empty())
        };
        claims.into_iter().flatten().filter(is_open).cloned().map(Key::Claim)
    }

    /// Notes the data source of a claim in place of the one before.
    fn put_claim(&mut self, claim: Claim) {
        let id = claim.meta.id();
        self.remove_claim(&id);
        if let Some(source) = &claim.data_source {
            let of = Id::new(&id.namespace, &source.name);
            self.sourced.entry(of).or_default().insert(id.clone());
        }
        self.objects.claims.insert(id, claim);
    }

    fn remove_claim(&mut self, id: &Id) {
        let Some(claim) = self.objects.claims.remove(id) else { return };
        let Some(source) = &claim.data_source else { return };
        let of = Id::new(&id.namespace, &source.name);
        if let Some(claims) = self.sourced.get_mut(&of) {
            claims.remove(id);
            if claims.is_empty() {
                self.sourced.remove(&of);
            }
        }
    }

    /// Whether a volume is without a claim, and whether a pod has not ended.
    fn is_open(&self, key: &Key) -> bool {
        match key {
            Key::Volume(name) => {
                self.objects.volume(name).is_some_and(|one| one.claim_ref.is_none())
            }
            Key::Pod(id) => self.objects.pods.get(id).is_some_and(|pod| !pod.is_finished()),
            Key::Claim(_) | Key::Snapshot(_) | Key::Content(_) => false,
        }
    }

    fn put(&mut self, kind: &'static Kind, object: &Value) {
        if let (Some(key), Ok(version)) =
            (object_key(kind, object), text(object, "/metadata/resourceVersion").parse())
        {
            self.versions.insert(key, version);
        }
        let objects = &mut self.objects;
        match kind.kind {
            "PersistentVolumeClaim" => self.put_claim(convert::claim(object)),
            "PersistentVolume" => objects.put_volume(convert::volume(object)),
            "Pod" => {
                let pod = convert::pod(object);
                objects.pods.insert(pod.meta.id(), pod);
            }
            "Node" => {
                let node = convert::node(object);
                objects.nodes.insert(node.meta.name.clone(), node);
            }
            "StorageClass" => {
                let class = convert::class(object);
                objects.classes.insert(class.meta.name.clone(), class);
            }
            "VolumeAttributesClass" => {
                let class = convert::attributes_class(object);
                objects.attributes_classes.insert(class.meta.name.clone(), class);
            }
            "VolumeSnapshotClass" => {
                let class = convert::snapshot_class(object);
                objects.snapshot_classes.insert(class.meta.name.clone(), class);
            }
            "VolumeSnapshot" => {
                let snapshot = convert::snapshot(object);
                objects.snapshots.insert(snapshot.meta.id(), snapshot);
            }
            "VolumeSnapshotContent" => {
                let content = convert::content(object);
                objects.contents.insert(content.meta.name.clone(), content);
            }
            _ => {}
        }
    }

    fn remove(&mut self, key: &Key) {
        self.versions.remove(key);
        match key {
            Key::Volume(name) => drop(self.objects.remove_volume(name)),
            Key::Claim(id) => self.remove_claim(id),
            Key::Pod(id) => drop(self.objects.pods.remove(id)),
            Key::Snapshot(id) => drop(self.objects.snapshots.remove(id)),
            Key::Content(name) => drop(self.objects.contents.remove(name)),
        }
    }

    fn remove_other(&mut self, kind: &'static Kind, name: &str) {
        match kind.kind {
            "Node" => drop(self.objects.nodes.remove(name)),
            "StorageClass" => drop(self.objects.classes.remove(name)),
            "VolumeAttributesClass" => drop(self.objects.attributes_classes.remove(name)),
            "VolumeSnapshotClass" => drop(self.objects.snapshot_classes.remove(name)),
            _ => {}
        }
    }
}

//! The snapshot loop: what is to be done for one VolumeSnapshot, as the snapshot controller of
//! Kubernetes does it.
//!
//! A snapshot of a claim gets a content, which the driver's side fills (see
//! [`contents`](super::contents)); one of a prepared content is bound to it, one to one. Then the
//! status of the content is the snapshot's. A snapshot that once had a content never gets another
//! one: it would hold later data.

use super::action::Action;
use super::names;
use super::object::{Claim, ClaimPhase, Id, Key, Meta, Source, Volume};
use super::snapshot::{
    Content, ContentSource, ContentStatus, DeletionPolicy, Snapshot, SnapshotClass, SnapshotRef,
    SnapshotSource, SnapshotStatus,
};
use super::state::Objects;
use crate::types::quantity::Quantity;

/// Nanoseconds of a second.
const NANOS: i64 = 1_000_000_000;

/// The actions for a snapshot, in order.
#[must_use]
pub fn decide(objects: &Objects, snapshot: &Snapshot) -> Vec<Action> {
    if snapshot.meta.deleting {
        return delete(objects, snapshot);
    }
    let is_bound = !snapshot.status.content.is_empty();
    if !is_bound && let Some(actions) = settle_class(objects, snapshot) {
        return actions;
    }
    let content = objects.contents.get(&snapshot.content_name());
    let mut actions = protect(snapshot, content);
    let rest = match content {
        Some(content) => bind(snapshot, content),
        None if is_bound || matches!(snapshot.source, SnapshotSource::Content(_)) => {
            let message = "VolumeSnapshotContent is missing".to_owned();
            failed(snapshot, true, "SnapshotContentMissing", message)
        }
        None => create(objects, snapshot),
    };
    actions.extend(rest);
    actions
}

/// The key of a snapshot.
#[must_use]
pub fn key(snapshot: &Snapshot) -> Key {
    Key::Snapshot(snapshot.meta.id())
}

/// The name that the driver's side gives the snapshot of a content.
#[must_use]
pub fn taken_name(content: &Content) -> String {
    format!("snapshot-{}", content.to.uid)
}

/// The keys of the snapshots that wait for a claim, or whose deletion does.
pub fn of_claim<'a>(objects: &'a Objects, claim: &'a Claim) -> impl Iterator<Item = Key> + 'a {
    let source = claim.data_source.as_ref().map(|source| &source.name);
    let all = objects.snapshots_in(&claim.meta.namespace);
    let waits = move |one: &&Snapshot| {
        (one.is_of(&claim.meta) && !one.is_created())
            || (one.meta.deleting && source == Some(&one.meta.name))
    };
    all.filter(waits).map(key)
}

/// Removes the protection of a claim once no snapshot of it is being taken.
#[must_use]
pub fn release_source(objects: &Objects, claim: &Claim) -> Option<Action> {
    let finalizer = names::CLAIM_SOURCE;
    // A snapshot that failed before it had a content is not being taken.
    let may_be = |one: &Snapshot| {
        one.status.error.is_none() || objects.contents.contains_key(&one.content_name())
    };
    let is_taken = |one: &Snapshot| one.is_of(&claim.meta) && !one.is_created() && may_be(one);
    let is_held = || objects.snapshots_in(&claim.meta.namespace).any(is_taken);
    let object = || Key::Claim(claim.meta.id());
    (claim.meta.has_finalizer(finalizer) && !is_held())
        .then(|| Action::RemoveFinalizer { object: object(), finalizer })
}

/// The error in the status, and its event. One that the status has already is not repeated.
fn failed(
    snapshot: &Snapshot,
    is_unready: bool,
    reason: &'static str,
    message: String,
) -> Vec<Action> {
    if snapshot.status.error.as_ref() == Some(&message) {
        return Vec::new();
    }
    let ready = if is_unready { Some(false) } else { snapshot.status.ready };
    let error = Some(message.clone());
    let status = SnapshotStatus { ready, error, ..snapshot.status.clone() };
    let event = Action::warning(key(snapshot), reason, message);
    vec![Action::SnapshotStatus { snapshot: snapshot.meta.id(), status }, event]
}

/// What is to be done about the class before anything else; `None` if it is settled.
fn settle_class(objects: &Objects, snapshot: &Snapshot) -> Option<Vec<Action>> {
    let SnapshotSource::Claim(name) = &snapshot.source else {
        // A prepared content needs none, but one that is named has to exist.
        let is_known = objects.snapshot_classes.contains_key(&snapshot.class_name);
        let is_settled = snapshot.class_name.is_empty() || is_known;
        return (!is_settled).then(|| missing_class(snapshot));
    };
    if !snapshot.class_name.is_empty() {
        let is_known = objects.snapshot_classes.contains_key(&snapshot.class_name);
        return (!is_known).then(|| missing_class(snapshot));
    }
    let class = source_volume(objects, snapshot, name).and_then(|(_, volume)| {
        let Source::Csi(driver) = &volume.source else {
            return Err("snapshot PV source not CSI".to_owned());
        };
        default_class(objects, driver)
    });
    Some(match class {
        Ok(class) => {
            let class = class.meta.name.clone();
            vec![Action::SetSnapshotClass { snapshot: snapshot.meta.id(), class }]
        }
        Err(reason) => {
            let message = format!("Failed to set default snapshot class with error {reason}");
            failed(snapshot, false, "SetDefaultSnapshotClassFailed", message)
        }
    })
}

fn missing_class(snapshot: &Snapshot) -> Vec<Action> {
    let name = &snapshot.class_name;
    let message = format!(
        "failed to get snapshot class with error volumesnapshotclass.snapshot.storage.k8s.io \
         {name:?} not found"
    );
    failed(snapshot, false, "GetSnapshotClassFailed", message)
}

/// The one class of a driver that is marked as the default.
fn default_class<'a>(objects: &'a Objects, driver: &str) -> Result<&'a SnapshotClass, String> {
    let is_default = |class: &&SnapshotClass| {
        class.meta.annotation(names::DEFAULT_SNAPSHOT_CLASS) == Some("true")
            && objects.is_same_driver(&class.driver, driver)
    };
    let mut classes = objects.snapshot_classes.values().filter(is_default);
    let first = classes.next().ok_or("cannot find default snapshot class")?;
    match classes.count() {
        0 => Ok(first),
        more => Err(format!("{} default snapshot classes were found", more + 1)),
    }
}

/// The claim whose snapshot is taken, and its volume.
fn source_volume<'a>(
    objects: &'a Objects,
    snapshot: &Snapshot,
    name: &str,
) -> Result<(&'a Claim, &'a Volume), String> {
    let id = Id::new(&snapshot.meta.namespace, name);
    let claim = objects.claims.get(&id).ok_or_else(|| {
        format!(
            "failed to retrieve PVC {name} from the lister: persistentvolumeclaim {name:?} not \
             found"
        )
    })?;
    if claim.status.phase != ClaimPhase::Bound {
        return Err(format!(
            "the PVC {name} is not yet bound to a PV, will not attempt to take a snapshot"
        ));
    }
    let of = &claim.volume_name;
    let volume = objects.volume(of).ok_or_else(|| {
        format!(
            "failed to retrieve PV {of} from the API server: persistentvolumes {of:?} not found"
        )
    })?;
    let is_its = volume
        .claim_ref
        .as_ref()
        .is_some_and(|to| to.id == claim.meta.id() && to.uid == claim.meta.uid);
    if !is_its {
        return Err("claim in dataSource not bound or invalid".to_owned());
    }
    Ok((claim, volume))
}

/// The finalizers that a snapshot is missing.
fn protect(snapshot: &Snapshot, content: Option<&Content>) -> Vec<Action> {
    let holds = |content: &Content| {
        content.belongs_to(&snapshot.meta) && content.policy == DeletionPolicy::Delete
    };
    let is_held = content.is_some_and(holds);
    [(names::SNAPSHOT_SOURCE, true), (names::SNAPSHOT_BOUND, is_held)]
        .into_iter()
        .filter(|(finalizer, wanted)| *wanted && !snapshot.meta.has_finalizer(finalizer))
        .map(|(finalizer, _)| Action::AddFinalizer { object: key(snapshot), finalizer })
        .collect()
}

/// Binds a snapshot and its content, and takes over the status.
fn bind(snapshot: &Snapshot, content: &Content) -> Vec<Action> {
    let name = &content.meta.name;
    if snapshot.is_ready() && !snapshot.status.content.is_empty() {
        if content.belongs_to(&snapshot.meta) {
            return Vec::new();
        }
        let message = "VolumeSnapshotContent is not bound to the VolumeSnapshot correctly";
        return failed(snapshot, true, "SnapshotMisbound", message.to_owned());
    }
    let mismatch = match (&snapshot.source, &content.source) {
        (SnapshotSource::Content(_), ContentSource::Volume(_)) => {
            "VolumeSnapshotContent is dynamically provisioned while expecting a pre-provisioned one"
        }
        (SnapshotSource::Claim(_), ContentSource::Snapshot(_)) => {
            "VolumeSnapshotContent is pre-provisioned while expecting a dynamically provisioned one"
        }
        _ => "",
    };
    if !mismatch.is_empty() {
        return failed(snapshot, true, "SnapshotContentMismatch", mismatch.to_owned());
    }
    let is_dynamic = matches!(snapshot.source, SnapshotSource::Claim(_));
    let is_its = content.belongs_to(&snapshot.meta);
    if !content.is_for(&snapshot.meta) || (is_dynamic && !is_its) {
        let message = format!("VolumeSnapshotContent [{name}] is bound to a different snapshot");
        return failed(snapshot, true, "SnapshotContentMisbound", message);
    }
    let mut actions = Vec::new();
    let takes_class = content.class_name.is_empty() && !snapshot.class_name.is_empty();
    if !is_its || takes_class {
        let class = if takes_class { snapshot.class_name.clone() } else { String::new() };
        let (content, uid) = (name.clone(), snapshot.meta.uid.clone());
        actions.push(Action::BindContent { content, uid, class });
    }
    actions.extend(take_over(snapshot, content));
    actions
}

/// The status of the content as that of the snapshot, with the events of its changes.
fn take_over(snapshot: &Snapshot, content: &Content) -> Vec<Action> {
    let (old, of) = (&snapshot.status, &content.status);
    let is_ready = of.ready == Some(true);
    let status = SnapshotStatus {
        content: content.meta.name.clone(),
        created: of.created_nanos.map(|nanos| nanos.div_euclid(NANOS)).or(old.created),
        ready: Some(is_ready),
        restore_size: of.restore_bytes.map(Quantity::of_bytes).or(old.restore_size),
        error: if is_ready { None } else { of.error.clone() },
    };
    if status == *old {
        return Vec::new();
    }
    let id = snapshot.meta.id();
    let mut actions = Vec::new();
    if status.created.is_some() && old.created.is_none() {
        let message = format!("Snapshot {id} was successfully created by the CSI driver.");
        actions.push(Action::normal(key(snapshot), "SnapshotCreated", message));
    }
    if is_ready {
        let message = format!("Snapshot {id} is ready to use.");
        actions.push(Action::normal(key(snapshot), "SnapshotReady", message));
    }
    actions.insert(0, Action::SnapshotStatus { snapshot: id, status });
    actions
}

/// Protects the claim and makes the content.
fn create(objects: &Objects, snapshot: &Snapshot) -> Vec<Action> {
    match new_content(objects, snapshot) {
        Err(reason) => {
            let message = format!("Failed to create snapshot content with error {reason}");
            failed(snapshot, true, "SnapshotContentCreationFailed", message)
        }
        Ok((claim, content)) => {
            let finalizer = names::CLAIM_SOURCE;
            let object = Key::Claim(claim.meta.id());
            let has = claim.meta.has_finalizer(finalizer);
            let protection = (!has).then_some(Action::AddFinalizer { object, finalizer });
            let has_failed = snapshot.status.error.is_some();
            let id = snapshot.meta.id();
            let message = format!("Waiting for a snapshot {id} to be created by the CSI driver.");
            let event = Action::normal(key(snapshot), "CreatingSnapshot", message);
            let create = Action::CreateContent(Box::new(content));
            // Without the error first: the claim is not protected for a snapshot that failed.
            let status = SnapshotStatus { error: None, ..snapshot.status.clone() };
            let snapshot = snapshot.meta.id();
            let cleared = has_failed.then_some(Action::SnapshotStatus { snapshot, status });
            cleared.into_iter().chain(protection).chain([event, create]).collect()
        }
    }
}

fn new_content<'a>(
    objects: &'a Objects,
    snapshot: &Snapshot,
) -> Result<(&'a Claim, Content), String> {
    let SnapshotSource::Claim(name) = &snapshot.source else {
        return Err(format!("PVC source for snapshot {} is missing", snapshot.meta.id()));
    };
    let (claim, volume) = source_volume(objects, snapshot, name)?;
    if claim.meta.deleting {
        let (of, by) = (claim.meta.id(), snapshot.meta.id());
        return Err(format!(
            "cannot add finalizer on claim [{of}] for snapshot [{by}]: claim is being deleted"
        ));
    }
    let missing = || format!("snapshot class {:?} not found", snapshot.class_name);
    let class = objects.snapshot_classes.get(&snapshot.class_name).ok_or_else(missing)?;
    let Source::Csi(driver) = &volume.source else {
        let of = &volume.meta.name;
        return Err(format!("cannot find CSI PersistentVolumeSource for volume {of}"));
    };
    if !objects.is_same_driver(driver, &class.driver) {
        let (by, of) = (&class.driver, &volume.meta.name);
        let name = &class.meta.name;
        return Err(format!(
            "snapshot class {name} has the driver {by}, but volume {of} has the driver {driver}"
        ));
    }
    let meta = Meta {
        name: snapshot.content_name(),
        finalizers: vec![names::CONTENT_BOUND.to_owned()],
        ..Meta::default()
    };
    let content = Content {
        meta,
        driver: class.driver.clone(),
        policy: class.policy,
        source: ContentSource::Volume(volume.handle.clone()),
        to: SnapshotRef { id: snapshot.meta.id(), uid: snapshot.meta.uid.clone() },
        class_name: class.meta.name.clone(),
        mode: Some(volume.volume_mode),
        status: ContentStatus::default(),
    };
    Ok((claim, content))
}

/// Whether a claim that is not bound yet is made of the snapshot.
fn is_being_restored(objects: &Objects, snapshot: &Meta) -> bool {
    let from = Id::new(&snapshot.namespace, "");
    let here = objects.claims.range(from..);
    let mut here = here.take_while(|(id, _)| id.namespace == snapshot.namespace);
    here.any(|(_, claim)| {
        let is_it = claim.data_source.as_ref().is_some_and(|source| {
            source.group == names::SNAPSHOT_GROUP
                && source.kind == "VolumeSnapshot"
                && source.name == snapshot.name
        });
        is_it && claim.status.phase == ClaimPhase::Pending && !claim.meta.deleting
    })
}

/// The end of a snapshot: its content goes with it, unless it is to stay.
fn delete(objects: &Objects, snapshot: &Snapshot) -> Vec<Action> {
    if is_being_restored(objects, &snapshot.meta) {
        let message = "Snapshot is being used to restore a PVC";
        return vec![Action::warning(key(snapshot), "SnapshotDeletePending", message)];
    }
    let mut actions = Vec::new();
    let content = objects.contents.get(&snapshot.content_name());
    let content = content.filter(|content| content.belongs_to(&snapshot.meta));
    let mut waits = false;
    if let Some(content) = content {
        let name = &content.meta.name;
        if !content.meta.has_annotation(names::SNAPSHOT_BEING_DELETED) {
            let annotations = vec![(names::SNAPSHOT_BEING_DELETED, Some("yes".to_owned()))];
            actions.push(Action::Annotate { object: Key::Content(name.clone()), annotations });
        }
        waits = content.policy == DeletionPolicy::Delete;
        if waits && !content.meta.deleting {
            actions.push(Action::DeleteContent { content: name.clone() });
        }
    }
    for (finalizer, is_over) in [(names::SNAPSHOT_SOURCE, true), (names::SNAPSHOT_BOUND, !waits)] {
        if is_over && snapshot.meta.has_finalizer(finalizer) {
            actions.push(Action::RemoveFinalizer { object: key(snapshot), finalizer });
        }
    }
    actions
}

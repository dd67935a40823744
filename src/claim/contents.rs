//! The content loop: what is to be done for one VolumeSnapshotContent, as the snapshot controller
//! and the sidecar of a driver do it in a cluster.
//!
//! The driver of a content takes or finds the snapshot, and deletes it where the policy says so.
//! Contents of drivers that this host does not serve are left to their own sidecars.

use super::action::Action;
use super::names;
use super::object::Key;
use super::snapshot::{Content, ContentSource, ContentStatus, DeletionPolicy};
use super::snapshots::taken_name;
use super::state::Objects;

/// The actions for a content, in order.
#[must_use]
pub fn decide(objects: &Objects, content: &Content) -> Vec<Action> {
    if content.meta.deleting {
        return delete(objects, content);
    }
    let mut actions = Vec::new();
    let finalizer = names::CONTENT_BOUND;
    if !content.to.uid.is_empty() && !content.meta.has_finalizer(finalizer) {
        actions.push(Action::AddFinalizer { object: key(content), finalizer });
    }
    if objects.serves(&content.driver) && content.status.ready != Some(true) {
        actions.extend(fill(content));
    }
    actions
}

/// The key of a content.
#[must_use]
pub fn key(content: &Content) -> Key {
    Key::Content(content.meta.name.clone())
}

/// The order that gives a content its status.
fn fill(content: &Content) -> Option<Action> {
    let name = content.meta.name.clone();
    match &content.source {
        ContentSource::Snapshot(handle) => {
            Some(Action::FindSnapshot { content: name, handle: handle.clone() })
        }
        // Without the uid of its snapshot the name of what is taken is not known.
        ContentSource::Volume(_) if content.to.uid.is_empty() => None,
        ContentSource::Volume(volume) => Some(Action::TakeSnapshot {
            content: name,
            name: taken_name(content),
            volume: volume.clone(),
        }),
    }
}

/// The end of a content, which its snapshot holds.
fn delete(objects: &Objects, content: &Content) -> Vec<Action> {
    let finalizer = names::CONTENT_BOUND;
    let snapshot = objects.snapshots.get(&content.to.id);
    let is_held = snapshot.is_some_and(|one| content.belongs_to(&one.meta))
        && !content.meta.has_annotation(names::SNAPSHOT_BEING_DELETED);
    if is_held || !content.meta.has_finalizer(finalizer) {
        return Vec::new();
    }
    let mut actions = Vec::new();
    if content.policy == DeletionPolicy::Delete {
        if !objects.serves(&content.driver) {
            // Another sidecar deletes the data, and removes the finalizer.
            return Vec::new();
        }
        let (of, handle) = (content.meta.name.clone(), content.handle().to_owned());
        actions.push(Action::DeleteSnapshot { content: of, handle, name: taken_name(content) });
    }
    actions.push(Action::RemoveFinalizer { object: key(content), finalizer });
    actions
}

/// The error in the status, and its event.
#[must_use]
pub fn failed(content: &Content, reason: &'static str, message: String) -> Vec<Action> {
    let ready = content.status.ready.or(Some(false));
    let status = ContentStatus { ready, error: Some(message.clone()), ..content.status.clone() };
    let mut actions = Vec::new();
    if status != content.status {
        actions.push(Action::ContentStatus { content: content.meta.name.clone(), status });
    }
    actions.push(Action::warning(key(content), reason, message));
    actions
}

//! Snapshots, their contents and classes.

use std::time::{Duration, UNIX_EPOCH};

use laminafs::claim::Action;
use laminafs::claim::object::{Id, VolumeMode};
use laminafs::claim::snapshot::{
    Content, ContentSource, ContentStatus, DeletionPolicy, Snapshot, SnapshotClass, SnapshotRef,
    SnapshotSource, SnapshotStatus,
};
use serde_json::{Value, json};

use super::parts::{amount, labels, meta, string};
use super::write::{mode, set_spec, unless_empty};
use crate::kube::meta::{map_in, now, set, text};

/// A VolumeSnapshotClass.
#[must_use]
pub fn snapshot_class(object: &Value) -> SnapshotClass {
    SnapshotClass {
        meta: meta(object),
        driver: string(object, "/driver"),
        policy: policy(object, "/deletionPolicy"),
        parameters: labels(object, "/parameters"),
    }
}

/// A VolumeSnapshot.
#[must_use]
pub fn snapshot(object: &Value) -> Snapshot {
    let content = string(object, "/spec/source/volumeSnapshotContentName");
    let claim = string(object, "/spec/source/persistentVolumeClaimName");
    let created = humantime::parse_rfc3339(text(object, "/status/creationTime")).ok();
    let created = created.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Snapshot {
        meta: meta(object),
        source: match content.is_empty() {
            true => SnapshotSource::Claim(claim),
            false => SnapshotSource::Content(content),
        },
        class_name: string(object, "/spec/volumeSnapshotClassName"),
        status: SnapshotStatus {
            content: string(object, "/status/boundVolumeSnapshotContentName"),
            created: created.and_then(|since| i64::try_from(since.as_secs()).ok()),
            ready: object.pointer("/status/readyToUse").and_then(Value::as_bool),
            restore_size: amount(object, "/status/restoreSize"),
            error: error(object),
        },
    }
}

/// A VolumeSnapshotContent.
#[must_use]
pub fn content(object: &Value) -> Content {
    let handle = string(object, "/spec/source/snapshotHandle");
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    Content {
        meta: meta(object),
        driver: string(object, "/spec/driver"),
        policy: policy(object, "/spec/deletionPolicy"),
        source: match handle.is_empty() {
            true => ContentSource::Volume(string(object, "/spec/source/volumeHandle")),
            false => ContentSource::Snapshot(handle),
        },
        to: SnapshotRef {
            id: Id::new(
                text(object, "/spec/volumeSnapshotRef/namespace"),
                text(object, "/spec/volumeSnapshotRef/name"),
            ),
            uid: string(object, "/spec/volumeSnapshotRef/uid"),
        },
        class_name: string(object, "/spec/volumeSnapshotClassName"),
        mode: match text(object, "/spec/sourceVolumeMode") {
            "Filesystem" => Some(VolumeMode::Filesystem),
            "Block" => Some(VolumeMode::Block),
            _ => None,
        },
        status: ContentStatus {
            handle: string(object, "/status/snapshotHandle"),
            created_nanos: number("/status/creationTime"),
            restore_bytes: number("/status/restoreSize"),
            ready: object.pointer("/status/readyToUse").and_then(Value::as_bool),
            error: error(object),
        },
    }
}

fn policy(object: &Value, pointer: &str) -> DeletionPolicy {
    match text(object, pointer) {
        "Delete" => DeletionPolicy::Delete,
        _ => DeletionPolicy::Retain,
    }
}

fn error(object: &Value) -> Option<String> {
    let error = object.pointer("/status/error").filter(|error| error.is_object())?;
    Some(string(error, "/message"))
}

/// Sets the fields that an action about a snapshot names.
pub(super) fn change(action: &Action, object: &mut Value) {
    match action {
        Action::SetSnapshotClass { class, .. } => {
            set_spec(object, "volumeSnapshotClassName", Some(class.as_str().into()));
        }
        Action::SnapshotStatus { status, .. } => snapshot_status(object, status),
        Action::BindContent { uid, class, .. } => {
            if let Some(spec) = map_in(object, "spec") {
                if let Some(to) = map_in(spec, "volumeSnapshotRef") {
                    set(to, "uid", Some(uid.as_str().into()));
                }
                if !class.is_empty() {
                    set(spec, "volumeSnapshotClassName", Some(class.as_str().into()));
                }
            }
        }
        Action::ContentStatus { status, .. } => content_status(object, status),
        _ => {}
    }
}

fn snapshot_status(object: &mut Value, status: &SnapshotStatus) {
    let Some(map) = map_in(object, "status") else { return };
    set(map, "boundVolumeSnapshotContentName", unless_empty(&status.content));
    let time = |seconds: i64| {
        let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
    };
    set(map, "creationTime", status.created.map(|seconds| time(seconds).into()));
    set(map, "readyToUse", status.ready.map(Value::from));
    set(map, "restoreSize", status.restore_size.map(|size| size.to_string().into()));
    set_error(map, status.error.as_deref());
}

fn content_status(object: &mut Value, status: &ContentStatus) {
    let Some(map) = map_in(object, "status") else { return };
    set(map, "snapshotHandle", unless_empty(&status.handle));
    set(map, "creationTime", status.created_nanos.map(Value::from));
    set(map, "readyToUse", status.ready.map(Value::from));
    set(map, "restoreSize", status.restore_bytes.map(Value::from));
    set_error(map, status.error.as_deref());
}

/// Sets an error with the time of now, unless it is there already.
fn set_error(status: &mut Value, message: Option<&str>) {
    let has = status.pointer("/error/message").and_then(Value::as_str);
    if has != message || message.is_none() {
        let error = message.map(|message| json!({"message": message, "time": now()}));
        set(status, "error", error);
    }
}

/// The object of a content that is made for a snapshot.
#[must_use]
pub fn new_content(content: &Content) -> Value {
    let policy = match content.policy {
        DeletionPolicy::Delete => "Delete",
        DeletionPolicy::Retain => "Retain",
    };
    let source = match &content.source {
        ContentSource::Volume(handle) => json!({"volumeHandle": handle}),
        ContentSource::Snapshot(handle) => json!({"snapshotHandle": handle}),
    };
    let mut spec = json!({
        "driver": content.driver,
        "deletionPolicy": policy,
        "source": source,
        "volumeSnapshotRef": {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "namespace": content.to.id.namespace,
            "name": content.to.id.name,
            "uid": content.to.uid,
        },
    });
    set(&mut spec, "volumeSnapshotClassName", unless_empty(&content.class_name));
    set(&mut spec, "sourceVolumeMode", content.mode.map(|one| mode(one).into()));
    json!({
        "metadata": {"name": content.meta.name, "finalizers": content.meta.finalizers},
        "spec": spec,
    })
}

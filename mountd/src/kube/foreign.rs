//! Manifests that another cluster printed: what of them belongs to that cluster alone.
//!
//! Such a manifest has the id of an object that is not this one. Its version, its times and its
//! status mean nothing here, and a binding that names the id of a claim there would be lost: it is
//! made anew, by the names.

use laminafs::claim::names::{BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE};
use serde_json::Value;

use super::kinds::Kind;
use super::meta::{set, set_meta, text};

/// Metadata that the server sets.
const SET_BY_SERVER: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Whether a manifest was printed for another object than the one that is here.
#[must_use]
pub fn is_foreign(manifest: &Value, current: Option<&Value>) -> bool {
    let uid = text(manifest, "/metadata/uid");
    !uid.is_empty() && current.is_none_or(|current| text(current, "/metadata/uid") != uid)
}

/// Removes what the server sets from the metadata, and the status.
pub fn strip(object: &mut Value) {
    for field in SET_BY_SERVER {
        set_meta(object, field, None);
    }
    set(object, "status", None);
}

/// Removes what belongs to another cluster.
pub fn adopt(kind: &Kind, object: &mut Value) {
    strip(object);
    match kind.kind {
        "PersistentVolume" => {
            if let Some(to) = object.pointer_mut("/spec/claimRef") {
                set(to, "uid", None);
                set(to, "resourceVersion", None);
            }
        }
        "PersistentVolumeClaim" => {
            if let Some(annotations) = object.pointer_mut("/metadata/annotations") {
                for name in [BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE] {
                    set(annotations, name, None);
                }
            }
        }
        _ => {}
    }
}

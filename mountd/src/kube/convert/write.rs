//! The fields that an action sets.

use laminafs::claim::object::{
    Claim, ClaimPhase, ClaimRef, ClaimStatus, Id, Key, ReclaimPolicy, Volume, VolumeMode,
    VolumePhase, VolumeStatus,
};
use laminafs::claim::{Action, names};
use serde_json::{Map, Value, json};

use super::{shown_mode, snapshots};
use crate::kube::meta::{add_finalizer, map_in, now, remove_finalizer, set};
use crate::kube::objects::Part;

/// The object that an action changes, and the part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The object.
    pub object: Key,
    /// The part.
    pub part: Part,
}

/// What an action changes; `None` for an event, an order, a creation or a deletion.
#[must_use]
pub fn target(action: &Action) -> Option<Write> {
    let volume = |name: &String| Key::Volume(name.clone());
    let claim = |id: &Id| Key::Claim(id.clone());
    let (object, part) = match action {
        Action::BindVolume { volume: name, .. }
        | Action::UnbindVolume { volume: name, .. }
        | Action::VolumeCapacity { volume: name, .. }
        | Action::VolumeAttributesClass { volume: name, .. } => (volume(name), Part::Main),
        Action::VolumeStatus { volume: name, .. } => (volume(name), Part::Status),
        Action::BindClaim { claim: id, .. } | Action::SetClass { claim: id, .. } => {
            (claim(id), Part::Main)
        }
        Action::ClaimStatus { claim: id, .. } => (claim(id), Part::Status),
        Action::Annotate { object, .. }
        | Action::AddFinalizer { object, .. }
        | Action::RemoveFinalizer { object, .. } => (object.clone(), Part::Main),
        Action::PlacePod { pod, .. } => (Key::Pod(pod.clone()), Part::Whole),
        Action::SetSnapshotClass { snapshot: id, .. } => (Key::Snapshot(id.clone()), Part::Main),
        Action::SnapshotStatus { snapshot: id, .. } => (Key::Snapshot(id.clone()), Part::Status),
        Action::BindContent { content: name, .. } => (Key::Content(name.clone()), Part::Main),
        Action::ContentStatus { content: name, .. } => (Key::Content(name.clone()), Part::Status),
        Action::CreateClaim(_)
        | Action::CreateContent(_)
        | Action::DeleteContent { .. }
        | Action::TakeSnapshot { .. }
        | Action::FindSnapshot { .. }
        | Action::DeleteSnapshot { .. }
        | Action::Event(_)
        | Action::Provision(_)
        | Action::DeleteBacking { .. }
        | Action::DeleteVolume { .. }
        | Action::Recycle { .. }
        | Action::Expand { .. }
        | Action::Modify { .. }
        | Action::StandIn { .. } => return None,
    };
    Some(Write { object, part })
}

/// Sets the fields that an action names.
pub fn change(action: &Action, object: &mut Value) {
    match action {
        Action::BindVolume { to, by_controller, .. } => {
            set_spec(object, "claimRef", Some(reference(to)));
            if *by_controller {
                annotate(object, names::BOUND_BY_CONTROLLER, Some("yes"));
            }
        }
        Action::UnbindVolume { keep, .. } => {
            set_spec(object, "claimRef", keep.as_ref().map(reference));
            annotate(object, names::BOUND_BY_CONTROLLER, None);
        }
        Action::VolumeCapacity { size, .. } => {
            if let Some(spec) = map_in(object, "spec")
                && let Some(capacity) = map_in(spec, "capacity")
            {
                set(capacity, "storage", Some(size.to_string().into()));
            }
        }
        Action::VolumeAttributesClass { class, .. } => {
            set_spec(object, "volumeAttributesClassName", Some(class.as_str().into()));
        }
        Action::VolumeStatus { status, .. } => volume_status(object, status),
        Action::BindClaim { volume, by_controller, .. } => {
            set_spec(object, "volumeName", Some(volume.as_str().into()));
            annotate(object, names::BIND_COMPLETED, Some("yes"));
            if *by_controller {
                annotate(object, names::BOUND_BY_CONTROLLER, Some("yes"));
            }
        }
        Action::SetClass { class, .. } => {
            set_spec(object, "storageClassName", Some(class.as_str().into()));
        }
        Action::ClaimStatus { status, .. } => claim_status(object, status),
        Action::Annotate { annotations, .. } => {
            for (key, value) in annotations {
                annotate(object, key, value.as_deref());
            }
        }
        Action::AddFinalizer { finalizer, .. } => add_finalizer(object, finalizer),
        Action::RemoveFinalizer { finalizer, .. } => remove_finalizer(object, finalizer),
        Action::PlacePod { node, .. } => {
            set_spec(object, "nodeName", Some(node.as_str().into()));
            scheduled(object);
        }
        other => snapshots::change(other, object),
    }
}

pub(super) fn set_spec(object: &mut Value, name: &str, value: Option<Value>) {
    if let Some(spec) = map_in(object, "spec") {
        set(spec, name, value);
    }
}

fn annotate(object: &mut Value, key: &str, value: Option<&str>) {
    let Some(meta) = map_in(object, "metadata") else { return };
    if let Some(annotations) = map_in(meta, "annotations") {
        set(annotations, key, value.map(Value::from));
        if annotations.as_object().is_some_and(Map::is_empty) {
            set(meta, "annotations", None);
        }
    }
}

fn reference(to: &ClaimRef) -> Value {
    let mut reference = json!({
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "namespace": to.id.namespace,
        "name": to.id.name,
    });
    if !to.uid.is_empty() {
        set(&mut reference, "uid", Some(to.uid.as_str().into()));
    }
    reference
}

pub(super) fn unless_empty(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| text.into())
}

fn volume_status(object: &mut Value, status: &VolumeStatus) {
    let Some(map) = map_in(object, "status") else { return };
    let phase = match status.phase {
        VolumePhase::Pending => "Pending",
        VolumePhase::Available => "Available",
        VolumePhase::Bound => "Bound",
        VolumePhase::Released => "Released",
        VolumePhase::Failed => "Failed",
    };
    if map.get("phase").and_then(Value::as_str) != Some(phase) {
        set(map, "lastPhaseTransitionTime", Some(now().into()));
    }
    set(map, "phase", Some(phase.into()));
    set(map, "reason", unless_empty(&status.reason));
    set(map, "message", unless_empty(&status.message));
}

fn claim_status(object: &mut Value, status: &ClaimStatus) {
    let Some(map) = map_in(object, "status") else { return };
    let phase = match status.phase {
        ClaimPhase::Pending => "Pending",
        ClaimPhase::Bound => "Bound",
        ClaimPhase::Lost => "Lost",
    };
    let modes: Vec<&str> = status.modes.iter().map(|mode| shown_mode(*mode)).collect();
    let capacity = status.capacity.map(|size| json!({"storage": size.to_string()}));
    let modifying = unless_empty(&status.modifying)
        .map(|target| json!({"targetVolumeAttributesClassName": target, "status": "Pending"}));
    set(map, "phase", Some(phase.into()));
    set(map, "accessModes", (!modes.is_empty()).then(|| modes.into()));
    set(map, "capacity", capacity);
    set(map, "currentVolumeAttributesClassName", unless_empty(&status.attributes_class));
    set(map, "modifyVolumeStatus", modifying);
}

/// Sets the condition of a pod that has a node.
fn scheduled(object: &mut Value) {
    condition(object, json!({"type": "PodScheduled", "status": "True"}));
}

/// Sets the condition of a pod that no node suits.
pub fn unscheduled(object: &mut Value, message: &str) {
    let new = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    });
    condition(object, new);
}

/// Sets a condition in the place of that of its type, with the time at which its status changed.
fn condition(object: &mut Value, mut new: Value) {
    let Some(status) = map_in(object, "status") else { return };
    let list = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let (old, mut list): (Vec<Value>, Vec<Value>) =
        list.into_iter().partition(|one| one.get("type") == new.get("type"));
    let same = old.iter().find(|one| one.get("status") == new.get("status"));
    let since = same.and_then(|one| one.get("lastTransitionTime")).cloned();
    set(&mut new, "lastTransitionTime", Some(since.unwrap_or_else(|| now().into())));
    list.push(new);
    set(status, "conditions", Some(list.into()));
}

pub(super) fn mode(mode: VolumeMode) -> &'static str {
    match mode {
        VolumeMode::Filesystem => "Filesystem",
        VolumeMode::Block => "Block",
    }
}

/// The object of a volume that was made: `source` is its field in the specification, `node` the
/// only one that reaches it.
#[must_use]
pub fn new_volume(volume: &Volume, source: (&str, Value), node: &str) -> Value {
    let policy = match volume.reclaim {
        ReclaimPolicy::Retain => "Retain",
        ReclaimPolicy::Delete => "Delete",
        ReclaimPolicy::Recycle => "Recycle",
    };
    let modes: Vec<&str> = volume.modes.iter().map(|mode| shown_mode(*mode)).collect();
    let hosts = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    let mut spec = json!({
        "accessModes": modes,
        "capacity": {"storage": volume.capacity.to_string()},
        "persistentVolumeReclaimPolicy": policy,
        "volumeMode": mode(volume.volume_mode),
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [hosts]}]}},
    });
    set(&mut spec, source.0, Some(source.1));
    set(&mut spec, "claimRef", volume.claim_ref.as_ref().map(reference));
    set(&mut spec, "storageClassName", unless_empty(&volume.class_name));
    set(&mut spec, "volumeAttributesClassName", unless_empty(&volume.attributes_class));
    let options = &volume.mount_options;
    set(&mut spec, "mountOptions", (!options.is_empty()).then(|| options.clone().into()));
    json!({
        "metadata": {
            "name": volume.meta.name,
            "annotations": volume.meta.annotations,
            "finalizers": volume.meta.finalizers,
        },
        "spec": spec,
    })
}

/// The object of a claim that is made for a volume of a pod. `pod` is the pod's own object, whose
/// template it is.
#[must_use]
pub fn new_claim(claim: &Claim, pod: &Value) -> Option<Value> {
    let of = pod.pointer("/metadata/name")?.as_str()?;
    let volumes = pod.pointer("/spec/volumes")?.as_array()?;
    let is_it = |volume: &&Value| {
        let name = volume.get("name").and_then(Value::as_str);
        name.is_some_and(|name| claim.meta.name == format!("{of}-{name}"))
    };
    let template = volumes
        .iter()
        .filter(is_it)
        .find_map(|one| one.pointer("/ephemeral/volumeClaimTemplate"))?;
    let owner = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "name": of,
        "uid": pod.pointer("/metadata/uid"),
        "controller": true,
        "blockOwnerDeletion": true,
    });
    let mut spec = template.get("spec")?.clone();
    if let Some(class) = &claim.class_name {
        set(&mut spec, "storageClassName", Some(class.as_str().into()));
    }
    Some(json!({
        "metadata": {
            "name": claim.meta.name,
            "namespace": claim.meta.namespace,
            "labels": claim.meta.labels,
            "annotations": claim.meta.annotations,
            "finalizers": claim.meta.finalizers,
            "ownerReferences": [owner],
        },
        "spec": spec,
    }))
}

//! Objects as the decisions see them, and the writes of decisions as they change objects.
//!
//! An object is JSON in the store. [`volume`], [`claim`] and the like read the fields that
//! decisions depend on; an unreadable field counts as unset, since admission has judged it.
//! [`change`] writes the fields that an action names, and no others.

mod parts;
mod snapshots;
#[cfg(test)]
mod tests;
mod write;

use laminafs::claim::object::{
    AttributesClass, BindingMode, Claim, ClaimPhase, ClaimRef, ClaimStatus, Class, DataSource, Id,
    Node, Pod, PodPhase, PodVolume, ReclaimPolicy, Source, Volume, VolumeMode, VolumePhase,
    VolumeStatus,
};
use serde_json::Value;

use self::parts::{
    amount, labels, meta, modes, node_selector, selector, string, texts, topologies,
};

use self::parts::shown_mode;

pub use snapshots::{content, new_content, snapshot, snapshot_class};
pub use write::{Write, change, new_claim, new_volume, target, unscheduled};

/// The objects in the specification of a PersistentVolume that are no sources.
const NO_SOURCES: [&str; 3] = ["capacity", "claimRef", "nodeAffinity"];
/// The name of the CSI driver of this host, by which a cluster serves the same volumes.
pub const CSI: &str = "csi.lamina.dev";

/// A PersistentVolume.
#[must_use]
pub fn volume(object: &Value) -> Volume {
    Volume {
        meta: meta(object),
        capacity: amount(object, "/spec/capacity/storage").unwrap_or_default(),
        modes: modes(object, "/spec/accessModes"),
        volume_mode: volume_mode(object),
        class_name: string(object, "/spec/storageClassName"),
        reclaim: reclaim(
            &string(object, "/spec/persistentVolumeReclaimPolicy"),
            ReclaimPolicy::Retain,
        ),
        claim_ref: object.pointer("/spec/claimRef").filter(|to| to.is_object()).map(|to| {
            ClaimRef {
                id: Id::new(&string(to, "/namespace"), &string(to, "/name")),
                uid: string(to, "/uid"),
            }
        }),
        affinity: object.pointer("/spec/nodeAffinity/required").map(node_selector),
        attributes_class: string(object, "/spec/volumeAttributesClassName"),
        mount_options: texts(object, "/spec/mountOptions"),
        source: source(object),
        handle: string(object, "/spec/csi/volumeHandle"),
        status: VolumeStatus {
            phase: match &string(object, "/status/phase")[..] {
                "Available" => VolumePhase::Available,
                "Bound" => VolumePhase::Bound,
                "Released" => VolumePhase::Released,
                "Failed" => VolumePhase::Failed,
                _ => VolumePhase::Pending,
            },
            reason: string(object, "/status/reason"),
            message: string(object, "/status/message"),
        },
    }
}

fn source(object: &Value) -> Source {
    let has = |name: &str| object.pointer(&format!("/spec/{name}")).is_some_and(Value::is_object);
    if has("hostPath") {
        return Source::HostPath(string(object, "/spec/hostPath/path"));
    }
    if has("csi") {
        return Source::Csi(string(object, "/spec/csi/driver"));
    }
    if has("nfs") {
        return Source::Nfs;
    }
    Source::Other(source_field(object))
}

/// The name of the field with the source of a volume; empty if there is none.
#[must_use]
pub fn source_field(object: &Value) -> String {
    let spec = object.get("spec").and_then(Value::as_object).into_iter().flatten();
    let mut kinds =
        spec.filter(|(name, value)| value.is_object() && !NO_SOURCES.contains(&&name[..]));
    kinds.next().map(|(name, _)| name.clone()).unwrap_or_default()
}

fn volume_mode(object: &Value) -> VolumeMode {
    match &string(object, "/spec/volumeMode")[..] {
        "Block" => VolumeMode::Block,
        _ => VolumeMode::Filesystem,
    }
}

fn reclaim(text: &str, unset: ReclaimPolicy) -> ReclaimPolicy {
    match text {
        "Retain" => ReclaimPolicy::Retain,
        "Delete" => ReclaimPolicy::Delete,
        "Recycle" => ReclaimPolicy::Recycle,
        _ => unset,
    }
}

/// A PersistentVolumeClaim.
#[must_use]
pub fn claim(object: &Value) -> Claim {
    let status = object.get("status").unwrap_or(&Value::Null);
    Claim {
        meta: meta(object),
        modes: modes(object, "/spec/accessModes"),
        request: amount(object, "/spec/resources/requests/storage").unwrap_or_default(),
        class_name: object
            .pointer("/spec/storageClassName")
            .and_then(Value::as_str)
            .map(str::to_owned),
        selector: object.pointer("/spec/selector").filter(|one| one.is_object()).map(selector),
        volume_mode: volume_mode(object),
        volume_name: string(object, "/spec/volumeName"),
        attributes_class: string(object, "/spec/volumeAttributesClassName"),
        data_source: ["/spec/dataSource", "/spec/dataSourceRef"]
            .iter()
            .find_map(|at| object.pointer(at).filter(|source| source.is_object()))
            .map(|source| DataSource {
                group: string(source, "/apiGroup"),
                kind: string(source, "/kind"),
                name: string(source, "/name"),
            }),
        status: ClaimStatus {
            phase: match &string(status, "/phase")[..] {
                "Bound" => ClaimPhase::Bound,
                "Lost" => ClaimPhase::Lost,
                _ => ClaimPhase::Pending,
            },
            capacity: amount(status, "/capacity/storage"),
            modes: modes(status, "/accessModes"),
            attributes_class: string(status, "/currentVolumeAttributesClassName"),
            modifying: string(status, "/modifyVolumeStatus/targetVolumeAttributesClassName"),
        },
    }
}

/// A StorageClass.
#[must_use]
pub fn class(object: &Value) -> Class {
    Class {
        meta: meta(object),
        provisioner: string(object, "/provisioner"),
        parameters: labels(object, "/parameters"),
        reclaim: reclaim(&string(object, "/reclaimPolicy"), ReclaimPolicy::Delete),
        mount_options: texts(object, "/mountOptions"),
        may_expand: object.get("allowVolumeExpansion").and_then(Value::as_bool).unwrap_or(false),
        binding: match &string(object, "/volumeBindingMode")[..] {
            "WaitForFirstConsumer" => BindingMode::WaitForFirstConsumer,
            _ => BindingMode::Immediate,
        },
        topologies: topologies(object),
    }
}

/// A VolumeAttributesClass.
#[must_use]
pub fn attributes_class(object: &Value) -> AttributesClass {
    AttributesClass {
        meta: meta(object),
        driver: string(object, "/driverName"),
        parameters: labels(object, "/parameters"),
    }
}

/// A Pod.
#[must_use]
pub fn pod(object: &Value) -> Pod {
    let affinity = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let volumes = object.pointer("/spec/volumes").and_then(Value::as_array);
    let gates = object.pointer("/spec/schedulingGates").and_then(Value::as_array);
    Pod {
        meta: meta(object),
        node: string(object, "/spec/nodeName"),
        node_selector: labels(object, "/spec/nodeSelector"),
        affinity: object.pointer(affinity).map(node_selector),
        is_gated: gates.is_some_and(|gates| !gates.is_empty()),
        volumes: volumes.into_iter().flatten().filter_map(pod_volume).collect(),
        phase: match &string(object, "/status/phase")[..] {
            "Running" => PodPhase::Running,
            "Succeeded" => PodPhase::Succeeded,
            "Failed" => PodPhase::Failed,
            _ => PodPhase::Pending,
        },
    }
}

fn pod_volume(object: &Value) -> Option<PodVolume> {
    if let Some(source) = object.get("persistentVolumeClaim") {
        return Some(PodVolume::Claim(string(source, "/claimName")));
    }
    let template = object.pointer("/ephemeral/volumeClaimTemplate")?;
    let (volume, template) = (string(object, "/name"), Box::new(claim(template)));
    Some(PodVolume::Ephemeral { volume, template })
}

/// A Node.
#[must_use]
pub fn node(object: &Value) -> Node {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready =
        |one: &Value| string(one, "/type") == "Ready" && string(one, "/status") == "True";
    Node {
        meta: meta(object),
        is_cordoned: object.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true),
        is_ready: conditions.into_iter().flatten().any(is_ready),
    }
}

//! Objects as the API server reads them: each is parsed into the type of its kind and written
//! again. A field that is lost on the way has a name that the kind does not know.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass, VolumeAttributesClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A class of the snapshot controller, whose kinds are custom resources.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SnapshotClass {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    driver: String,
    deletion_policy: Deletion,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
enum Deletion {
    Delete,
    Retain,
}

/// A snapshot of a claim.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Snapshot {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: SnapshotSpec,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SnapshotSpec {
    volume_snapshot_class_name: String,
    source: SnapshotSource,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SnapshotSource {
    persistent_volume_claim_name: String,
}

/// A file of kustomize.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Kustomization {
    api_version: String,
    kind: String,
    #[serde(default)]
    pub namespace: Option<String>,
    pub resources: Vec<String>,
    #[serde(default)]
    pub images: Vec<Image>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Image {
    pub name: String,
    pub new_tag: String,
}

/// What is wrong with an object; `None` if its kind knows all of its fields.
pub fn problem(object: &Value) -> Option<String> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let kind = (text("apiVersion"), text("kind"));
    let parsed = match kind {
        ("v1", "Namespace") => again::<Namespace>(object),
        ("v1", "ServiceAccount") => again::<ServiceAccount>(object),
        ("v1", "PersistentVolumeClaim") => again::<PersistentVolumeClaim>(object),
        ("v1", "Pod") => again::<Pod>(object),
        ("apps/v1", "DaemonSet") => again::<DaemonSet>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => again::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            again::<ClusterRoleBinding>(object)
        }
        ("rbac.authorization.k8s.io/v1", "Role") => again::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => again::<RoleBinding>(object),
        ("storage.k8s.io/v1", "CSIDriver") => again::<CSIDriver>(object),
        ("storage.k8s.io/v1", "StorageClass") => again::<StorageClass>(object),
        ("storage.k8s.io/v1", "VolumeAttributesClass") => again::<VolumeAttributesClass>(object),
        ("snapshot.storage.k8s.io/v1", "VolumeSnapshotClass")
        | ("groupsnapshot.storage.k8s.io/v1beta2", "VolumeGroupSnapshotClass") => {
            again::<SnapshotClass>(object)
        }
        ("snapshot.storage.k8s.io/v1", "VolumeSnapshot") => again::<Snapshot>(object),
        _ => Err(format!("a kind that is not checked: {kind:?}")),
    };
    match parsed {
        Err(error) => Some(error),
        Ok(back) => lost(object, &back, ""),
    }
}

fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let parsed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(parsed).map_err(|error| error.to_string())
}

/// The first field that `back` does not have.
fn lost(object: &Value, back: &Value, at: &str) -> Option<String> {
    match (object, back) {
        (Value::Object(all), Value::Object(other)) => all.iter().find_map(|(name, value)| {
            let at = format!("{at}.{name}");
            match other.get(name) {
                Some(back) => lost(value, back, &at),
                None => Some(format!("unknown field {at}")),
            }
        }),
        (Value::Array(all), Value::Array(other)) if all.len() == other.len() => {
            let mut pairs = all.iter().zip(other).enumerate();
            pairs.find_map(|(place, (one, back))| lost(one, back, &format!("{at}[{place}]")))
        }
        (one, other) if one == other => None,
        (one, other) => Some(format!("{at} is {one}, and read as {other}")),
    }
}

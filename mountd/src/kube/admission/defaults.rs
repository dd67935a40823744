//! The fields that the API server sets in objects of all kinds but pods.

use serde_json::{Map, Value, json};

use super::amounts;

/// Sets the defaults of a kind.
pub(super) fn set(kind: &str, object: &mut Value) {
    match kind {
        "Namespace" => namespace(object),
        "PersistentVolume" => volume(object),
        "PersistentVolumeClaim" => claim(object),
        "StorageClass" => {
            put(object, "reclaimPolicy", json!("Delete"));
            put(object, "volumeBindingMode", json!("Immediate"));
        }
        "CSIDriver" => driver(object),
        "Secret" => secret(object),
        "Node" => {
            amounts::canonical(object.pointer_mut("/status/capacity"));
            amounts::canonical(object.pointer_mut("/status/allocatable"));
        }
        _ => {}
    }
}

/// Sets a field that is unset.
pub(super) fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        let field = fields.entry(name).or_insert(Value::Null);
        if field.is_null() {
            *field = value;
        }
    }
}

/// The map at a field, made if it is unset.
pub(super) fn map<'v>(object: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    put(object, name, Value::Object(Map::new()));
    object.get_mut(name).filter(|value| value.is_object())
}

/// The map at a field, if it is set.
pub(super) fn existing<'v>(object: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    object.get_mut(name).filter(|value| value.is_object())
}

fn namespace(namespace: &mut Value) {
    let name = namespace.pointer("/metadata/name").cloned();
    if let Some(spec) = map(namespace, "spec") {
        put(spec, "finalizers", json!(["kubernetes"]));
    }
    if let Some(status) = map(namespace, "status") {
        put(status, "phase", json!("Active"));
    }
    let labels = map(namespace, "metadata").and_then(|meta| map(meta, "labels"));
    if let (Some(labels), Some(name)) = (labels, name) {
        put(labels, "kubernetes.io/metadata.name", name);
    }
}

fn volume(volume: &mut Value) {
    if let Some(spec) = existing(volume, "spec") {
        put(spec, "persistentVolumeReclaimPolicy", json!("Retain"));
        put(spec, "volumeMode", json!("Filesystem"));
        amounts::canonical(spec.get_mut("capacity"));
        source(spec);
    }
    if let Some(status) = map(volume, "status") {
        put(status, "phase", json!("Pending"));
    }
}

/// Sets the defaults of the sources that pods and volumes share.
pub(super) fn source(spec: &mut Value) {
    let fixed: [(&str, &[(&str, Value)]); 4] = [
        ("hostPath", &[("type", json!(""))]),
        ("iscsi", &[("iscsiInterface", json!("default"))]),
        (
            "rbd",
            &[
                ("pool", json!("rbd")),
                ("user", json!("admin")),
                ("keyring", json!("/etc/ceph/keyring")),
            ],
        ),
        (
            "azureDisk",
            &[
                ("cachingMode", json!("ReadWrite")),
                ("fsType", json!("ext4")),
                ("readOnly", json!(false)),
                ("kind", json!("Shared")),
            ],
        ),
    ];
    for (name, fields) in fixed {
        if let Some(source) = existing(spec, name) {
            for (field, value) in fields {
                put(source, field, value.clone());
            }
        }
    }
}

fn claim(claim: &mut Value) {
    if let Some(spec) = existing(claim, "spec") {
        claim_spec(spec);
        data_sources(spec);
    }
    if let Some(status) = map(claim, "status") {
        put(status, "phase", json!("Pending"));
        amounts::canonical(status.get_mut("capacity"));
    }
}

/// Sets the defaults of a claim's specification, also inside a pod.
pub(super) fn claim_spec(spec: &mut Value) {
    put(spec, "volumeMode", json!("Filesystem"));
    if let Some(resources) = map(spec, "resources") {
        amounts::canonical(resources.get_mut("requests"));
        amounts::canonical(resources.get_mut("limits"));
    }
}

/// A source of data stands in both fields, unless it is in another namespace.
fn data_sources(spec: &mut Value) {
    let (source, reference) = (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned());
    match (source, reference) {
        (Some(source), None | Some(Value::Null)) if source.is_object() => {
            put(spec, "dataSourceRef", source);
        }
        (None | Some(Value::Null), Some(reference)) if reference.is_object() => {
            let group = reference.get("apiGroup").and_then(Value::as_str).unwrap_or_default();
            let kind = reference.get("kind").and_then(Value::as_str).unwrap_or_default();
            let is_known = matches!(
                (group, kind),
                ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
            );
            if is_known && reference.get("namespace").is_none_or(Value::is_null) {
                put(spec, "dataSource", reference);
            }
        }
        _ => {}
    }
}

fn driver(driver: &mut Value) {
    let Some(spec) = map(driver, "spec") else { return };
    put(spec, "attachRequired", json!(true));
    put(spec, "podInfoOnMount", json!(false));
    put(spec, "storageCapacity", json!(false));
    put(spec, "requiresRepublish", json!(false));
    put(spec, "seLinuxMount", json!(false));
    put(spec, "fsGroupPolicy", json!("ReadWriteOnceWithFSType"));
    put(spec, "volumeLifecycleModes", json!(["Persistent"]));
}

/// A Secret takes `stringData` over into `data`, where values are base64.
fn secret(secret: &mut Value) {
    put(secret, "type", json!("Opaque"));
    let Some(fields) = secret.as_object_mut() else { return };
    let Some(Value::Object(texts)) = fields.remove("stringData") else { return };
    let Some(data) = map(secret, "data").and_then(Value::as_object_mut) else { return };
    for (key, value) in texts {
        if let Some(text) = value.as_str() {
            data.insert(key, Value::String(base64(text.as_bytes())));
        }
    }
}

/// Bytes in base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4_usize {
            let index = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or_default();
            let digit = DIGITS.get(index).copied().unwrap_or(b'=');
            text.push(char::from(if place > chunk.len() { b'=' } else { digit }));
        }
    }
    text
}

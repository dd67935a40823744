//! The cells of the tables, one function for each kind.

use serde_json::{Value, json};

use super::age;
use super::kinds::Kind;
use super::meta::{is_ending, meta, text, texts};

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";
/// Marks the default class.
const DEFAULT_CLASS: [&str; 2] = [
    "/metadata/annotations/storageclass.kubernetes.io~1is-default-class",
    "/metadata/annotations/storageclass.beta.kubernetes.io~1is-default-class",
];
/// A class in the words of before there was a field.
const BETA_CLASS: &str = "/metadata/annotations/volume.beta.kubernetes.io~1storage-class";
/// The beginning of labels that name the role of a node.
const ROLE: &str = "node-role.kubernetes.io/";

/// The cells of an object.
pub fn cells(kind: &Kind, object: &Value) -> Vec<Value> {
    match kind.kind {
        "PersistentVolume" => volume(object),
        "PersistentVolumeClaim" => claim(object),
        "Pod" => pod(object),
        "Node" => node(object),
        "Namespace" => vec![name(object), text(object, "/status/phase").into(), age(object)],
        "Event" => event(object),
        "ConfigMap" => vec![name(object), entries(object, &["data", "binaryData"]), age(object)],
        "Secret" => {
            let form = text(object, "/type").into();
            vec![name(object), form, entries(object, &["data"]), age(object)]
        }
        "StorageClass" => class(object),
        "CSIDriver" => driver(object),
        "CSINode" => {
            let drivers = object.pointer("/spec/drivers").and_then(Value::as_array);
            vec![name(object), drivers.map_or(0, Vec::len).into(), age(object)]
        }
        "VolumeAttributesClass" => {
            vec![name(object), text(object, "/driverName").into(), age(object)]
        }
        "VolumeSnapshotClass" => vec![
            name(object),
            text(object, "/driver").into(),
            text(object, "/deletionPolicy").into(),
            age(object),
        ],
        "VolumeSnapshot" => snapshot(object),
        "VolumeSnapshotContent" => content(object),
        _ => vec![name(object), age(object)],
    }
}

fn name(object: &Value) -> Value {
    text(object, "/metadata/name").into()
}

fn age(object: &Value) -> Value {
    age::since(text(object, "/metadata/creationTimestamp")).into()
}

/// A text, or what stands for a missing one.
fn or(found: &str, other: &str) -> Value {
    if found.is_empty() { other.into() } else { found.into() }
}

fn entries(object: &Value, fields: &[&str]) -> Value {
    let maps = fields.iter().filter_map(|field| object.get(*field)?.as_object());
    maps.map(serde_json::Map::len).sum::<usize>().into()
}

/// A value as text, which a number or a boolean can be too.
fn plain(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

/// Access modes as kubectl shortens them.
pub fn modes(object: &Value, pointer: &str) -> String {
    let short = |mode: &String| match &mode[..] {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    let found = texts(object, pointer);
    // In the order in which kubectl knows them, each once.
    let order = ["RWO", "ROX", "RWX", "RWOP"];
    let has = |wanted: &&&str| found.iter().any(|mode| short(mode) == **wanted);
    order.iter().filter(has).copied().collect::<Vec<_>>().join(",")
}

/// The class of a volume or a claim.
pub fn storage_class(object: &Value) -> &str {
    let beta = text(object, BETA_CLASS);
    if beta.is_empty() { text(object, "/spec/storageClassName") } else { beta }
}

/// Whether claims without a class get this one.
pub fn is_default_class(object: &Value) -> bool {
    DEFAULT_CLASS.iter().any(|pointer| text(object, pointer) == "true")
}

fn phase(object: &Value) -> Value {
    if is_ending(object) { "Terminating".into() } else { text(object, "/status/phase").into() }
}

fn volume(object: &Value) -> Vec<Value> {
    let (namespace, claim) =
        (text(object, "/spec/claimRef/namespace"), text(object, "/spec/claimRef/name"));
    let claim = if claim.is_empty() { String::new() } else { format!("{namespace}/{claim}") };
    vec![
        name(object),
        plain(object, "/spec/capacity/storage").into(),
        modes(object, "/spec/accessModes").into(),
        text(object, "/spec/persistentVolumeReclaimPolicy").into(),
        phase(object),
        claim.into(),
        storage_class(object).into(),
        or(text(object, "/spec/volumeAttributesClassName"), UNSET),
        text(object, "/status/reason").into(),
        age(object),
        or(text(object, "/spec/volumeMode"), UNSET),
    ]
}

fn claim(object: &Value) -> Vec<Value> {
    let volume = text(object, "/spec/volumeName");
    let (mut capacity, mut offered) = (String::new(), String::new());
    if !volume.is_empty() {
        capacity = plain(object, "/status/capacity/storage");
        offered = modes(object, "/status/accessModes");
    }
    vec![
        name(object),
        phase(object),
        volume.into(),
        capacity.into(),
        offered.into(),
        storage_class(object).into(),
        or(text(object, "/spec/volumeAttributesClassName"), UNSET),
        age(object),
        or(text(object, "/spec/volumeMode"), UNSET),
    ]
}

/// The state of a container that explains the state of its pod, if it is not running.
fn stopped(object: &Value) -> Option<String> {
    let statuses = object.pointer("/status/containerStatuses").and_then(Value::as_array)?;
    let mut shown = None;
    for status in statuses {
        let waiting = text(status, "/state/waiting/reason");
        let ended = text(status, "/state/terminated/reason");
        let code = status.pointer("/state/terminated/exitCode").and_then(Value::as_i64);
        if !waiting.is_empty() {
            shown = Some(waiting.to_owned());
        } else if !ended.is_empty() {
            shown = Some(ended.to_owned());
        } else if let Some(code) = code {
            shown = Some(format!("ExitCode:{code}"));
        }
    }
    shown
}

fn pod(object: &Value) -> Vec<Value> {
    let count = |pointer| object.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
    let statuses = object.pointer("/status/containerStatuses").and_then(Value::as_array);
    let statuses: &[Value] = statuses.map_or(&[], Vec::as_slice);
    let ready = statuses.iter().filter(|one| one.get("ready") == Some(&Value::Bool(true))).count();
    let restarts: u64 = statuses.iter().filter_map(|one| one.get("restartCount")?.as_u64()).sum();
    let reason = text(object, "/status/reason");
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let is_gated = |one: &Value| text(one, "/reason") == "SchedulingGated";
    let phase = match text(object, "/status/phase") {
        _ if !reason.is_empty() => reason,
        _ if conditions.is_some_and(|all| all.iter().any(is_gated)) => "SchedulingGated",
        phase => phase,
    };
    let status = match stopped(object) {
        _ if is_ending(object) => "Terminating".to_owned(),
        Some(reason) => reason,
        None => phase.to_owned(),
    };
    let gates = match count("/spec/readinessGates") {
        0 => NONE.to_owned(),
        gates => format!("0/{gates}"),
    };
    vec![
        name(object),
        format!("{ready}/{}", count("/spec/containers")).into(),
        status.into(),
        restarts.to_string().into(),
        age(object),
        or(text(object, "/status/podIP"), NONE),
        or(text(object, "/spec/nodeName"), NONE),
        or(text(object, "/status/nominatedNodeName"), NONE),
        gates.into(),
    ]
}

fn node(object: &Value) -> Vec<Value> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().find(|one| text(one, "/type") == "Ready");
    let mut status = match ready.map(|one| text(one, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = meta(object, "labels").and_then(Value::as_object);
    let roles = labels.into_iter().flatten().filter_map(|(key, _)| key.strip_prefix(ROLE));
    let roles = roles.collect::<Vec<_>>().join(",");
    let address = |wanted: &str| {
        let all = object.pointer("/status/addresses").and_then(Value::as_array);
        let found = all.into_iter().flatten().find(|one| text(one, "/type") == wanted);
        or(found.map_or("", |one| text(one, "/address")), NONE)
    };
    let info = |field: &str, other| or(text(object, &format!("/status/nodeInfo/{field}")), other);
    vec![
        name(object),
        status.into(),
        or(&roles, NONE),
        age(object),
        info("kubeletVersion", ""),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage", "<unknown>"),
        info("kernelVersion", "<unknown>"),
        info("containerRuntimeVersion", "<unknown>"),
    ]
}

fn event(object: &Value) -> Vec<Value> {
    let times = ["/firstTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    let first = times.iter().map(|time| text(object, time)).find(|time| !time.is_empty());
    let last = text(object, "/lastTimestamp");
    let first = age::since(first.unwrap_or_default());
    let last = if last.is_empty() { first.clone() } else { age::since(last) };
    let about = format!(
        "{}/{}",
        text(object, "/involvedObject/kind").to_lowercase(),
        text(object, "/involvedObject/name")
    );
    let (component, host) = (text(object, "/source/component"), text(object, "/source/host"));
    let component =
        if component.is_empty() { text(object, "/reportingComponent") } else { component };
    let source = [component, host].into_iter().filter(|one| !one.is_empty());
    let count = object.get("count").and_then(Value::as_u64).unwrap_or(1);
    vec![
        last.into(),
        text(object, "/type").into(),
        text(object, "/reason").into(),
        about.into(),
        text(object, "/involvedObject/fieldPath").into(),
        source.collect::<Vec<_>>().join(", ").into(),
        text(object, "/message").trim().into(),
        first.into(),
        count.max(1).into(),
        name(object),
    ]
}

fn class(object: &Value) -> Vec<Value> {
    let mut name = text(object, "/metadata/name").to_owned();
    if is_default_class(object) {
        name.push_str(" (default)");
    }
    vec![
        name.into(),
        text(object, "/provisioner").into(),
        or(text(object, "/reclaimPolicy"), "Delete"),
        or(text(object, "/volumeBindingMode"), "Immediate"),
        or(&plain(object, "/allowVolumeExpansion"), "false"),
        age(object),
    ]
}

fn driver(object: &Value) -> Vec<Value> {
    let flag = |field: &str, other| or(&plain(object, &format!("/spec/{field}")), other);
    let tokens = object.pointer("/spec/tokenRequests").and_then(Value::as_array);
    let tokens: Vec<&str> =
        tokens.into_iter().flatten().map(|one| text(one, "/audience")).collect();
    vec![
        name(object),
        flag("attachRequired", "true"),
        flag("podInfoOnMount", "false"),
        flag("storageCapacity", "false"),
        or(&tokens.join(","), UNSET),
        flag("requiresRepublish", "false"),
        or(&texts(object, "/spec/volumeLifecycleModes").join(","), "Persistent"),
        age(object),
    ]
}

fn snapshot(object: &Value) -> Vec<Value> {
    let time = text(object, "/status/creationTime");
    let created = if time.is_empty() { Value::Null } else { json!(age::since(time)) };
    vec![
        name(object),
        plain(object, "/status/readyToUse").into(),
        text(object, "/spec/source/persistentVolumeClaimName").into(),
        text(object, "/spec/source/volumeSnapshotContentName").into(),
        plain(object, "/status/restoreSize").into(),
        text(object, "/spec/volumeSnapshotClassName").into(),
        text(object, "/status/boundVolumeSnapshotContentName").into(),
        created,
        age(object),
    ]
}

fn content(object: &Value) -> Vec<Value> {
    vec![
        name(object),
        plain(object, "/status/readyToUse").into(),
        plain(object, "/status/restoreSize").into(),
        text(object, "/spec/deletionPolicy").into(),
        text(object, "/spec/driver").into(),
        text(object, "/spec/volumeSnapshotClassName").into(),
        text(object, "/spec/volumeSnapshotRef/name").into(),
        text(object, "/spec/volumeSnapshotRef/namespace").into(),
        age(object),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: &str, object: &Value) -> Vec<String> {
        let kind = Kind::of_record(kind).unwrap();
        let cells = cells(kind, object).into_iter();
        cells.map(|cell| cell.as_str().map_or(cell.to_string(), str::to_owned)).collect()
    }

    #[test]
    fn a_volume_shows_what_kubectl_prints() {
        let object = json!({
            "metadata": {"name": "a"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": "n", "name": "c"},
                "storageClassName": "slow",
            },
            "status": {"phase": "Bound"},
        });
        let expected = [
            "a",
            "1Gi",
            "RWO,RWX",
            "Retain",
            "Bound",
            "n/c",
            "slow",
            "<unset>",
            "",
            "<unknown>",
            "<unset>",
        ];
        assert_eq!(shown("persistentvolumes", &object), expected);
        let mut ending = object;
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(shown("persistentvolumes", &ending)[4], "Terminating");
    }

    #[test]
    fn a_claim_shows_its_capacity_once_it_has_a_volume() {
        let mut object = json!({
            "metadata": {"name": "c"},
            "spec": {"accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Pending", "capacity": {"storage": "1Gi"},
                       "accessModes": ["ReadWriteOnce"]},
        });
        let cells = shown("persistentvolumeclaims", &object);
        assert_eq!(cells[..5], ["c", "Pending", "", "", ""]);
        object["spec"]["volumeName"] = "v".into();
        let cells = shown("persistentvolumeclaims", &object);
        assert_eq!(cells[2..5], ["v", "1Gi", "RWO"]);
    }

    #[test]
    fn the_default_class_is_marked() {
        let object = json!({"metadata": {"name": "s", "annotations": {
            "storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"});
        let cells = shown("storageclasses.storage.k8s.io", &object);
        assert_eq!(cells[..5], ["s (default)", "p", "Delete", "Immediate", "false"]);
    }
}

//! The fields that the API server sets in pods.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::amounts;
use super::defaults::{claim_spec, existing, map, put, source};

/// The condition of a pod that is not to be placed yet.
const GATED: [(&str, &str); 4] = [
    ("type", "PodScheduled"),
    ("status", "False"),
    ("reason", "SchedulingGated"),
    ("message", "Scheduling is blocked due to non-empty scheduling gates"),
];

/// Sets the defaults of a pod.
pub(super) fn pod(pod: &mut Value) {
    if let Some(spec) = existing(pod, "spec") {
        put(spec, "restartPolicy", json!("Always"));
        put(spec, "dnsPolicy", json!("ClusterFirst"));
        put(spec, "terminationGracePeriodSeconds", json!(30));
        put(spec, "securityContext", json!({}));
        put(spec, "schedulerName", json!("default-scheduler"));
        put(spec, "enableServiceLinks", json!(true));
        tolerations(spec);
        let is_host = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or_default();
        for list in ["containers", "initContainers"] {
            for one in items(spec, list) {
                container(one, is_host);
            }
        }
        for one in items(spec, "volumes") {
            volume(one);
        }
    }
    let class = quality(pod);
    let gates = pod.pointer("/spec/schedulingGates").and_then(Value::as_array);
    let is_gated = gates.is_some_and(|gates| !gates.is_empty());
    if let Some(status) = map(pod, "status") {
        if is_gated {
            put(status, "conditions", json!([BTreeMap::from(GATED)]));
        }
        put(status, "phase", json!("Pending"));
        put(status, "qosClass", json!(class));
    }
}

/// The taints of a node that does not answer.
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

fn tolerated(taint: &str) -> Value {
    json!({
        "key": taint,
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 300,
    })
}

/// Whether a toleration is one that every pod gets.
pub(super) fn is_default(toleration: Option<&Value>) -> bool {
    TAINTS.iter().any(|taint| toleration == Some(&tolerated(taint)))
}

/// Lets a pod stay on a node that is not ready, or cannot be reached, for a while, unless it says
/// for how long.
fn tolerations(spec: &mut Value) {
    let is_about = |one: &Value, taint: &str| {
        let text = |name: &str| one.get(name).and_then(Value::as_str).unwrap_or_default();
        ["", taint].contains(&text("key")) && ["", "NoExecute"].contains(&text("effect"))
    };
    let mut all = match spec.get("tolerations") {
        Some(Value::Array(all)) => all.clone(),
        _ => Vec::new(),
    };
    for taint in TAINTS {
        if !all.iter().any(|one| is_about(one, taint)) {
            all.push(tolerated(taint));
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("tolerations".to_owned(), all.into());
    }
}

fn items<'v>(object: &'v mut Value, name: &str) -> impl Iterator<Item = &'v mut Value> {
    object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

fn container(container: &mut Value, is_host: bool) {
    put(container, "terminationMessagePath", json!("/dev/termination-log"));
    put(container, "terminationMessagePolicy", json!("File"));
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    put(container, "imagePullPolicy", json!(policy));
    for port in items(container, "ports") {
        put(port, "protocol", json!("TCP"));
        let number = port.get("containerPort").cloned();
        if let (true, Some(number)) = (is_host, number) {
            put(port, "hostPort", number);
        }
    }
    for variable in items(container, "env") {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            put(reference, "apiVersion", json!("v1"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing(container, probe) {
            let fields = [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ];
            for (name, number) in fields {
                put(probe, name, json!(number));
            }
        }
    }
    if let Some(resources) = map(container, "resources") {
        amounts::canonical(resources.get_mut("limits"));
        amounts::canonical(resources.get_mut("requests"));
        requests_from_limits(resources);
    }
}

/// A limit without a request is the request too.
fn requests_from_limits(resources: &mut Value) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if let Some(requests) = map(resources, "requests") {
        for (name, limit) in limits {
            put(requests, &name, limit);
        }
    }
}

/// An image that may change under its name is pulled each time.
fn pull_policy(image: &str) -> &'static str {
    let (_, name) = image.rsplit_once('/').unwrap_or(("", image));
    let is_fixed =
        name.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    if is_fixed { "IfNotPresent" } else { "Always" }
}

fn volume(volume: &mut Value) {
    // A volume without a source is an empty directory.
    let is_bare = volume
        .as_object()
        .is_some_and(|fields| fields.iter().all(|(name, value)| name == "name" || value.is_null()));
    if is_bare {
        put(volume, "emptyDir", json!({}));
    }
    source(volume);
    for name in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, name) {
            put(source, "defaultMode", json!(0o644));
        }
    }
    for reference in ["/downwardAPI", "/projected"] {
        if let Some(source) = volume.pointer_mut(reference) {
            projection(source);
        }
    }
    if let Some(spec) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        claim_spec(spec);
    }
    if let Some(template) = volume.pointer_mut("/ephemeral/volumeClaimTemplate") {
        put(template, "metadata", Value::Object(Map::new()));
    }
    if let Some(image) = existing(volume, "image") {
        let reference = image.get("reference").and_then(Value::as_str).unwrap_or_default();
        let policy = pull_policy(reference);
        put(image, "pullPolicy", json!(policy));
    }
}

fn projection(source: &mut Value) {
    let versions = |one: &mut Value| {
        for item in items(one, "items") {
            if let Some(reference) = existing(item, "fieldRef") {
                put(reference, "apiVersion", json!("v1"));
            }
        }
    };
    versions(source);
    for part in items(source, "sources") {
        if let Some(fields) = existing(part, "downwardAPI") {
            versions(fields);
        }
        if let Some(token) = existing(part, "serviceAccountToken") {
            put(token, "expirationSeconds", json!(3600));
        }
    }
}

/// The class of service that a pod's requests and limits make.
fn quality(pod: &mut Value) -> &'static str {
    let (mut is_guaranteed, mut is_empty) = (true, true);
    let Some(spec) = existing(pod, "spec") else { return "BestEffort" };
    for list in ["initContainers", "containers"] {
        for container in items(spec, list) {
            let amount = |list: &str, name: &str| {
                container.pointer(&format!("/resources/{list}/{name}")).cloned()
            };
            for name in ["cpu", "memory"] {
                let (request, limit) = (amount("requests", name), amount("limits", name));
                is_empty &= request.is_none() && limit.is_none();
                is_guaranteed &= limit.is_some() && request == limit;
            }
        }
    }
    match (is_empty, is_guaranteed) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

//! What a pod takes from other objects: fields of its own, keys of ConfigMaps and Secrets.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::fault::Fault;
use crate::kube::kinds::Kind;
use crate::kube::meta::text;
use crate::kube::objects::{Store, Target};
use crate::kube::status::{Answer, Failure};

/// The kind of a record.
///
/// # Errors
/// There is none.
pub fn kind(record: &str) -> Answer<&'static Kind> {
    Kind::of_record(record).ok_or_else(|| Failure::internal(&format!("no kind {record}")))
}

/// A pod by namespace and name.
///
/// # Errors
/// Not found.
pub fn pod(store: &Store, (namespace, name): (&str, &str)) -> Answer<Value> {
    store.get(&Target { kind: kind("pods")?, namespace, name })
}

/// The address of a node.
#[must_use]
pub fn node_address(store: &Store, node: &str) -> String {
    const NONE: &str = "127.0.0.1";
    let Ok(Some(node)) = object(store, "nodes", ("", node)) else { return NONE.to_owned() };
    let all = node.pointer("/status/addresses").and_then(Value::as_array);
    let is_internal = |one: &&Value| text(one, "/type") == "InternalIP";
    let found = all.into_iter().flatten().find(is_internal);
    found.map_or(NONE, |one| text(one, "/address")).to_owned()
}

/// The data of a ConfigMap or Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// An object of a namespace; `None` if it does not exist.
///
/// # Errors
/// Those of the catalogue.
pub fn object(
    store: &Store,
    record: &str,
    (namespace, name): (&str, &str),
) -> Result<Option<Value>, Fault> {
    let kind = kind(record)?;
    match store.get(&Target { kind, namespace, name }) {
        Err(failure) if failure.code == 404 => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// The data of a ConfigMap (`configmaps`) or a Secret (`secrets`). An optional one that does not
/// exist is `None`.
///
/// # Errors
/// Not found.
pub fn data(
    store: &Store,
    (record, is_optional): (&str, bool),
    (namespace, name): (&str, &str),
) -> Result<Option<Data>, Fault> {
    let Some(object) = object(store, record, (namespace, name))? else {
        if is_optional {
            return Ok(None);
        }
        let what = record.trim_end_matches('s');
        return Err(Fault::new(format!("{what} {name:?} not found")));
    };
    let mut data = Data::new();
    for (field, is_coded) in [("data", record == "secrets"), ("binaryData", true)] {
        let entries = object.get(field).and_then(Value::as_object).into_iter().flatten();
        for (key, value) in entries {
            let value = value.as_str().unwrap_or_default();
            let bytes = match is_coded {
                true => STANDARD.decode(value).map_err(|error| {
                    Fault::new(format!("key {key} of {record}/{name} is not base64: {error}"))
                })?,
                false => value.as_bytes().to_vec(),
            };
            data.insert(key.clone(), bytes);
        }
    }
    Ok(Some(data))
}

/// Quoted lines of a map, as the downward API shows labels and annotations.
fn lines(map: Option<&Value>) -> String {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    let lines =
        entries.map(|(key, value)| format!("{key}={:?}", value.as_str().unwrap_or_default()));
    lines.collect::<Vec<_>>().join("\n")
}

/// A field of the pod by its path, as the downward API shows it.
///
/// # Errors
/// A path that is not supported.
pub fn field(pod: &Value, path: &str) -> Result<String, Fault> {
    let pointer = format!("/{}", path.replace('.', "/"));
    Ok(match path {
        "metadata.name"
        | "metadata.namespace"
        | "metadata.uid"
        | "spec.nodeName"
        | "spec.serviceAccountName"
        | "status.hostIP"
        | "status.podIP" => text(pod, &pointer).to_owned(),
        "status.hostIPs" => text(pod, "/status/hostIP").to_owned(),
        "status.podIPs" => text(pod, "/status/podIP").to_owned(),
        "metadata.labels" | "metadata.annotations" => lines(pod.pointer(&pointer)),
        _ => {
            let found = ["metadata.labels['", "metadata.annotations['"].iter().find_map(|start| {
                let key = path.strip_prefix(start)?.strip_suffix("']")?;
                let map = start.split(['.', '[']).nth(1)?;
                let value = pod.get("metadata")?.get(map).and_then(|map| map.get(key));
                Some(value.and_then(Value::as_str).unwrap_or_default().to_owned())
            });
            found.ok_or_else(|| Fault::new(format!("fieldPath {path:?} is not supported")))?
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_shown_as_the_downward_api_does() {
        let pod = json!({"metadata": {
            "name": "web",
            "labels": {"a": "b", "c": "d \"e\""},
            "annotations": {"x.y/z": "1"},
        }});
        let shown = |path: &str| field(&pod, path).unwrap_or_else(|_| "refused".to_owned());
        assert_eq!(shown("metadata.name"), "web");
        assert_eq!(shown("metadata.labels"), "a=\"b\"\nc=\"d \\\"e\\\"\"");
        assert_eq!(shown("metadata.labels['a']"), "b");
        assert_eq!(shown("metadata.annotations['x.y/z']"), "1");
        assert_eq!(shown("metadata.labels['none']"), "");
        assert_eq!(shown("spec.containers"), "refused");
    }
}

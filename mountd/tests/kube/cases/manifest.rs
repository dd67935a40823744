//! Objects from the words of a line, and where they are.
//!
//! | kind | words |
//! | --- | --- |
//! | `pv NAME SIZE MODES` | `class= policy= mode= vac= claim= uid= label=K:V path= node=NAME` |
//! | `pvc NAME SIZE MODES` | `class= volume= mode= vac= select=K:V from=NAME` (a claim) |
//! | `class NAME` | `by=PROVISIONER` (without it our own), `policy= default delayed expand K:V` |
//! | `vac NAME` | `K:V` |
//! | `pod NAME CLAIM ..` | `on=NODE` |
//! | `node NAME`, `ns NAME` | `K:V`: labels |
//!
//! The provisioner `none` is `kubernetes.io/no-provisioner`.
//! The YAML at the end of a line is merged into the object.

use serde_json::{Map, Value, json};

use super::language::Step;

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl Place {
    pub fn new(kind: &str, name: &str) -> Self {
        let (namespace, name) = match (kind, name.split_once('/')) {
            ("pvc" | "pod" | "cm", Some((namespace, name))) => (namespace, name),
            ("pvc" | "pod" | "cm", None) => ("default", name),
            _ => ("", name),
        };
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The path of its kind.
    pub fn collection(&self) -> String {
        let namespace = &self.namespace;
        match &self.kind[..] {
            "pv" => "/api/v1/persistentvolumes".to_owned(),
            "pvc" => format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims"),
            "pod" => format!("/api/v1/namespaces/{namespace}/pods"),
            "cm" => format!("/api/v1/namespaces/{namespace}/configmaps"),
            "node" => "/api/v1/nodes".to_owned(),
            "ns" => "/api/v1/namespaces".to_owned(),
            "class" => "/apis/storage.k8s.io/v1/storageclasses".to_owned(),
            "vac" => "/apis/storage.k8s.io/v1/volumeattributesclasses".to_owned(),
            kind => panic!("unknown kind {kind}"),
        }
    }

    pub fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    /// The namespace of its events.
    pub fn event_namespace(&self) -> &str {
        if self.namespace.is_empty() { "default" } else { &self.namespace }
    }
}

/// Access modes by their short names.
pub const MODES: [(&str, &str); 4] = [
    ("RWO", "ReadWriteOnce"),
    ("ROX", "ReadOnlyMany"),
    ("RWX", "ReadWriteMany"),
    ("RWOP", "ReadWriteOncePod"),
];

fn modes(words: &str) -> Value {
    let long = |word| MODES.iter().find(|(short, _)| *short == word).unwrap().1;
    words.split(',').map(long).collect()
}

/// Merges as a merge patch does.
pub fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let target = into.as_object_mut().unwrap();
    for (key, value) in fields {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// The words of a line: `KEY=VALUE`, or `KEY:VALUE`.
struct Words<'a>(&'a [String]);

impl<'a> Words<'a> {
    fn of(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|word| word == flag)
    }

    /// Pairs with a colon.
    fn pairs(&self) -> Map<String, Value> {
        let pairs = self.0.iter().filter(|word| !word.contains('='));
        pairs.filter_map(|word| word.split_once(':')).map(|(k, v)| (k.into(), v.into())).collect()
    }
}

fn pair(text: &str) -> Value {
    let (key, value) = text.split_once(':').unwrap();
    json!({key: value})
}

fn set(object: &mut Value, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object[key] = value.into();
    }
}

fn volume(name: &str, size: &str, mode: &str, words: &Words<'_>) -> Value {
    let path = words.of("path").map_or_else(|| format!("$DIR/{name}"), str::to_owned);
    let mut spec = json!({
        "capacity": {"storage": size},
        "accessModes": modes(mode),
        "hostPath": {"path": path},
    });
    set(&mut spec, "storageClassName", words.of("class"));
    set(&mut spec, "persistentVolumeReclaimPolicy", words.of("policy"));
    set(&mut spec, "volumeMode", words.of("mode"));
    set(&mut spec, "volumeAttributesClassName", words.of("vac"));
    if let Some(claim) = words.of("claim") {
        let Place { namespace, name, .. } = Place::new("pvc", claim);
        spec["claimRef"] = json!({"namespace": namespace, "name": name});
        set(&mut spec["claimRef"], "uid", words.of("uid"));
    }
    if let Some(node) = words.of("node") {
        let is_node = json!({"key": "metadata.name", "operator": "In", "values": [node]});
        spec["nodeAffinity"] =
            json!({"required": {"nodeSelectorTerms": [{"matchFields": [is_node]}]}});
    }
    let labels = words.of("label").map(pair);
    json!({"spec": spec, "metadata": {"labels": labels}})
}

fn claim(size: &str, mode: &str, words: &Words<'_>) -> Value {
    let mut spec =
        json!({"accessModes": modes(mode), "resources": {"requests": {"storage": size}}});
    set(&mut spec, "storageClassName", words.of("class"));
    set(&mut spec, "volumeName", words.of("volume"));
    set(&mut spec, "volumeMode", words.of("mode"));
    set(&mut spec, "volumeAttributesClassName", words.of("vac"));
    if let Some(labels) = words.of("select") {
        spec["selector"] = json!({"matchLabels": pair(labels)});
    }
    if let Some(name) = words.of("from") {
        spec["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": name});
    }
    json!({ "spec": spec })
}

fn class(words: &Words<'_>) -> Value {
    let by = match words.of("by") {
        None => "lamina.dev/volume",
        Some("none") => "kubernetes.io/no-provisioner",
        Some(by) => by,
    };
    let mut class = json!({"provisioner": by, "parameters": words.pairs()});
    set(&mut class, "reclaimPolicy", words.of("policy"));
    if words.has("delayed") {
        class["volumeBindingMode"] = "WaitForFirstConsumer".into();
    }
    if words.has("expand") {
        class["allowVolumeExpansion"] = true.into();
    }
    if words.has("default") {
        let mark = "storageclass.kubernetes.io/is-default-class";
        class["metadata"] = json!({"annotations": {mark: "true"}});
    }
    class
}

fn pod(words: &Words<'_>) -> Value {
    let claims: Vec<&String> = words.0.iter().filter(|word| !word.contains('=')).collect();
    let volumes: Vec<Value> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    let mounts: Vec<Value> = claims
        .iter()
        .map(|claim| json!({"name": claim, "mountPath": format!("/{claim}")}))
        .collect();
    let main = json!({"name": "main", "image": "none", "volumeMounts": mounts});
    let mut spec = json!({"volumes": volumes, "containers": [main]});
    set(&mut spec, "nodeName", words.of("on"));
    json!({ "spec": spec })
}

fn node(words: &Words<'_>) -> Value {
    json!({
        "metadata": {"labels": words.pairs()},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// The object that a line creates.
pub fn object(step: &Step) -> (Place, Value) {
    let place = Place::new(&step.verb, &step.words[0]);
    let rest = |from: usize| Words(step.words.get(from..).unwrap_or_default());
    let (version, kind, mut object) = match &step.verb[..] {
        "pv" => {
            let object = volume(&place.name, &step.words[1], &step.words[2], &rest(3));
            ("v1", "PersistentVolume", object)
        }
        "pvc" => {
            let object = claim(&step.words[1], &step.words[2], &rest(3));
            ("v1", "PersistentVolumeClaim", object)
        }
        "class" => ("storage.k8s.io/v1", "StorageClass", class(&rest(1))),
        "vac" => {
            let object = json!({"driverName": "lamina.dev/volume", "parameters": rest(1).pairs()});
            ("storage.k8s.io/v1", "VolumeAttributesClass", object)
        }
        "pod" => ("v1", "Pod", pod(&rest(1))),
        "node" => ("v1", "Node", node(&rest(1))),
        "ns" => ("v1", "Namespace", json!({"metadata": {"labels": rest(1).pairs()}})),
        verb => panic!("unknown verb {verb}"),
    };
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    object["metadata"]["name"] = place.name.clone().into();
    if let Some(value) = &step.value {
        merge(&mut object, value);
    }
    (place, object)
}

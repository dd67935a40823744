//! Tests of admission: manifests that are right, and edits of them that are wrong, each with the
//! exact text that it gets.

mod changes;
mod claims;
mod defaults;
mod pods;
mod volumes;
mod warnings;

use serde_json::{Map, Value, json};

use super::{create, default, update};

/// An edit of a manifest: a JSON pointer, and the JSON that is put there. No text removes the
/// field.
pub(super) type Edit = (&'static str, &'static str);

/// A right manifest of a kind.
pub(super) fn right(kind: &str) -> Value {
    let meta = json!({"name": "x"});
    let placed = json!({"name": "x", "namespace": "default"});
    match kind {
        "Namespace" => json!({"metadata": meta}),
        "ConfigMap" => json!({"metadata": placed, "data": {"key": "value"}}),
        "Secret" => json!({"metadata": placed, "stringData": {"key": "value"}}),
        "Node" => json!({"metadata": meta}),
        "Event" => json!({
            "metadata": placed,
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        }),
        "PersistentVolume" => json!({"metadata": meta, "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/data"},
        }}),
        "PersistentVolumeClaim" => json!({"metadata": placed, "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "500Mi"}},
        }}),
        "StorageClass" => json!({"metadata": meta, "provisioner": "lamina.dev/volume"}),
        "VolumeAttributesClass" => json!({
            "metadata": meta, "driverName": "lamina.dev", "parameters": {"iops": "100"},
        }),
        "CSIDriver" => json!({"metadata": {"name": "lamina.dev"}, "spec": {}}),
        "CSINode" => json!({"metadata": meta, "spec": {
            "drivers": [
                {"name": "lamina.dev", "nodeID": "n1", "topologyKeys": ["lamina.dev/node"]},
            ],
        }}),
        "VolumeSnapshot" => json!({"metadata": placed, "spec": {
            "source": {"persistentVolumeClaimName": "c"},
        }}),
        "VolumeSnapshotContent" => json!({"metadata": meta, "spec": {
            "driver": "lamina.dev",
            "deletionPolicy": "Delete",
            "source": {"snapshotHandle": "s"},
            "volumeSnapshotRef": {"name": "s", "namespace": "default"},
        }}),
        "VolumeSnapshotClass" => json!({
            "metadata": meta, "driver": "lamina.dev", "deletionPolicy": "Delete",
        }),
        "Pod" => json!({"metadata": placed, "spec": {
            "containers": [{
                "name": "main",
                "image": "nginx",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
        }}),
        other => panic!("kind {other}"),
    }
}

/// The kinds that [`right`] knows.
pub(super) const KINDS: [&str; 15] = [
    "Namespace",
    "ConfigMap",
    "Secret",
    "Node",
    "Event",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "StorageClass",
    "VolumeAttributesClass",
    "CSIDriver",
    "CSINode",
    "VolumeSnapshot",
    "VolumeSnapshotContent",
    "VolumeSnapshotClass",
    "Pod",
];

/// Makes an edit. Maps on the way are made; `-` adds to a list.
fn edit(object: &mut Value, (pointer, json): Edit) {
    let value = (!json.is_empty()).then(|| serde_json::from_str(json).unwrap());
    let mut parts: Vec<String> = pointer.split('/').skip(1).map(unescaped).collect();
    let last = parts.pop().unwrap();
    let parent = parts.iter().fold(object, |at, part| match at {
        Value::Array(items) => &mut items[part.parse::<usize>().unwrap()],
        Value::Object(fields) => {
            fields.entry(part.clone()).or_insert_with(|| Value::Object(Map::new()))
        }
        other => panic!("{part} of {other}"),
    });
    match (parent, value) {
        (Value::Array(items), Some(value)) if last == "-" => items.push(value),
        (Value::Array(items), Some(value)) => items[last.parse::<usize>().unwrap()] = value,
        (Value::Object(fields), Some(value)) => drop(fields.insert(last, value)),
        (Value::Object(fields), None) => drop(fields.remove(&last)),
        (other, _) => panic!("{last} of {other}"),
    }
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// A manifest with edits and its defaults.
pub(super) fn edited(kind: &str, edits: &[Edit]) -> Value {
    let mut object = right(kind);
    edits.iter().for_each(|one| edit(&mut object, *one));
    default(kind, &mut object);
    object
}

/// Long sentences of errors, and the short forms in which the tables name them.
const SENTENCES: [(&str, &str); 7] = [
    (
        "{label}",
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
         and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', \
         regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    ),
    (
        "{subdomain}",
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
         or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
         regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    ),
    (
        "{qualified}",
        "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
         an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
    ),
    (
        "{value}",
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
         '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
         'my_value',  or '12345', regex used for validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
    ),
    (
        "{key}",
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
         'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
         '[-._a-zA-Z0-9]+')",
    ),
    (
        "{modes}",
        "supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \
         \"ReadWriteOncePod\"",
    ),
    (
        "{types}",
        "supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \
         \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
    ),
];

/// The errors that a table names, in full.
fn in_full(wanted: &[&str]) -> Vec<String> {
    let full = |text: &&str| {
        SENTENCES.iter().fold((*text).to_owned(), |text, (short, long)| text.replace(short, long))
    };
    wanted.iter().map(full).collect()
}

/// Checks the errors of a new object.
pub(super) fn refused(kind: &str, edits: &[Edit], wanted: &[&str]) {
    let report = create(kind, &edited(kind, edits));
    let found: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    assert_eq!(found, in_full(wanted), "{kind} with {edits:?}");
}

/// Checks the errors of a change: the object before, and the edits of it.
pub(super) fn changed(kind: &str, before: &[Edit], edits: &[Edit], wanted: &[&str]) {
    let old = edited(kind, before);
    let mut new = old.clone();
    edits.iter().for_each(|one| edit(&mut new, *one));
    default(kind, &mut new);
    let report = update(kind, &old, &new);
    let found: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    assert_eq!(found, in_full(wanted), "{kind} with {edits:?}");
}

#[test]
fn right_manifests_are_accepted_without_a_word() {
    for kind in KINDS {
        let report = create(kind, &edited(kind, &[]));
        assert_eq!(report, super::Report::default(), "{kind}");
        changed(kind, &[], &[], &[]);
    }
    let more: [(&str, &[Edit]); 16] = [
        ("PersistentVolume", &[("/spec/accessModes", r#"["ReadWriteOnce", "ReadOnlyMany"]"#)]),
        ("PersistentVolume", &[("/spec/capacity/storage", "1073741824")]),
        (
            "PersistentVolume",
            &[
                ("/spec/hostPath", ""),
                ("/spec/csi", r#"{"driver": "lamina.dev", "volumeHandle": "v"}"#),
                ("/spec/volumeAttributesClassName", "\"gold\""),
            ],
        ),
        (
            "PersistentVolume",
            &[("/spec/hostPath", ""), ("/spec/awsElasticBlockStore", r#"{"volumeID": "vol-1"}"#)],
        ),
        (
            "PersistentVolume",
            &[
                ("/spec/hostPath", ""),
                ("/spec/local", r#"{"path": "/disk"}"#),
                (
                    "/spec/nodeAffinity/required/nodeSelectorTerms",
                    r#"[{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}]"#,
                ),
            ],
        ),
        ("PersistentVolumeClaim", &[("/spec/selector", "{}")]),
        ("PersistentVolumeClaim", &[("/spec/storageClassName", "\"\"")]),
        (
            "PersistentVolumeClaim",
            &[(
                "/spec/dataSource",
                r#"{"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}"#,
            )],
        ),
        ("StorageClass", &[("/provisioner", "\"kubernetes.io/gce-pd\"")]),
        ("StorageClass", &[("/parameters", r#"{"type": "pd-ssd", "replication-type": "none"}"#)]),
        ("Pod", &[("/spec/volumes/0", r#"{"name": "data"}"#)]),
        ("Pod", &[("/spec/volumes/0", r#"{"name": "data", "hostPath": {"path": "/"}}"#)]),
        ("Pod", &[("/spec/volumes/0", r#"{"name": "data", "image": {"reference": "alpine"}}"#)]),
        (
            "Secret",
            &[("/type", "\"kubernetes.io/basic-auth\""), ("/stringData/username", "\"me\"")],
        ),
        ("Namespace", &[("/metadata/labels", r#"{"example.com/Team": "a_b.c"}"#)]),
        ("ConfigMap", &[("/metadata/generateName", "\"x-\"")]),
    ];
    for (kind, edits) in more {
        refused(kind, edits, &[]);
    }
    assert_eq!(create("Unknown", &json!({})), super::Report::default());
}

#[test]
fn causes_have_the_names_of_the_status() {
    let report = create("PersistentVolume", &json!({"metadata": {"name": "A"}}));
    let causes: Vec<_> =
        report.errors.iter().map(|one| (one.reason.name(), &one.field[..])).collect();
    let wanted = [
        ("FieldValueInvalid", "metadata.name"),
        ("FieldValueRequired", "spec.accessModes"),
        ("FieldValueRequired", "spec.capacity"),
        ("FieldValueNotSupported", "spec.capacity"),
        ("FieldValueRequired", "spec"),
    ];
    assert_eq!(causes, wanted);
}

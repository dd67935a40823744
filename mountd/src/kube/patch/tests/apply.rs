//! Server-side apply: one manager after another, on one object.

use serde_json::{Value, json};

use super::super::*;

pub(super) const NOW: &str = "2026-11-29T12:00:00Z";
pub(super) const LATER: &str = "2026-11-29T13:00:00Z";

pub(super) fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, subresource: None, now: NOW }
}

pub(super) fn apply_as(
    manager: &str,
    current: Option<&Value>,
    config: &Value,
    force: bool,
) -> Result<Value, PatchError> {
    let kind = config["kind"].as_str().unwrap().to_owned();
    let how = PatchType::Apply { writer: writer(manager), force };
    patch(&kind, current, config, &how)
}

pub(super) fn volume(spec: Value) -> Value {
    let metadata = json!({ "name": "pv" });
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec,
    })
}

pub(super) fn pod(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": spec })
}

/// The fields of a manager's entry.
pub(super) fn fields(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let entry = entries.into_iter().find(|entry| entry["manager"] == manager);
    entry.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[test]
fn an_apply_creates_and_a_second_one_changes_nothing() {
    let config = volume(json!({
        "capacity": { "storage": "1Gi" },
        "accessModes": ["ReadWriteOnce"],
        "hostPath": { "path": "/data" },
    }));
    let created = apply_as("a", None, &config, false).unwrap();
    assert_eq!(created["spec"], config["spec"]);
    assert_eq!(
        created["metadata"]["managedFields"],
        json!([{
            "manager": "a", "operation": "Apply", "apiVersion": "v1", "time": NOW,
            "fieldsType": "FieldsV1",
            "fieldsV1": { "f:spec": {
                "f:accessModes": {},
                "f:capacity": { "f:storage": {} },
                "f:hostPath": { "f:path": {} },
            } },
        }])
    );
    let how = PatchType::Apply { writer: Writer { now: LATER, ..writer("a") }, force: false };
    let again = patch("PersistentVolume", Some(&created), &config, &how).unwrap();
    assert_eq!(again, created);
}

#[test]
fn lists_and_maps_are_recorded_by_key_value_or_as_a_whole() {
    let config = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "p", "namespace": "n",
            "labels": { "app": "x" },
            "finalizers": ["b.io/f", "a.io/f"],
        },
        "spec": {
            "nodeSelector": { "disk": "ssd" },
            "tolerations": [{ "key": "k" }],
            "containers": [{
                "name": "c",
                "ports": [{ "containerPort": 80 }, { "containerPort": 80, "protocol": "UDP" }],
                "resources": {},
                "command": ["a"],
            }],
        },
        "status": { "phase": "Running" },
    });
    let created = apply_as("a", None, &config, false).unwrap();
    assert!(created.get("status").is_none());
    assert_eq!(
        fields(&created, "a"),
        json!({
            "f:metadata": {
                "f:labels": { "f:app": {} },
                "f:finalizers": { "v:\"a.io/f\"": {}, "v:\"b.io/f\"": {} },
            },
            "f:spec": {
                "f:nodeSelector": {},
                "f:tolerations": {},
                "f:containers": { "k:{\"name\":\"c\"}": {
                    ".": {},
                    "f:name": {},
                    "f:command": {},
                    "f:resources": {},
                    "f:ports": {
                        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                            ".": {}, "f:containerPort": {},
                        },
                        "k:{\"containerPort\":80,\"protocol\":\"UDP\"}": {
                            ".": {}, "f:containerPort": {}, "f:protocol": {},
                        },
                    },
                } },
            },
        })
    );
}

#[test]
fn another_value_of_another_manager_is_a_conflict() {
    let first = apply_as(
        "a",
        None,
        &volume(json!({
            "capacity": { "storage": "1Gi" }, "storageClassName": "slow", "mountOptions": ["ro"],
        })),
        false,
    )
    .unwrap();
    let refused = |spec: Value| match apply_as("b", Some(&first), &volume(spec), false) {
        Err(PatchError::Conflict { message, causes }) => (message, causes),
        other => panic!("{other:?}"),
    };
    let (message, causes) = refused(json!({ "storageClassName": "fast" }));
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"a\": .spec.storageClassName"
    );
    assert_eq!(causes[0].message(), "conflict with \"a\"");
    assert_eq!(causes[0].field, ".spec.storageClassName");
    let (message, causes) = refused(json!({ "storageClassName": "fast", "mountOptions": ["rw"] }));
    assert_eq!(causes.len(), 2);
    assert_eq!(
        message,
        "Apply failed with 2 conflicts: conflicts with \"a\":\n\
         - .spec.mountOptions\n- .spec.storageClassName"
    );

    // By force the fields change hands: each of the two has its own then.
    let config = volume(json!({ "storageClassName": "fast" }));
    let forced = apply_as("b", Some(&first), &config, true).unwrap();
    assert_eq!(forced["spec"]["storageClassName"], "fast");
    assert_eq!(
        fields(&forced, "a"),
        json!({ "f:spec": { "f:capacity": { "f:storage": {} }, "f:mountOptions": {} } })
    );
    assert_eq!(fields(&forced, "b"), json!({ "f:spec": { "f:storageClassName": {} } }));
}

#[test]
fn the_same_value_is_shared_and_stays_until_the_last_one_drops_it() {
    let class = volume(json!({ "storageClassName": "x", "capacity": { "storage": "1Gi" } }));
    let one = apply_as("a", None, &class, false).unwrap();
    let both =
        apply_as("b", Some(&one), &volume(json!({ "storageClassName": "x" })), false).unwrap();
    assert_eq!(fields(&both, "b"), json!({ "f:spec": { "f:storageClassName": {} } }));
    let without = volume(json!({ "capacity": { "storage": "1Gi" } }));
    let kept = apply_as("a", Some(&both), &without, false).unwrap();
    assert_eq!(kept["spec"]["storageClassName"], "x");
    let gone = apply_as("b", Some(&kept), &volume(json!({})), false).unwrap();
    assert_eq!(gone["spec"], json!({ "capacity": { "storage": "1Gi" } }));
    assert_eq!(fields(&gone, "b"), json!({ "f:spec": {} }));
}

#[test]
fn what_is_no_longer_applied_is_removed() {
    let container = |name: &str, env: Value| json!({ "name": name, "image": "i", "env": env });
    let both = pod(json!({ "containers": [
        container("a", json!([{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }])),
        container("b", json!([])),
    ] }));
    let first = apply_as("m", None, &both, false).unwrap();
    let rows = [
        // What is applied next, and what remains.
        (
            json!([{ "name": "a", "env": [{ "name": "B", "value": "2" }] }]),
            json!([{ "name": "a", "env": [{ "name": "B", "value": "2" }] }]),
        ),
        (
            json!([{ "name": "b", "image": "j" }, { "name": "a", "image": "i" }]),
            json!([{ "name": "b", "image": "j", "env": [] }, { "name": "a", "image": "i" }]),
        ),
        (json!([{ "name": "a" }]), json!([{ "name": "a" }])),
        (json!([{ "name": "c", "image": "j" }]), json!([{ "name": "c", "image": "j" }])),
        (json!([]), Value::Null),
    ];
    for (containers, expected) in rows {
        let config = pod(json!({ "containers": containers }));
        let answer = apply_as("m", Some(&first), &config, false).unwrap();
        let found = answer["spec"].get("containers").unwrap_or(&Value::Null);
        assert_eq!(found, &expected, "{config}");
    }
}

#[test]
fn a_map_that_is_applied_empty_stays_when_its_fields_go() {
    let volumes = |source: Value| pod(json!({ "volumes": [{ "name": "v", "emptyDir": source }] }));
    let first = apply_as("m", None, &volumes(json!({ "medium": "Memory" })), false).unwrap();
    let second = apply_as("m", Some(&first), &volumes(json!({})), false).unwrap();
    assert_eq!(second["spec"], volumes(json!({}))["spec"]);
}

#[test]
fn what_the_server_and_others_set_stays() {
    let labels = |labels: Value| {
        let mut config = volume(json!({ "storageClassName": "x" }));
        config["metadata"]["labels"] = labels;
        config
    };
    let first = apply_as("m", None, &labels(json!({ "a": "1", "b": "2" })), false).unwrap();
    let mut live = first.clone();
    live["metadata"]["uid"] = json!("u");
    live["metadata"]["creationTimestamp"] = json!(NOW);
    live["metadata"]["labels"]["c"] = json!("3");
    live["spec"]["volumeMode"] = json!("Filesystem");
    live["status"] = json!({ "phase": "Bound" });
    track_update("PersistentVolume", Some(&first), &mut live, &writer("n"));
    let answer = apply_as("m", Some(&live), &labels(json!({ "a": "1" })), false).unwrap();
    let mut expected = live;
    expected["metadata"]["labels"] = json!({ "a": "1", "c": "3" });
    expected["metadata"]["managedFields"] = answer["metadata"]["managedFields"].clone();
    assert_eq!(answer, expected);
    let nothing = json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {
        "name": "pv",
    } });
    let answer = apply_as("m", Some(&answer), &nothing, false).unwrap();
    assert_eq!(answer["metadata"]["labels"], json!({ "c": "3" }));
    assert_eq!(answer["metadata"]["uid"], "u");
    assert_eq!(answer["spec"], json!({ "volumeMode": "Filesystem" }));
    assert_eq!(answer["status"], json!({ "phase": "Bound" }));
    assert_eq!(fields(&answer, "m"), Value::Null);
}

#[test]
fn what_others_have_within_stays() {
    let mine = pod(json!({ "containers": [{ "name": "c", "image": "i" }] }));
    let first = apply_as("m", None, &mine, false).unwrap();
    let theirs = pod(json!({ "containers": [
        { "name": "c", "env": [{ "name": "A", "value": "1" }] },
        { "name": "side", "image": "s" },
    ] }));
    let second = apply_as("t", Some(&first), &theirs, false).unwrap();
    assert_eq!(
        second["spec"]["containers"],
        json!([
            { "name": "c", "image": "i", "env": [{ "name": "A", "value": "1" }] },
            { "name": "side", "image": "s" },
        ])
    );
    // The first manager changes its own field, and the others' stay.
    let newer = pod(json!({ "containers": [{ "name": "c", "image": "j" }] }));
    let third = apply_as("m", Some(&second), &newer, false).unwrap();
    let containers = third["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers[0]["image"], "j");
    assert_eq!(containers[0]["env"], json!([{ "name": "A", "value": "1" }]));
    assert_eq!(containers.len(), 2);
    // It drops its container: what the other one needs of it stays.
    let fourth = apply_as("m", Some(&third), &pod(json!({})), false).unwrap();
    assert_eq!(
        fourth["spec"]["containers"],
        json!([
            { "name": "c", "env": [{ "name": "A", "value": "1" }] },
            { "name": "side", "image": "s" },
        ])
    );
}

#[test]
fn new_items_stand_in_the_order_of_the_applied_list() {
    let named = |names: &[&str]| -> Value { names.iter().map(|n| json!({ "name": n })).collect() };
    let rows: [(&[&str], &[&str], &[&str]); 7] = [
        (&["a", "b"], &["a", "b", "c"], &["a", "b", "c"]),
        (&["a", "b"], &["c", "a", "b"], &["c", "a", "b"]),
        (&["a", "b"], &["b", "a"], &["b", "a"]),
        (&["a", "s", "b"], &["a", "b", "c"], &["a", "s", "b", "c"]),
        (&["s", "a", "b"], &["c", "b"], &["s", "a", "c", "b"]),
        (&["a", "b", "s"], &["b", "x"], &["a", "b", "s", "x"]),
        (&[], &["b", "a"], &["b", "a"]),
    ];
    for (before, applied, after) in rows {
        let live = pod(json!({ "containers": named(before) }));
        let config = pod(json!({ "containers": named(applied) }));
        let answer = apply_as("m", Some(&live), &config, false).unwrap();
        assert_eq!(answer["spec"]["containers"], named(after), "{before:?} {applied:?}");
    }
}

#[test]
fn an_object_without_a_record_belongs_to_those_before() {
    let live = volume(json!({ "storageClassName": "x", "capacity": { "storage": "1Gi" } }));
    let config = volume(json!({ "storageClassName": "y" }));
    let error = apply_as("m", Some(&live), &config, false).unwrap_err();
    assert_eq!((error.status(), error.reason()), (409, "Conflict"));
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: \
         .spec.storageClassName"
    );
    let forced = apply_as("m", Some(&live), &config, true).unwrap();
    assert_eq!(
        fields(&forced, "before-first-apply"),
        json!({ "f:spec": { "f:capacity": { "f:storage": {} } } })
    );
}

#[test]
fn kubectl_takes_over_what_it_applied_on_its_own_side() {
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let mut live = volume(json!({ "storageClassName": "x" }));
    live["metadata"]["annotations"] = json!({ LAST: live.to_string() });
    track_update("PersistentVolume", None, &mut live, &writer("kubectl-client-side-apply"));
    let config = volume(json!({ "storageClassName": "y" }));
    assert_eq!(apply_as("other", Some(&live), &config, false).unwrap_err().status(), 409);
    let answer = apply_as("kubectl", Some(&live), &config, false).unwrap();
    assert_eq!(answer["spec"]["storageClassName"], "y");
    let last: Value =
        serde_json::from_str(answer["metadata"]["annotations"][LAST].as_str().unwrap()).unwrap();
    assert_eq!(last, config);
}

#[test]
fn applied_objects_that_do_not_fit_are_refused() {
    let twice = json!({ "containers": [{ "name": "c" }, { "name": "c" }] });
    let ports = json!({ "containers": [{ "name": "c", "ports": [{ "name": "p" }] }] });
    let rows = [
        (pod(json!({ "foo": 1 })), 500, ".spec.foo: field not declared in schema"),
        (pod(json!({ "containers": "c" })), 500, ".spec.containers: expected list, got &{c}"),
        (pod(json!([])), 500, ".spec: expected map, got &{[]}"),
        (
            pod(json!({ "containers": [{ "name": "c", "imag": 1 }] })),
            500,
            ".spec.containers[0].imag: field not declared in schema",
        ),
        (pod(twice), 500, ".spec.containers: duplicate entries for key [name=\"c\"]"),
        (pod(ports), 500, "omits key field \"containerPort\""),
        (pod(json!({ "containers": [{ "image": "i" }] })), 500, "omits key field \"name\""),
        (
            json!({ "kind": "Pod", "metadata": { "managedFields": [{}] } }),
            400,
            "metadata.managedFields must be nil",
        ),
    ];
    for (config, status, words) in rows {
        let error = apply_as("m", None, &config, false).unwrap_err();
        assert_eq!(error.status(), status, "{config}");
        assert!(error.to_string().contains(words), "{config}: {error}");
    }
    let error = apply_as("m", None, &pod(json!({ "foo": 1 })), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (/p; /v1, Kind=Pod): \
         .spec.foo: field not declared in schema"
    );
    let how = PatchType::Apply { writer: writer("m"), force: false };
    assert_eq!(patch("Pod", None, &json!([]), &how).unwrap_err().status(), 400);
}

#[test]
fn nulls_and_fields_of_the_server_are_not_managed() {
    let mut config = volume(json!({ "storageClassName": "x", "hostPath": null }));
    config["metadata"]["creationTimestamp"] = Value::Null;
    config["metadata"]["uid"] = json!("u");
    config["status"] = json!({});
    let created = apply_as("m", None, &config, false).unwrap();
    assert_eq!(fields(&created, "m"), json!({ "f:spec": { "f:storageClassName": {} } }));
    assert_eq!(created["spec"], json!({ "storageClassName": "x" }));
}

#[test]
fn the_status_is_applied_by_its_own_path() {
    let live = apply_as("m", None, &volume(json!({ "storageClassName": "x" })), false).unwrap();
    let mut config = volume(json!({ "storageClassName": "y" }));
    config["status"] = json!({ "phase": "Available" });
    let how = PatchType::Apply {
        writer: Writer { subresource: Some("status"), ..writer("m") },
        force: false,
    };
    let answer = patch("PersistentVolume", Some(&live), &config, &how).unwrap();
    assert_eq!(answer["spec"]["storageClassName"], "x");
    assert_eq!(answer["status"], json!({ "phase": "Available" }));
    let entries = answer["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(entries[1]["fieldsV1"], json!({ "f:status": { "f:phase": {} } }));
}

#[test]
fn custom_resources_are_applied_by_their_schema() {
    let snapshot = |source: &str| {
        json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": { "name": "s", "namespace": "n" },
            "spec": { "source": { "persistentVolumeClaimName": source } },
        })
    };
    let first = apply_as("m", None, &snapshot("a"), false).unwrap();
    let error = apply_as("n", Some(&first), &snapshot("b"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"m\": .spec.source.persistentVolumeClaimName"
    );
    let mut unknown = snapshot("a");
    unknown["spec"]["x"] = json!(1);
    let error = apply_as("m", None, &unknown, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (n/s; snapshot.storage.k8s.io/v1, \
         Kind=VolumeSnapshot): .spec.x: field not declared in schema"
    );
}

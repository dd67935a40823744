//! The record of creates, updates and patches other than apply.

use serde_json::{Value, json};

use super::super::*;
use super::apply::{LATER, NOW, apply_as, fields, pod, volume, writer};

/// The managers of an object, in the order of its record.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|one| one["manager"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_create_records_all_that_it_sets() {
    let mut object = volume(json!({
        "accessModes": ["ReadWriteOnce"],
        "capacity": { "storage": "1Gi" },
        "hostPath": { "path": "/data", "type": "" },
    }));
    object["metadata"]["labels"] = json!({ "type": "local" });
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["creationTimestamp"] = json!(NOW);
    object["status"] = json!({ "phase": "Pending" });
    track_update("PersistentVolume", None, &mut object, &writer("kubectl-create"));
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "v1", "time": NOW,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": { "f:labels": { ".": {}, "f:type": {} } },
                "f:spec": {
                    "f:accessModes": {},
                    "f:capacity": { ".": {}, "f:storage": {} },
                    "f:hostPath": { ".": {}, "f:path": {}, "f:type": {} },
                },
            },
        }])
    );
}

#[test]
fn the_record_of_a_create_is_that_of_kubernetes_for_each_kind() {
    let rows = [
        (
            "ConfigMap",
            json!({ "metadata": { "name": "c" }, "data": { "a": "1" } }),
            json!({ "f:data": { ".": {}, "f:a": {} } }),
        ),
        (
            "PersistentVolumeClaim",
            json!({ "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "1Gi" } },
                "volumeMode": "Filesystem",
            } }),
            json!({ "f:spec": {
                "f:accessModes": {},
                "f:resources": { "f:requests": { ".": {}, "f:storage": {} } },
                "f:volumeMode": {},
            } }),
        ),
        (
            "Pod",
            json!({ "spec": { "containers": [{
                "name": "c", "image": "i", "resources": {},
                "ports": [{ "containerPort": 80, "protocol": "TCP" }],
            }] } }),
            json!({ "f:spec": { "f:containers": { "k:{\"name\":\"c\"}": {
                ".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                "f:ports": {
                    ".": {},
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                        ".": {}, "f:containerPort": {}, "f:protocol": {},
                    },
                },
            } } } }),
        ),
        (
            "StorageClass",
            json!({ "provisioner": "p", "parameters": { "a": "b" }, "mountOptions": [] }),
            json!({
                "f:provisioner": {},
                "f:parameters": { ".": {}, "f:a": {} },
                "f:mountOptions": {},
            }),
        ),
        (
            "Event",
            json!({ "involvedObject": { "kind": "Pod" }, "source": { "component": "c" } }),
            json!({ "f:involvedObject": {}, "f:source": { "f:component": {} } }),
        ),
        (
            "VolumeSnapshot",
            json!({ "spec": { "source": { "persistentVolumeClaimName": "c" } } }),
            json!({ "f:spec": {
                ".": {}, "f:source": { ".": {}, "f:persistentVolumeClaimName": {} },
            } }),
        ),
    ];
    for (kind, mut object, expected) in rows {
        track_update(kind, None, &mut object, &writer("m"));
        assert_eq!(fields(&object, "m"), expected, "{kind}");
    }
}

#[test]
fn an_update_takes_over_what_it_changes_and_nothing_else() {
    let mut old = volume(json!({ "storageClassName": "x", "capacity": { "storage": "1Gi" } }));
    track_update("PersistentVolume", None, &mut old, &writer("first"));
    let mut new = old.clone();
    new["spec"]["storageClassName"] = json!("y");
    new["spec"]["mountOptions"] = json!(["ro"]);
    track_update("PersistentVolume", Some(&old), &mut new, &writer("second"));
    assert_eq!(
        fields(&new, "second"),
        json!({ "f:spec": { "f:storageClassName": {}, "f:mountOptions": {} } })
    );
    assert_eq!(
        fields(&new, "first"),
        json!({ "f:spec": { "f:capacity": { ".": {}, "f:storage": {} } } })
    );
    // What is removed is nobody's.
    let mut less = new.clone();
    less["spec"] = json!({ "storageClassName": "y" });
    track_update("PersistentVolume", Some(&new), &mut less, &writer("third"));
    assert_eq!(managers(&less), ["second"]);
    assert_eq!(fields(&less, "second"), json!({ "f:spec": { "f:storageClassName": {} } }));
}

#[test]
fn an_update_that_changes_nothing_keeps_the_record() {
    let mut old = volume(json!({ "storageClassName": "x" }));
    track_update("PersistentVolume", None, &mut old, &writer("m"));
    for brings_record in [true, false] {
        let mut new = old.clone();
        if !brings_record {
            new["metadata"].as_object_mut().unwrap().remove("managedFields");
        }
        let later = Writer { now: LATER, ..writer("m") };
        track_update("PersistentVolume", Some(&old), &mut new, &later);
        assert_eq!(new, old);
    }
}

#[test]
fn the_status_has_an_entry_of_its_own() {
    let mut old = volume(json!({ "storageClassName": "x" }));
    track_update("PersistentVolume", None, &mut old, &writer("m"));
    let mut new = old.clone();
    new["status"] = json!({ "phase": "Bound" });
    let status = Writer { subresource: Some("status"), now: LATER, ..writer("m") };
    track_update("PersistentVolume", Some(&old), &mut new, &status);
    let entries = new["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        entries[1],
        json!({
            "manager": "m", "operation": "Update", "apiVersion": "v1", "time": LATER,
            "subresource": "status",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:status": { "f:phase": {} } },
        })
    );
}

#[test]
fn an_update_of_an_applied_field_is_a_conflict_at_the_next_apply() {
    let config = volume(json!({ "storageClassName": "x" }));
    let applied = apply_as("m", None, &config, false).unwrap();
    let mut edited = applied.clone();
    edited["spec"]["storageClassName"] = json!("y");
    track_update("PersistentVolume", Some(&applied), &mut edited, &writer("kubectl-edit"));
    assert_eq!(managers(&edited), ["kubectl-edit"]);
    let error = apply_as("m", Some(&edited), &config, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: \
         .spec.storageClassName"
    );
    let PatchError::Conflict { causes, .. } = error else { panic!() };
    assert_eq!(causes[0].message(), "conflict with \"kubectl-edit\" using v1");
    // What an apply leaves alone stays as it was edited.
    let other = volume(json!({ "capacity": { "storage": "1Gi" } }));
    let answer = apply_as("m", Some(&edited), &other, false).unwrap();
    assert_eq!(answer["spec"]["storageClassName"], "y");
}

#[test]
fn a_client_may_change_or_reset_the_record() {
    let mut old = volume(json!({ "storageClassName": "x" }));
    track_update("PersistentVolume", None, &mut old, &writer("a"));
    let mut reset = old.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track_update("PersistentVolume", Some(&old), &mut reset, &writer("b"));
    assert_eq!(managers(&reset), Vec::<String>::new());
    let mut renamed = old.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("z");
    track_update("PersistentVolume", Some(&old), &mut renamed, &writer("b"));
    assert_eq!(managers(&renamed), ["z"]);
    // A record that cannot be read is as good as none.
    let mut broken = old.clone();
    broken["metadata"]["managedFields"] = json!([{ "operation": "Turn" }]);
    track_update("PersistentVolume", Some(&old), &mut broken, &writer("b"));
    assert_eq!(managers(&broken), ["a"]);
}

#[test]
fn the_oldest_updates_become_one_entry() {
    let mut object = json!({ "apiVersion": "v1", "metadata": { "name": "c" }, "data": {} });
    for at in 0..15 {
        let old = object.clone();
        object["data"][format!("key-{at:02}")] = json!("x");
        let (manager, now) = (format!("m-{at:02}"), format!("2026-11-29T12:00:{at:02}Z"));
        let writer = Writer { manager: &manager, subresource: None, now: &now };
        track_update("ConfigMap", Some(&old), &mut object, &writer);
    }
    let names = managers(&object);
    assert_eq!(names.len(), 10);
    assert_eq!(names[0], "ancient-changes");
    let keys = fields(&object, "ancient-changes")["f:data"].as_object().unwrap().len();
    assert_eq!(keys, 6);
    assert_eq!(object["metadata"]["managedFields"][0]["time"], "2026-11-29T12:00:05Z");
}

#[test]
fn a_patch_of_an_item_is_recorded_by_its_key() {
    let mut old = pod(json!({ "containers": [{ "name": "c", "image": "i" }] }));
    track_update("Pod", None, &mut old, &writer("m"));
    let body = json!({ "spec": { "containers": [{ "name": "c", "image": "j" }] } });
    let mut new = patch("Pod", Some(&old), &body, &PatchType::Strategic).unwrap();
    track_update("Pod", Some(&old), &mut new, &writer("kubectl-patch"));
    assert_eq!(
        fields(&new, "kubectl-patch"),
        json!({ "f:spec": { "f:containers": { "k:{\"name\":\"c\"}": { "f:image": {} } } } })
    );
}

//! Strategic merge patches, as kubectl and others send them.

use serde_json::{Value, json};

use super::super::*;

fn strategic(kind: &str, current: &Value, body: &Value) -> Result<Value, PatchError> {
    patch(kind, Some(current), body, &PatchType::Strategic)
}

/// A list of containers of these names and images.
fn containers(all: &[(&str, &str)]) -> Value {
    all.iter().map(|(name, image)| json!({ "name": name, "image": image })).collect()
}

#[test]
fn lists_with_a_merge_key_are_merged_item_by_item() {
    let two = containers(&[("a", "1"), ("b", "1")]);
    let rows = [
        // One item is changed, and the other stays. Items of the patch keep the patch's order.
        (
            two.clone(),
            json!([{ "name": "b", "image": "2" }]),
            containers(&[("a", "1"), ("b", "2")]),
        ),
        (
            two.clone(),
            json!([{ "name": "a", "image": "2" }]),
            containers(&[("a", "2"), ("b", "1")]),
        ),
        (two.clone(), containers(&[("b", "2"), ("a", "2")]), containers(&[("b", "2"), ("a", "2")])),
        (two.clone(), containers(&[("c", "2")]), containers(&[("c", "2"), ("a", "1"), ("b", "1")])),
        (two.clone(), json!([{ "name": "a", "$patch": "delete" }]), containers(&[("b", "1")])),
        (two.clone(), json!([{ "name": "x", "$patch": "delete" }]), two.clone()),
        (
            two.clone(),
            json!([{ "name": "a", "$patch": "delete" }, { "name": "c", "image": "1" }]),
            containers(&[("c", "1"), ("b", "1")]),
        ),
        (
            two.clone(),
            json!([{ "name": "c", "image": "1" }, { "$patch": "replace" }]),
            containers(&[("c", "1")]),
        ),
        (two.clone(), json!([{ "$patch": "replace" }]), json!([])),
        (two.clone(), json!([{ "name": "a", "image": null }]), json!([{ "name": "a" }, two[1]])),
        (two.clone(), json!(null), Value::Null),
        (two.clone(), json!([]), two.clone()),
        (Value::Null, containers(&[("a", "1")]), containers(&[("a", "1")])),
    ];
    for (current, body, expected) in rows {
        let pod = json!({ "spec": { "containers": current } });
        let body = json!({ "spec": { "containers": body } });
        let answer = strategic("Pod", &pod, &body).unwrap();
        let found = answer["spec"].get("containers").unwrap_or(&Value::Null);
        assert_eq!(found, &expected, "{pod} with {body}");
    }
}

#[test]
fn the_order_of_the_patch_holds_and_items_of_the_server_stay_where_they_were() {
    let order = |names: &[&str]| -> Value { names.iter().map(|n| json!({ "name": n })).collect() };
    let rows: [[&[&str]; 4]; 9] = [
        // Before, in the patch, its order, after.
        [&["a", "b", "c"], &[], &["c", "b", "a"], &["c", "b", "a"]],
        [&["a", "b", "c"], &[], &["c", "a"], &["b", "c", "a"]],
        [&["a", "b"], &["c"], &["a", "b", "c"], &["a", "b", "c"]],
        [&["a", "b"], &["c"], &["c", "a", "b"], &["c", "a", "b"]],
        [&["a", "b"], &["c"], &["a", "c", "b"], &["a", "c", "b"]],
        [&["a", "s", "b"], &["c"], &["a", "b", "c"], &["a", "s", "b", "c"]],
        [&["s", "a", "b"], &["c"], &["c", "a", "b"], &["c", "s", "a", "b"]],
        [&["a", "b", "s"], &[], &["b", "a"], &["b", "a", "s"]],
        [&[], &["b", "a"], &["a", "b"], &["a", "b"]],
    ];
    for [before, patched, ordered, after] in rows {
        let pod = json!({ "spec": { "containers": order(before) } });
        let body = json!({ "spec": {
            "containers": order(patched),
            "$setElementOrder/containers": order(ordered),
        } });
        let answer = strategic("Pod", &pod, &body).unwrap();
        assert_eq!(answer["spec"]["containers"], order(after), "{before:?} {patched:?}");
    }
}

#[test]
fn lists_of_values_are_joined_or_replaced() {
    let pod = |names: Value| json!({ "metadata": { "finalizers": names } });
    let rows = [
        (json!(["a", "b"]), json!({ "finalizers": ["c", "a"] }), json!(["c", "a", "b"])),
        (json!(["a", "b"]), json!({ "finalizers": ["b"] }), json!(["a", "b"])),
        (json!(["a", "b"]), json!({ "finalizers": null }), Value::Null),
        (
            json!(["a", "b"]),
            json!({ "$deleteFromPrimitiveList/finalizers": ["a", "x"] }),
            json!(["b"]),
        ),
        (
            json!(["a", "b"]),
            json!({
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "$setElementOrder/finalizers": ["c", "b"],
                "finalizers": ["c"],
            }),
            json!(["c", "b"]),
        ),
        (Value::Null, json!({ "$setElementOrder/finalizers": ["a"] }), Value::Null),
    ];
    for (current, metadata, expected) in rows {
        let current = if current.is_null() { json!({ "metadata": {} }) } else { pod(current) };
        let answer = strategic("Pod", &current, &json!({ "metadata": metadata })).unwrap();
        let found = answer["metadata"].get("finalizers").unwrap_or(&Value::Null);
        assert_eq!(found, &expected, "{current} with {metadata}");
    }
    // A list without a strategy is replaced.
    let volume = json!({ "spec": { "accessModes": ["ReadWriteOnce", "ReadOnlyMany"] } });
    let body = json!({ "spec": { "accessModes": ["ReadWriteMany"] } });
    let answer = strategic("PersistentVolume", &volume, &body).unwrap();
    assert_eq!(answer["spec"]["accessModes"], json!(["ReadWriteMany"]));
}

#[test]
fn maps_are_merged_replaced_or_cut_to_the_keys_that_stay() {
    let labels = json!({ "metadata": { "labels": { "a": "1", "b": "2" } } });
    let with_labels = |labels: Value| json!({ "metadata": { "labels": labels } });
    let rows = [
        (json!({ "a": "3" }), json!({ "a": "3", "b": "2" })),
        (json!({ "a": null, "c": "3" }), json!({ "b": "2", "c": "3" })),
        (json!({ "$patch": "replace", "c": "3" }), json!({ "c": "3" })),
        (json!({ "$patch": "delete" }), json!({})),
        (json!({ "$patch": "merge", "c": "3" }), json!({ "a": "1", "b": "2", "c": "3" })),
        (json!({ "$retainKeys": ["a"], "a": "3" }), json!({ "a": "3" })),
    ];
    for (body, expected) in rows {
        let answer = strategic("Pod", &labels, &with_labels(body.clone())).unwrap();
        assert_eq!(answer, with_labels(expected), "{body}");
    }
    // A volume of another source: what the old source said goes.
    let pod = json!({ "spec": { "volumes": [
        { "name": "v", "hostPath": { "path": "/data", "type": "Directory" } },
        { "name": "w", "emptyDir": {} },
    ] } });
    let body = json!({ "spec": {
        "$setElementOrder/volumes": [{ "name": "v" }, { "name": "w" }],
        "volumes": [{ "name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {} }],
    } });
    let answer = strategic("Pod", &pod, &body).unwrap();
    let expected = json!([{ "name": "v", "emptyDir": {} }, { "name": "w", "emptyDir": {} }]);
    assert_eq!(answer["spec"]["volumes"], expected);
}

#[test]
fn directives_and_nulls_leave_no_trace_in_what_is_added() {
    let rows = [
        (json!({ "labels": { "a": null, "b": "1" } }), json!({ "labels": { "b": "1" } })),
        (json!({ "labels": { "$patch": "replace", "b": "1" } }), json!({ "labels": { "b": "1" } })),
        (json!({ "labels": { "$patch": "delete" } }), json!({})),
        (
            json!({ "ownerReferences": [{ "uid": "u", "$patch": "delete" }] }),
            json!({ "ownerReferences": [] }),
        ),
        (json!({ "$deleteFromPrimitiveList/finalizers": ["a"] }), json!({})),
    ];
    for (metadata, expected) in rows {
        let answer = strategic("Pod", &json!({}), &json!({ "metadata": metadata })).unwrap();
        assert_eq!(answer["metadata"], expected, "{metadata}");
    }
}

#[test]
fn inner_lists_and_conditions_are_merged_too() {
    let pod = json!({ "spec": { "containers": [{
        "name": "c",
        "env": [{ "name": "A", "value": "1" }],
        "command": ["a", "b"],
        "volumeMounts": [{ "name": "v", "mountPath": "/v" }],
    }] } });
    let body = json!({ "spec": { "containers": [{
        "name": "c",
        "env": [{ "name": "B", "value": "2" }, { "name": "A", "valueFrom": {}, "value": null }],
        "command": ["c"],
        "volumeMounts": [{ "mountPath": "/v", "readOnly": true }],
    }] } });
    let answer = strategic("Pod", &pod, &body).unwrap();
    assert_eq!(
        answer["spec"]["containers"][0],
        json!({
            "name": "c",
            "env": [{ "name": "B", "value": "2" }, { "name": "A", "valueFrom": {} }],
            "command": ["c"],
            "volumeMounts": [{ "name": "v", "mountPath": "/v", "readOnly": true }],
        })
    );
    let claim = json!({ "status": { "conditions": [{ "type": "Resizing", "status": "True" }] } });
    let body = json!({ "status": { "conditions": [{ "type": "Resizing", "status": "False" }] } });
    let answer = strategic("PersistentVolumeClaim", &claim, &body).unwrap();
    assert_eq!(answer, body);
}

#[test]
fn patches_that_make_no_sense_are_refused() {
    let pod = json!({ "spec": { "containers": [{ "name": "a" }] } });
    let rows = [
        (json!([]), 400, "expected an object"),
        (json!({ "$patch": "turn" }), 400, "Unknown patch type found: turn"),
        (json!({ "spec": { "containers": [{ "image": "x" }] } }), 422, "merge key: name"),
        (
            json!({ "spec": { "containers": [{ "name": "a", "$patch": "turn" }] } }),
            400,
            "Unknown patch type found: turn",
        ),
        (json!({ "metadata": { "$retainKeys": "a" } }), 400, "retainKeys"),
        (json!({ "metadata": { "$retainKeys": ["a"], "b": 1 } }), 400, "retainKeys"),
        (
            json!({ "spec": {
                "containers": [{ "name": "b" }],
                "$setElementOrder/containers": [],
            } }),
            400,
            "does not match $setElementOrder/containers list",
        ),
        (json!({ "spec": { "$setElementOrder/nodeName": [] } }), 400, "not a list to merge"),
        (json!({ "spec": { "$setElementOrder/containers": 1 } }), 400, "setElementOrder"),
    ];
    for (body, status, words) in rows {
        let error = strategic("Pod", &pod, &body).unwrap_err();
        assert_eq!(error.status(), status, "{body}");
        assert!(error.to_string().contains(words), "{body}: {error}");
    }
    let error = strategic("VolumeSnapshot", &json!({}), &json!({})).unwrap_err();
    assert_eq!((error.status(), error.reason()), (415, "UnsupportedMediaType"));
    assert_eq!(strategic("Deployment", &json!({}), &json!({})).unwrap_err().status(), 415);
}

/// What `kubectl apply` sends the third time keeps what others set in between.
#[test]
fn a_three_way_merge_keeps_what_others_set() {
    let live = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "c",
            "labels": { "own": "1", "others": "x" },
            "finalizers": ["kubernetes.io/pvc-protection"],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "1Gi" } },
            "volumeName": "pv-1",
            "volumeMode": "Filesystem",
        },
        "status": { "phase": "Bound" },
    });
    let body = json!({
        "metadata": { "annotations": { "last": "{}" }, "labels": { "own": null, "new": "2" } },
        "spec": { "resources": { "requests": { "storage": "2Gi" } } },
    });
    let answer = strategic("PersistentVolumeClaim", &live, &body).unwrap();
    let mut expected = live;
    expected["metadata"]["annotations"] = json!({ "last": "{}" });
    expected["metadata"]["labels"] = json!({ "others": "x", "new": "2" });
    expected["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
    assert_eq!(answer, expected);
}

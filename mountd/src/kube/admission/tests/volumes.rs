//! Wrong metadata, volumes and classes.

use super::{Edit, create, edited, refused};

const WRONG_METADATA: [(&str, Edit, &str); 18] = [
    (
        "Node",
        ("/metadata/name", ""),
        "metadata.name: Required value: name or generateName is required",
    ),
    ("Node", ("/metadata/name", "\"A\""), "metadata.name: Invalid value: \"A\": {subdomain}"),
    ("Node", ("/metadata/name", "\"a..b\""), "metadata.name: Invalid value: \"a..b\": {subdomain}"),
    ("Namespace", ("/metadata/name", "\"a_b\""), "metadata.name: Invalid value: \"a_b\": {label}"),
    (
        "Namespace",
        ("/metadata/name", "\"a.b\""),
        "metadata.name: Invalid value: \"a.b\": must not contain dots",
    ),
    (
        "ConfigMap",
        ("/metadata/generateName", "\"A-\""),
        "metadata.generateName: Invalid value: \"A-\": {subdomain}",
    ),
    ("ConfigMap", ("/metadata/namespace", ""), "metadata.namespace: Required value"),
    (
        "ConfigMap",
        ("/metadata/namespace", "\"a.b\""),
        "metadata.namespace: Invalid value: \"a.b\": must not contain dots",
    ),
    (
        "Node",
        ("/metadata/namespace", "\"default\""),
        "metadata.namespace: Forbidden: not allowed on this type",
    ),
    (
        "Node",
        ("/metadata/labels", r#"{"a b": "c"}"#),
        "metadata.labels: Invalid value: \"a b\": name part {qualified}",
    ),
    (
        "Node",
        ("/metadata/labels", r#"{"a": "b c"}"#),
        "metadata.labels: Invalid value: \"b c\": {value}",
    ),
    (
        "Node",
        ("/metadata/labels", r#"{"/a": "b"}"#),
        "metadata.labels: Invalid value: \"/a\": prefix part must be non-empty",
    ),
    (
        "Node",
        ("/metadata/annotations", r#"{"A/b": "", "": ""}"#),
        "metadata.annotations: Invalid value: \"\": name part must be \
                    non-empty\nmetadata.annotations: Invalid value: \"\": name part {qualified}",
    ),
    (
        "Node",
        ("/metadata/finalizers", r#"["mine"]"#),
        "metadata.finalizers: Invalid value: \"mine\": name is neither a \
                standard finalizer name nor is it fully qualified",
    ),
    (
        "Node",
        ("/metadata/ownerReferences", r#"[{"apiVersion": "v1", "kind": "Pod", "name": "p"}]"#),
        "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
    ),
    (
        "Node",
        ("/metadata/labels", r#"{"a/b/c": "d"}"#),
        "metadata.labels: Invalid value: \"a/b/c\": a qualified name must \
                consist of alphanumeric characters, '-', '_' or '.', and must start \
                and end with an alphanumeric character (e.g. 'MyName',  or \
                'my.name',  or '123-abc', regex used for validation is \
                '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS \
                subdomain prefix and '/' (e.g. 'example.com/MyName')",
    ),
    (
        "Event",
        ("/metadata/namespace", "\"other\""),
        "involvedObject.namespace: Invalid value: \"default\": does not match \
                event.namespace",
    ),
    (
        "Node",
        ("/spec/taints", r#"[{"key": "k", "effect": "Never"}]"#),
        "spec.taints[0].effect: Unsupported value: \"Never\": supported \
                values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
    ),
];

#[test]
fn wrong_metadata_is_refused() {
    for (kind, edit, wanted) in WRONG_METADATA {
        refused(kind, &[edit], &wanted.split('\n').collect::<Vec<_>>());
    }
}

#[test]
fn sizes_of_metadata_and_data_are_limited() {
    let long = "x".repeat(300_000);
    let mut node = edited("Node", &[]);
    node["metadata"]["annotations"] = serde_json::json!({"a": long});
    let mut map = edited("ConfigMap", &[]);
    map["data"]["key"] = serde_json::json!("x".repeat((1 << 20) + 1));
    let mut secret = edited("Secret", &[]);
    secret["data"]["key"] = serde_json::json!("QUFB".repeat(400_000));
    let mut name = edited("Node", &[]);
    name["metadata"]["name"] = serde_json::json!("x".repeat(254));
    let rows = [
        ("Node", node, "metadata.annotations: Too long: may not be more than 262144 bytes"),
        ("ConfigMap", map, "[]: Too long: may not be more than 1048576 bytes"),
        ("Secret", secret, "data: Too long: may not be more than 1048576 bytes"),
        ("Node", name, "must be no more than 253 bytes"),
    ];
    for (kind, object, wanted) in rows {
        let errors = create(kind, &object).errors;
        assert_eq!(errors.len(), 1, "{kind}");
        assert!(errors[0].to_string().ends_with(wanted), "{}", errors[0]);
    }
}

const WRONG_VOLUMES: [(&[Edit], &[&str]); 26] = [
    (
        &[("/spec/hostPath", ""), ("/spec/gcePersistentDisk", "{}")],
        &["spec.persistentDisk.pdName: Required value"],
    ),
    (
        &[("/spec/hostPath", ""), ("/spec/awsElasticBlockStore", "{}")],
        &["spec.awsElasticBlockStore.volumeID: Required value"],
    ),
    (
        &[("/spec/hostPath", ""), ("/spec/nfs", "{}")],
        &[
            "spec.nfs.server: Required value",
            "spec.nfs.path: Required value",
            "spec.nfs.path: Invalid value: \"\": must be an absolute path",
        ],
    ),
    (
        &[("/spec/hostPath", ""), ("/spec/fc", "{}")],
        &["spec.fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not \
           both"],
    ),
    (&[("/spec/accessModes", "[]")], &["spec.accessModes: Required value"]),
    (
        &[("/spec/accessModes", r#"["RWO"]"#)],
        &["spec.accessModes: Unsupported value: \"RWO\": {modes}"],
    ),
    (
        &[("/spec/accessModes", r#"["ReadWriteOncePod", "ReadWriteOnce"]"#)],
        &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other \
                access modes"],
    ),
    (
        &[("/spec/capacity", "")],
        &[
            "spec.capacity: Required value",
            "spec.capacity: Unsupported value: null: supported values: \"storage\"",
        ],
    ),
    (
        &[("/spec/capacity/cpu", "\"1\"")],
        &["spec.capacity: Unsupported value: \
                {\"cpu\":\"1\",\"storage\":\"1Gi\"}: supported values: \"storage\""],
    ),
    (
        &[("/spec/capacity/storage", "\"0\"")],
        &["spec.capacity[storage]: Invalid value: \"0\": must be greater than \
                zero"],
    ),
    (
        &[("/spec/capacity/storage", "\"-1Gi\"")],
        &[
            "spec.capacity[storage]: Invalid value: -1073741824: must be a valid resource quantity",
            "spec.capacity[storage]: Invalid value: \"-1Gi\": must be greater than zero",
        ],
    ),
    (
        &[("/spec/capacity/storage", "\"1GB\"")],
        &["spec.capacity[storage]: Invalid value: \"1GB\": quantities must match \
                the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"],
    ),
    (
        &[("/spec/persistentVolumeReclaimPolicy", "\"Keep\"")],
        &["spec.persistentVolumeReclaimPolicy: Unsupported value: \"Keep\": \
                supported values: \"Delete\", \"Recycle\", \"Retain\""],
    ),
    (
        &[("/spec/volumeMode", "\"Raw\"")],
        &["spec.volumeMode: Unsupported value: \"Raw\": supported values: \
                \"Block\", \"Filesystem\""],
    ),
    (&[("/spec/hostPath", "")], &["spec: Required value: must specify a volume type"]),
    (
        &[("/spec/nfs", r#"{"server": "s", "path": "/"}"#)],
        &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
    ),
    (&[("/spec/hostPath/path", "\"\"")], &["spec.hostPath.path: Required value"]),
    (
        &[("/spec/hostPath/path", "\"/a/../b\"")],
        &["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
    ),
    (
        &[("/spec/hostPath/type", "\"Dir\"")],
        &["spec.hostPath.type: Unsupported value: \"Dir\": {types}"],
    ),
    (
        &[("/spec/hostPath/path", "\"/\""), ("/spec/persistentVolumeReclaimPolicy", "\"Recycle\"")],
        &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' \
                for a hostPath mount of '/'"],
    ),
    (
        &[("/spec/hostPath", ""), ("/spec/local", r#"{"path": "/d"}"#)],
        &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
    ),
    (
        &[
            ("/spec/hostPath", ""),
            ("/spec/csi", r#"{"driver": "d", "nodePublishSecretRef": {"name": "s"}}"#),
        ],
        &[
            "spec.csi.volumeHandle: Required value",
            "spec.csi.nodePublishSecretRef.namespace: Required value",
        ],
    ),
    (
        &[("/spec/hostPath", ""), ("/spec/nfs", r#"{"server": "s", "path": "a"}"#)],
        &["spec.nfs.path: Invalid value: \"a\": must be an absolute path"],
    ),
    (
        &[("/spec/nodeAffinity", "{}")],
        &["spec.nodeAffinity.required: Required value: must specify required \
                node constraints"],
    ),
    (
        &[("/spec/storageClassName", "\"Fast\"")],
        &["spec.storageClassName: Invalid value: \"Fast\": {subdomain}"],
    ),
    (
        &[("/spec/volumeAttributesClassName", "\"gold\"")],
        &["spec.csi: Required value: has to be specified when using \
                volumeAttributesClassName"],
    ),
];

#[test]
fn wrong_volumes_are_refused() {
    for (edits, wanted) in WRONG_VOLUMES {
        refused("PersistentVolume", edits, wanted);
    }
}

#[test]
fn wrong_node_affinity_is_refused() {
    let at = "spec.nodeAffinity.required.nodeSelectorTerms";
    let rows = [
        ("[]", format!("{at}: Required value: must have at least one node selector term")),
        (
            r#"[{"matchExpressions": [{"key": "a", "operator": "In"}]}]"#,
            format!(
                "{at}[0].matchExpressions[0].values: Required value: must be specified \
                    when `operator` is 'In' or 'NotIn'"
            ),
        ),
        (
            r#"[{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}]"#,
            format!(
                "{at}[0].matchExpressions[0].values: Forbidden: may not be specified \
                    when `operator` is 'Exists' or 'DoesNotExist'"
            ),
        ),
        (
            r#"[{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1", "2"]}]}]"#,
            format!(
                "{at}[0].matchExpressions[0].values: Required value: must be specified \
                    single value when `operator` is 'Lt' or 'Gt'"
            ),
        ),
        (
            r#"[{"matchExpressions": [{"key": "a", "operator": "Is"}]}]"#,
            format!(
                "{at}[0].matchExpressions[0].operator: Invalid value: \"Is\": not a \
                    valid selector operator"
            ),
        ),
        (
            r#"[{"matchFields": [{"key": "a", "operator": "In", "values": ["b"]}]}]"#,
            format!(
                "{at}[0].matchFields[0].key: Invalid value: \"a\": not a valid field \
                    selector key"
            ),
        ),
    ];
    for (terms, wanted) in rows {
        let edit = ("/spec/nodeAffinity/required/nodeSelectorTerms", terms);
        refused("PersistentVolume", &[edit], &[&wanted]);
    }
}

const WRONG_CLASSES_AND_DRIVERS: [(&str, &[Edit], &[&str]); 17] = [
    ("StorageClass", &[("/provisioner", "")], &["provisioner: Required value"]),
    (
        "StorageClass",
        &[("/provisioner", "\"a b\"")],
        &["provisioner: Invalid value: \"a b\": name part {qualified}"],
    ),
    (
        "StorageClass",
        &[("/reclaimPolicy", "\"Recycle\"")],
        &["reclaimPolicy: Unsupported value: \"Recycle\": supported values: \
                \"Delete\", \"Retain\""],
    ),
    (
        "StorageClass",
        &[("/volumeBindingMode", "\"Later\"")],
        &["volumeBindingMode: Unsupported value: \"Later\": supported values: \
                \"Immediate\", \"WaitForFirstConsumer\""],
    ),
    (
        "StorageClass",
        &[("/parameters", r#"{"": "x"}"#)],
        &["parameters: Invalid value: \"\": field can not be empty."],
    ),
    (
        "StorageClass",
        &[("/allowedTopologies", r#"[{"matchLabelExpressions": [{"key": "a", "values": []}]}]"#)],
        &["allowedTopologies[0].matchLabelExpressions[0].values: Required value"],
    ),
    (
        "StorageClass",
        &[(
            "/allowedTopologies",
            r#"[{"matchLabelExpressions": [{"key": "a", "values": ["b", "b"]}]}]"#,
        )],
        &["allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate \
                value: \"b\""],
    ),
    (
        "VolumeAttributesClass",
        &[("/parameters", "{}")],
        &["parameters: Required value: must contain at least one key/value pair"],
    ),
    ("VolumeAttributesClass", &[("/driverName", "")], &["driverName: Required value"]),
    (
        "CSIDriver",
        &[("/spec/fsGroupPolicy", "\"Some\"")],
        &["spec.fsGroupPolicy: Unsupported value: \"Some\": supported values: \
                \"File\", \"None\", \"ReadWriteOnceWithFSType\""],
    ),
    (
        "CSIDriver",
        &[("/spec/volumeLifecycleModes", r#"["Forever"]"#)],
        &["spec.volumeLifecycleModes: Unsupported value: \"Forever\": supported \
                values: \"Ephemeral\", \"Persistent\""],
    ),
    ("CSINode", &[("/spec/drivers/0/nodeID", "")], &["spec.drivers[0].nodeID: Required value"]),
    (
        "CSINode",
        &[("/spec/drivers/-", r#"{"name": "lamina.dev", "nodeID": "n"}"#)],
        &["spec.drivers[1].name: Duplicate value: \"lamina.dev\""],
    ),
    (
        "VolumeSnapshot",
        &[("/spec/source/volumeSnapshotContentName", "\"v\"")],
        &["spec.source: Invalid value: \"object\": exactly one of \
                volumeSnapshotContentName and persistentVolumeClaimName must be set"],
    ),
    ("VolumeSnapshot", &[("/spec/source", "")], &["spec.source: Required value"]),
    (
        "VolumeSnapshotContent",
        &[("/spec/volumeSnapshotRef/namespace", "")],
        &["spec.volumeSnapshotRef: Invalid value: \"object\": both \
                spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must \
                be set"],
    ),
    (
        "VolumeSnapshotClass",
        &[("/deletionPolicy", "\"Keep\"")],
        &["deletionPolicy: Unsupported value: \"Keep\": supported values: \
                \"Delete\", \"Retain\""],
    ),
];

#[test]
fn wrong_classes_and_drivers_are_refused() {
    for (kind, edits, wanted) in WRONG_CLASSES_AND_DRIVERS {
        refused(kind, edits, wanted);
    }
}

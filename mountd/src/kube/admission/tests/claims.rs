//! Wrong claims, ConfigMaps and Secrets.

use super::{Edit, refused};

const WRONG_CLAIMS: [(&[Edit], &[&str]); 17] = [
    (
        &[
            ("/spec/dataSource", r#"{"kind": "PersistentVolumeClaim", "name": "a"}"#),
            (
                "/spec/dataSourceRef",
                r#"{"kind": "PersistentVolumeClaim", "name": "a", "namespace": "b"}"#,
            ),
        ],
        &["spec: Invalid value: spec.dataSource: may not be specified when \
           dataSourceRef.namespace is specified"],
    ),
    (
        &[("/spec/accessModes", "")],
        &["spec.accessModes: Required value: at least 1 access mode is required"],
    ),
    (
        &[("/spec/accessModes", r#"["Any"]"#)],
        &["spec.accessModes: Unsupported value: \"Any\": supported values: \
                \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \
                \"ReadWriteOncePod\""],
    ),
    (
        &[("/spec/accessModes", r#"["ReadWriteOncePod", "ReadWriteMany"]"#)],
        &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other \
                access modes"],
    ),
    (&[("/spec/resources", "")], &["spec.resources[storage]: Required value"]),
    (
        &[("/spec/resources/requests", r#"{"cpu": "1"}"#)],
        &["spec.resources[storage]: Required value"],
    ),
    (
        &[("/spec/resources/requests/storage", "\"0\"")],
        &["spec.resources[storage]: Invalid value: \"0\": must be greater than \
                zero"],
    ),
    (
        &[("/spec/resources/requests/storage", "\"5K\"")],
        &["spec.resources[storage]: Invalid value: \"5K\": unable to parse \
                quantity's suffix"],
    ),
    (
        &[("/spec/volumeMode", "\"block\"")],
        &["spec.volumeMode: Unsupported value: \"block\": supported values: \
                \"Block\", \"Filesystem\""],
    ),
    (
        &[("/spec/selector/matchExpressions", r#"[{"key": "a", "operator": "In"}]"#)],
        &["spec.selector.matchExpressions[0].values: Required value: must be \
                specified when `operator` is 'In' or 'NotIn'"],
    ),
    (
        &[(
            "/spec/selector/matchExpressions",
            r#"[{"key": "a", "operator": "Gt", "values": ["1"]}]"#,
        )],
        &["spec.selector.matchExpressions[0].operator: Invalid value: \"Gt\": \
                not a valid selector operator"],
    ),
    (
        &[(
            "/spec/selector/matchExpressions",
            r#"[{"key": "a", "operator": "Exists", "values": ["1"]}]"#,
        )],
        &["spec.selector.matchExpressions[0].values: Forbidden: may not be \
                specified when `operator` is 'Exists' or 'DoesNotExist'"],
    ),
    (
        &[("/spec/dataSource", r#"{"kind": "PersistentVolumeClaim"}"#)],
        &["spec.dataSource.name: Required value", "spec.dataSourceRef.name: Required value"],
    ),
    (
        &[
            ("/spec/dataSource", r#"{"kind": "Pod", "name": "p"}"#),
            ("/spec/dataSourceRef", r#"{"kind": "Pod", "name": "p"}"#),
        ],
        &[
            "spec.dataSource: Invalid value: \"Pod\": must be \
                    'PersistentVolumeClaim' when referencing the default apiGroup",
            "spec.dataSourceRef: Invalid value: \"Pod\": must be \
                    'PersistentVolumeClaim' when referencing the default apiGroup",
        ],
    ),
    (
        &[
            ("/spec/dataSource", r#"{"kind": "PersistentVolumeClaim", "name": "a"}"#),
            ("/spec/dataSourceRef", r#"{"kind": "PersistentVolumeClaim", "name": "b"}"#),
        ],
        &["spec: Invalid value: spec.dataSource: must match dataSourceRef"],
    ),
    (
        &[("/spec", "")],
        &[
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ],
    ),
    (
        &[("/spec/storageClassName", "\"-\"")],
        &["spec.storageClassName: Invalid value: \"-\": a lowercase RFC 1123 \
                subdomain must consist of lower case alphanumeric characters, '-' or \
                '.', and must start and end with an alphanumeric character (e.g. \
                'example.com', regex used for validation is \
                '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"],
    ),
];

#[test]
fn wrong_claims_are_refused() {
    for (edits, wanted) in WRONG_CLAIMS {
        refused("PersistentVolumeClaim", edits, wanted);
    }
}

#[test]
fn wrong_keys_of_maps_and_secrets_are_refused() {
    let rows: [(&str, &[Edit], &[&str]); 8] = [
        (
            "ConfigMap",
            &[("/data", r#"{"a b": "c"}"#)],
            &["data[a b]: Invalid value: \"a b\": {key}"],
        ),
        (
            "ConfigMap",
            &[("/data", r#"{"..": "c"}"#)],
            &["data[..]: Invalid value: \"..\": must not be '..'"],
        ),
        (
            "ConfigMap",
            &[("/binaryData", r#"{"key": "QQ=="}"#)],
            &["data[key]: Invalid value: \"key\": duplicate of key present in \
                binaryData"],
        ),
        (
            "Secret",
            &[("/stringData", r#"{"a/b": "c"}"#)],
            &["data[a/b]: Invalid value: \"a/b\": {key}"],
        ),
        (
            "Secret",
            &[("/type", "\"kubernetes.io/tls\"")],
            &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
        ),
        (
            "Secret",
            &[("/type", "\"kubernetes.io/dockerconfigjson\"")],
            &["data[.dockerconfigjson]: Required value"],
        ),
        (
            "Secret",
            &[("/type", "\"kubernetes.io/basic-auth\"")],
            &["data[username]: Required value", "data[password]: Required value"],
        ),
        (
            "Secret",
            &[("/type", "\"kubernetes.io/service-account-token\"")],
            &["metadata.annotations[kubernetes.io/service-account.name]: Required \
                value"],
        ),
    ];
    for (kind, edits, wanted) in rows {
        refused(kind, edits, wanted);
    }
}

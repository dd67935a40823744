//! Wrong pods.

use super::{Edit, refused};

type Row = (&'static [Edit], &'static [&'static str]);

fn check(rows: &[Row]) {
    for (edits, wanted) in rows {
        refused("Pod", edits, wanted);
    }
}

const WRONG_CONTAINERS: &[Row] = &[
    (&[("/spec/containers", "[]")], &["spec.containers: Required value"]),
    (&[("/spec/containers/0/name", "")], &["spec.containers[0].name: Required value"]),
    (
        &[("/spec/containers/0/name", "\"Main\"")],
        &["spec.containers[0].name: Invalid value: \"Main\": {label}"],
    ),
    (
        &[("/spec/containers/-", r#"{"name": "main", "image": "i"}"#)],
        &["spec.containers[1].name: Duplicate value: \"main\""],
    ),
    (
        &[("/spec/initContainers", r#"[{"name": "main", "image": "i"}]"#)],
        &["spec.initContainers[0].name: Duplicate value: \"main\""],
    ),
    (&[("/spec/containers/0/image", "")], &["spec.containers[0].image: Required value"]),
    (
        &[("/spec/containers/0/image", "\" nginx\"")],
        &["spec.containers[0].image: Invalid value: \" nginx\": must not have \
                leading or trailing whitespace"],
    ),
    (
        &[("/spec/containers/0/imagePullPolicy", "\"Sometimes\"")],
        &["spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": \
                supported values: \"Always\", \"IfNotPresent\", \"Never\""],
    ),
    (
        &[("/spec/containers/0/env", r#"[{"name": "a=b"}]"#)],
        &["spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid \
                environment variable name must consist only of printable ASCII \
                characters other than '='"],
    ),
    (
        &[(
            "/spec/containers/0/env",
            r#"[{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]"#,
        )],
        &["spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported \
                value: \"spec.x\": supported values: \"metadata.name\", \
                \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \
                \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \
                \"status.podIP\", \"status.podIPs\""],
    ),
    (
        &[("/spec/containers/0/ports", r#"[{"containerPort": 70000}]"#)],
        &["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must \
                be between 1 and 65535, inclusive"],
    ),
    (
        &[("/spec/containers/0/ports", r#"[{"containerPort": 1, "protocol": "X"}]"#)],
        &["spec.containers[0].ports[0].protocol: Unsupported value: \"X\": \
                supported values: \"SCTP\", \"TCP\", \"UDP\""],
    ),
    (
        &[(
            "/spec/containers/0/resources",
            r#"{"limits": {"cpu": "500m"}, "requests": {"cpu": "1"}}"#,
        )],
        &["spec.containers[0].resources.requests: Invalid value: \"1\": must be \
                less than or equal to cpu limit of 500m"],
    ),
    (
        &[("/spec/containers/0/resources/limits", r#"{"storage": "1Gi"}"#)],
        &[
            "spec.containers[0].resources.limits[storage]: Invalid value: \"storage\": must be a \
             standard resource for containers",
            "spec.containers[0].resources.requests[storage]: Invalid value: \"storage\": must be a \
             standard resource for containers",
        ],
    ),
    (
        &[("/spec/containers/0/envFrom", "[{}]")],
        &["spec.containers[0].envFrom: Invalid value: \"\": must specify one of: \
           `configMapRef` or `secretRef`"],
    ),
    (
        &[("/spec/containers/0/env", r#"[{"name": "a", "valueFrom": {}}]"#)],
        &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: \
           `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"],
    ),
    (
        &[(
            "/spec/containers/0/env",
            r#"[{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.x"}}}]"#,
        )],
        &["spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \
           \"limits.x\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \
           \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \
           \"requests.memory\""],
    ),
    (
        &[(
            "/spec/containers/0/ports",
            r#"[{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 80}]"#,
        )],
        &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\""],
    ),
    (
        &[("/spec/containers/0/terminationMessagePolicy", "\"None\"")],
        &["spec.containers[0].terminationMessagePolicy: Unsupported value: \
                \"None\": supported values: \"File\", \"FallbackToLogsOnError\""],
    ),
];

#[test]
fn wrong_containers_are_refused() {
    check(WRONG_CONTAINERS);
}

const WRONG_MOUNTS: &[Row] = &[
    (
        &[(
            "/spec/containers/0/volumeMounts/0",
            r#"{"name": "data", "mountPath": "/d", "recursiveReadOnly": "Enabled"}"#,
        )],
        &["spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be \
           specified when readOnly is true"],
    ),
    (&[("/spec/volumes", "[]")], &["spec.containers[0].volumeMounts[0].name: Not found: \"data\""]),
    (
        &[("/spec/containers/0/volumeMounts/0/mountPath", "")],
        &["spec.containers[0].volumeMounts[0].mountPath: Required value"],
    ),
    (
        &[("/spec/containers/0/volumeMounts/-", r#"{"name": "data", "mountPath": "/data"}"#)],
        &["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \
                \"/data\": must be unique"],
    ),
    (
        &[("/spec/containers/0/volumeMounts/0/subPath", "\"/a\"")],
        &["spec.containers[0].volumeMounts.subPath: Invalid value: \"/a\": \
                must be a relative path"],
    ),
    (
        &[("/spec/containers/0/volumeMounts/0/subPath", "\"a/..\"")],
        &["spec.containers[0].volumeMounts.subPath: Invalid value: \"a/..\": \
                must not contain '..'"],
    ),
    (
        &[
            ("/spec/containers/0/volumeMounts/0/subPath", "\"a\""),
            ("/spec/containers/0/volumeMounts/0/subPathExpr", "\"b\""),
        ],
        &["spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: \"b\": \
                subPathExpr and subPath are mutually exclusive"],
    ),
    (
        &[("/spec/containers/0/volumeMounts/0/mountPropagation", "\"Shared\"")],
        &["spec.containers[0].volumeMounts.mountPropagation: Unsupported \
                value: \"Shared\": supported values: \"Bidirectional\", \
                \"HostToContainer\", \"None\""],
    ),
    (
        &[("/spec/containers/0/volumeMounts/0/mountPropagation", "\"Bidirectional\"")],
        &["spec.containers[0].volumeMounts.mountPropagation: Forbidden: \
                Bidirectional mount propagation is available only to privileged \
                containers"],
    ),
    (
        &[("/spec/containers/0/volumeDevices", r#"[{"name": "data", "devicePath": "/data"}]"#)],
        &[
            "spec.containers[0].volumeMounts[0].name: Invalid value: \"data\": must not already \
             exist in volumeDevices",
            "spec.containers[0].volumeMounts[0].mountPath: Invalid value: \"/data\": must not \
             already exist as a path in volumeDevices",
            "spec.containers[0].volumeDevices[0].name: Invalid value: \"data\": must not already \
             exist in volumeMounts",
            "spec.containers[0].volumeDevices[0].devicePath: Invalid value: \"/data\": must not \
             already exist as a path in volumeMounts",
        ],
    ),
    (
        &[
            ("/spec/volumes/0", r#"{"name": "data"}"#),
            ("/spec/containers/0/volumeMounts", "[]"),
            ("/spec/containers/0/volumeDevices", r#"[{"name": "data", "devicePath": "/d/.."}]"#),
        ],
        &[
            "spec.containers[0].volumeDevices[0].name: Invalid value: \"data\": can only use \
             volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            "spec.containers[0].volumeDevices[0].devicePath: Invalid value: \"/d/..\": can not \
             contain backsteps ('..')",
        ],
    ),
];

#[test]
fn wrong_mounts_are_refused() {
    check(WRONG_MOUNTS);
}

const WRONG_VOLUMES_OF_PODS: &[Row] = &[
    (
        &[(
            "/spec/volumes/0",
            r#"{"name": "data", "projected":
                {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}}"#,
        )],
        &["spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid \
           value: 60: may not specify a duration less than 10 minutes"],
    ),
    (
        &[("/spec/volumes/0/downwardAPI", "{}"), ("/spec/volumes/0/image", "{}")],
        &[
            "spec.volumes[0].downwarAPI: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[0].image: Forbidden: may not specify more than 1 volume type",
        ],
    ),
    (
        &[("/spec/volumes/-", r#"{"name": "data", "emptyDir": {}}"#)],
        &["spec.volumes[1].name: Duplicate value: \"data\""],
    ),
    (
        &[("/spec/volumes/-", r#"{"name": "A b", "emptyDir": {}}"#)],
        &["spec.volumes[1].name: Invalid value: \"A b\": {label}"],
    ),
    (
        &[("/spec/volumes/0/emptyDir", "{}")],
        &["spec.volumes[0].persistentVolumeClaim: Forbidden: may not specify \
                more than 1 volume type"],
    ),
    (
        &[("/spec/volumes/0/persistentVolumeClaim", "{}")],
        &["spec.volumes[0].persistentVolumeClaim.claimName: Required value"],
    ),
    (
        &[("/spec/volumes/0", r#"{"name": "data", "emptyDir": {"sizeLimit": "-1"}}"#)],
        &["spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must \
                be a valid resource quantity"],
    ),
    (
        &[("/spec/volumes/0", r#"{"name": "data", "configMap": {}}"#)],
        &["spec.volumes[0].configMap.name: Required value"],
    ),
    (
        &[(
            "/spec/volumes/0",
            r#"{"name": "data", "configMap": {"name": "m", "defaultMode": 1000}}"#,
        )],
        &["spec.volumes[0].configMap.defaultMode: Invalid value: 1000: must be a \
                number between 0 and 0777 (octal), both inclusive"],
    ),
    (
        &[(
            "/spec/volumes/0",
            r#"{"name": "data", "secret": {"secretName": "s", "items": [{"key": "k",
                "path": "../p"}]}}"#,
        )],
        &["spec.volumes[0].secret.items[0].path: Invalid value: \"../p\": must \
                not contain '..'"],
    ),
    (
        &[(
            "/spec/volumes/0",
            r#"{"name": "data", "secret": {"secretName": "s", "items": [{"key": "k",
                "path": "/p"}]}}"#,
        )],
        &["spec.volumes[0].secret.items[0].path: Invalid value: \"/p\": must be \
                a relative path"],
    ),
    (
        &[("/spec/volumes/0", r#"{"name": "data", "downwardAPI": {"items": [{"path": "p"}]}}"#)],
        &["spec.volumes[0].downwardAPI: Required value: one of fieldRef \
                and resourceFieldRef is required"],
    ),
    (
        &[(
            "/spec/volumes/0",
            r#"{"name": "data", "downwardAPI": {"items": [{"path": "p",
                "fieldRef": {"fieldPath": "spec.nodeName"}}]}}"#,
        )],
        &["spec.volumes[0].downwardAPI.fieldRef.fieldPath: Unsupported \
                value: \"spec.nodeName\": supported values: \"metadata.annotations\", \
                \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \
                \"metadata.uid\""],
    ),
    (
        &[(
            "/spec/volumes/0",
            r#"{"name": "data", "projected": {"sources": [{"secret": {"name": "s",
                "items": [{"key": "k", "path": "p"}]}}, {"configMap": {"name": "m",
                "items": [{"key": "k", "path": "p"}]}}]}}"#,
        )],
        &["spec.volumes[0].projected: Invalid value: \"m\": conflicting \
                duplicate paths"],
    ),
    (
        &[("/spec/volumes/0", r#"{"name": "data", "ephemeral": {}}"#)],
        &["spec.volumes[0].ephemeral.volumeClaimTemplate: Required value"],
    ),
    (
        &[(
            "/spec/volumes/0",
            r#"{"name": "data",
                "ephemeral":
                {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}"#,
        )],
        &["spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: \
                Required value"],
    ),
    (
        &[(
            "/spec/volumes/0",
            r#"{"name": "data", "image": {"reference": "i", "pullPolicy": "Maybe"}}"#,
        )],
        &["spec.volumes[0].image.pullPolicy: Unsupported value: \"Maybe\": \
                supported values: \"Always\", \"IfNotPresent\", \"Never\""],
    ),
    (
        &[("/spec/volumes/0", r#"{"name": "data", "hostPath": {"path": ""}}"#)],
        &["spec.volumes[0].hostPath.path: Required value"],
    ),
];

#[test]
fn wrong_volumes_of_pods_are_refused() {
    check(WRONG_VOLUMES_OF_PODS);
}

#[test]
fn wrong_policies_are_refused() {
    check(&[
        (
            &[("/spec/restartPolicy", "\"Maybe\"")],
            &["spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \
                \"Always\", \"OnFailure\", \"Never\""],
        ),
        (
            &[("/spec/dnsPolicy", "\"Mine\"")],
            &["spec.dnsPolicy: Unsupported value: \"Mine\": supported values: \
                \"ClusterFirst\", \"ClusterFirstWithHostNet\", \"Default\", \"None\""],
        ),
        (
            &[("/spec/dnsPolicy", "\"None\"")],
            &["spec.dnsConfig.nameservers: Required value: must provide at least one \
                DNS nameserver when `dnsPolicy` is None"],
        ),
        (
            &[("/spec/activeDeadlineSeconds", "0")],
            &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and \
                2147483647, inclusive"],
        ),
        (
            &[("/spec/hostname", "\"a.b\"")],
            &["spec.hostname: Invalid value: \"a.b\": must not contain dots"],
        ),
        (
            &[("/metadata/name", "\"\"")],
            &["metadata.name: Required value: name or generateName is required"],
        ),
    ]);
}

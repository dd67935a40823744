//! What the client is told about objects that are accepted.

use super::{Edit, create, edited};

const FIELDS_WITHOUT_EFFECT: [(&str, Edit, &str); 19] = [
    (
        "Pod",
        ("/spec/volumes/-", r#"{"name": "n", "emptyDir": {"medium": "Tape"}}"#),
        "spec.volumes[1].emptyDir.medium: has no effect on this host",
    ),
    (
        "Pod",
        ("/spec/containers/0/resources/limits", r#"{"memory": "100m"}"#),
        "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, \
         must be an integer\nspec.containers[0].resources.requests[memory]: fractional byte value \
         \"100m\" is invalid, must be an integer",
    ),
    (
        "PersistentVolumeClaim",
        ("/spec/resources/requests/storage", "\"1500m\""),
        "spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an \
         integer",
    ),
    (
        "Pod",
        ("/spec/tolerations", r#"[{"operator": "Exists"}]"#),
        "spec.tolerations: has no effect on this host",
    ),
    (
        "Pod",
        ("/spec/priorityClassName", "\"high\""),
        "spec.priorityClassName: has no effect on this host",
    ),
    (
        "Pod",
        ("/spec/affinity/podAffinity", r#"{"a": 1}"#),
        "spec.affinity.podAffinity: has no effect on this host",
    ),
    (
        "Pod",
        ("/spec/containers/0/livenessProbe", r#"{"exec": {}}"#),
        "spec.containers[0].livenessProbe: has no effect on this host",
    ),
    (
        "Pod",
        ("/spec/containers/0/ports", r#"[{"containerPort": 80}]"#),
        "spec.containers[0].ports: has no effect on this host",
    ),
    ("Pod", ("/spec/schedulerName", "\"mine\""), "spec.schedulerName: has no effect on this host"),
    ("Pod", ("/spec/dnsPolicy", "\"Default\""), "spec.dnsPolicy: has no effect on this host"),
    (
        "Pod",
        ("/spec/volumes/-", r#"{"name": "n", "nfs": {"server": "s", "path": "/"}}"#),
        "spec.volumes[1].nfs: this host does not mount volumes of this source",
    ),
    (
        "Pod",
        ("/spec/volumes/-", r#"{"name": "n", "rbd": {"monitors": ["m"], "image": "i"}}"#),
        "spec.volumes[1].rbd: deprecated in v1.28, non-functional in v1.31+",
    ),
    (
        "Node",
        ("/spec/taints", r#"[{"key": "k", "effect": "NoExecute"}]"#),
        "spec.taints: has no effect on this host",
    ),
    (
        "CSIDriver",
        ("/spec/requiresRepublish", "true"),
        "spec.requiresRepublish: has no effect on this host",
    ),
    (
        "PersistentVolumeClaim",
        ("/spec/resources/limits", r#"{"storage": "1Gi"}"#),
        "spec.resources.limits: has no effect on this host",
    ),
    (
        "PersistentVolume",
        ("/spec/persistentVolumeReclaimPolicy", "\"Recycle\""),
        "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is \
                deprecated. Instead, the recommended approach is to use dynamic \
                provisioning.",
    ),
    (
        "PersistentVolume",
        ("/metadata/annotations/volume.beta.kubernetes.io~1storage-class", "\"x\""),
        "metadata.annotations[volume.beta.kubernetes.io/storage-class]: \
                deprecated since v1.8; use \"storageClassName\" attribute instead",
    ),
    (
        "PersistentVolume",
        ("/spec/capacity/storage", "\"0.1Gi\""),
        "spec.capacity[storage]: fractional byte value \"107374182400m\" is \
                invalid, must be an integer",
    ),
    (
        "Pod",
        ("/metadata/name", "\"a.b\""),
        "metadata.name: this is used in the Pod's hostname, which can result \
                in surprising behavior; a DNS label is recommended: [must not contain \
                dots]",
    ),
];

#[test]
fn fields_without_effect_are_named() {
    for (kind, edit, wanted) in FIELDS_WITHOUT_EFFECT {
        let report = create(kind, &edited(kind, &[edit]));
        assert_eq!(report.errors, [], "{kind} {edit:?}");
        assert_eq!(report.warnings, wanted.split('\n').collect::<Vec<_>>(), "{kind} {edit:?}");
    }
}

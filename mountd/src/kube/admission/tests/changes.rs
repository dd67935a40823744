//! Changes of objects that are refused, and those that are allowed.

use super::{Edit, changed};

type Row<'a> = (&'static str, &'static [Edit], &'static [Edit], &'a [&'a str]);

fn check(rows: &[Row<'_>]) {
    for (kind, before, edits, wanted) in rows {
        changed(kind, before, edits, wanted);
    }
}

const BOUND: &[Edit] = &[
    ("/status/phase", "\"Bound\""),
    ("/status/capacity", r#"{"storage": "1Gi"}"#),
    ("/spec/volumeName", "\"v\""),
    ("/spec/resources/requests/storage", "\"2Gi\""),
];
const SPEC: &str = "spec: Forbidden: spec is immutable after creation except resources.requests \
                    and volumeAttributesClassName for bound claims\n";

#[test]
fn claims_change_only_where_they_may() {
    const SIZE: &str = "/spec/resources/requests/storage";
    check(&[
        (
            "PersistentVolumeClaim",
            &[],
            &[("/metadata/annotations/volume.beta.kubernetes.io~1storage-class", "\"x\"")],
            &["metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: \
               \"x\": field is immutable"],
        ),
        ("PersistentVolumeClaim", &[], &[("/spec/volumeName", "\"v\"")], &[]),
        ("PersistentVolumeClaim", &[], &[("/spec/storageClassName", "\"std\"")], &[]),
        ("PersistentVolumeClaim", &[], &[(SIZE, "\"512000Ki\"")], &[]),
        ("PersistentVolumeClaim", &[], &[("/metadata/labels", r#"{"a": "b"}"#)], &[]),
        ("PersistentVolumeClaim", BOUND, &[(SIZE, "\"3Gi\"")], &[]),
        ("PersistentVolumeClaim", BOUND, &[(SIZE, "\"1536Mi\"")], &[]),
        ("PersistentVolumeClaim", BOUND, &[("/spec/volumeAttributesClassName", "\"gold\"")], &[]),
        (
            "PersistentVolumeClaim",
            BOUND,
            &[(SIZE, "\"1Gi\"")],
            &["spec.resources.requests.storage: Forbidden: field can not be less than \
 status.capacity"],
        ),
        (
            "PersistentVolumeClaim",
            &[],
            &[(SIZE, "\"1Gi\"")],
            &[&format!(
                "{SPEC}- resources: {{\"requests\":{{\"storage\":\"500Mi\"}}}}\n\
             + resources: {{\"requests\":{{\"storage\":\"1Gi\"}}}}"
            )],
        ),
    ]);
}

#[test]
fn specifications_of_claims_stay() {
    check(&[
        (
            "PersistentVolumeClaim",
            BOUND,
            &[("/spec/volumeName", "\"w\"")],
            &[&format!("{SPEC}- volumeName: \"v\"\n+ volumeName: \"w\"")],
        ),
        (
            "PersistentVolumeClaim",
            BOUND,
            &[("/spec/accessModes/-", "\"ReadOnlyMany\"")],
            &[&format!(
                "{SPEC}- accessModes: [\"ReadWriteOnce\"]\n\
                 + accessModes: [\"ReadWriteOnce\",\"ReadOnlyMany\"]"
            )],
        ),
        (
            "PersistentVolumeClaim",
            &[],
            &[("/spec/volumeMode", "\"Block\"")],
            &[
                &format!("{SPEC}- volumeMode: \"Filesystem\"\n+ volumeMode: \"Block\""),
                "volumeMode: Invalid value: \"Block\": field is immutable",
            ],
        ),
        (
            "PersistentVolumeClaim",
            &[("/spec/storageClassName", "\"a\"")],
            &[("/spec/storageClassName", "\"b\"")],
            &[&format!("{SPEC}- storageClassName: \"a\"\n+ storageClassName: \"b\"")],
        ),
        (
            "PersistentVolumeClaim",
            &[
                ("/spec/volumeAttributesClassName", "\"gold\""),
                ("/status/currentVolumeAttributesClassName", "\"gold\""),
            ],
            &[("/spec/volumeAttributesClassName", "")],
            &["spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when \
               status.currentVolumeAttributesClassName is not nil"],
        ),
    ]);
}

#[test]
fn volumes_change_only_where_they_may() {
    check(&[
        ("PersistentVolume", &[], &[("/spec/persistentVolumeReclaimPolicy", "\"Delete\"")], &[]),
        ("PersistentVolume", &[], &[("/spec/claimRef", r#"{"name": "c"}"#)], &[]),
        ("PersistentVolume", &[], &[("/spec/storageClassName", "\"x\"")], &[]),
        ("PersistentVolume", &[], &[("/spec/capacity/storage", "\"2Gi\"")], &[]),
        (
            "PersistentVolume",
            &[],
            &[("/spec/hostPath/path", "\"/other\"")],
            &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable \
             after creation\n- hostPath: {\"path\":\"/data\",\"type\":\"\"}\n\
             + hostPath: {\"path\":\"/other\",\"type\":\"\"}"],
        ),
        (
            "PersistentVolume",
            &[],
            &[("/spec/volumeMode", "\"Block\"")],
            &["volumeMode: Invalid value: \"Block\": field is immutable"],
        ),
        ("PersistentVolume", &[], &[("/metadata/uid", "\"u\"")], &[]),
        (
            "PersistentVolume",
            &[("/metadata/uid", "\"u\"")],
            &[("/metadata/uid", "\"v\"")],
            &["metadata.uid: Invalid value: \"v\": field is immutable"],
        ),
        (
            "PersistentVolume",
            &[("/metadata/deletionTimestamp", "\"2026-01-01T00:00:00Z\"")],
            &[("/metadata/finalizers", r#"["a/b"]"#)],
            &["metadata.finalizers: Forbidden: no new finalizers can be added if the object is \
               being deleted, found new finalizers []string{\"a/b\"}"],
        ),
    ]);
}

#[test]
fn classes_and_snapshots_change_only_where_they_may() {
    check(&[
        ("StorageClass", &[], &[("/allowVolumeExpansion", "true")], &[]),
        (
            "StorageClass",
            &[],
            &[("/parameters", r#"{"a": "b"}"#)],
            &["parameters: Forbidden: updates to parameters are forbidden."],
        ),
        (
            "StorageClass",
            &[],
            &[("/provisioner", "\"other\"")],
            &["provisioner: Forbidden: updates to provisioner are forbidden."],
        ),
        (
            "StorageClass",
            &[],
            &[("/reclaimPolicy", "\"Retain\"")],
            &["reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."],
        ),
        (
            "StorageClass",
            &[],
            &[("/volumeBindingMode", "\"WaitForFirstConsumer\"")],
            &["volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"],
        ),
        (
            "VolumeAttributesClass",
            &[],
            &[("/parameters/iops", "\"200\"")],
            &["parameters: Forbidden: updates to parameters are forbidden."],
        ),
        (
            "CSIDriver",
            &[],
            &[("/spec/attachRequired", "false")],
            &["spec.attachRequired: Invalid value: false: field is immutable"],
        ),
        (
            "VolumeSnapshot",
            &[],
            &[("/spec/source/persistentVolumeClaimName", "\"d\"")],
            &["spec.source.persistentVolumeClaimName: Invalid value: \"string\": \
             persistentVolumeClaimName is immutable"],
        ),
    ]);
}

#[test]
fn maps_secrets_and_pods_change_only_where_they_may() {
    let frozen = "Forbidden: field is immutable when `immutable` is set";
    let pod = "spec: Forbidden: pod updates may not change fields other than \
               `spec.containers[*].image`,`spec.initContainers[*].image`,\
               `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
               tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
               was previously negative)\n";
    check(&[
        ("ConfigMap", &[], &[("/data/key", "\"other\"")], &[]),
        (
            "ConfigMap",
            &[("/immutable", "true")],
            &[("/data/key", "\"other\"")],
            &[&format!("data: {frozen}")],
        ),
        (
            "Secret",
            &[("/immutable", "true")],
            &[("/immutable", "false")],
            &[&format!("immutable: {frozen}")],
        ),
        (
            "Secret",
            &[],
            &[("/type", "\"mine\"")],
            &["type: Invalid value: \"mine\": field is immutable"],
        ),
        ("Pod", &[], &[("/spec/containers/0/image", "\"nginx:2\"")], &[]),
        ("Pod", &[], &[("/spec/nodeName", "\"n1\"")], &[]),
        ("Pod", &[], &[("/metadata/labels", r#"{"a": "b"}"#)], &[]),
        (
            "Pod",
            &[],
            &[("/spec/containers/-", r#"{"name": "b", "image": "i"}"#)],
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
        (
            "Pod",
            &[],
            &[("/spec/restartPolicy", "\"Never\"")],
            &[&format!("{pod}- restartPolicy: \"Always\"\n+ restartPolicy: \"Never\"")],
        ),
        (
            "Pod",
            &[("/spec/nodeName", "\"n1\"")],
            &[("/spec/nodeName", "\"n2\"")],
            &[&format!("{pod}- nodeName: \"n1\"\n+ nodeName: \"n2\"")],
        ),
    ]);
}

//! Manifests, as tutorials have them.

pub fn volume(name: &str, path: &str, policy: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: PersistentVolume
metadata:
  name: {name}
  labels: {{type: local}}
spec:
  storageClassName: manual-{name}
  persistentVolumeReclaimPolicy: {policy}
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  hostPath: {{path: {path}}}
"
    )
}

/// A claim; `class` is a line of its specification, or empty.
pub fn claim(name: &str, size: &str, class: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {name}
spec:
  {class}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: {size}}}}}
"
    )
}

/// A class; `more` are further lines.
pub fn class(name: &str, provisioner: &str, more: &str) -> String {
    format!(
        "---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {name}}}
provisioner: {provisioner}
{more}
"
    )
}

pub fn default_class(name: &str, is_default: bool) -> String {
    let mark = format!("storageclass.kubernetes.io/is-default-class: \"{is_default}\"");
    class(name, "lamina.dev/volume", "").replace(
        &format!("{{name: {name}}}"),
        &format!("{{name: {name}, annotations: {{{mark}}}}}"),
    )
}

pub fn pod(name: &str, claim: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  volumes:
  - name: data
    persistentVolumeClaim: {{claimName: {claim}}}
  containers:
  - name: main
    image: nginx
    volumeMounts: [{{name: data, mountPath: /data}}]
"
    )
}

pub fn snapshot_class(name: &str, driver: &str, policy: &str, is_default: bool) -> String {
    format!(
        "---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata:
  name: {name}
  annotations: {{snapshot.storage.kubernetes.io/is-default-class: \"{is_default}\"}}
driver: {driver}
deletionPolicy: {policy}
"
    )
}

/// A snapshot of a claim; without a class for an empty one.
pub fn snapshot(name: &str, class: &str, claim: &str) -> String {
    let class = match class {
        "" => String::new(),
        class => format!("volumeSnapshotClassName: {class}"),
    };
    format!(
        "---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{name: {name}}}
spec:
  {class}
  source: {{persistentVolumeClaimName: {claim}}}
"
    )
}

/// A snapshot of a content that is prepared.
pub fn prepared_snapshot(name: &str, content: &str) -> String {
    format!(
        "---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{name: {name}}}
spec:
  source: {{volumeSnapshotContentName: {content}}}
"
    )
}

/// A content of a snapshot that exists, for the VolumeSnapshot `to`.
pub fn content(name: &str, driver: &str, policy: &str, handle: &str, to: &str) -> String {
    format!(
        "---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotContent
metadata: {{name: {name}}}
spec:
  driver: {driver}
  deletionPolicy: {policy}
  source: {{snapshotHandle: {handle}}}
  volumeSnapshotRef: {{namespace: default, name: {to}}}
"
    )
}

/// A claim whose first content is that of a snapshot or of another claim.
pub fn restored(name: &str, size: &str, class: &str, kind: &str, from: &str) -> String {
    let group = match kind {
        "VolumeSnapshot" => "apiGroup: snapshot.storage.k8s.io, ",
        _ => "",
    };
    let source = format!("dataSource: {{{group}kind: {kind}, name: {from}}}");
    claim(name, size, &format!("storageClassName: {class}\n  {source}"))
}

pub fn attributes(name: &str, parameters: &str) -> String {
    format!(
        "---
apiVersion: storage.k8s.io/v1
kind: VolumeAttributesClass
metadata: {{name: {name}}}
driverName: csi.lamina.dev
parameters: {{{parameters}}}
"
    )
}

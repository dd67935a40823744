//! The kinds that the API server has, and where each is found.

/// A kind of object that the API server has.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The kind as manifests write it, such as `PersistentVolume`.
    pub kind: &'static str,
    /// The name in paths, such as `persistentvolumes`.
    pub plural: &'static str,
    /// The API group; empty for the core.
    pub group: &'static str,
    /// Whether objects are in a namespace.
    pub namespaced: bool,
    /// Whether there is a path `/status`.
    pub has_status: bool,
}

const STORAGE: &str = "storage.k8s.io";
const SNAPSHOT: &str = "snapshot.storage.k8s.io";

/// All kinds. Each is of version `v1` of its group.
pub const KINDS: [Kind; 15] = [
    kind("ConfigMap", "configmaps", "", true, false),
    kind("Event", "events", "", true, false),
    kind("Namespace", "namespaces", "", false, true),
    kind("Node", "nodes", "", false, true),
    kind("PersistentVolume", "persistentvolumes", "", false, true),
    kind("PersistentVolumeClaim", "persistentvolumeclaims", "", true, true),
    kind("Pod", "pods", "", true, true),
    kind("Secret", "secrets", "", true, false),
    kind("CSIDriver", "csidrivers", STORAGE, false, false),
    kind("CSINode", "csinodes", STORAGE, false, false),
    kind("StorageClass", "storageclasses", STORAGE, false, false),
    kind("VolumeAttributesClass", "volumeattributesclasses", STORAGE, false, false),
    kind("VolumeSnapshot", "volumesnapshots", SNAPSHOT, true, true),
    kind("VolumeSnapshotClass", "volumesnapshotclasses", SNAPSHOT, false, false),
    kind("VolumeSnapshotContent", "volumesnapshotcontents", SNAPSHOT, false, true),
];

const fn kind(
    kind: &'static str,
    plural: &'static str,
    group: &'static str,
    namespaced: bool,
    has_status: bool,
) -> Kind {
    Kind { kind, plural, group, namespaced, has_status }
}

/// The kind of this name. No two groups share one.
pub fn kind_named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.kind == name)
}

impl Kind {
    /// Group and version as manifests write them, such as `v1` or `storage.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => "v1".to_owned(),
            group => format!("{group}/v1"),
        }
    }

    /// The path of the group and version below the server, without a leading slash.
    pub fn root(&self) -> String {
        match self.group {
            "" => "api/v1".to_owned(),
            group => format!("apis/{group}/v1"),
        }
    }

    /// Whether Kubernetes defines the kind by a CustomResourceDefinition.
    pub fn is_custom(&self) -> bool {
        self.group == SNAPSHOT
    }

    /// The name of the kind's definition in the OpenAPI documents.
    pub fn definition(&self) -> String {
        let package = match self.group {
            "" => "io.k8s.api.core.v1",
            STORAGE => "io.k8s.api.storage.v1",
            _ => "io.k8s.storage.snapshot.v1",
        };
        format!("{package}.{}", self.kind)
    }
}

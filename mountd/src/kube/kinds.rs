//! The table of kinds.

use std::fmt;

/// What the API server does with a kind, and how it is named.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version of the group.
    pub version: &'static str,
    /// The name in manifests.
    pub kind: &'static str,
    /// The name in paths.
    pub plural: &'static str,
    /// The name of one.
    pub singular: &'static str,
    /// What kubectl takes for it.
    pub short: &'static [&'static str],
    /// Whether its objects are in namespaces.
    pub is_namespaced: bool,
    /// The categories to which it belongs, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether `/status` is written separately.
    pub has_status: bool,
    /// Whether `metadata.generation` counts changes of its specification.
    pub has_generation: bool,
    /// Whether a deletion answers with the object, not with a status.
    pub answers_deleted: bool,
    /// Field selectors besides `metadata.name` and `metadata.namespace`.
    pub fields: &'static [&'static str],
}

/// What all kinds can.
pub const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

const STORAGE: &str = "storage.k8s.io";
const SNAPSHOT: &str = "snapshot.storage.k8s.io";

const CORE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short: &[],
    is_namespaced: false,
    categories: &[],
    has_status: false,
    has_generation: false,
    answers_deleted: false,
    fields: &[],
};
const CLASS: Kind = Kind { group: STORAGE, answers_deleted: true, ..CORE };
const SNAPSHOTS: Kind = Kind { group: SNAPSHOT, has_generation: true, ..CORE };

const EVENT_FIELDS: [&str; 11] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const POD_FIELDS: [&str; 8] = [
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

/// All kinds, in the order in which discovery lists them.
pub static KINDS: [Kind; 15] = [
    Kind {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short: &["cm"],
        is_namespaced: true,
        ..CORE
    },
    Kind {
        kind: "Event",
        plural: "events",
        singular: "event",
        short: &["ev"],
        is_namespaced: true,
        fields: &EVENT_FIELDS,
        ..CORE
    },
    Kind {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short: &["ns"],
        has_status: true,
        answers_deleted: true,
        fields: &["status.phase"],
        ..CORE
    },
    Kind {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short: &["no"],
        has_status: true,
        fields: &["spec.unschedulable"],
        ..CORE
    },
    Kind {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short: &["pvc"],
        is_namespaced: true,
        has_status: true,
        answers_deleted: true,
        ..CORE
    },
    Kind {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        short: &["pv"],
        has_status: true,
        answers_deleted: true,
        ..CORE
    },
    Kind {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short: &["po"],
        is_namespaced: true,
        categories: &["all"],
        has_status: true,
        answers_deleted: true,
        fields: &POD_FIELDS,
        ..CORE
    },
    Kind {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        is_namespaced: true,
        fields: &["type"],
        ..CORE
    },
    Kind { kind: "CSIDriver", plural: "csidrivers", singular: "csidriver", ..CLASS },
    Kind { kind: "CSINode", plural: "csinodes", singular: "csinode", ..CLASS },
    Kind {
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short: &["sc"],
        ..CLASS
    },
    Kind {
        kind: "VolumeAttributesClass",
        plural: "volumeattributesclasses",
        singular: "volumeattributesclass",
        short: &["vac"],
        ..CLASS
    },
    Kind {
        kind: "VolumeSnapshotClass",
        plural: "volumesnapshotclasses",
        singular: "volumesnapshotclass",
        short: &["vsclass", "vsclasses"],
        ..SNAPSHOTS
    },
    Kind {
        kind: "VolumeSnapshotContent",
        plural: "volumesnapshotcontents",
        singular: "volumesnapshotcontent",
        short: &["vsc", "vscs"],
        has_status: true,
        ..SNAPSHOTS
    },
    Kind {
        kind: "VolumeSnapshot",
        plural: "volumesnapshots",
        singular: "volumesnapshot",
        short: &["vs"],
        is_namespaced: true,
        has_status: true,
        ..SNAPSHOTS
    },
];

/// The groups with names, in the order in which discovery lists them.
pub const GROUPS: [&str; 2] = [STORAGE, SNAPSHOT];

/// The name of a kind in errors and in the catalogue: `persistentvolumes`,
/// `storageclasses.storage.k8s.io`.
#[derive(Debug, Clone, Copy)]
pub struct Resource(pub &'static Kind);

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.group {
            "" => f.write_str(self.0.plural),
            group => write!(f, "{}.{group}", self.0.plural),
        }
    }
}

impl Kind {
    /// The kind of a path.
    #[must_use]
    pub fn of_path(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        KINDS
            .iter()
            .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// The kind that a manifest names.
    #[must_use]
    pub fn of_manifest(api_version: &str, name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.kind == name && kind.api_version() == api_version)
    }

    /// The kind of a record of the catalogue.
    #[must_use]
    pub fn of_record(name: &str) -> Option<&'static Self> {
        let (plural, group) = name.split_once('.').unwrap_or((name, ""));
        KINDS.iter().find(|kind| kind.plural == plural && kind.group == group)
    }

    /// The kinds that a word of a command line means: a name, a short name, or a category; with or
    /// without the group, and its version, behind it.
    #[must_use]
    pub fn of_word(word: &str) -> Vec<&'static Self> {
        let word = word.to_lowercase();
        let (name, group) = word.split_once('.').unwrap_or((&word, ""));
        let in_group = |kind: &&Self| {
            let group = group
                .strip_prefix(kind.version)
                .map_or(group, |group| group.strip_prefix('.').unwrap_or(group));
            group.is_empty() || group == kind.group
        };
        let is_it = |kind: &&Self| {
            [kind.plural, kind.singular].contains(&name) || kind.short.contains(&name)
        };
        let found: Vec<&Self> = KINDS.iter().filter(is_it).filter(in_group).collect();
        if !found.is_empty() || !group.is_empty() {
            return found;
        }
        KINDS.iter().filter(|kind| kind.categories.contains(&name)).collect()
    }

    /// The name of an object as commands print it: `storageclass.storage.k8s.io/fast`.
    #[must_use]
    pub fn shown(&self, name: &str) -> String {
        match self.group {
            "" => format!("{}/{name}", self.singular),
            group => format!("{}.{group}/{name}", self.singular),
        }
    }

    /// The name of the kind in errors and in the catalogue.
    #[must_use]
    pub const fn resource(&'static self) -> Resource {
        Resource(self)
    }

    /// `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_path_manifest_and_record() {
        for kind in &KINDS {
            assert_eq!(Kind::of_path(kind.group, kind.version, kind.plural), Some(kind));
            assert_eq!(Kind::of_manifest(&kind.api_version(), kind.kind), Some(kind));
            assert_eq!(Kind::of_record(&kind.resource().to_string()), Some(kind));
        }
        assert_eq!(Kind::of_path("storage.k8s.io", "v1", "pods"), None);
        assert_eq!(Kind::of_manifest("v1", "StorageClass"), None);
    }

    #[test]
    fn words_of_commands_mean_kinds() {
        let kinds = |word| Kind::of_word(word).iter().map(|kind| kind.kind).collect::<Vec<_>>();
        for word in ["sc", "StorageClass", "storageclasses.storage.k8s.io", "sc.v1.storage.k8s.io"]
        {
            assert_eq!(kinds(word), ["StorageClass"], "{word}");
        }
        assert_eq!(kinds("all"), ["Pod"]);
        assert!(kinds("deploy").is_empty() && kinds("pv.storage.k8s.io").is_empty());
        assert_eq!(Kind::of_word("pvc")[0].shown("a"), "persistentvolumeclaim/a");
    }

    #[test]
    fn no_name_of_kubectl_means_two_kinds() {
        let mut names: Vec<&str> = KINDS
            .iter()
            .flat_map(|kind| kind.short.iter().copied().chain([kind.plural, kind.singular]))
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

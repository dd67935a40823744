//! Sources of volumes: exactly one to a volume, and what each needs.

use super::field::Field;
use super::files;
use super::names;
use super::report::Report;

/// A source, and the fields that it needs.
pub(super) type Known = (&'static str, &'static [&'static str]);

/// The sources of a PersistentVolume, in the order in which Kubernetes looks at them.
pub(super) const OF_VOLUME: [Known; 22] = [
    ("hostPath", &["path"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("nfs", &["server", "path"]),
    ("rbd", &["monitors", "image"]),
    ("quobyte", &["registry", "volume"]),
    ("cephfs", &["monitors"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("cinder", &["volumeID"]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
    ("storageos", &["volumeName"]),
    ("csi", &[]),
];

/// The sources of a volume of a pod, in the order in which Kubernetes looks at them.
pub(super) const OF_POD: [Known; 30] = [
    ("emptyDir", &[]),
    ("hostPath", &["path"]),
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("secret", &["secretName"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("quobyte", &["registry", "volume"]),
    ("downwardAPI", &[]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("configMap", &["name"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("storageos", &["volumeName"]),
    ("projected", &[]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("csi", &[]),
    ("ephemeral", &[]),
    ("image", &["reference"]),
];

/// The types of a path of the host, in the order in which an error lists them.
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Sources that errors about a second source name in another way.
const FORBIDDEN_AS: [(&str, &str); 2] = [("cephfs", "cephFS"), ("downwardAPI", "downwarAPI")];
/// Sources that errors about their fields name in another way.
const JUDGED_AS: [(&str, &str); 1] = [("gcePersistentDisk", "persistentDisk")];

fn called<'n>(name: &'n str, others: &[(&str, &'n str)]) -> &'n str {
    others.iter().find(|(known, _)| *known == name).map_or(name, |(_, other)| other)
}

/// Judges the sources below a field: one must be there, and what it needs. Returns the source.
pub(super) fn one<'v>(
    at: &Field<'v>,
    known: &[Known],
    report: &mut Report,
) -> Option<(&'static str, Field<'v>)> {
    let mut found = None;
    for (name, needs) in known {
        let source = at.child(name);
        if !source.is_set() {
            continue;
        }
        if found.is_some() {
            let shown = called(name, &FORBIDDEN_AS);
            report.forbidden(&at.child(shown), "may not specify more than 1 volume type");
            continue;
        }
        let path = at.child(called(name, &JUDGED_AS)).path;
        let source = source.called(&path);
        for need in *needs {
            report.require(&source.child(need));
        }
        details(name, &source, report);
        found = Some((*name, source));
    }
    if found.is_none() {
        report.required(at, "must specify a volume type");
    }
    found
}

/// Rules of single sources that hold wherever the source stands.
fn details(name: &str, source: &Field<'_>, report: &mut Report) {
    let path = source.child("path");
    match name {
        "hostPath" if !path.is_empty() => {
            files::no_way_up(&path, report);
            report.known(&source.child("type"), &HOST_PATH_TYPES);
        }
        "local" => files::no_way_up(&path, report),
        "nfs" if !path.text().starts_with('/') => {
            report.invalid_text(&path, path.text(), "must be an absolute path");
        }
        "fc" if source.child("targetWWNs").is_empty() && source.child("wwids").is_empty() => {
            let detail = "must specify either targetWWNs or wwids, but not both";
            report.required(&source.child("targetWWNs"), detail);
        }
        "flocker"
            if source.child("datasetName").is_empty() && source.child("datasetUUID").is_empty() =>
        {
            report.required(source, "one of datasetName and datasetUUID is required");
        }
        "csi" => driver_name(&source.child("driver"), report),
        _ => {}
    }
}

/// Judges the name of a CSI driver.
pub(super) fn driver_name(name: &Field<'_>, report: &mut Report) {
    report.require(name);
    if name.text().len() > 63 {
        report.too_long(&name.path, 63);
    }
    report.invalid_all(name, name.text(), names::subdomain(&name.text().to_lowercase()));
}

/// Judges what a CSI source of a PersistentVolume has beyond its driver.
pub(super) fn persistent_csi(source: &Field<'_>, report: &mut Report) {
    report.require(&source.child("volumeHandle"));
    let secrets = [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ];
    for secret in secrets {
        let secret = source.child(secret);
        if !secret.is_set() {
            continue;
        }
        let (name, namespace) = (secret.child("name"), secret.child("namespace"));
        if report.require(&name) {
            report.invalid_all(&name, name.text(), names::subdomain(name.text()));
        }
        if report.require(&namespace) {
            report.invalid_all(&namespace, namespace.text(), names::label(namespace.text()));
        }
    }
}

//! Warnings: fields that Kubernetes calls outdated, and fields that have no effect on this host.

use serde_json::Value;

use super::amounts;
use super::field::Field;
use super::report::Report;

const NO_EFFECT: &str = "has no effect on this host";

/// Fields of a pod's specification without effect here.
const POD: [&str; 21] = [
    "automountServiceAccountToken",
    "dnsConfig",
    "ephemeralContainers",
    "hostAliases",
    "hostUsers",
    "imagePullSecrets",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "runtimeClassName",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "topologySpreadConstraints",
    "os",
];

/// Fields of a container without effect here.
const CONTAINER: [&str; 8] = [
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "startupProbe",
    "stdin",
    "tty",
];

/// Fields of the security of a pod or a container without effect here.
const SECURITY: [&str; 9] = [
    "appArmorProfile",
    "fsGroupChangePolicy",
    "procMount",
    "seLinuxChangePolicy",
    "seLinuxOptions",
    "seccompProfile",
    "supplementalGroupsPolicy",
    "sysctls",
    "windowsOptions",
];

/// Sources of a pod's volume that this host does not mount by itself.
const SOURCES: [&str; 19] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "vsphereVolume",
];

/// Sources of volumes that Kubernetes no longer mounts.
const OUTDATED: [(&str, &str); 6] = [
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
];

/// Adds the warnings about an object.
pub(super) fn warn(kind: &str, object: &Field<'_>, report: &mut Report) {
    let spec = object.child("spec");
    match kind {
        "PersistentVolume" => volume(object, &spec, report),
        "PersistentVolumeClaim" => claim(object, &spec, report),
        "Pod" => pod(object, &spec, report),
        "Node" => unused(&spec, &["taints", "podCIDR", "podCIDRs", "configSource"], report),
        "CSIDriver" => {
            for name in ["requiresRepublish", "seLinuxMount", "tokenRequests"] {
                let field = spec.child(name);
                if field.is_true() || !field.items().is_empty() {
                    report.warn(&field, NO_EFFECT);
                }
            }
        }
        _ => {}
    }
}

fn unused(object: &Field<'_>, names: &[&str], report: &mut Report) {
    for name in names {
        let field = object.child(name);
        if !field.is_empty() {
            report.warn(&field, NO_EFFECT);
        }
    }
}

fn old_annotation(object: &Field<'_>, name: &str, text: &str, report: &mut Report) {
    let annotation = object.at(&["metadata", "annotations"]).key(name);
    if annotation.is_set() {
        report.warn(&annotation, text);
    }
}

fn outdated(spec: &Field<'_>, report: &mut Report) {
    for (name, text) in OUTDATED {
        if spec.child(name).is_set() {
            report.warn(&spec.child(name), text);
        }
    }
}

fn volume(object: &Field<'_>, spec: &Field<'_>, report: &mut Report) {
    let class = "deprecated since v1.8; use \"storageClassName\" attribute instead";
    old_annotation(object, "volume.beta.kubernetes.io/storage-class", class, report);
    let options = "deprecated since v1.31; use \"mountOptions\" attribute instead";
    old_annotation(object, "volume.beta.kubernetes.io/mount-options", options, report);
    if spec.child("persistentVolumeReclaimPolicy").text() == "Recycle" {
        let text = "The Recycle reclaim policy is deprecated. Instead, the recommended approach \
                    is to use dynamic provisioning.";
        report.warn(&spec.child("persistentVolumeReclaimPolicy"), text);
    }
    amounts::whole(&spec.child("capacity").key("storage"), report);
    outdated(spec, report);
}

fn claim(object: &Field<'_>, spec: &Field<'_>, report: &mut Report) {
    let class = "deprecated since v1.8; use \"storageClassName\" attribute instead";
    old_annotation(object, "volume.beta.kubernetes.io/storage-class", class, report);
    amounts::whole(&spec.at(&["resources", "requests"]).key("storage"), report);
    unused(&spec.child("resources"), &["limits"], report);
    unused(&spec.child("dataSourceRef"), &["namespace"], report);
}

fn pod(object: &Field<'_>, spec: &Field<'_>, report: &mut Report) {
    unused(spec, &POD, report);
    let tolerations = spec.child("tolerations");
    if tolerations.items().iter().any(|one| !super::pod_defaults::is_default(one.value())) {
        report.warn(&tolerations, NO_EFFECT);
    }
    unused(&spec.child("securityContext"), &SECURITY, report);
    unused(&spec.child("affinity"), &["podAffinity", "podAntiAffinity"], report);
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    unused(&spec.at(&["affinity", "nodeAffinity"]), &[preferred], report);
    let scheduler = spec.child("schedulerName");
    if !["", "default-scheduler"].contains(&scheduler.text()) {
        report.warn(&scheduler, NO_EFFECT);
    }
    if spec.child("enableServiceLinks").value() == Some(&Value::Bool(false)) {
        report.warn(&spec.child("enableServiceLinks"), NO_EFFECT);
    }
    if !["", "ClusterFirst"].contains(&spec.child("dnsPolicy").text()) {
        report.warn(&spec.child("dnsPolicy"), NO_EFFECT);
    }
    let containers = spec.child("containers").items().into_iter();
    for container in containers.chain(spec.child("initContainers").items()) {
        unused(&container, &CONTAINER, report);
        unused(&container.child("securityContext"), &SECURITY, report);
        for list in ["limits", "requests"] {
            let list = container.at(&["resources", list]);
            for name in ["memory", "ephemeral-storage"] {
                amounts::whole(&list.key(name), report);
            }
        }
    }
    for volume in spec.child("volumes").items() {
        outdated(&volume, report);
        unused_source(&volume, report);
        amounts::whole(&volume.at(&["emptyDir", "sizeLimit"]), report);
        let medium = volume.at(&["emptyDir", "medium"]);
        if !["", "Memory"].contains(&medium.text()) {
            report.warn(&medium, NO_EFFECT);
        }
    }
    let name = object.at(&["metadata", "name"]);
    let faults = super::names::label(name.text());
    if !name.is_empty() && !faults.is_empty() {
        let text = format!(
            "this is used in the Pod's hostname, which can result in surprising behavior; a DNS \
             label is recommended: [{}]",
            faults.join(" ")
        );
        report.warn(&name, &text);
    }
}

fn unused_source(volume: &Field<'_>, report: &mut Report) {
    let is_told = |name: &&str| OUTDATED.iter().any(|(old, _)| old == name);
    for name in SOURCES.iter().filter(|name| !is_told(name)) {
        if volume.child(name).is_set() {
            report.warn(&volume.child(name), "this host does not mount volumes of this source");
        }
    }
}

//! A PersistentVolume in words.

use serde_json::Value;

use super::{NONE, Page, go_list, items, pairs, plain_text};
use crate::kube::cells::{modes, storage_class};
use crate::kube::convert::source_field;
use crate::kube::meta::{text, texts};

/// Describes a volume.
pub(super) fn describe(page: &mut Page, volume: &Value) {
    page.field(0, "Name", text(volume, "/metadata/name"));
    page.labels("Labels", volume, "/metadata/labels");
    page.annotations(volume);
    page.field(0, "Finalizers", &go_list(volume, "/metadata/finalizers"));
    page.field(0, "StorageClass", storage_class(volume));
    page.status(volume);
    let claim = text(volume, "/spec/claimRef/name");
    let claim = match claim {
        "" => String::new(),
        name => format!("{}/{name}", text(volume, "/spec/claimRef/namespace")),
    };
    page.field(0, "Claim", &claim);
    page.field(0, "Reclaim Policy", text(volume, "/spec/persistentVolumeReclaimPolicy"));
    page.field(0, "Access Modes", &modes(volume, "/spec/accessModes"));
    for (title, field) in [
        ("VolumeMode", "/spec/volumeMode"),
        ("VolumeAttributesClass", "/spec/volumeAttributesClassName"),
    ] {
        let value = text(volume, field);
        if !value.is_empty() {
            page.field(0, title, value);
        }
    }
    page.field(0, "Capacity", &plain_text(volume, "/spec/capacity/storage"));
    affinity(page, volume);
    page.field(0, "Message", text(volume, "/status/message"));
    page.line(0, "Source:");
    source(page, volume);
}

fn affinity(page: &mut Page, volume: &Value) {
    let required = volume.pointer("/spec/nodeAffinity/required").filter(|one| one.is_object());
    let Some(required) = required else { return page.field(0, "Node Affinity", NONE) };
    page.field(0, "Node Affinity", "");
    let terms = items(required, "/nodeSelectorTerms");
    page.field(1, "Required Terms", if terms.is_empty() { NONE } else { "" });
    for (at, term) in terms.iter().enumerate() {
        let rules = items(term, "/matchExpressions");
        if rules.is_empty() {
            page.field(2, &format!("Term {at}"), NONE);
        }
        for (number, rule) in rules.iter().enumerate() {
            let title = if number == 0 { format!("Term {at}:") } else { String::new() };
            let values = texts(rule, "/values");
            let values =
                if values.is_empty() { String::new() } else { format!(" [{}]", values.join(", ")) };
            let operator = text(rule, "/operator").to_lowercase();
            page.line(2, &format!("{title}\t{} {operator}{values}", text(rule, "/key")));
        }
    }
}

fn source(page: &mut Page, volume: &Value) {
    let name = source_field(volume);
    match volume.get("spec").and_then(|spec| spec.get(&name)) {
        Some(source) => fields(page, &name, source),
        None => page.line(1, "<unknown>"),
    }
}

/// A source with the words of kubectl for its type; its fields under their names.
fn fields(page: &mut Page, name: &str, source: &Value) {
    let value = |field: &str| plain_text(source, &format!("/{field}"));
    let flag = |field: &str| match &value(field)[..] {
        "" => "false".to_owned(),
        text => text.to_owned(),
    };
    let (form, rows): (&str, Vec<(&str, String)>) = match name {
        "hostPath" => (
            "HostPath (bare host directory volume)",
            vec![("Path", value("path")), ("HostPathType", value("type"))],
        ),
        "local" => (
            "LocalVolume (a persistent volume backed by local storage on a node)",
            vec![("Path", value("path"))],
        ),
        "nfs" => (
            "NFS (an NFS mount that lasts the lifetime of a pod)",
            vec![
                ("Server", value("server")),
                ("Path", value("path")),
                ("ReadOnly", flag("readOnly")),
            ],
        ),
        "gcePersistentDisk" => (
            "GCEPersistentDisk (a Persistent Disk resource in Google Compute Engine)",
            vec![
                ("PDName", value("pdName")),
                ("FSType", value("fsType")),
                ("Partition", plain_text(source, "/partition")),
                ("ReadOnly", flag("readOnly")),
            ],
        ),
        "awsElasticBlockStore" => (
            "AWSElasticBlockStore (a Persistent Disk resource in AWS)",
            vec![
                ("VolumeID", value("volumeID")),
                ("FSType", value("fsType")),
                ("Partition", plain_text(source, "/partition")),
                ("ReadOnly", flag("readOnly")),
            ],
        ),
        "csi" => (
            "CSI (a Container Storage Interface (CSI) volume source)",
            vec![
                ("Driver", value("driver")),
                ("FSType", value("fsType")),
                ("VolumeHandle", value("volumeHandle")),
                ("ReadOnly", flag("readOnly")),
            ],
        ),
        other => {
            page.field(2, "Type", other);
            let fields = source.as_object().into_iter().flatten();
            for (field, _) in fields {
                page.field(2, field, &value(field));
            }
            return;
        }
    };
    page.field(2, "Type", form);
    for (title, mut value) in rows {
        if title == "Partition" && value.is_empty() {
            value = "0".to_owned();
        }
        page.field(2, title, &value);
    }
    if name == "csi" {
        attributes(page, source);
    }
}

fn attributes(page: &mut Page, source: &Value) {
    let pairs = pairs(source, "/volumeAttributes");
    if pairs.is_empty() {
        return page.field(2, "VolumeAttributes", NONE);
    }
    for (at, (key, value)) in pairs.into_iter().enumerate() {
        let title = if at == 0 { "VolumeAttributes:" } else { "" };
        page.line(2, &format!("{title}\t{key}={value}"));
    }
}

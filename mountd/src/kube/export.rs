//! Objects of this host as a cluster takes them: static volumes of the CSI driver, and the claims,
//! classes and namespaces that belong to them.
//!
//! What the server sets is left out, and so is what binds to ids of this host: in the cluster the
//! same names are bound anew.

use laminafs::claim::names::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, NO_PROVISIONER, OLD_PROVISIONER, PROVISIONED_BY,
    PROVISIONER, SELECTED_NODE, STAND_IN,
};
use laminafs::service::volumes::Volume;
use serde_json::{Map, Value, json};

use super::configured::LAST;
use super::convert::CSI;
use super::foreign::strip;
use super::meta::{map_in, set, set_meta, text};

/// The key of the node in the topology of the CSI driver.
const TOPOLOGY: &str = "csi.lamina.dev/node";
/// The label of a node with its name.
const HOST: &str = "kubernetes.io/hostname";
/// Annotations that say how an object came to be here.
const ANNOTATIONS: [&str; 8] = [
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    LAST,
    OLD_PROVISIONER,
    PROVISIONED_BY,
    PROVISIONER,
    SELECTED_NODE,
    STAND_IN,
];

/// An object without what belongs to this host alone.
#[must_use]
pub fn portable(object: &Value) -> Value {
    let mut object = object.clone();
    strip(&mut object);
    for field in ["finalizers", "ownerReferences"] {
        set_meta(&mut object, field, None);
    }
    if let Some(meta) = object.get_mut("metadata") {
        if let Some(annotations) = meta.get_mut("annotations") {
            ANNOTATIONS.iter().for_each(|name| set(annotations, name, None));
        }
        let is_empty =
            meta.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty);
        if is_empty {
            set(meta, "annotations", None);
        }
    }
    object
}

/// A class whose volumes the CSI driver makes, if this host makes them here.
#[must_use]
pub fn class(object: &Value, is_served: bool) -> Value {
    let mut class = portable(object);
    if is_served && text(&class, "/provisioner") != NO_PROVISIONER {
        set(&mut class, "provisioner", Some(CSI.into()));
    }
    class
}

/// A claim that names its volume.
#[must_use]
pub fn claim(object: &Value) -> Value {
    let mut claim = portable(object);
    if let Some(spec) = map_in(&mut claim, "spec") {
        // The content is there already.
        for field in ["dataSource", "dataSourceRef"] {
            set(spec, field, None);
        }
    }
    claim
}

/// A volume that stays when its claim goes. `backing` is the volume of Lamina behind it; `None`
/// leaves the source as it is.
#[must_use]
pub fn volume(object: &Value, backing: Option<&Volume>, node: &str) -> Value {
    let mut volume = portable(object);
    let source = super::convert::source_field(object);
    let is_here = matches!(&source[..], "hostPath" | "local") || backing.is_some();
    let Some(spec) = map_in(&mut volume, "spec") else { return volume };
    if let Some(to) = spec.get_mut("claimRef") {
        set(to, "uid", None);
        set(to, "resourceVersion", None);
    }
    set(spec, "persistentVolumeReclaimPolicy", Some("Retain".into()));
    if let Some(backing) = backing {
        let form = spec.get(&source).map(|source| text(source, "/fsType").to_owned());
        set(spec, &source, None);
        set(spec, "csi", Some(csi(backing, form.unwrap_or_default())));
    }
    if is_here {
        let rule = |key: &str| json!({"key": key, "operator": "In", "values": [node]});
        let mut rules = vec![rule(HOST)];
        if backing.is_some() {
            rules.push(rule(TOPOLOGY));
        }
        let terms = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": rules}]}});
        set(spec, "nodeAffinity", Some(terms));
    }
    volume
}

fn csi(volume: &Volume, form: String) -> Value {
    let mut attributes = json!({"driver": volume.driver, "name": volume.name.to_string()});
    if let Some(size) = volume.size_bytes {
        set(&mut attributes, "size", Some(size.to_string().into()));
    }
    let mut source = json!({
        "driver": CSI,
        "volumeHandle": volume.id,
        "volumeAttributes": attributes,
    });
    // The file system of an image is an option of its driver.
    let form = volume.options.get("fs").cloned().unwrap_or(form);
    if !form.is_empty() {
        set(&mut source, "fsType", Some(form.into()));
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_this_host_is_left_out() {
        let object = json!({
            "metadata": {
                "name": "a", "uid": "u", "resourceVersion": "1", "finalizers": ["x/y"],
                "annotations": {BOUND_BY_CONTROLLER: "yes", LAST: "{}"},
                "managedFields": [], "labels": {"a": "b"},
            },
            "spec": {
                "hostPath": {"path": "/data"},
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"namespace": "n", "name": "c", "uid": "u", "resourceVersion": "2"},
            },
            "status": {"phase": "Bound"},
        });
        let terms = json!([{"matchExpressions": [
            {"key": HOST, "operator": "In", "values": ["here"]}]}]);
        let wanted = json!({
            "metadata": {"name": "a", "labels": {"a": "b"}},
            "spec": {
                "hostPath": {"path": "/data"},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": "n", "name": "c"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
            },
        });
        assert_eq!(volume(&object, None, "here"), wanted);
        let made = json!({"metadata": {"name": "s"}, "provisioner": "kubernetes.io/gce-pd"});
        assert_eq!(class(&made, true)["provisioner"], CSI);
        assert_eq!(class(&made, false)["provisioner"], "kubernetes.io/gce-pd");
    }
}

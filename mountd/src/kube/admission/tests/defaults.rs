//! The fields that are set in objects that leave them out.

use serde_json::{Value, json};

use super::{KINDS, default, edited, right};

#[test]
fn defaults_are_those_of_kubernetes() {
    let rows = [
        ("PersistentVolume", "/spec/persistentVolumeReclaimPolicy", json!("Retain")),
        ("PersistentVolume", "/spec/volumeMode", json!("Filesystem")),
        ("PersistentVolume", "/spec/hostPath", json!({"path": "/data", "type": ""})),
        ("PersistentVolume", "/status/phase", json!("Pending")),
        ("PersistentVolumeClaim", "/spec/volumeMode", json!("Filesystem")),
        ("PersistentVolumeClaim", "/status/phase", json!("Pending")),
        ("StorageClass", "/reclaimPolicy", json!("Delete")),
        ("StorageClass", "/volumeBindingMode", json!("Immediate")),
        ("Namespace", "/spec/finalizers", json!(["kubernetes"])),
        ("Namespace", "/status/phase", json!("Active")),
        ("Namespace", "/metadata/labels", json!({"kubernetes.io/metadata.name": "x"})),
        ("CSIDriver", "/spec/attachRequired", json!(true)),
        ("CSIDriver", "/spec/volumeLifecycleModes", json!(["Persistent"])),
        ("Secret", "/type", json!("Opaque")),
        ("Secret", "/data", json!({"key": "dmFsdWU="})),
        ("Pod", "/spec/restartPolicy", json!("Always")),
        ("Pod", "/spec/terminationGracePeriodSeconds", json!(30)),
        ("Pod", "/spec/dnsPolicy", json!("ClusterFirst")),
        ("Pod", "/spec/schedulerName", json!("default-scheduler")),
        ("Pod", "/spec/containers/0/imagePullPolicy", json!("Always")),
        ("Pod", "/spec/containers/0/terminationMessagePath", json!("/dev/termination-log")),
        ("Pod", "/spec/containers/0/resources", json!({})),
        ("Pod", "/status", json!({"phase": "Pending", "qosClass": "BestEffort"})),
    ];
    for (kind, pointer, wanted) in rows {
        let object = edited(kind, &[]);
        assert_eq!(object.pointer(pointer), Some(&wanted), "{kind} {pointer}");
    }
    assert_eq!(edited("Secret", &[]).get("stringData"), None);
}

#[test]
fn defaults_depend_on_what_is_there() {
    let pod = "Pod";
    let at = |kind, edit, pointer: &str| edited(kind, &[edit]).pointer(pointer).cloned();
    let image = ("/spec/containers/0/image", "\"reg:5000/a:1\"");
    let policy = "/spec/containers/0/imagePullPolicy";
    assert_eq!(at(pod, image, policy), Some(json!("IfNotPresent")));
    let image = ("/spec/containers/0/image", "\"reg:5000/a\"");
    assert_eq!(at(pod, image, policy), Some(json!("Always")));
    let limits = ("/spec/containers/0/resources/limits", r#"{"cpu": "0.5", "memory": "1024Mi"}"#);
    let wanted = json!({"cpu": "500m", "memory": "1Gi"});
    assert_eq!(at(pod, limits, "/spec/containers/0/resources/requests"), Some(wanted));
    assert_eq!(at(pod, limits, "/status/qosClass"), Some(json!("Guaranteed")));
    let bare = ("/spec/volumes/0", r#"{"name": "data"}"#);
    assert_eq!(at(pod, bare, "/spec/volumes/0/emptyDir"), Some(json!({})));
    let map = ("/spec/volumes/0", r#"{"name": "data", "configMap": {"name": "m"}}"#);
    assert_eq!(at(pod, map, "/spec/volumes/0/configMap/defaultMode"), Some(json!(420)));
    let size = ("/spec/capacity/storage", "\"1024Mi\"");
    assert_eq!(at("PersistentVolume", size, "/spec/capacity/storage"), Some(json!("1Gi")));
    let size = ("/spec/resources/requests/storage", "\"0.5Gi\"");
    let pointer = "/spec/resources/requests/storage";
    assert_eq!(at("PersistentVolumeClaim", size, pointer), Some(json!("512Mi")));
    let source = ("/spec/dataSource", r#"{"kind": "PersistentVolumeClaim", "name": "d"}"#);
    let wanted = json!({"kind": "PersistentVolumeClaim", "name": "d"});
    assert_eq!(at("PersistentVolumeClaim", source, "/spec/dataSourceRef"), Some(wanted));
}

#[test]
fn texts_of_secrets_become_base64() {
    let rows =
        [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("\u{ff}\u{ff}", "w7/Dvw==")];
    for (text, wanted) in rows {
        let mut secret = right("Secret");
        secret["stringData"]["key"] = json!(text);
        default("Secret", &mut secret);
        assert_eq!(secret["data"]["key"], json!(wanted), "{text}");
    }
}

#[test]
fn defaults_twice_are_as_once() {
    for kind in KINDS {
        let once = edited(kind, &[]);
        let mut twice = once.clone();
        default(kind, &mut twice);
        assert_eq!(twice, once, "{kind}");
    }
}

#[test]
fn objects_of_wrong_types_do_no_harm() {
    let values = [json!(null), json!(1), json!("x"), json!([]), json!({"metadata": 1, "spec": []})];
    for kind in KINDS {
        for value in &values {
            let mut object: Value = value.clone();
            default(kind, &mut object);
            let report = super::create(kind, &object);
            assert!(!report.errors.is_empty(), "{kind} {value}");
            let _report = super::update(kind, value, &object);
        }
    }
}

//! The walk of a tutorial, as far as it needs no controller.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::daemon::Place;
use crate::kubectl::Kubectl;

const MANIFEST: &str = "
apiVersion: v1
kind: PersistentVolume
metadata:
  name: task-pv
  labels: {type: local}
spec:
  storageClassName: manual
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  hostPath: {path: /mnt/data}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: task-claim
spec:
  storageClassName: manual
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 500Mi}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: fast
  annotations: {storageclass.kubernetes.io/is-default-class: \"true\"}
provisioner: kubernetes.io/gce-pd
parameters: {type: pd-ssd}
";

#[test]
fn objects_are_created_shown_changed_and_deleted() {
    let place = Place::new();
    let daemon = place.start();
    let Some(kubectl) = Kubectl::new(&place, &daemon) else { return };
    kubectl.create(MANIFEST);
    let shown = kubectl.run(&["get", "pv"]);
    let head = "NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS \
                VOLUMEATTRIBUTESCLASS REASON AGE";
    assert_eq!(shown.rows()[0].join(" "), head);
    assert_eq!(shown.rows()[1][..2], ["task-pv", "1Gi"]);
    let wide = kubectl.run(&["get", "pv", "-o", "wide", "--no-headers"]);
    assert_eq!(wide.rows()[0].last(), Some(&"Filesystem"));
    kubectl
        .run(&["get", "pvc,sc", "-o", "name"])
        .is("persistentvolumeclaim/task-claim\nstorageclass.storage.k8s.io/fast\n");
    kubectl.run(&["get", "pv", "-l", "type=local", "-o", "name"]).is("persistentvolume/task-pv\n");
    kubectl.run(&["get", "pv", "-l", "type!=local", "-o", "name"]).is("");
    kubectl.run(&["label", "pv", "task-pv", "tier=a"]).is("persistentvolume/task-pv labeled\n");
    let pointer = "-o=jsonpath={.metadata.labels.tier}";
    kubectl.run(&["get", "pv", "task-pv", pointer]).is("a");
    let described = kubectl.run(&["describe", "pvc", "task-claim"]);
    assert!(described.stdout.contains("StorageClass:  manual"), "{described:?}");
    let missing = kubectl.run(&["get", "pv", "other"]);
    assert_eq!(missing.code, 1);
    let text = "Error from server (NotFound): persistentvolumes \"other\" not found\n";
    assert_eq!(missing.stderr, text);
    kubectl
        .run(&["delete", "pvc", "task-claim"])
        .is("persistentvolumeclaim \"task-claim\" deleted\n");
    kubectl
        .run(&["delete", "pv,sc", "--all"])
        .is("persistentvolume \"task-pv\" deleted\nstorageclass.storage.k8s.io \"fast\" deleted\n");
}

#[test]
fn a_namespace_takes_its_maps_and_secrets_along() {
    let place = Place::new();
    let daemon = place.start();
    let Some(kubectl) = Kubectl::new(&place, &daemon) else { return };
    kubectl.run(&["create", "namespace", "n"]).is("namespace/n created\n");
    let args = ["create", "configmap", "m", "--from-literal=a=b", "-n", "n"];
    kubectl.run(&args).is("configmap/m created\n");
    let args = ["create", "secret", "generic", "s", "--from-literal=a=b", "-n", "n"];
    kubectl.run(&args).is("secret/s created\n");
    let pointer = "-o=jsonpath={.data.a}";
    kubectl.run(&["get", "secret", "s", "-n", "n", pointer]).is("Yg==");
    kubectl.run(&["delete", "namespace", "n"]).is("namespace \"n\" deleted\n");
    kubectl.run(&["get", "cm,secret", "-A", "-o", "name"]).is("");
    let refused = kubectl.run(&["create", "configmap", "m", "-n", "n"]);
    assert!(refused.stderr.contains("namespaces \"n\" not found"), "{refused:?}");
}

#[test]
fn the_node_of_this_host_is_there_and_kinds_have_short_names() {
    let place = Place::new();
    let daemon = place.start();
    let Some(kubectl) = Kubectl::new(&place, &daemon) else { return };
    let nodes = kubectl.run(&["get", "nodes", "--no-headers"]);
    assert_eq!(nodes.rows()[0][..3], ["here", "Ready", "<none>"]);
    let kinds = kubectl.run(&["api-resources", "--no-headers"]);
    assert_eq!(kinds.rows().len(), 15);
    kubectl.run(&["auth", "can-i", "create", "pods"]).is("yes\n");
    for short in ["pv", "pvc", "sc", "po", "cm", "ns", "no", "ev", "vac", "vs", "vsc", "vsclass"] {
        assert_eq!(kubectl.run(&["get", short]).code, 0, "{short}");
    }
}

#[test]
fn a_watch_prints_each_change() {
    let place = Place::new();
    let daemon = place.start();
    let Some(kubectl) = Kubectl::new(&place, &daemon) else { return };
    kubectl.create(MANIFEST);
    let args = ["get", "pv", "-w", "--output-watch-events", "--no-headers"];
    let mut child = kubectl.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.next().unwrap().unwrap();
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(next(), "ADDED task-pv");
    kubectl.run(&["wait", "pv/task-pv", "--for=jsonpath={.status.phase}=Bound"]);
    kubectl.run(&["annotate", "pv", "task-pv", "a=b"]).is("persistentvolume/task-pv annotated\n");
    assert_eq!(next(), "MODIFIED task-pv");
    kubectl.run(&["delete", "pv", "task-pv", "--wait=false"]);
    kubectl.run(&["delete", "pvc", "task-claim"]);
    // The controller changes it too.
    let mut last = next();
    while last == "MODIFIED task-pv" {
        last = next();
    }
    assert_eq!(last, "DELETED task-pv");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_deletion_waits_for_finalizers() {
    let place = Place::new();
    let daemon = place.start();
    let Some(kubectl) = Kubectl::new(&place, &daemon) else { return };
    kubectl.create(MANIFEST);
    let patch = |names: &str| {
        let patch = format!("{{\"metadata\":{{\"finalizers\":{names}}}}}");
        kubectl.run(&["patch", "pv", "task-pv", "--type=merge", "-p", &patch])
    };
    patch("[\"a/a\"]").is("persistentvolume/task-pv patched\n");
    let late = kubectl.run(&["delete", "pv", "task-pv", "--timeout=1s"]);
    assert!(late.stderr.contains("timed out"), "{late:?}");
    let shown = kubectl.run(&["get", "pv", "task-pv", "--no-headers"]);
    assert!(shown.rows()[0].contains(&"Terminating"), "{shown:?}");
    // It prints a line, and then waits for the end of the object.
    let args = ["delete", "pv", "task-pv", "--timeout=15s"];
    let mut waiting = kubectl.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(waiting.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "persistentvolume \"task-pv\" deleted\n");
    patch("null").is("persistentvolume/task-pv patched\n");
    assert!(waiting.wait().unwrap().success());
}

//! A class whose provisioner is the CSI driver: volumes by its calls, with and without a socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::manifests::{attributes, claim, class, restored, snapshot, snapshot_class};
use crate::place::Place;
use crate::shown::{Cleanup, Shown, files};
use crate::until::until;

const CSI: &str = "csi.lamina.dev";

/// How many calls the socket has answered well.
fn answered(place: &Place, call: &str) -> u64 {
    let mut stream = UnixStream::connect(place.at("metrics.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let wanted = format!("lamina_requests_total{{front=\"csi\",call=\"{call}\",result=\"ok\"}} ");
    let found = text.lines().find_map(|line| line.strip_prefix(&wanted));
    found.map_or(0, |count| count.trim().parse().unwrap())
}

/// The one volume of a name.
#[track_caller]
fn volume(place: &Place, name: &str) -> Value {
    place.volumes().into_iter().find(|one| one["name"].as_str() == Some(name)).unwrap()
}

/// Waits until a claim is bound; the name of its volume.
#[track_caller]
fn bound(place: &Place, claim: &str) -> String {
    place.until_phase(&format!("pvc/{claim}"), "Bound");
    place.field(&format!("pvc/{claim}"), ".spec.volumeName")
}

#[test]
fn a_class_of_the_driver_gets_its_volumes_through_the_socket() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start_csi();
    let _cleanup = Cleanup(&place);
    let more = "parameters: {driver: union}\nallowVolumeExpansion: true";
    place.apply(&class("disk", CSI, more));
    place.apply(&attributes("slow", "iops: \"100\""));
    let of = |size: &str, class: &str| {
        let lines = format!("storageClassName: disk\n  volumeAttributesClassName: {class}");
        claim("data", size, &lines)
    };
    place.apply(&of("40Mi", "slow"));
    let name = bound(&place, "data");
    let pv = |path: &str| place.field(&format!("pv/{name}"), path);
    let made = volume(&place, &name);
    assert_eq!(pv(".spec.csi.driver"), CSI);
    assert_eq!(Some(&pv(".spec.csi.volumeHandle")[..]), made["id"].as_str());
    assert_eq!(pv(".spec.capacity.storage"), "40Mi");
    assert_eq!(pv(".metadata.annotations.pv\\.kubernetes\\.io/provisioned-by"), CSI);
    assert_eq!(made["labels"]["lamina.dev/claim"].as_str(), Some("default/data"));
    assert_eq!(made["labels"]["lamina.dev/unfinished"], Value::Null);
    assert_eq!(made["options"]["iops"].as_str(), Some("100"));
    assert_eq!(answered(&place, "CreateVolume"), 1);
    // It grows and changes while it is used.
    let shown = Shown::new(&place, &name);
    shown.write("file", "first");
    place.apply(&attributes("quick", "iops: \"5000\""));
    place.apply(&of("80Mi", "quick"));
    place.until_field("pvc/data", ".status.capacity.storage", "80Mi");
    place.until_field("pvc/data", ".status.currentVolumeAttributesClassName", "quick");
    let made = volume(&place, &name);
    assert_eq!(made["size_bytes"].as_u64(), Some(80 << 20));
    assert_eq!(made["options"]["iops"].as_str(), Some("5000"));
    assert_eq!(answered(&place, "ControllerExpandVolume"), 1);
    assert_eq!(answered(&place, "ControllerModifyVolume"), 1);
    // Nothing is removed while it is used.
    place.good("delete pvc data");
    let said = place.event(&format!("pv/{name}"), "VolumeFailedDelete");
    assert!(said.contains("code = FailedPrecondition") && said.contains("in use"), "{said}");
    drop(shown);
    place.until_gone(&format!("pv/{name}"));
    until("the end of the volume", || place.volumes().is_empty());
    assert_eq!(answered(&place, "DeleteVolume"), 1);
}

#[test]
fn snapshots_and_copies_of_its_volumes_are_calls_too() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start_csi();
    let _cleanup = Cleanup(&place);
    place.apply(&class("fast", CSI, "parameters: {driver: union}"));
    place.apply(&snapshot_class("snaps", CSI, "Delete", true));
    place.apply(&claim("data", "64Mi", "storageClassName: fast"));
    let source = bound(&place, "data");
    Shown::new(&place, &source).write("file", "first");
    place.apply(&snapshot("snap", "", "data"));
    place.until_field("vs/snap", ".status.readyToUse", "true");
    let content = place.field("vs/snap", ".status.boundVolumeSnapshotContentName");
    let kept = place.json(&["volume", "snapshot", "ls", "--json"]);
    assert_eq!(kept[0]["labels"]["lamina.dev/snapshot-content"].as_str(), Some(&content[..]));
    let handle = place.field(&format!("vsc/{content}"), ".status.snapshotHandle");
    assert_eq!(kept[0]["id"].as_str(), Some(&handle[..]));
    place.apply(&restored("clone", "64Mi", "fast", "PersistentVolumeClaim", "data"));
    let clone = bound(&place, "clone");
    place.good("delete pvc data");
    place.until_gone(&format!("pv/{source}"));
    place.apply(&restored("copy", "96Mi", "fast", "VolumeSnapshot", "snap"));
    let copy = bound(&place, "copy");
    for name in [&clone, &copy] {
        assert_eq!(files(&place, name)["file"], "first");
    }
    assert_eq!(volume(&place, &copy)["size_bytes"].as_u64(), Some(96 << 20));
    place.good("delete vs snap");
    place.until_gone(&format!("vsc/{content}"));
    assert!(place.json(&["volume", "snapshot", "ls", "--json"]).is_empty());
    place.good("delete pvc clone copy");
    until("the end of the volumes", || place.volumes().is_empty());
    for (call, count) in [("CreateVolume", 3), ("CreateSnapshot", 1), ("DeleteSnapshot", 1)] {
        assert_eq!(answered(&place, call), count, "{call}");
    }
}

#[test]
fn what_the_driver_refuses_is_told_in_its_words() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start_csi();
    place.apply(&class("odd", CSI, "parameters: {colour: red}"));
    place.apply(&claim("odd", "64Mi", "storageClassName: odd"));
    let said = place.event("pvc/odd", "ProvisioningFailed");
    let wanted = "rpc error: code = InvalidArgument desc = unknown parameter \"colour\"";
    assert!(said.contains(wanted), "{said}");
    // A device is made, though no pod of this host mounts it.
    place.apply(&class("device", CSI, ""));
    place.apply(&claim("device", "16Mi", "storageClassName: device\n  volumeMode: Block"));
    let name = bound(&place, "device");
    assert_eq!(volume(&place, &name)["options"]["fs"].as_str(), Some("none"));
    assert_eq!(place.field(&format!("pv/{name}"), ".spec.volumeMode"), "Block");
    place.apply(&class("ext4", CSI, "parameters: {csi.storage.k8s.io/fstype: ext4}"));
    place.apply(&claim("ext4", "16Mi", "storageClassName: ext4"));
    let name = bound(&place, "ext4");
    assert_eq!(place.field(&format!("pv/{name}"), ".spec.csi.fsType"), "ext4");
    assert_eq!(volume(&place, &name)["driver"].as_str(), Some("image"));
    place.good("delete pvc odd device ext4");
    until("the end of the volume", || place.volumes().is_empty());
}

#[test]
fn without_a_daemon_a_command_makes_the_calls() {
    let Some(place) = Place::new() else { return };
    place.applies(&class("fast", CSI, "parameters: {driver: union}"));
    place.applies(&claim("data", "1Mi", "storageClassName: fast"));
    let all = place.volumes();
    // The smallest size of the driver is the capacity.
    assert_eq!(all[0]["size_bytes"].as_u64(), Some(8 << 20));
    assert_eq!(all[0]["labels"]["lamina.dev/csi-name"], all[0]["name"]);
    let shown: Vec<Value> = {
        let text = place.prints(&["get", "pv", "-o", "json"]);
        serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().unwrap().clone()
    };
    assert_eq!(shown[0]["spec"]["capacity"]["storage"].as_str(), Some("8Mi"));
    assert_eq!(shown[0]["spec"]["csi"]["volumeHandle"], all[0]["id"]);
    place.prints(&["delete", "pvc", "data"]);
    assert!(place.volumes().is_empty());
}

#[test]
fn a_volume_that_lost_its_claim_while_the_daemon_was_down_is_removed() {
    let Some(place) = Place::new() else { return };
    place.succeeds(&["volume", "create", "pvc-lost", "--label", "lamina.dev/unfinished=yes"]);
    place.succeeds(&["volume", "create", "kept"]);
    let _daemon = place.start_csi();
    until("the end of the orphan", || place.volumes().len() == 1);
    assert_eq!(place.volumes()[0]["name"].as_str(), Some("kept"));
}

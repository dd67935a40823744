//! Snapshots with kubectl: taken, restored, prepared, kept and deleted.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::manifests::{
    claim, class, content, prepared_snapshot, restored, snapshot, snapshot_class, volume,
};
use crate::place::Place;
use crate::shown::{Cleanup, Shown, files};
use crate::until::until;

const OWN: &str = "lamina.dev/volume";
const CSI: &str = "csi.lamina.dev";

/// A claim of the class `fast`, bound, with a file; the name of its volume.
fn filled(place: &Place, name: &str) -> String {
    place.apply(&class("fast", OWN, "parameters: {driver: union}"));
    place.apply(&claim(name, "64Mi", "storageClassName: fast"));
    place.until_phase(&format!("pvc/{name}"), "Bound");
    let volume = place.field(&format!("pvc/{name}"), ".spec.volumeName");
    Shown::new(place, &volume).write("file", "first");
    volume
}

#[track_caller]
fn until_ready(place: &Place, name: &str) {
    place.until_field(&format!("vs/{name}"), ".status.readyToUse", "true");
}

/// Restores a snapshot to a new claim; the name of its volume.
#[track_caller]
fn restore(place: &Place, from: &str, to: &str) -> String {
    place.apply(&restored(to, "64Mi", "fast", "VolumeSnapshot", from));
    place.until_phase(&format!("pvc/{to}"), "Bound");
    place.field(&format!("pvc/{to}"), ".spec.volumeName")
}

/// The snapshots of the data root.
#[track_caller]
fn kept(place: &Place) -> Vec<Value> {
    place.json(&["volume", "snapshot", "ls", "--json"])
}

fn only(name: &str, text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), text.to_owned())])
}

#[test]
fn a_snapshot_outlives_its_claim_and_is_restored_to_a_new_one() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let _cleanup = Cleanup(&place);
    let source = filled(&place, "data");
    place.apply(&snapshot_class("snaps", CSI, "Delete", true));
    place.apply(&snapshot("snap", "", "data"));
    until_ready(&place, "snap");
    for reason in ["CreatingSnapshot", "SnapshotCreated", "SnapshotReady"] {
        assert!(place.event("vs/snap", reason).contains("default/snap"), "{reason}");
    }
    let vs = |path: &str| place.field("vs/snap", path);
    assert_eq!(vs(".spec.volumeSnapshotClassName"), "snaps");
    assert_eq!(vs(".status.restoreSize"), "64Mi");
    let content = vs(".status.boundVolumeSnapshotContentName");
    assert_eq!(content, format!("snapcontent-{}", vs(".metadata.uid")));
    let content = format!("vsc/{content}");
    assert_eq!(place.field(&content, ".spec.source.volumeHandle"), source);
    assert_eq!(place.field(&content, ".status.restoreSize"), (64 << 20).to_string());
    let created = place.field(&content, ".status.creationTime");
    assert!(created.len() == 19 && !vs(".status.creationTime").is_empty(), "{created}");
    let table = place.good("get vs,vsc");
    assert!(table.contains("64Mi") && table.contains("67108864"), "{table}");
    // The claim goes first, with its volume.
    Shown::new(&place, &source).write("file", "later");
    place.good("delete pvc data");
    place.until_gone(&format!("pv/{source}"));
    let copy = restore(&place, "snap", "copy");
    let other = restore(&place, "snap", "other");
    assert_eq!(files(&place, &copy), only("file", "first"));
    Shown::new(&place, &copy).write("file", "apart");
    assert_eq!(files(&place, &copy), only("file", "apart"));
    assert_eq!(files(&place, &other), only("file", "first"));
    // The snapshot takes its content and the data along.
    assert_eq!(kept(&place).len(), 1);
    place.good("delete vs snap");
    place.until_gone(&content);
    assert!(kept(&place).is_empty());
    assert_eq!(files(&place, &other), only("file", "first"));
    place.good("delete pvc copy other");
    until("the end of the volumes", || place.volumes().is_empty());
}

#[test]
fn a_retained_content_keeps_its_data_and_is_bound_again() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let _cleanup = Cleanup(&place);
    filled(&place, "data");
    place.apply(&snapshot_class("kept", CSI, "Retain", false));
    place.apply(&snapshot("snap", "kept", "data"));
    until_ready(&place, "snap");
    let first = place.field("vs/snap", ".status.boundVolumeSnapshotContentName");
    let handle = place.field(&format!("vsc/{first}"), ".status.snapshotHandle");
    place.good("delete vs snap");
    assert_eq!(place.field(&format!("vsc/{first}"), ".spec.deletionPolicy"), "Retain");
    place.good(&format!("delete vsc {first}"));
    place.good("delete pvc data");
    assert_eq!(kept(&place)[0]["id"].as_str(), Some(&handle[..]), "{:?}", kept(&place));
    // A prepared content shows it again, to the snapshot that it names.
    place.apply(&prepared_snapshot("again", "ready"));
    place.event("vs/again", "SnapshotContentMissing");
    place.apply(&content("ready", CSI, "Delete", &handle, "again"));
    until_ready(&place, "again");
    let uid = place.field("vs/again", ".metadata.uid");
    assert_eq!(place.field("vsc/ready", ".spec.volumeSnapshotRef.uid"), uid);
    let copy = restore(&place, "again", "copy");
    assert_eq!(files(&place, &copy), only("file", "first"));
    // Another snapshot does not get it.
    place.apply(&prepared_snapshot("thief", "ready"));
    let said = place.event("vs/thief", "SnapshotContentMisbound");
    assert!(said.contains("is bound to a different snapshot"), "{said}");
    place.good("delete vs again thief");
    place.until_gone("vsc/ready");
    assert!(kept(&place).is_empty());
}

#[test]
fn a_prepared_content_of_somebody_elses_snapshot_does_not_delete_it() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let _cleanup = Cleanup(&place);
    place.succeeds(&["volume", "create", "mine", "--driver", "union"]);
    place.succeeds(&["volume", "snapshot", "create", "mine", "cut"]);
    let handle = kept(&place)[0]["id"].as_str().unwrap().to_owned();
    let none = "0123456789abcdef0123456789abcdef";
    place.apply(&content("none", CSI, "Delete", none, "none"));
    place.apply(&prepared_snapshot("none", "none"));
    let said = place.event("vsc/none", "SnapshotContentCheckandUpdateFailed");
    assert!(said.contains(none), "{said}");
    place.until_field("vs/none", ".status.readyToUse", "false");
    place.apply(&content("cut", CSI, "Delete", &handle, "cut"));
    place.apply(&prepared_snapshot("cut", "cut"));
    until_ready(&place, "cut");
    place.good("delete vs cut --wait=false");
    let said = place.event("vsc/cut", "SnapshotDeleteError");
    assert!(said.contains("belongs to another object"), "{said}");
    assert_eq!(kept(&place).len(), 1);
    place.good("patch vsc cut --type=merge -p {\"spec\":{\"deletionPolicy\":\"Retain\"}}");
    place.until_gone("vsc/cut");
    assert_eq!(kept(&place).len(), 1);
}

#[test]
fn what_a_claim_or_a_snapshot_has_is_not_taken_from_it() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let _cleanup = Cleanup(&place);
    let source = filled(&place, "data");
    place.apply(&snapshot_class("snaps", CSI, "Delete", true));
    place.apply(&snapshot("snap", "", "data"));
    until_ready(&place, "snap");
    let handle = kept(&place)[0]["id"].as_str().unwrap().to_owned();
    place.apply(&content("second", CSI, "Delete", &handle, "second"));
    place.apply(&prepared_snapshot("second", "second"));
    until_ready(&place, "second");
    place.good("delete vs second --wait=false");
    let said = place.event("vsc/second", "SnapshotDeleteError");
    assert!(said.contains("belongs to another object"), "{said}");
    let said = place.fails(&["volume", "snapshot", "rm", &handle]);
    assert!(said.contains("volumesnapshotcontent"), "{said}");
    let said = place.fails(&["volume", "rename", &source, "other"]);
    assert!(said.contains("default/data"), "{said}");
    // Copies belong to nobody.
    place.succeeds(&["volume", "clone", &handle, "copy"]);
    place.succeeds(&["volume", "snapshot", "create", "copy", "mine"]);
    place.succeeds(&["volume", "snapshot", "rm", "copy@mine"]);
    place.succeeds(&["volume", "rm", "copy"]);
    let copy = restore(&place, "snap", "restored");
    assert_eq!(files(&place, &copy), only("file", "first"));
    place.succeeds(&["volume", "snapshot", "rm", "--force", &handle]);
    place.good("delete vs snap");
    place.until_gone("vsc/second");
}

#[test]
fn a_snapshot_says_why_it_is_not_taken_and_is_taken_when_it_can() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let _cleanup = Cleanup(&place);
    let error = |name: &str, wanted: &str| {
        until(wanted, || {
            place.field(&format!("vs/{name}"), ".status.error.message").contains(wanted)
        });
    };
    place.apply(&snapshot("early", "snaps", "data"));
    place.event("vs/early", "GetSnapshotClassFailed");
    place.apply(&snapshot_class("other", "other.example.com", "Delete", true));
    place.apply(&snapshot_class("snaps", OWN, "Delete", false));
    error("early", "persistentvolumeclaim \"data\" not found");
    place.apply(&claim("data", "64Mi", "storageClassName: fast"));
    error("early", "the PVC data is not yet bound to a PV, will not attempt to take a snapshot");
    filled(&place, "data");
    until_ready(&place, "early");
    assert_eq!(place.field("vs/early", ".status.error"), "");
    // The default class is of another driver.
    place.apply(&snapshot("plain", "", "data"));
    let said = place.event("vs/plain", "SetDefaultSnapshotClassFailed");
    assert!(said.ends_with("cannot find default snapshot class"), "{said}");
    place.apply(&snapshot("wrong", "other", "data"));
    let said = place.event("vs/wrong", "SnapshotContentCreationFailed");
    assert!(said.contains("other.example.com"), "{said}");
    // Volumes of directories have no snapshots.
    place.apply(&class("local", OWN, "parameters: {driver: local}"));
    place.apply(&claim("local", "64Mi", "storageClassName: local"));
    place.until_phase("pvc/local", "Bound");
    place.apply(&snapshot("local", "snaps", "local"));
    error("local", "cannot find CSI PersistentVolumeSource for volume");
    // One more class for the driver, and the snapshot without class is taken.
    place.apply(&snapshot_class("usual", CSI, "Delete", true));
    until_ready(&place, "plain");
    assert_eq!(place.field("vs/plain", ".spec.volumeSnapshotClassName"), "usual");
    assert_eq!(place.field("pvc/data", ".metadata.finalizers[1:]"), "");
}

#[test]
fn a_claim_waits_for_its_snapshot_and_needs_its_size() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let _cleanup = Cleanup(&place);
    filled(&place, "data");
    place.apply(&snapshot_class("snaps", CSI, "Delete", true));
    place.apply(&restored("copy", "64Mi", "fast", "VolumeSnapshot", "snap"));
    let said = place.event("pvc/copy", "ProvisioningFailed");
    assert!(said.contains("snapshots.snapshot.storage.k8s.io \"snap\" not found"), "{said}");
    place.apply(&snapshot("snap", "", "data"));
    place.until_phase("pvc/copy", "Bound");
    place.apply(&restored("small", "32Mi", "fast", "VolumeSnapshot", "snap"));
    let said = place.event("pvc/small", "ProvisioningFailed");
    assert!(said.contains("is less than the size 67108864 for the source snapshot snap"), "{said}");
    // A snapshot of which a claim is made stays until then.
    place.good("delete vs snap --wait=false");
    let said = place.event("vs/snap", "SnapshotDeletePending");
    assert_eq!(said, "Snapshot is being used to restore a PVC");
    place.good("delete pvc small");
    place.until_gone("vs/snap");
    // A larger claim has its size.
    place.apply(&snapshot("next", "", "data"));
    place.apply(&restored("large", "128Mi", "fast", "VolumeSnapshot", "next"));
    place.until_field("pvc/large", ".status.capacity.storage", "128Mi");
    let name = place.field("pvc/large", ".spec.volumeName");
    let volumes = place.volumes();
    let large = volumes.iter().find(|one| one["name"].as_str() == Some(&name)).unwrap();
    assert_eq!(large["size_bytes"].as_u64(), Some(128 << 20), "{large}");
    assert_eq!(large["labels"]["lamina.dev/claim"].as_str(), Some("default/large"), "{large}");
}

#[test]
fn claims_are_cloned_and_foreign_sources_left_to_populators() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let _cleanup = Cleanup(&place);
    place.apply(&restored("early", "64Mi", "fast", "PersistentVolumeClaim", "data"));
    place.apply(&class("fast", OWN, "parameters: {driver: union}"));
    let said = place.event("pvc/early", "ProvisioningFailed");
    assert!(said.contains("persistentvolumeclaim \"data\" not found"), "{said}");
    let source = filled(&place, "data");
    place.until_phase("pvc/early", "Bound");
    place.apply(&restored("copy", "64Mi", "fast", "PersistentVolumeClaim", "data"));
    place.until_phase("pvc/copy", "Bound");
    let copy = place.field("pvc/copy", ".spec.volumeName");
    assert_eq!(files(&place, &copy), only("file", "first"));
    Shown::new(&place, &copy).write("file", "apart");
    assert_eq!(files(&place, &source), only("file", "first"));
    let foreign = "dataSourceRef: {apiGroup: example.com, kind: Recipe, name: cake}";
    place.apply(&claim("cake", "64Mi", &format!("storageClassName: fast\n  {foreign}")));
    place.event("pvc/cake", "UnrecognizedDataSourceKind");
    assert_eq!(place.field("pvc/cake", ".status.phase"), "Pending");
    // A directory of the host is no volume that a driver can copy.
    let path = place.directory("plain");
    let of = "storageClassName: manual-plain";
    place.apply(&(volume("plain", &path, "Retain") + &claim("plain", "64Mi", of)));
    place.until_phase("pvc/plain", "Bound");
    place.apply(&restored("never", "1Gi", "fast", "PersistentVolumeClaim", "plain"));
    let said = place.event("pvc/never", "ProvisioningFailed");
    assert!(said.contains("claim in dataSource not bound or invalid"), "{said}");
}

/// Writes numbers in two files, one after the other, until it ends.
fn write_on(shown: &Shown, ends: &AtomicBool) {
    for number in 1_u64.. {
        for name in ["first", "second"] {
            if ends.load(Ordering::Relaxed) {
                return;
            }
            let new = shown.data().join("new");
            fs::write(&new, number.to_string()).unwrap();
            fs::rename(&new, shown.data().join(name)).unwrap();
        }
    }
}

#[test]
fn a_snapshot_of_a_volume_in_use_is_of_one_moment() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let _cleanup = Cleanup(&place);
    let source = filled(&place, "data");
    place.apply(&snapshot_class("snaps", CSI, "Delete", true));
    let shown = Shown::new(&place, &source);
    let ends = AtomicBool::new(false);
    let number = |files: &BTreeMap<String, String>, name: &str| -> u64 {
        files.get(name).map_or(0, |text| text.parse().unwrap())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| write_on(&shown, &ends));
        until("the first round", || shown.data().join("second").exists());
        let mut last = 0;
        for round in 0..3 {
            let (name, copy) = (format!("snap-{round}"), format!("copy-{round}"));
            let before: u64 =
                fs::read_to_string(shown.data().join("second")).unwrap().parse().unwrap();
            place.apply(&snapshot(&name, "", "data"));
            until_ready(&place, &name);
            let found = files(&place, &restore(&place, &name, &copy));
            let (first, second) = (number(&found, "first"), number(&found, "second"));
            assert!(second >= before && second >= last, "{second} of {before}: {found:?}");
            assert!(first == second || first == second + 1, "{found:?}");
            last = second;
        }
        ends.store(true, Ordering::Relaxed);
    });
    drop(daemon);
}

//! Static volumes of a cluster, whose sources drivers of this host stand in for.

use crate::manifests::{claim, pod, volume};
use crate::place::Place;
use crate::until::until;

const ANNOTATION: &str = ".metadata.annotations.lamina\\.dev/volume";

/// A volume with this source, in a class.
fn disk(name: &str, source: &str, (class, policy): (&str, &str)) -> String {
    volume(name, "/x", policy)
        .replace("hostPath: {path: /x}", source)
        .replace("1Gi", "96Mi")
        .replace(&format!("manual-{name}"), class)
}

const GCE: &str = "gcePersistentDisk: {pdName: my-disk, fsType: ext4}";
const CONFIG: &str = "[kube.map.gcePersistentDisk]\ndriver = \"union\"\n\
                      [kube.map.gcePersistentDisk.classes.fast]\ndriver = \"local\"\n\
                      [kube.map.\"csi:ebs.csi.aws.com\"]\n\
                      [kube.map.nfs]\ndriver = \"no-such-driver\"\n";

#[test]
fn a_disk_of_a_cloud_gets_content_with_its_first_claim() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let of = |class: &str| format!("storageClassName: {class}");
    // Not mapped: the objects are bound, as in any cluster, and there is no content.
    place.apply(&(disk("slow", GCE, ("slow", "Retain")) + &claim("slow", "64Mi", &of("slow"))));
    place.until_phase("pvc/slow", "Bound");
    assert_eq!(place.field("pv/slow", ANNOTATION), "");
    daemon.end();
    let _daemon = place.start_with(CONFIG);
    let csi = "csi: {driver: ebs.csi.aws.com, volumeHandle: vol-1}";
    place.apply(
        &(disk("fast", GCE, ("fast", "Delete"))
            + &disk("ebs", csi, ("ebs", "Retain"))
            + &claim("fast", "64Mi", &of("fast"))
            + &pod("web", "slow")),
    );
    for name in ["slow", "fast"] {
        let pv = format!("pv/{name}");
        let wanted = format!("pv-{}", place.field(&pv, ".metadata.uid"));
        place.until_field(&pv, ANNOTATION, &wanted);
        let volumes = place.volumes();
        let made = volumes.iter().find(|one| one["name"].as_str() == Some(&wanted)).unwrap();
        let is_fast = name == "fast";
        assert_eq!(made["driver"], if is_fast { "local" } else { "union" });
        assert_eq!(made["size_bytes"].as_u64(), (!is_fast).then_some(96 << 20), "{made}");
        // The manifest is as it was written.
        assert_eq!(place.field(&pv, ".spec.gcePersistentDisk.pdName"), "my-disk");
    }
    place.until_field("pod/web", ".spec.nodeName", "here");
    let message = place.event("pv/slow", "ProvisioningSucceeded");
    assert!(message.ends_with("of this host stands in for gcePersistentDisk"), "{message}");
    // A volume that no claim uses has no content.
    place.until_phase("pv/ebs", "Available");
    assert_eq!(place.volumes().len(), 2);
    place.apply(&claim("ebs", "64Mi", &of("ebs")));
    until("the content of a CSI volume", || place.volumes().len() == 3);
    // The policy of the volume is that of its content.
    place.good("delete pvc fast ebs");
    place.until_gone("pv/fast");
    place.until_phase("pv/ebs", "Released");
    until("the end of the content", || place.volumes().len() == 2);
}

#[test]
fn content_that_cannot_be_made_is_told_and_tried_again() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start_with(CONFIG);
    let nfs = "nfs: {server: s, path: /}";
    place.apply(
        &(disk("share", nfs, ("share", "Delete"))
            + &claim("share", "64Mi", "storageClassName: share")),
    );
    let message = place.event("pvc/share", "ProvisioningFailed");
    assert!(message.contains("no-such-driver"), "{message}");
    assert_eq!(place.field("pv/share", ANNOTATION), "");
    daemon.end();
    let _daemon = place.start_with("[kube.map.nfs]\ndriver = \"local\"\n");
    let wanted = format!("pv-{}", place.field("pv/share", ".metadata.uid"));
    place.until_field("pv/share", ANNOTATION, &wanted);
    place.good("delete pvc share");
    place.until_gone("pv/share");
    assert!(place.volumes().is_empty());
}

#[test]
fn an_annotation_names_a_volume_that_is_there() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start_with(CONFIG);
    place.succeeds(&["volume", "create", "mine"]);
    let mine = disk("mine", GCE, ("mine", "Delete"))
        .replace("labels: {type: local}", "annotations: {lamina.dev/volume: mine}");
    place.apply(&(mine + &claim("mine", "64Mi", "storageClassName: mine")));
    place.until_phase("pvc/mine", "Bound");
    assert_eq!(place.field("pv/mine", ANNOTATION), "mine");
    // It was not made for the claim, and stays.
    place.good("delete pvc mine");
    place.until_phase("pv/mine", "Failed");
    let message = place.field("pv/mine", ".status.message");
    assert!(message.contains("was not made for a claim"), "{message}");
    assert_eq!(place.volumes().len(), 1);
}

//! Objects whose author names what belongs to others.

use std::fs;

use crate::manifests::{claim, class, volume};
use crate::place::Place;

/// A claim that is gone, so that a volume with it is released at once.
const GONE: &str =
    "claimRef: {namespace: default, name: gone, uid: 11111111-1111-1111-1111-111111111111}";

/// A volume of a source that a claim, now gone, had.
fn released(name: &str, policy: &str, source: &str) -> String {
    let plain = volume(name, "/x", policy).replace("  hostPath: {path: /x}\n", "");
    let provisioner = "annotations: {pv.kubernetes.io/provisioned-by: lamina.dev/volume}";
    let plain = plain.replace("labels: {type: local}", provisioner);
    format!("{plain}  {GONE}\n  {source}\n")
}

#[test]
fn a_volume_of_somebody_else_outlives_what_names_it() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.succeeds(&["volume", "create", "foreign"]);
    let mut manifest = String::new();
    for (name, source) in [
        ("by-handle", "csi: {driver: csi.lamina.dev, volumeHandle: foreign}"),
        ("other-driver", "csi: {driver: ebs.csi.aws.com, volumeHandle: foreign}"),
        ("foreign", "hostPath: {path: /tmp/none}"),
    ] {
        manifest += &released(name, "Delete", source);
    }
    place.apply(&manifest);
    place.until_phase("pv/foreign", "Failed");
    for name in ["by-handle", "other-driver"] {
        place.until_gone(&format!("pv/{name}"));
    }
    assert_eq!(place.volumes().len(), 1);
}

#[test]
fn neither_the_data_root_nor_a_relative_directory_is_emptied() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.succeeds(&["volume", "create", "kept"]);
    let root = place.at("root/volumes");
    let recycled = |path: &str| released("bad", "Recycle", &format!("hostPath: {{path: {path}}}"));
    for path in [".", "home", "/"] {
        let said = place.refused("apply -f -", &recycled(path));
        assert!(said.contains("may not be 'recycle' for a"), "{said}");
    }
    for path in [root.to_str().unwrap(), "/proc/self/cwd", "/tmp"] {
        place.apply(&recycled(path));
        place.until_phase("pv/bad", "Failed");
        place.good("delete pv bad --wait=true");
    }
    assert!(fs::read_dir(root).unwrap().count() > 0);
    assert_eq!(place.volumes().len(), 1);
}

#[test]
fn a_volume_of_a_claim_is_removed_with_the_claim_alone() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(
        &(class("own", "lamina.dev/volume", "") + &claim("c", "10Mi", "storageClassName: own")),
    );
    place.until_phase("pvc/c", "Bound");
    let name = place.field("pvc/c", ".spec.volumeName");
    let said = place.fails(&["volume", "rm", &name]);
    assert!(said.contains("claim \"default/c\"") && said.contains("kubectl delete"), "{said}");
    place.succeeds(&["volume", "prune", "--all"]);
    assert_eq!(place.volumes().len(), 1);
    place.good("delete pvc c");
    place.until_gone(&format!("pv/{name}"));
    assert_eq!(place.volumes().len(), 0);
}

#[test]
fn a_device_is_asked_for_in_vain() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let block = "storageClassName: own\n  volumeMode: Block";
    place.apply(&(class("own", "lamina.dev/volume", "") + &claim("c", "10Mi", block)));
    let said = place.event("pvc/c", "ProvisioningFailed");
    assert!(said.contains("no block devices"), "{said}");
    assert_eq!(place.volumes().len(), 0);
}

//! What becomes of a volume when its claim is deleted.

use std::fs;
use std::os::unix::fs::symlink;

use crate::manifests::{claim, volume};
use crate::place::Place;

/// A bound volume of a policy, with a file in it.
fn bound(place: &Place, name: &str, policy: &str) {
    let path = place.directory(name);
    fs::write(format!("{path}/file"), "x").unwrap();
    let class = format!("storageClassName: manual-{name}");
    place.apply(&(volume(name, &path, policy) + &claim(name, "500Mi", &class)));
    place.until_phase(&format!("pvc/{name}"), "Bound");
}

#[test]
fn a_retained_volume_is_released_and_keeps_its_content() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    bound(&place, "kept", "Retain");
    place.good("delete pvc kept");
    place.until_phase("pv/kept", "Released");
    assert!(place.at("kept/file").exists());
    // Without its claimRef it is free again.
    let patch = r#"[{"op":"remove","path":"/spec/claimRef"}]"#;
    let done = place.kubectl(&["patch", "pv", "kept", "--type=json", "-p", patch], "");
    assert!(done.status.success(), "{done:?}");
    place.until_phase("pv/kept", "Available");
}

#[test]
fn a_deleted_volume_takes_its_directory_along() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    bound(&place, "gone", "Delete");
    place.good("delete pvc gone");
    place.until_gone("pv/gone");
    assert!(!place.at("gone").exists());
}

#[test]
fn a_volume_elsewhere_than_in_tmp_is_not_deleted() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let class = "storageClassName: manual-far";
    place.apply(&(volume("far", "/nowhere/far", "Delete") + &claim("far", "500Mi", class)));
    place.until_phase("pvc/far", "Bound");
    place.good("delete pvc far");
    place.until_phase("pv/far", "Failed");
    let message = place.event("pv/far", "VolumeFailedDelete");
    let wanted = "host_path deleter only supports /tmp/.+ but received provided /nowhere/far";
    assert_eq!(message, wanted);
}

#[test]
fn a_recycled_volume_is_empty_and_what_links_lead_to_is_not() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    bound(&place, "again", "Recycle");
    place.directory("outside");
    fs::write(place.at("outside/kept"), "x").unwrap();
    fs::create_dir_all(place.at("again/deep/.er")).unwrap();
    symlink(place.at("outside"), place.at("again/link")).unwrap();
    symlink(place.at("outside"), place.at("again/deep/link")).unwrap();
    place.good("delete pvc again");
    place.until_phase("pv/again", "Available");
    assert_eq!(fs::read_dir(place.at("again")).unwrap().count(), 0);
    assert!(place.at("outside/kept").exists());
    assert_eq!(place.event("pv/again", "VolumeRecycled"), "Volume recycled");
    place.apply(&claim("next", "500Mi", "storageClassName: manual-again"));
    place.until_phase("pvc/next", "Bound");
}

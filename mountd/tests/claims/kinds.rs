//! Claims of pods, claims for one pod, and classes of attributes.

use crate::manifests::{attributes, claim, class, pod};
use crate::place::Place;
use crate::until::until;

const OWN: &str = "lamina.dev/volume";

/// A pod with a claim of its own.
fn with_ephemeral(name: &str, class: &str) -> String {
    pod(name, "unused").replace(
        "persistentVolumeClaim: {claimName: unused}",
        &format!(
            "ephemeral: {{volumeClaimTemplate: {{metadata: {{labels: {{of: {name}}}}}, spec: \
             {{accessModes: [ReadWriteOnce], storageClassName: {class}, resources: {{requests: \
             {{storage: 64Mi}}}}}}}}}}"
        ),
    )
}

#[test]
fn a_pod_gets_a_claim_of_its_own_which_goes_with_it() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(&class("late", OWN, "volumeBindingMode: WaitForFirstConsumer"));
    place.apply(&with_ephemeral("web", "late"));
    place.until_phase("pvc/web-data", "Bound");
    place.until_field("pod/web", ".spec.nodeName", "here");
    let of = |path: &str| place.field("pvc/web-data", path);
    assert_eq!(of(".metadata.ownerReferences[0].uid"), place.field("pod/web", ".metadata.uid"));
    assert_eq!(of(".metadata.labels.of"), "web");
    assert_eq!(place.volumes().len(), 1);
    place.good("delete pod web --wait=false");
    place.until_gone("pod/web");
    place.until_gone("pvc/web-data");
    until("the end of the volume", || place.volumes().is_empty());
}

#[test]
fn a_foreign_claim_of_the_name_keeps_the_pod_from_its_node() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(&class("fast", OWN, ""));
    place.apply(&claim("web-data", "64Mi", "storageClassName: fast"));
    place.until_phase("pvc/web-data", "Bound");
    place.apply(&with_ephemeral("web", "fast"));
    let said = place.event("pod/web", "FailedScheduling");
    let wanted = "PVC default/web-data was not created for pod default/web (pod is not owner)";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(place.field("pod/web", ".spec.nodeName"), "");
    // Without the claim of somebody else the pod gets its own. It has the name of the old one, so
    // a client that waits for the end of the old one may see the new one, and wait for ever.
    place.good("delete pvc web-data --wait=false");
    place.until_field("pod/web", ".spec.nodeName", "here");
    let owner = place.field("pvc/web-data", ".metadata.ownerReferences[0].name");
    assert_eq!(owner, "web");
}

#[test]
fn a_claim_for_one_pod_is_not_given_to_a_second_one() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(&class("fast", OWN, ""));
    let manifest = claim("single", "64Mi", "storageClassName: fast");
    place.apply(&manifest.replace("ReadWriteOnce", "ReadWriteOncePod"));
    place.until_phase("pvc/single", "Bound");
    assert_eq!(place.field("pvc/single", ".status.accessModes[0]"), "ReadWriteOncePod");
    place.apply(&pod("first", "single"));
    place.until_field("pod/first", ".spec.nodeName", "here");
    place.apply(&pod("second", "single"));
    let said = place.event("pod/second", "FailedScheduling");
    let wanted = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod \
                  access mode";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(place.field("pod/second", ".spec.nodeName"), "");
    place.good("delete pod first --wait=false");
    place.until_field("pod/second", ".spec.nodeName", "here");
}

#[test]
fn a_claim_changes_its_class_of_attributes_and_the_volume_its_limits() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(&class("fast", OWN, "parameters: {driver: union}"));
    place.apply(&attributes("slow", "iops: \"100\""));
    let of = |class: &str| {
        let lines = format!("storageClassName: fast\n  volumeAttributesClassName: {class}");
        claim("data", "64Mi", &lines)
    };
    place.apply(&of("slow"));
    place.until_phase("pvc/data", "Bound");
    let current = ".status.currentVolumeAttributesClassName";
    place.until_field("pvc/data", current, "slow");
    let name = place.field("pvc/data", ".spec.volumeName");
    let option = |key: &str| {
        let volumes = place.volumes();
        let found = volumes.iter().find(|one| one["name"].as_str() == Some(&name)).unwrap();
        found["options"][key].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(option("iops"), "100");
    // A class that comes later is waited for.
    place.apply(&of("quick"));
    let said = place.event("pvc/data", "VolumeModifyFailed");
    assert_eq!(said, "VAC quick does not exist");
    let target = ".status.modifyVolumeStatus.targetVolumeAttributesClassName";
    place.until_field("pvc/data", target, "quick");
    place.apply(&attributes("quick", "iops: \"5000\""));
    place.until_field("pvc/data", current, "quick");
    place.event("pvc/data", "VolumeModifySuccessful");
    assert_eq!(option("iops"), "5000");
    let pv = format!("pv/{name}");
    assert_eq!(place.field(&pv, ".spec.volumeAttributesClassName"), "quick");
    // A parameter that the driver does not know changes nothing.
    place.apply(&attributes("odd", "colour: red"));
    place.apply(&of("odd"));
    let said = place.event("pvc/data", "VolumeModifyFailed");
    assert!(said.contains("colour"), "{said}");
    assert_eq!(option("iops"), "5000");
    assert_eq!(place.field("pvc/data", current), "quick");
}

//! Classes: volumes of this host that are made for claims.

use crate::manifests::{claim, class, default_class, pod, volume};
use crate::place::Place;

const OWN: &str = "lamina.dev/volume";

/// The volumes of the data root with their drivers and sizes.
fn drivers(place: &Place) -> Vec<String> {
    let shown = place.volumes().into_iter().map(|one| one["driver"].as_str().unwrap().to_owned());
    shown.collect()
}

#[test]
fn a_class_makes_a_volume_and_its_deletion_removes_it() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(&class("fast", OWN, "parameters: {driver: union}\nmountOptions: [noatime]"));
    place.apply(&claim("made", "64Mi", "storageClassName: fast"));
    place.until_phase("pvc/made", "Bound");
    let name = place.field("pvc/made", ".spec.volumeName");
    let pv = format!("pv/{name}");
    assert_eq!(place.field(&pv, ".spec.csi.volumeHandle"), name);
    assert_eq!(place.field(&pv, ".spec.mountOptions[0]"), "noatime");
    assert_eq!(place.field(&pv, ".spec.persistentVolumeReclaimPolicy"), "Delete");
    assert_eq!(drivers(&place), ["union"]);
    assert!(place.event("pvc/made", "ProvisioningSucceeded").contains(&name));
    place.good("delete pvc made");
    place.until_gone(&pv);
    assert!(place.volumes().is_empty());
}

#[test]
fn a_class_with_a_bad_parameter_says_so_and_delays_no_other() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(&class("bad", OWN, "parameters: {driver: none}"));
    place.apply(&class("good", OWN, ""));
    place.apply(&claim("bad", "64Mi", "storageClassName: bad"));
    let message = place.event("pvc/bad", "ProvisioningFailed");
    let wanted = "failed to provision volume with StorageClass \"bad\": ";
    assert!(message.starts_with(wanted) && message.contains("none"), "{message}");
    place.apply(&claim("good", "64Mi", "storageClassName: good"));
    place.until_phase("pvc/good", "Bound");
    assert_eq!(place.field("pvc/bad", ".status.phase"), "Pending");
}

#[test]
fn claims_without_a_class_get_the_default_one_of_two_also_later() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(&claim("early", "64Mi", ""));
    place.event("pvc/early", "FailedBinding");
    place.apply(&(default_class("plain", false) + &default_class("usual", true)));
    place.until_phase("pvc/early", "Bound");
    place.apply(&claim("later", "64Mi", ""));
    place.until_phase("pvc/later", "Bound");
    for name in ["pvc/early", "pvc/later"] {
        assert_eq!(place.field(name, ".spec.storageClassName"), "usual");
    }
    assert!(place.good("get sc").contains("usual (default)"));
}

#[test]
fn a_class_that_waits_binds_with_the_first_pod() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let waits = "parameters: {driver: local}\nvolumeBindingMode: WaitForFirstConsumer";
    place.apply(&class("late", OWN, waits));
    place.apply(&claim("late", "64Mi", "storageClassName: late"));
    let message = place.event("pvc/late", "WaitForFirstConsumer");
    assert_eq!(message, "waiting for first consumer to be created before binding");
    assert_eq!(place.field("pvc/late", ".status.phase"), "Pending");
    place.apply(&pod("web", "late"));
    place.until_field("pod/web", ".spec.nodeName", "here");
    place.until_phase("pvc/late", "Bound");
    let pv = format!("pv/{}", place.field("pvc/late", ".spec.volumeName"));
    let path = place.field(&pv, ".spec.hostPath.path");
    assert!(std::path::Path::new(&path).is_dir(), "{path:?}");
    place.good("delete pod web");
}

#[test]
fn a_claim_grows_where_its_class_allows_it() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(&(class("grows", OWN, "allowVolumeExpansion: true") + &class("stays", OWN, "")));
    place.apply(&claim("grows", "64Mi", "storageClassName: grows"));
    place.apply(&claim("stays", "64Mi", "storageClassName: stays"));
    place.until_phase("pvc/grows", "Bound");
    place.until_phase("pvc/stays", "Bound");
    place.apply(&claim("grows", "128Mi", "storageClassName: grows"));
    place.until_field("pvc/grows", ".status.capacity.storage", "128Mi");
    let name = place.field("pvc/grows", ".spec.volumeName");
    let volumes = place.volumes();
    let grown = volumes.iter().find(|one| one["name"].as_str() == Some(&name)).unwrap();
    assert_eq!(grown["size_bytes"].as_u64(), Some(128 << 20), "{grown}");
    let said = place.refused("apply -f -", &claim("stays", "1Gi", "storageClassName: stays"));
    assert!(said.contains("only dynamically provisioned pvc can be resized"), "{said}");
    let said = place.refused("apply -f -", &claim("grows", "8Mi", "storageClassName: grows"));
    assert!(said.contains("field can not be less than"), "{said}");
}

#[test]
fn a_claim_with_another_one_as_its_source_gets_a_clone_if_the_driver_can() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    for (driver, can) in [("union", true), ("local", false)] {
        let of = format!("storageClassName: {driver}");
        place.apply(&class(driver, OWN, &format!("parameters: {{driver: {driver}}}")));
        place.apply(&claim(driver, "64Mi", &of));
        place.until_phase(&format!("pvc/{driver}"), "Bound");
        let from = format!("{of}\n  dataSource: {{kind: PersistentVolumeClaim, name: {driver}}}");
        let copy = format!("pvc/copy-{driver}");
        place.apply(&claim(&format!("copy-{driver}"), "128Mi", &from));
        if can {
            place.until_phase(&copy, "Bound");
            place.until_field(&copy, ".status.capacity.storage", "128Mi");
        } else {
            let message = place.event(&copy, "ProvisioningFailed");
            assert!(message.contains("driver local does not support snapshots"), "{message}");
        }
    }
    let mut all = drivers(&place);
    all.sort();
    assert_eq!(all, ["local", "union", "union"]);
}

#[test]
fn a_class_of_a_cloud_waits_until_it_is_mapped() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let parameters = "parameters: {type: pd-ssd, replication-type: none}";
    place.apply(&class("cloud", "kubernetes.io/gce-pd", parameters));
    place.apply(&claim("cloud", "64Mi", "storageClassName: cloud"));
    let message = place.event("pvc/cloud", "ExternalProvisioning");
    let wanted = "Waiting for a volume to be created either by the external provisioner \
                  'pd.csi.storage.gke.io' or manually by the system administrator.";
    assert!(message.starts_with(wanted), "{message}");
    assert_eq!(place.field("pvc/cloud", ".status.phase"), "Pending");
    daemon.end();
    let map = "[kube.map]\n\"kubernetes.io/gce-pd\" = { driver = \"local\" }\n";
    let _daemon = place.start_with(map);
    place.until_phase("pvc/cloud", "Bound");
    assert_eq!(drivers(&place), ["local"]);
}

#[test]
fn a_class_without_provisioner_takes_volumes_that_are_there() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let waits = "volumeBindingMode: WaitForFirstConsumer";
    place.apply(&class("manual-there", "kubernetes.io/no-provisioner", waits));
    place.apply(&claim("there", "500Mi", "storageClassName: manual-there"));
    place.event("pvc/there", "WaitForFirstConsumer");
    place.apply(&pod("web", "there"));
    place.event("pod/web", "FailedScheduling");
    place.apply(&volume("there", &place.directory("there"), "Retain"));
    place.until_phase("pvc/there", "Bound");
    place.until_field("pod/web", ".spec.nodeName", "here");
}

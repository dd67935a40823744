//! The deletion of pods that run.

use std::time::{Duration, Instant};

use crate::manifests::{FOREVER, pod};
use crate::place::Place;
use crate::until::until;

#[test]
fn a_pod_ends_within_its_grace_and_then_its_object_is_gone() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let deaf = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    let manifest = pod("deaf", deaf, "", "");
    let manifest =
        manifest.replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 4");
    place.apply(&manifest);
    until("its output", || place.kubectl(&["logs", "deaf"], "").stdout == b"up\n");
    let uid = place.uid("deaf");
    let begun = Instant::now();
    place.good("delete pod deaf --wait=false");
    assert!(place.good("get pods").contains("Terminating"));
    place.until_gone("pod/deaf");
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(30), "{took:?}");
    assert_eq!(place.mounts(&uid), 0);
    assert!(place.supervisors(&uid).len() <= 1);
    until("the end of its process", || place.supervisors(&uid).is_empty());
}

#[test]
fn a_container_that_listens_ends_at_once() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let manifest = pod("keen", FOREVER, "", "");
    let manifest =
        manifest.replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 60");
    place.apply(&manifest);
    place.good("wait --for=condition=Ready pod/keen --timeout=60s");
    let begun = Instant::now();
    place.good("delete pod keen");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn a_pod_that_is_removed_by_force_ends_all_the_same() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.apply(&pod("forced", FOREVER, "", ""));
    place.good("wait --for=condition=Ready pod/forced --timeout=60s");
    let uid = place.uid("forced");
    place.good("delete pod forced --grace-period=0 --force");
    assert_eq!(place.field("pod/forced", ".metadata.name"), "");
    // A pod of the same name is another one.
    place.apply(&pod("forced", FOREVER, "", ""));
    place.good("wait --for=condition=Ready pod/forced --timeout=60s");
    let home = place.at("root/pods").join(&uid);
    until("the end of the first one", || !home.exists());
    assert_eq!(place.mounts(&uid), 0);
    assert_eq!(place.field("pod/forced", ".status.phase"), "Running");
    place.good("delete pod forced");
}

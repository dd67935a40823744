//! Pods that are stopped, and what is said of them.

use std::fs;
use std::time::Duration;

use crate::manifests::{FOREVER, pod};
use crate::place::Place;
use crate::until::until;

#[test]
fn what_is_left_of_a_pod_that_has_ended_is_removed_by_a_stop() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start(false);
    place.apply(&pod("bid", FOREVER, "", ""));
    place.until_field("pod/bid", ".spec.nodeName", "here");
    let home = place.at("root/pods").join(place.uid("bid"));
    place.succeeds(&["pod", "start", "bid"]);
    place.succeeds(&["pod", "stop", "bid"]);
    assert_eq!(place.field("pod/bid", ".status.phase"), "Failed");
    drop(daemon);
    // As a process leaves it that is killed between its last status and its end.
    fs::create_dir_all(home.join("volumes/e/_data")).unwrap();
    fs::write(home.join("started"), "crun").unwrap();
    fs::write(home.join("stop"), "").unwrap();
    assert_eq!(place.succeeds(&["pod", "stop", "bid"]), "bid\n");
    for name in ["volumes", "started", "stop"] {
        assert!(!home.join(name).exists(), "{name}");
    }
    let listed = place.succeeds(&["pod", "ls", "--json"]);
    assert!(listed.contains("\"reason\": \"Stopped\""), "{listed}");
}

#[test]
fn a_deleted_pod_that_a_finalizer_holds_has_ended_and_keeps_its_logs() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let manifest = pod("kept", &format!("echo up; {FOREVER}"), "", "");
    let held = "labels: {app: test}, finalizers: [example.com/hold]";
    place.apply(&manifest.replace("labels: {app: test}", held));
    place.good("wait --for=condition=Ready pod/kept --timeout=60s");
    until("its output", || place.good("logs kept") == "up\n");
    let uid = place.uid("kept");
    place.good("delete pod kept --wait=false");
    place.until_phase("pod/kept", "Succeeded");
    until("the end of its process", || place.supervisors(&uid).is_empty());
    // The daemon has looked at it meanwhile.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(place.field("pod/kept", ".status.phase"), "Succeeded");
    assert_eq!(place.good("logs kept"), "up\n");
    place.good("patch pod kept --type=merge -p {\"metadata\":{\"finalizers\":null}}");
    place.until_gone("pod/kept");
    let home = place.at("root/pods").join(&uid);
    until("the end of its directory", || !home.exists());
}

#[test]
fn a_pod_that_cannot_begin_says_that_it_goes_on_trying() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(false);
    place.apply(&pod("bare", FOREVER, "", "").replace("busybox:1", "missing:2"));
    place.until_field("pod/bare", ".spec.nodeName", "here");
    let first = place.fails(&["pod", "start", "bare"]);
    assert!(first.contains("cannot begin yet"), "{first}");
    let second = place.fails(&["pod", "start", "bare"]);
    for said in [&first, &second] {
        assert!(said.contains("keeps trying") && said.contains("lamina pod stop"), "{said}");
    }
    place.succeeds(&["pod", "stop", "bare"]);
    assert_eq!(place.field("pod/bare", ".status.reason"), "Stopped");
    place.good("delete pod bare");
}

#[test]
fn a_start_that_a_stop_ends_has_not_succeeded() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(false);
    place.apply(&pod("cyc", FOREVER, "terminationGracePeriodSeconds: 1", ""));
    place.until_field("pod/cyc", ".spec.nodeName", "here");
    let uid = place.uid("cyc");
    for _ in 0..4 {
        let start = place.spawn(&["pod", "start", "cyc"]);
        until("a process", || !place.supervisors(&uid).is_empty());
        place.succeeds(&["pod", "stop", "cyc"]);
        let output = start.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() || said == "cyc  Running\n", "{output:?}");
        until("its end", || place.supervisors(&uid).is_empty());
    }
    place.good("delete pod cyc");
}

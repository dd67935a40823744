//! `lamina pod`, and what kubectl shows of a pod that was started with it.

use std::fs;

use crate::manifests::{FOREVER, pod};
use crate::place::Place;
use crate::until::until;

#[test]
fn a_pod_is_started_shown_and_stopped() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(false);
    place.apply(&pod("web", &format!("echo hello; echo bad >&2; {FOREVER}"), "", ""));
    place.until_field("pod/web", ".spec.nodeName", "here");
    assert_eq!(place.field("pod/web", ".status.phase"), "Pending");
    let started = place.succeeds(&["pod", "start", "web"]);
    assert_eq!(started, "web  Running\n");
    place.good("wait --for=condition=Ready pod/web --timeout=60s");
    let shown = place.good("get pods --no-headers");
    let shown: Vec<&str> = shown.split_whitespace().take(4).collect();
    assert_eq!(shown, ["web", "1/1", "Running", "0"]);
    let listed = place.succeeds(&["pod", "ls"]);
    assert!(listed.contains("web") && listed.contains("1/1") && listed.contains("Running"));
    until("the output", || place.good("logs web").lines().count() == 2);
    let mut lines: Vec<String> = place.good("logs web").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["bad", "hello"]);
    assert_eq!(place.succeeds(&["pod", "logs", "web"]).lines().count(), 2);
    let described = place.good("describe pod web");
    for words in [
        "Container image \"busybox:1\" already present on machine",
        "Created container: main",
        "Started container main",
        "Container ID:  crun://",
    ] {
        assert!(described.contains(words), "{words}: {described}");
    }
    let refused = place.fails(&["pod", "start", "web"]);
    assert!(refused.contains("is running already"), "{refused}");
    let uid = place.uid("web");
    assert!(place.mounts(&uid) > 0);
    assert_eq!(place.succeeds(&["pod", "stop", "web"]), "web\n");
    assert_eq!(place.mounts(&uid), 0);
    assert_eq!(place.field("pod/web", ".status.phase"), "Failed");
    assert_eq!(place.field("pod/web", ".status.reason"), "Stopped");
    assert_eq!(place.event("pod/web", "Killing"), "Stopping container main");
    assert!(place.good("logs web").contains("hello"));
    assert_eq!(place.succeeds(&["pod", "start", "web"]), "web  Running\n");
    place.good("delete pod web");
    assert!(!place.at("root/pods").join(&uid).exists());
}

#[test]
fn podman_runs_a_pod_as_well() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(false);
    let more = "volumes: [{name: e, emptyDir: {}}]";
    let own = "env: [{name: WORDS, value: two words}]\nvolumeMounts: [{name: e, mountPath: /e}]";
    let script = format!("echo \"$WORDS\" > /e/file; cat /e/file; {FOREVER}");
    place.apply(&pod("other", &script, more, own));
    place.until_field("pod/other", ".spec.nodeName", "here");
    place.succeeds(&["pod", "start", "other", "--runtime", "podman"]);
    place.good("wait --for=condition=Ready pod/other --timeout=60s");
    until("the output", || place.good("logs other") == "two words\n");
    let id = place.field("pod/other", ".status.containerStatuses[0].containerID");
    assert!(id.starts_with("podman://"), "{id}");
    let uid = place.uid("other");
    place.good("delete pod other");
    assert!(!place.at("root/pods").join(&uid).exists());
}

#[test]
fn a_pod_without_its_image_says_so_and_waits() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.apply(&pod("bare", FOREVER, "", "").replace("busybox:1", "missing:2"));
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    place.until_field("pod/bare", reason, "ErrImageNeverPull");
    assert!(place.good("get pods").contains("ErrImageNeverPull"));
    let message = place.event("pod/bare", "ErrImageNeverPull");
    assert!(message.contains("Container image \"missing:2\" is not present"), "{message}");
    let refused = place.refused("logs bare", "");
    assert!(refused.contains("is waiting to start: ErrImageNeverPull"), "{refused}");
    place.good("delete pod bare");
}

#[test]
fn of_two_starts_at_once_one_wins() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(false);
    place.apply(&pod("one", FOREVER, "", ""));
    place.until_field("pod/one", ".spec.nodeName", "here");
    let starts: Vec<_> = (0..4).map(|_| place.spawn(&["pod", "start", "one"])).collect();
    let done: Vec<_> = starts.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let good = done.iter().filter(|output| output.status.success()).count();
    assert_eq!(good, 1, "{done:?}");
    for output in done.iter().filter(|output| !output.status.success()) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("is running already"), "{said}");
    }
    assert_eq!(place.supervisors(&place.uid("one")).len(), 1);
    place.good("delete pod one");
}

#[test]
fn a_mounted_pod_shows_its_roots_with_volumes_and_runs_nothing() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(false);
    let host = place.directory("host");
    fs::write(place.at("host/file"), "of the host").unwrap();
    let volumes = format!("volumes: [{{name: h, hostPath: {{path: {host}}}}}]");
    let mounts = "volumeMounts: [{name: h, mountPath: /opt/data, readOnly: true}]";
    place.apply(&pod("still", "true", &volumes, mounts));
    place.until_field("pod/still", ".spec.nodeName", "here");
    let shown = place.succeeds(&["pod", "mount", "still"]);
    let root = shown.trim().split_once("  ").unwrap().1.to_owned();
    assert_eq!(fs::read(format!("{root}/opt/data/file")).unwrap(), b"of the host");
    let error = fs::write(format!("{root}/opt/data/new"), "").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(fs::metadata(format!("{root}/bin/busybox")).unwrap().is_file());
    assert_eq!(place.field("pod/still", ".status.phase"), "Pending");
    place.succeeds(&["pod", "stop", "still"]);
    assert_eq!(place.mounts(&place.uid("still")), 0);
    let refused = place.fails(&["pod", "stop", "still"]);
    assert!(refused.contains("neither running nor mounted"), "{refused}");
    assert_eq!(fs::read(place.at("host/file")).unwrap(), b"of the host");
}

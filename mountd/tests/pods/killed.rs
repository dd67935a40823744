//! The daemon, or the process that holds a pod, is killed.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::manifests::{FOREVER, claim, class, pod};
use crate::place::Place;
use crate::until::until;

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

/// The first process of the container of a pod.
fn first_process(place: &Place, uid: &str) -> i32 {
    let bundle = place.at("run/pods").join(uid).join("bundles/main");
    fs::read_to_string(bundle.join("pid")).unwrap().trim().parse().unwrap()
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The processes of the runtime that run containers of a pod.
fn runtimes(uid: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let runs = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains(uid) && line.split('\0').any(|word| word == "--pid-file")
    };
    pids.filter(runs).collect()
}

#[test]
fn no_container_begins_beside_one_whose_runtime_was_killed() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.apply(&pod("lone", FOREVER, "", ""));
    place.good("wait --for=condition=Ready pod/lone --timeout=60s");
    let uid = place.uid("lone");
    let old = first_process(&place, &uid);
    assert!(is_alive(old));
    let found = runtimes(&uid);
    assert_eq!(found.len(), 1);
    kill(found[0]);
    place.until_field("pod/lone", ".status.containerStatuses[0].restartCount", "1");
    assert!(!is_alive(old));
    place.good("wait --for=condition=Ready pod/lone --timeout=60s");
    let state = place.at("run/pods").join(&uid).join("state");
    assert_eq!(fs::read_dir(state).unwrap().count(), 1);
    place.good("delete pod lone");
}

#[test]
fn a_pod_that_is_taken_over_hears_a_request_to_stop_it() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let mut manifest = pod("three", FOREVER, "", "");
    for name in ["second", "third"] {
        manifest.push_str(&format!(
            "  - {{name: {name}, image: 'busybox:1', command: [sh, -c, \"{FOREVER}\"]}}\n"
        ));
    }
    place.apply(&manifest);
    place.good("wait --for=condition=Ready pod/three --timeout=60s");
    let uid = place.uid("three");
    let before = place.supervisors(&uid);
    kill(before[0]);
    until("another process", || place.supervisors(&uid).iter().any(|pid| !before.contains(pid)));
    place.succeeds(&["pod", "stop", "three"]);
    assert_eq!(place.field("pod/three", ".status.reason"), "Stopped");
    assert_eq!(place.mounts(&uid), 0);
    assert!(!place.at("root/pods").join(&uid).join("stop").exists());
    place.good("delete pod three");
}

#[test]
fn a_deleted_pod_whose_process_was_killed_is_stopped_without_the_daemon() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start(true);
    place.apply(&pod("gone", "trap '' TERM; while :; do sleep 0.1; done", "", ""));
    place.good("wait --for=condition=Ready pod/gone --timeout=60s");
    let uid = place.uid("gone");
    let holders = place.supervisors(&uid);
    place.good("delete pod gone --wait=false --grace-period=600");
    drop(daemon);
    kill(holders[0]);
    assert_eq!(place.succeeds(&["pod", "stop", "gone"]), "gone\n");
    assert!(!place.succeeds(&["pod", "ls"]).contains("gone"));
    assert!(!place.at("root/pods").join(&uid).exists());
}

#[test]
fn a_process_that_is_asked_to_end_leaves_its_pod_to_the_next_one() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start(true);
    let volumes = "volumes: [{name: e, emptyDir: {}}]";
    let script = format!("echo run >> /e/runs; cat /e/runs; {FOREVER}");
    place.apply(&pod("web", &script, volumes, "volumeMounts: [{name: e, mountPath: /e}]"));
    place.good("wait --for=condition=Ready pod/web --timeout=60s");
    let uid = place.uid("web");
    drop(daemon);
    let holder = place.supervisors(&uid)[0];
    signal(holder, Signal::TERM);
    until("its end", || place.supervisors(&uid).is_empty());
    assert_eq!(place.mounts(&uid), 0);
    let _daemon = place.start(true);
    place.until_field("pod/web", ".status.containerStatuses[0].restartCount", "1");
    until("the second run", || place.good("logs web") == "run\nrun\n");
    place.good("delete pod web");
}

#[test]
fn a_pod_goes_on_without_the_daemon_and_its_status_is_right_after_the_next_start() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start(true);
    let host = place.directory("signal");
    let more = format!("restartPolicy: Never\nvolumes: [{{name: e, hostPath: {{path: {host}}}}}]");
    let script = "echo up; while ! test -e /e/go; do sleep 0.1; done; echo done; exit 5";
    place.apply(&pod("task", script, &more, "volumeMounts: [{name: e, mountPath: /e}]"));
    place.good("wait --for=condition=Ready pod/task --timeout=60s");
    let uid = place.uid("task");
    let before = place.supervisors(&uid);
    assert_eq!(before.len(), 1);
    drop(daemon);
    assert_eq!(place.supervisors(&uid), before);
    fs::write(place.at("signal/go"), "").unwrap();
    until("its end", || place.succeeds(&["pod", "ls"]).contains("Error"));
    let _daemon = place.start(true);
    place.until_phase("pod/task", "Failed");
    let code = ".status.containerStatuses[0].state.terminated.exitCode";
    assert_eq!(place.field("pod/task", code), "5");
    assert_eq!(place.good("logs task"), "up\ndone\n");
    until("the end of its mounts", || place.mounts(&uid) == 0);
}

#[test]
fn a_pod_whose_process_was_killed_is_started_again_by_its_policy() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.apply(&(class("union", "union") + &claim("kept", "union")));
    let more = "volumes:\n- {name: d, persistentVolumeClaim: {claimName: kept}}\n\
                - {name: e, emptyDir: {}}";
    let mounts = "volumeMounts: [{name: d, mountPath: /d}, {name: e, mountPath: /e}]";
    let script =
        format!("echo run >> /d/runs; echo run >> /e/runs; cat /d/runs /e/runs; {FOREVER}");
    place.apply(&pod("again", &script, more, mounts));
    place.apply(&pod("once", FOREVER, "restartPolicy: Never", ""));
    for name in ["again", "once"] {
        place.good(&format!("wait --for=condition=Ready pod/{name} --timeout=60s"));
        let holders = place.supervisors(&place.uid(name));
        assert_eq!(holders.len(), 1);
        kill(holders[0]);
    }
    let count = ".status.containerStatuses[0].restartCount";
    place.until_field("pod/again", count, "1");
    place.until_phase("pod/again", "Running");
    let reason = ".status.containerStatuses[0].lastState.terminated.reason";
    assert_eq!(place.field("pod/again", reason), "ContainerStatusUnknown");
    until("four lines", || place.good("logs again") == "run\nrun\nrun\nrun\n");
    place.until_phase("pod/once", "Failed");
    let uid = place.uid("once");
    until("the end of its mounts", || place.mounts(&uid) == 0);
    place.good("delete pod again once");
    place.good("delete pvc kept");
}

#[test]
fn a_pod_whose_process_was_killed_is_stopped_without_the_daemon() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start(false);
    place.apply(&pod("held", FOREVER, "", ""));
    place.until_field("pod/held", ".spec.nodeName", "here");
    drop(daemon);
    place.succeeds(&["pod", "start", "held"]);
    assert!(place.succeeds(&["pod", "ls"]).contains("Running"));
    let uid = fs::read_dir(place.at("root/pods")).unwrap().next().unwrap().unwrap().file_name();
    let uid = uid.to_str().unwrap();
    kill(place.supervisors(uid)[0]);
    place.succeeds(&["pod", "stop", "held"]);
    assert_eq!(place.mounts(uid), 0);
    let listed = place.succeeds(&["pod", "ls", "--json"]);
    assert!(listed.contains("\"phase\": \"Failed\""), "{listed}");
    assert!(listed.contains("\"reason\": \"Stopped\""), "{listed}");
}

#[test]
fn a_daemon_that_was_started_later_gives_up_the_volumes_of_a_pod_that_ended() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start(true);
    place.apply(&(class("union", "union") + &claim("seen", "union")));
    let more = "volumes: [{name: d, persistentVolumeClaim: {claimName: seen}}]";
    place.apply(&pod("user", FOREVER, more, "volumeMounts: [{name: d, mountPath: /d}]"));
    place.good("wait --for=condition=Ready pod/user --timeout=60s");
    drop(daemon);
    let _daemon = place.start(true);
    assert_eq!(place.mounted("root/volumes").len(), 1);
    place.good("delete pod user");
    until("the end of its mount", || place.mounted("root/volumes").is_empty());
    let volume = place.field("pvc/seen", ".spec.volumeName");
    place.succeeds(&["volume", "rm", "--force", &volume]);
}

#[test]
fn a_deleted_pod_whose_process_was_killed_goes() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start(true);
    place.apply(&pod("gone", FOREVER, "", ""));
    place.good("wait --for=condition=Ready pod/gone --timeout=60s");
    let uid = place.uid("gone");
    let holders = place.supervisors(&uid);
    place.good("delete pod gone --wait=false --grace-period=600");
    kill(holders[0]);
    drop(daemon);
    let _daemon = place.start(true);
    place.until_gone("pod/gone");
    assert_eq!(place.mounts(&uid), 0);
    assert!(!place.at("root/pods").join(&uid).exists());
}

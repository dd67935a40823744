//! Exit codes, phases and restarts.

use std::io::Read;

use crate::manifests::{FOREVER, pod};
use crate::place::Place;
use crate::until::until;

const CODE: &str = ".status.containerStatuses[0].state.terminated.exitCode";
const REASON: &str = ".status.containerStatuses[0].state.terminated.reason";

#[test]
fn a_pod_that_never_restarts_ends_with_the_code_of_its_container() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    for (name, code, phase, reason) in
        [("good", "0", "Succeeded", "Completed"), ("bad", "3", "Failed", "Error")]
    {
        let script = format!("echo out; echo last > /dev/termination-log; exit {code}");
        place.apply(&pod(name, &script, "restartPolicy: Never", ""));
        let object = format!("pod/{name}");
        place.until_phase(&object, phase);
        assert_eq!(place.field(&object, CODE), code);
        assert_eq!(place.field(&object, REASON), reason);
        let message = ".status.containerStatuses[0].state.terminated.message";
        assert_eq!(place.field(&object, message), "last\n");
        let shown = place.good(&format!("get pod {name} --no-headers"));
        assert!(shown.contains(reason) && shown.contains("0/1"), "{shown}");
        let uid = place.uid(name);
        until("the end of its mounts", || place.mounts(&uid) == 0);
        assert_eq!(place.good(&format!("logs {name}")), "out\n");
        place.good(&format!("delete pod {name}"));
        let home = place.at("root/pods").join(&uid);
        until("the end of its logs", || !home.exists());
    }
}

#[test]
fn the_end_of_its_output_is_the_last_message_of_a_container_that_failed() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let own = "terminationMessagePolicy: FallbackToLogsOnError";
    place.apply(&pod("words", "echo first; echo oops; exit 2", "restartPolicy: Never", own));
    place.until_phase("pod/words", "Failed");
    let message = ".status.containerStatuses[0].state.terminated.message";
    assert_eq!(place.field("pod/words", message), "first\noops");
}

#[test]
fn a_container_beside_the_others_begins_first_and_ends_last() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let more = "restartPolicy: Never
volumes: [{name: e, emptyDir: {}}]
initContainers:
- name: beside
  image: busybox:1
  restartPolicy: Always
  command: [sh, -c, 'trap \"echo end; exit 0\" TERM; touch /e/up; while :; do sleep 0.1; done']
  volumeMounts: [{name: e, mountPath: /e}]";
    let mount = "volumeMounts: [{name: e, mountPath: /e}]";
    let script = "while ! test -e /e/up; do sleep 0.1; done; echo saw it";
    place.apply(&pod("duo", script, more, mount));
    place.until_phase("pod/duo", "Succeeded");
    assert_eq!(place.good("logs duo -c main"), "saw it\n");
    assert_eq!(place.good("logs duo -c beside"), "end\n");
}

#[test]
fn a_container_that_fails_is_started_again_and_then_waits() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.apply(&pod("loop", "echo run; exit 1", "", ""));
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    place.until_field("pod/loop", reason, "CrashLoopBackOff");
    assert!(place.good("get pods").contains("CrashLoopBackOff"));
    let count = ".status.containerStatuses[0].restartCount";
    assert_eq!(place.field("pod/loop", count), "1");
    let last = ".status.containerStatuses[0].lastState.terminated.exitCode";
    assert_eq!(place.field("pod/loop", last), "1");
    assert_eq!(place.field("pod/loop", ".status.phase"), "Running");
    assert_eq!(place.good("logs loop --previous"), "run\n");
    let message = place.event("pod/loop", "BackOff");
    assert!(message.starts_with("Back-off restarting failed container main in pod loop_default("));
    // After ten seconds it is tried again.
    place.until_field("pod/loop", count, "2");
    place.good("delete pod loop");
}

#[test]
fn a_pod_that_restarts_on_failure_succeeds_at_last() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let more = "restartPolicy: OnFailure\nvolumes: [{name: e, emptyDir: {}}]";
    let mount = "volumeMounts: [{name: e, mountPath: /e}]";
    let script = "test -e /e/first && exit 0; touch /e/first; exit 7";
    place.apply(&pod("twice", script, more, mount));
    place.until_phase("pod/twice", "Succeeded");
    assert_eq!(place.field("pod/twice", ".status.containerStatuses[0].restartCount"), "1");
    let last = ".status.containerStatuses[0].lastState.terminated.exitCode";
    assert_eq!(place.field("pod/twice", last), "7");
}

#[test]
fn init_containers_run_one_after_the_other_before_the_others() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let more = "restartPolicy: Never
volumes: [{name: e, emptyDir: {}}]
initContainers:
- name: one
  image: busybox:1
  command: [sh, -c, 'sleep 0.5; echo one >> /e/order']
  volumeMounts: [{name: e, mountPath: /e}]
- name: two
  image: busybox:1
  command: [sh, -c, 'echo two >> /e/order']
  volumeMounts: [{name: e, mountPath: /e}]";
    let mount = "volumeMounts: [{name: e, mountPath: /e}]";
    place.apply(&pod("steps", "cat /e/order", more, mount));
    place.until_phase("pod/steps", "Succeeded");
    assert_eq!(place.good("logs steps -c main"), "one\ntwo\n");
    let failing = more.replace("echo one", "exit 9; echo one");
    place.apply(&pod("stuck", "true", &failing, mount));
    place.until_phase("pod/stuck", "Failed");
    let code = ".status.initContainerStatuses[0].state.terminated.exitCode";
    assert_eq!(place.field("pod/stuck", code), "9");
    let main = ".status.containerStatuses[0].state.waiting.reason";
    assert_eq!(place.field("pod/stuck", main), "PodInitializing");
}

#[test]
fn a_command_that_does_not_exist_is_no_container_that_failed() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let manifest = pod("lost", "x", "restartPolicy: Never", "").replace("[sh, ", "[/bin/nope, ");
    place.apply(&manifest);
    place.until_phase("pod/lost", "Failed");
    assert_eq!(place.field("pod/lost", REASON), "StartError");
    let message = place.event("pod/lost", "Failed");
    assert!(message.contains("/bin/nope"), "{message}");
}

#[test]
fn a_pod_whose_time_is_over_fails() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.apply(&pod("slow", FOREVER, "activeDeadlineSeconds: 3", ""));
    place.until_phase("pod/slow", "Failed");
    assert_eq!(place.field("pod/slow", ".status.reason"), "DeadlineExceeded");
}

#[test]
fn output_is_followed_cut_and_timed() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let script = "seq 1 5; while ! test -e /e/go; do sleep 0.1; done; echo last";
    let more = "restartPolicy: Never\nvolumes: [{name: e, hostPath: {path: PATH}}]";
    let more = more.replace("PATH", &place.directory("signal"));
    place.apply(&pod("talk", script, &more, "volumeMounts: [{name: e, mountPath: /e}]"));
    until("five lines", || {
        let words = ["logs", "talk"];
        place.kubectl(&words, "").stdout == b"1\n2\n3\n4\n5\n"
    });
    assert_eq!(place.good("logs talk --tail=2"), "4\n5\n");
    assert_eq!(place.good("logs talk --since=1h --tail=1"), "5\n");
    let timed = place.good("logs talk --timestamps --tail=1");
    let (time, text) = timed.split_once(' ').unwrap();
    assert!(time.len() > 20 && time.ends_with('Z') && text == "5\n", "{timed}");
    let refused = place.refused("logs talk -c nobody", "");
    assert!(refused.contains("container nobody is not valid for pod talk"), "{refused}");
    let refused = place.refused("logs talk --previous", "");
    assert!(refused.contains("previous terminated container \"main\""), "{refused}");
    let mut followed = place.begin("logs talk -f --tail=1");
    let mut output = followed.stdout.take().unwrap();
    let mut first = [0; 2];
    output.read_exact(&mut first).unwrap();
    std::fs::write(place.at("signal/go"), "").unwrap();
    let mut text = String::from_utf8(first.to_vec()).unwrap();
    output.read_to_string(&mut text).unwrap();
    assert!(followed.wait().unwrap().success());
    assert_eq!(text, "5\nlast\n");
}

//! What a pod may not do: show its secrets to all users, grow without a bound, or leave files.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;

use crate::manifests::{FOREVER, pod};
use crate::place::Place;
use crate::until::until;

/// Whether the words of any process of the host have a text.
fn is_shown(text: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let words = processes.filter_map(|one| fs::read(one.path().join("cmdline")).ok());
    words.into_iter().any(|words| String::from_utf8_lossy(&words).contains(text))
}

#[test]
fn podman_shows_no_variable_and_takes_any_path() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(false);
    place.apply(
        "apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {pw: TOPSECRET42, cert: \"a TOPSECRET43\\nb\"}
",
    );
    let more = "volumes: [{name: e, emptyDir: {}}]";
    let own = "env:
- {name: PW, valueFrom: {secretKeyRef: {name: hidden, key: pw}}}
- {name: CERT, valueFrom: {secretKeyRef: {name: hidden, key: cert}}}
volumeMounts: [{name: e, mountPath: '/x,ro'}]";
    let script = format!("touch /x,ro/file && echo \"$PW\"; echo \"$CERT\"; {FOREVER}");
    place.apply(&pod("quiet", &script, more, own));
    place.until_field("pod/quiet", ".spec.nodeName", "here");
    place.succeeds(&["pod", "start", "quiet", "--runtime", "podman"]);
    let wanted = "TOPSECRET42\na TOPSECRET43\nb\n";
    until("the output", || place.kubectl(&["logs", "quiet"], "").stdout == wanted.as_bytes());
    assert!(is_shown("lamina.pod="), "podman is in the foreground");
    assert!(!is_shown("TOPSECRET4"));
    let bundle = place.at("run/pods").join(place.uid("quiet")).join("bundles/main");
    assert_eq!(fs::metadata(&bundle).unwrap().permissions().mode() & 0o777, 0o700);
    let mode = fs::metadata(bundle.join("env")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    place.good("delete pod quiet");
    let own = "env: [{name: LD_PRELOAD, value: \"a\\nb\"}]";
    place.apply(&pod("loud", FOREVER, "", own));
    place.until_field("pod/loud", ".spec.nodeName", "here");
    let mut started = place.spawn(&["pod", "start", "loud", "--runtime", "podman"]);
    let message = place.event("pod/loud", "Failed");
    assert!(message.contains("podman cannot be given the variable \"LD_PRELOAD\""), "{message}");
    place.good("delete pod loud");
    started.wait().unwrap();
}

#[test]
fn arguments_that_name_a_long_variable_are_refused_as_a_whole() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let own = format!(
        "env:
- {{name: A, value: {}}}
- {{name: B, value: {}}}
- {{name: C, value: {}}}
args: [{}]",
        "x".repeat(1000),
        "$(A)".repeat(100),
        "$(B)".repeat(8),
        ["$(C)"; 400].join(", "),
    );
    place.apply(&pod("wide", FOREVER, "", &own));
    let message = place.event("pod/wide", "Failed");
    assert!(message.contains("command, args and variables have more than"), "{message}");
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    place.until_field("pod/wide", reason, "CreateContainerConfigError");
    let [supervisor] = place.supervisors(&place.uid("wide"))[..] else { panic!("one process") };
    let status = fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let most: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(most < 200_000, "{most} KiB");
    place.good("delete pod wide");
}

#[test]
fn files_in_the_way_of_each_other_leave_no_versions() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.good("create configmap conf --from-literal=a=one --from-literal=b=two");
    let volumes = "volumes:
- name: v
  projected:
    sources:
    - configMap: {name: conf, items: [{key: a, path: p}]}
    - configMap: {name: conf, items: [{key: b, path: p/q}]}";
    let mounts = "volumeMounts: [{name: v, mountPath: /v}]";
    place.apply(&pod("both", FOREVER, volumes, mounts));
    let message = place.event("pod/both", "FailedMount");
    assert!(message.contains("p and p/q cannot both be files of a volume"), "{message}");
    let at = place.at("root/pods").join(place.uid("both")).join("volumes/v/_data");
    // It is tried again meanwhile.
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(fs::read_dir(at).unwrap().count(), 0);
    place.good("delete pod both");
}

/// The versions of the files of a volume.
fn versions(at: &std::path::Path) -> usize {
    let names = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with("..1")).count()
}

#[test]
fn a_key_comes_where_a_missing_subpath_was() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.good("create configmap grown --from-literal=a=one");
    let volumes = "volumes: [{name: c, configMap: {name: grown}}]";
    let mounts = "volumeMounts:
- {name: c, mountPath: /c}
- {name: c, mountPath: /l, subPath: later}";
    let script = format!(
        "echo up; until test \"$(cat /c/a)\" = two; do sleep 0.2; done; echo two; \
         until test -f /c/later; do sleep 0.2; done; cat /c/later; {FOREVER}"
    );
    place.apply(&pod("grown", &script, volumes, mounts));
    until("its start", || place.kubectl(&["logs", "grown"], "").stdout == b"up\n");
    let at = place.at("root/pods").join(place.uid("grown")).join("volumes/c/_data");
    assert!(at.join("later").is_dir());
    place.good("patch configmap grown --type=merge -p {\"data\":{\"a\":\"two\"}}");
    until("the change", || place.good("logs grown") == "up\ntwo\n");
    until("one version", || versions(&at) == 1);
    place.good("patch configmap grown --type=merge -p {\"data\":{\"later\":\"three\\n\"}}");
    until("the key", || place.good("logs grown") == "up\ntwo\nthree\n");
    until("one version", || versions(&at) == 1);
    place.good("delete pod grown");
}

/// Reads the first line that a process prints.
fn first_line(child: &mut Child) -> String {
    let mut line = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    String::from_utf8(line.to_vec()).unwrap()
}

#[test]
fn following_the_output_ends_with_the_run() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let volumes =
        format!("volumes: [{{name: h, hostPath: {{path: {}}}}}]", place.directory("signal"));
    let script = format!(
        "if test -e /h/go; then echo two; {FOREVER}; fi; echo one; \
         until test -e /h/go; do sleep 0.1; done; echo end; exit 1"
    );
    place.apply(&pod("again", &script, &volumes, "volumeMounts: [{name: h, mountPath: /h}]"));
    until("its start", || place.kubectl(&["logs", "again"], "").stdout == b"one\n");
    let mut all = [place.begin("logs again -f"), place.spawn(&["pod", "logs", "-f", "again"])];
    for follower in &mut all {
        assert_eq!(first_line(follower), "one\n");
    }
    fs::write(place.at("signal/go"), "").unwrap();
    for mut follower in all {
        until("its end", || follower.try_wait().unwrap().is_some());
        let mut rest = String::new();
        follower.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "end\n");
    }
    until("the second run", || place.kubectl(&["logs", "again"], "").stdout == b"two\n");
    place.good("delete pod again");
}

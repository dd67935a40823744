//! The kinds of volumes, as a container sees them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};

use crate::manifests::{FOREVER, pod};
use crate::place::Place;
use crate::until::until;

/// Runs a pod once and returns what it printed.
#[track_caller]
fn printed(place: &Place, (name, script): (&str, &str), more: &str, of_container: &str) -> String {
    let more = format!("restartPolicy: Never\n{more}");
    place.apply(&pod(name, script, &more, of_container));
    let path = ".status.phase";
    place.until_field(&format!("pod/{name}"), path, "Succeeded");
    place.good(&format!("logs {name}"))
}

/// A directory of the host whose mounts spread.
fn shared(place: &Place) -> String {
    let host = place.directory("shared");
    mount_bind(&host, &host).unwrap();
    mount_change(&host, MountPropagationFlags::SHARED).unwrap();
    host
}

/// Mounts a file system on the host, with a file.
fn mount_with_file(place: &Place, at: &str, content: &str) {
    let dir = place.directory(at);
    mount(content, &dir, "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(format!("{dir}/file"), format!("{content}\n")).unwrap();
}

#[test]
fn files_of_config_maps_secrets_and_the_pod_have_their_modes() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.good("create configmap conf --from-literal=a=one --from-literal=b=two");
    place.good("create secret generic hidden --from-literal=key=value");
    let volumes = "volumes:
- {name: c, configMap: {name: conf, items: [{key: a, path: deep/a, mode: 256}]}}
- {name: s, secret: {secretName: hidden, defaultMode: 384}}
- {name: o, configMap: {name: none, optional: true}}
- name: d
  downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
- name: p
  projected:
    sources:
    - secret: {name: hidden}
    - configMap: {name: conf, items: [{key: b, path: b}]}
    - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}";
    let mounts = "volumeMounts:
- {name: c, mountPath: /c}
- {name: s, mountPath: /s}
- {name: o, mountPath: /o}
- {name: d, mountPath: /d}
- {name: p, mountPath: /p}
- {name: c, mountPath: /one, subPath: deep/a}";
    let script = "cat /c/deep/a; echo; stat -Lc %a /c/deep/a /s/key; cat /s/key; echo; ls /o; \
                  cat /d/labels; echo; cat /p/key /p/b /p/name; echo; cat /one; echo; \
                  echo x > /s/key || echo read-only; stat -f -c %T /s";
    let found = printed(&place, ("files", script), volumes, mounts);
    let wanted = "one\n400\n600\nvalue\napp=\"test\"\nvaluetwofiles\none\nread-only\ntmpfs\n";
    assert!(
        found.ends_with(wanted)
            || found.replace(
                "sh: can't create /s/key: \
        Read-only file system\n",
                ""
            ) == wanted,
        "{found:?}"
    );
}

#[test]
fn variables_come_from_fields_keys_and_each_other() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.good("create configmap conf --from-literal=A=one --from-literal=B=two");
    place.good("create secret generic hidden --from-literal=key=value");
    let env = "workingDir: /tmp
envFrom: [{prefix: P_, configMapRef: {name: conf}}]
env:
- {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: APP, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}
- {name: KEY, valueFrom: {secretKeyRef: {name: hidden, key: key}}}
- {name: NONE, valueFrom: {configMapKeyRef: {name: conf, key: none, optional: true}}}
- {name: BOTH, value: $(NAME)-$(P_A)-$(MISSING)-$$(NAME)}";
    let script = "echo $NAME $APP $KEY $P_B \"$BOTH\" [$NONE]; pwd; echo $(NAME)";
    let found = printed(&place, ("vars", script), "", env);
    assert_eq!(found, "vars test value two vars-one-$(MISSING)-$(NAME) []\n/tmp\nvars\n");
}

#[test]
fn an_empty_directory_is_shared_and_holds_no_more_than_its_limit() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let more = "restartPolicy: Never
volumes:
- {name: disk, emptyDir: {sizeLimit: 4Mi}}
- {name: memory, emptyDir: {medium: Memory, sizeLimit: 2Mi}}
- {name: plain, emptyDir: {}}";
    let mounts = "volumeMounts:
- {name: disk, mountPath: /disk}
- {name: memory, mountPath: /memory}
- {name: plain, mountPath: /plain}";
    let script = "dd if=/dev/zero of=/disk/big bs=1M count=8 2>/dev/null || echo disk full; \
                  dd if=/dev/zero of=/memory/big bs=1M count=8 2>/dev/null || echo memory full; \
                  stat -f -c %T /memory; touch /plain/done; \
                  while ! test -e /plain/seen; do sleep 0.1; done";
    let other = "  - name: other
    image: busybox:1
    command: [sh, -c, 'while ! test -e /p/done; do sleep 0.1; done; echo seen; touch /p/seen']
    volumeMounts: [{name: plain, mountPath: /p}]
";
    place.apply(&(pod("pair", script, more, mounts) + other));
    place.until_phase("pod/pair", "Succeeded");
    assert_eq!(place.good("logs pair -c main"), "disk full\nmemory full\ntmpfs\n");
    assert_eq!(place.good("logs pair -c other"), "seen\n");
}

#[test]
fn a_subpath_is_made_in_its_volume_and_no_link_leads_it_out() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let host = place.directory("volume");
    place.directory("outside");
    symlink(place.at("outside"), place.at("volume/absolute")).unwrap();
    symlink("../outside", place.at("volume/relative")).unwrap();
    let volumes = format!("volumes: [{{name: v, hostPath: {{path: {host}}}}}]");
    let good = "env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
volumeMounts:
- {name: v, mountPath: /a, subPath: new/deep}
- {name: v, mountPath: /b, subPathExpr: of-$(POD)}";
    printed(&place, ("good", "touch /a/x; touch /b/y"), &volumes, good);
    assert!(place.at("volume/new/deep/x").exists() && place.at("volume/of-good/y").exists());
    for (name, path) in [("bad1", "absolute"), ("bad2", "relative/sub")] {
        let mount = format!("volumeMounts: [{{name: v, mountPath: /out, subPath: {path}}}]");
        place.apply(&pod(name, "touch /out/x", &volumes, &mount));
        let message = place.event(&format!("pod/{name}"), "Failed");
        assert!(message.contains("leads out of its volume"), "{message}");
        let reason = ".status.containerStatuses[0].state.waiting.reason";
        place.until_field(&format!("pod/{name}"), reason, "CreateContainerConfigError");
        place.good(&format!("delete pod {name}"));
    }
    assert_eq!(fs::read_dir(place.at("outside")).unwrap().count(), 0);
}

#[test]
fn a_volume_that_cannot_be_mounted_is_tried_again() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let path = place.at("later").display().to_string();
    let volumes = format!(
        "restartPolicy: Never\nvolumes: [{{name: h, hostPath: {{path: {path}, type: Directory}}}}, \
         {{name: c, configMap: {{name: late}}}}]"
    );
    let mounts = "volumeMounts: [{name: h, mountPath: /h}, {name: c, mountPath: /c}]";
    place.apply(&pod("patient", "cat /c/a", &volumes, mounts));
    let message = place.event("pod/patient", "FailedMount");
    assert!(message.contains("hostPath type check failed"), "{message}");
    place.directory("later");
    place.good("create configmap late --from-literal=a=b");
    place.until_phase("pod/patient", "Succeeded");
    assert_eq!(place.good("logs patient"), "b\n");
}

#[test]
fn an_image_is_a_read_only_volume() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let volumes = "volumes: [{name: i, image: {reference: \"busybox:1\"}}]";
    let mounts = "volumeMounts: [{name: i, mountPath: /image}]";
    let script = "ls /image/bin/busybox; touch /image/x 2>/dev/null || echo closed";
    let found = printed(&place, ("layers", script), volumes, mounts);
    assert_eq!(found, "/image/bin/busybox\nclosed\n");
}

#[test]
fn mounts_spread_between_the_host_and_a_container_as_its_pod_asks() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let host = shared(&place);
    let volumes =
        format!("restartPolicy: Never\nvolumes: [{{name: h, hostPath: {{path: {host}}}}}]");
    let both = "securityContext: {privileged: true}
volumeMounts: [{name: h, mountPath: /h, mountPropagation: Bidirectional}]";
    let script = "mkdir /h/inner && mount -t tmpfs inner /h/inner && touch /h/inner/file; \
                  while ! test -e /h/seen; do sleep 0.1; done";
    place.apply(&pod("both", script, &volumes, both));
    until("the mount of the container", || place.at("shared/inner/file").exists());
    let down = "volumeMounts: [{name: h, mountPath: /h, mountPropagation: HostToContainer}]";
    let script = "echo up; while ! test -e /h/later/file; do sleep 0.1; done; cat /h/later/file";
    place.apply(&pod("down", script, &volumes, down));
    let none = "volumeMounts: [{name: h, mountPath: /h}]";
    let script = "echo up; while ! test -e /h/seen; do sleep 0.1; done; ls /h/later";
    place.apply(&pod("none", script, &volumes, none));
    for name in ["down", "none"] {
        until("its start", || place.kubectl(&["logs", name], "").stdout == b"up\n");
    }
    mount_with_file(&place, "shared/later", "from the host");
    place.until_phase("pod/down", "Succeeded");
    assert_eq!(place.good("logs down"), "up\nfrom the host\n");
    fs::write(place.at("shared/seen"), "").unwrap();
    place.until_phase("pod/none", "Succeeded");
    assert_eq!(place.good("logs none"), "up\n");
    place.until_phase("pod/both", "Succeeded");
}

#[test]
fn a_pod_runs_as_its_user_without_rights() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let more = "securityContext: {runAsUser: 1000, runAsGroup: 1001, fsGroup: 2000}
volumes: [{name: e, emptyDir: {}}]";
    let own = "securityContext: {readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
volumeMounts: [{name: e, mountPath: /e}]";
    let script = "id -u; id -g; id -G; touch /x 2>/dev/null || echo closed; touch /e/x; \
                  stat -c %g /e/x";
    let found = printed(&place, ("user", script), more, own);
    assert_eq!(found, "1000\n1001\n1001 2000\nclosed\n2000\n");
}

#[test]
fn a_container_of_a_running_pod_sees_a_changed_config_map() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.good("create configmap live --from-literal=a=old");
    let script =
        format!("until test \"$(cat /c/a)\" = new; do sleep 0.2; done; echo seen; {FOREVER}");
    let volumes = "volumes: [{name: c, configMap: {name: live}}]";
    place.apply(&pod("live", &script, volumes, "volumeMounts: [{name: c, mountPath: /c}]"));
    place.good("wait --for=condition=Ready pod/live --timeout=60s");
    place.good("patch configmap live --type=merge -p {\"data\":{\"a\":\"new\"}}");
    until("the change", || place.good("logs live") == "seen\n");
    place.good("delete pod live");
}

#[test]
fn the_end_of_a_pod_leaves_the_mounts_of_the_host() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(false);
    let volumes = format!("volumes: [{{name: h, hostPath: {{path: {}}}}}]", shared(&place));
    mount_with_file(&place, "shared/part/inner", "inner");
    let is_kept = |name: &str| {
        let kept = fs::read_to_string(place.at(&format!("shared/part/{name}/file")));
        assert_eq!(kept.unwrap(), format!("{name}\n"));
    };
    let plain = "cat /h/inner/file";
    let down = "until test -e /h/later/file; do sleep 0.1; done; cat /h/inner/file /h/later/file";
    let both = "mkdir /h/own && mount -t tmpfs own /h/own && echo own > /h/own/file; \
                cat /h/inner/file";
    let cases = [
        ("plain", plain, "None", &["inner"][..]),
        ("down", down, "HostToContainer", &["inner", "later"][..]),
        ("both", both, "Bidirectional", &["inner", "later", "own"][..]),
    ];
    for (name, script, propagation, kept) in cases {
        let mounts = format!(
            "securityContext: {{privileged: true}}
volumeMounts: [{{name: h, mountPath: /h, subPath: part, mountPropagation: {propagation}}}]"
        );
        place.apply(&pod(name, &format!("{script}; {FOREVER}"), &volumes, &mounts));
        place.until_field(&format!("pod/{name}"), ".spec.nodeName", "here");
        place.succeeds(&["pod", "start", name]);
        let mut wanted = "inner\n";
        if name == "down" {
            mount_with_file(&place, "shared/part/later", "later");
            wanted = "inner\nlater\n";
        }
        until(name, || place.kubectl(&["logs", name], "").stdout == wanted.as_bytes());
        place.succeeds(&["pod", "stop", name]);
        assert_eq!(place.mounts(&place.uid(name)), 0, "{name}");
        for one in kept {
            is_kept(one);
        }
    }
    let whole = "volumeMounts: [{name: h, mountPath: /h, readOnly: true}]";
    place.apply(&pod("still", "true", &volumes, whole));
    place.until_field("pod/still", ".spec.nodeName", "here");
    let shown = place.succeeds(&["pod", "mount", "still"]);
    let root = shown.trim().split_once("  ").unwrap().1.to_owned();
    assert_eq!(fs::read(format!("{root}/h/part/inner/file")).unwrap(), b"inner\n");
    place.succeeds(&["pod", "stop", "still"]);
    assert_eq!(place.mounts(&place.uid("still")), 0);
    is_kept("inner");
}

#[test]
fn a_mount_inside_of_another_one_is_seen_whatever_their_order_is() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let (a, b) = (place.directory("a"), place.directory("b"));
    let volumes = format!(
        "volumes: [{{name: a, hostPath: {{path: {a}}}}}, {{name: b, hostPath: {{path: {b}}}}}]"
    );
    let mounts = "volumeMounts:
- {name: b, mountPath: /x/sub, subPath: part}
- {name: a, mountPath: /x}";
    printed(&place, ("nested", "touch /x/top /x/sub/deep"), &volumes, mounts);
    assert!(place.at("a/top").exists() && place.at("b/part/deep").exists());
}

#[test]
fn a_mount_inside_of_one_that_spreads_to_the_host_is_refused() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let host = shared(&place);
    let volumes =
        format!("volumes: [{{name: h, hostPath: {{path: {host}}}}}, {{name: e, emptyDir: {{}}}}]");
    let mounts = "securityContext: {privileged: true}
volumeMounts:
- {name: e, mountPath: /h/nested}
- {name: h, mountPath: /h, mountPropagation: Bidirectional}";
    place.apply(&pod("nested", FOREVER, &volumes, mounts));
    let message = place.event("pod/nested", "FailedMount");
    assert!(message.contains("inside the Bidirectional mountPath /h"), "{message}");
    place.good("delete pod nested");
    assert_eq!(place.mounted("shared"), [host]);
}

#[test]
fn a_relative_path_of_the_host_is_refused() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let volumes = "volumes: [{name: h, hostPath: {path: relative-of-a-test/x}}]";
    place.apply(&pod("lost", FOREVER, volumes, "volumeMounts: [{name: h, mountPath: /h}]"));
    let message = place.event("pod/lost", "FailedMount");
    assert!(message.contains("hostPath \"relative-of-a-test/x\" is not absolute"), "{message}");
    assert!(!Path::new("/relative-of-a-test").exists());
}

#[test]
fn a_link_of_an_image_that_leads_nowhere_is_named() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(false);
    symlink("/nowhere", place.at("image/data")).unwrap();
    let image = place.directory("image");
    place.succeeds(&["image", "import", "--tag", "links:1", &image]);
    let volumes = "volumes: [{name: e, emptyDir: {}}]";
    let mounts = "volumeMounts: [{name: e, mountPath: /data/x}]";
    place.apply(&pod("lost", "true", volumes, mounts).replace("busybox:1", "links:1"));
    place.until_field("pod/lost", ".spec.nodeName", "here");
    let said = place.fails(&["pod", "mount", "lost"]);
    let wanted = "mounting /data/x: the link /data of the image leads nowhere";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(place.mounts(&place.uid("lost")), 0);
}

#[test]
fn a_path_of_the_host_that_is_a_volume_is_served_as_that_volume() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.succeeds(&["volume", "create", "own", "--driver", "union"]);
    let data = place.at("root/volumes/own/_data");
    let volumes = format!("volumes: [{{name: v, hostPath: {{path: {}}}}}]", data.display());
    let mounts = "volumeMounts: [{name: v, mountPath: /data}]";
    printed(&place, ("writer", "echo kept > /data/file"), &volumes, mounts);
    // What is in the directory beneath the volume would stay.
    until("the end of its use", || !data.join("file").exists());
    assert_eq!(printed(&place, ("reader", "cat /data/file"), &volumes, mounts), "kept\n");
}

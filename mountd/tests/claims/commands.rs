//! `lamina apply`, `get`, `describe` and `delete`, alone, beside a daemon, and mixed with kubectl.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::manifests::{claim, class, pod, volume};
use crate::place::Place;
use crate::until::until;

const OWN: &str = "lamina.dev/volume";
const LAST: &str = ".metadata.annotations.kubectl\\.kubernetes\\.io/last-applied-configuration";

/// A field of an object, read without kubectl and without a daemon.
fn field(place: &Place, object: &str, pointer: &str) -> String {
    let text = place.prints(&["get", object, "-o", "json", "--ignore-not-found"]);
    let object: Value = serde_json::from_str(&text).unwrap_or_default();
    object.pointer(pointer).map_or_else(String::new, |value| {
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    })
}

#[test]
fn a_claim_lives_and_ends_without_a_daemon() {
    let Some(place) = Place::new() else { return };
    let waits = "volumeBindingMode: WaitForFirstConsumer\nparameters: {driver: local}";
    let all = class("now", OWN, "")
        + &class("late", OWN, waits)
        + &claim("now", "64Mi", "storageClassName: now")
        + &claim("late", "64Mi", "storageClassName: late");
    let shown = place.applies(&all);
    let wanted = "storageclass.storage.k8s.io/now created\nstorageclass.storage.k8s.io/late \
                  created\npersistentvolumeclaim/now created\npersistentvolumeclaim/late created\n";
    assert_eq!(shown, wanted);
    assert_eq!(field(&place, "pvc/now", "/status/phase"), "Bound");
    assert_eq!(field(&place, "pvc/late", "/status/phase"), "Pending");
    assert!(place.prints(&["describe", "pvc", "late"]).contains("WaitForFirstConsumer"));
    place.applies(&pod("web", "late"));
    assert_eq!(field(&place, "pvc/late", "/status/phase"), "Bound");
    assert_ne!(field(&place, "pod/web", "/spec/nodeName"), "");
    assert_eq!(place.volumes().len(), 2);
    // The pod holds its claim.
    let said = place.fails(&["delete", "pvc", "late", "--timeout", "1s"]);
    assert!(said.contains("held by its finalizers: kubernetes.io/pvc-protection"), "{said}");
    assert_eq!(place.prints(&["delete", "pod", "web"]), "pod \"web\" deleted\n");
    assert_eq!(field(&place, "pvc/late", "/metadata/name"), "");
    assert_eq!(place.prints(&["delete", "pvc/now"]), "persistentvolumeclaim \"now\" deleted\n");
    assert!(place.volumes().is_empty() && place.prints(&["get", "pv", "-o", "name"]).is_empty());
    let said = place.fails(&["delete", "pvc", "now"]);
    assert!(said.contains("persistentvolumeclaims \"now\" not found"), "{said}");
    // A daemon that starts later goes on with the same objects, under the same name.
    let _daemon = place.start_anywhere();
    assert_eq!(place.good("get nodes -o name").lines().count(), 1);
    assert!(place.good("get sc").contains("late"));
}

#[test]
fn lamina_and_kubectl_apply_in_turn() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let path = place.directory("data");
    let labelled = |labels: &str| {
        volume("a", &path, "Retain").replace("labels: {type: local}", &format!("labels: {labels}"))
            + &claim("a", "500Mi", "storageClassName: manual-a")
    };
    let first = labelled("{one: \"1\", two: \"a<b&c\"}").replace("a<b&c", "2");
    assert_eq!(
        place.applies(&first),
        "persistentvolume/a created\npersistentvolumeclaim/a created\n"
    );
    place.until_phase("pvc/a", "Bound");
    let unchanged = "persistentvolume/a unchanged\npersistentvolumeclaim/a unchanged\n";
    assert_eq!(place.applies(&first), unchanged);
    let by_kubectl = |manifest: &str| {
        let output = place.kubectl(&["apply", "-f", "-"], manifest);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(by_kubectl(&first), unchanged);
    let second = labelled("{one: \"9\"}");
    let configured = "persistentvolume/a configured\npersistentvolumeclaim/a unchanged\n";
    place.good("label pv a others=3");
    assert_eq!(place.applies(&second), configured);
    assert_eq!(by_kubectl(&second), unchanged);
    assert_eq!(place.field("pv/a", ".metadata.labels"), "{\"one\":\"9\",\"others\":\"3\"}");
    assert_eq!(by_kubectl(&first), configured);
    assert_eq!(place.applies(&first), unchanged);
    // The bytes of the annotation are those of kubectl.
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\n\
               data: {a: \"<&>\\u2028\\b\\t\", b: \"yes\", c: \"1.0\"}\nimmutable: no\n";
    place.applies(&map.replace("NAME", "by-lamina"));
    place.apply(&map.replace("NAME", "by-kubectl"));
    let annotation = |name: &str| place.field(&format!("cm/{name}"), LAST).replace(name, "NAME");
    assert_eq!(annotation("by-lamina"), annotation("by-kubectl"));
    assert!(annotation("by-lamina").contains("\\u003c\\u0026\\u003e\\u2028"));
    // What is dry stays as it is.
    let dry = place.lamina_with(&["apply", "--dry-run=server", "-f", "-"], &second);
    let wanted = "persistentvolume/a configured (server dry run)\n\
                  persistentvolumeclaim/a unchanged (server dry run)\n";
    assert_eq!(String::from_utf8(dry.stdout).unwrap(), wanted);
    assert_eq!(place.field("pv/a", ".metadata.labels.one"), "1");
    // Fields that lamina applied are taken over by a server-side apply, as those of kubectl are.
    let output = place.kubectl(&["apply", "--server-side", "-f", "-"], &second);
    assert!(output.status.success(), "{output:?}");
    let output = place.lamina_with(&["apply", "--server-side", "-f", "-"], &second);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_daemon_and_a_watch_see_what_lamina_applies() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let mut watch = Command::new("/usr/bin/kubectl")
        .arg("--kubeconfig")
        .arg(place.at("kubeconfig"))
        .args([
            "get",
            "pvc",
            "-w",
            "--output-watch-events",
            "-o",
            "jsonpath={.type} {.object.metadata.name} {.object.status.phase}{\"\\n\"}",
        ])
        .env("HOME", place.at(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let (sender, seen) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        lines.map_while(Result::ok).for_each(|line| sender.send(line).unwrap_or_default());
    });
    // The watch has begun once it shows what kubectl made.
    place.apply(&claim("first", "1Gi", "storageClassName: \"\""));
    let wait_for = |wanted: &str| loop {
        let line = seen.recv_timeout(Duration::from_secs(60)).expect(wanted);
        if line == wanted {
            break;
        }
    };
    wait_for("ADDED first Pending");
    place.applies(&(class("fast", OWN, "") + &claim("made", "64Mi", "storageClassName: fast")));
    // The controller of the daemon binds it.
    wait_for("ADDED made Pending");
    wait_for("MODIFIED made Bound");
    assert_eq!(
        place.prints(&["delete", "pvc", "made"]),
        "persistentvolumeclaim \"made\" deleted\n"
    );
    wait_for("DELETED made Bound");
    watch.kill().unwrap();
    watch.wait().unwrap();
    reader.join().unwrap();
}

#[test]
fn two_applies_of_one_file_at_once_make_each_object_once() {
    let Some(place) = Place::new() else { return };
    let count = 12;
    let mut all = class("fast", OWN, "parameters: {driver: local}");
    for number in 0..count {
        all += &claim(&format!("c{number}"), "64Mi", "storageClassName: fast");
    }
    fs::write(place.at("all.yaml"), &all).unwrap();
    let file = place.at("all.yaml").to_str().unwrap().to_owned();
    for is_beside_daemon in [false, true] {
        let daemon = is_beside_daemon.then(|| place.start_anywhere());
        let outputs: Vec<_> = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| place.lamina_with(&["apply", "-f", &file], "")))
                .collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        let mut created = 0;
        for output in outputs {
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            created += text.lines().filter(|line| line.ends_with(" created")).count();
            let others = text.lines().filter(|line| !line.ends_with(" created"));
            others.for_each(|line| assert!(line.ends_with(" unchanged"), "{line}"));
        }
        assert_eq!(created, count + 1);
        // Whichever of the two ended last, nothing is left to do without a daemon.
        let phases = || place.prints(&["get", "pvc"]).matches(" Bound ").count();
        if daemon.is_some() {
            until("the binding", || phases() == count);
        }
        assert_eq!(phases(), count);
        assert_eq!(place.volumes().len(), count);
        place.prints(&["delete", "-f", &file]);
        if daemon.is_some() {
            until("the end of the volumes", || place.volumes().is_empty());
        }
        assert!(place.volumes().is_empty());
    }
}

#[test]
fn what_a_killed_apply_leaves_is_finished_by_the_next_command() {
    let Some(place) = Place::new() else { return };
    let count = 8;
    let mut all = class("fast", OWN, "parameters: {driver: union}");
    for number in 0..count {
        all += &claim(&format!("c{number}"), "64Mi", "storageClassName: fast");
    }
    let file = place.file("all.yaml", &all);
    let bound = || place.prints(&["get", "pvc"]).matches(" Bound ").count();
    let mut cut = 0;
    for delay in [20, 40, 60, 80, 120, 160, 240, 320] {
        let mut run = place.lamina(&["apply", "-f", &file]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        run.kill().unwrap();
        run.wait().unwrap();
        cut += usize::from(bound() < count);
        place.applies(&all);
        assert_eq!(bound(), count, "killed after {delay} ms");
        assert_eq!(place.volumes().len(), count);
        place.prints(&["delete", "-f", &file]);
        assert!(place.volumes().is_empty());
    }
    assert!(cut > 0, "no kill came before the end");
}

#[test]
fn errors_name_the_file_the_document_and_the_field() {
    let Some(place) = Place::new() else { return };
    let wrong = volume("a", "/x/../y", "Retain").replace("capacity: {storage: 1Gi}", "");
    let unknown = class("s", OWN, "").replace("provisioner", "provisoner");
    let all = format!(
        "{wrong}{unknown}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\n---\n\
         a: [\n{}",
        claim("good", "1Gi", "")
    );
    let output = place.lamina_with(&["apply", "-f", "-"], &all);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for words in [
        "lamina: STDIN, document 1: PersistentVolume \"a\" is invalid: [spec.capacity: Required",
        "must not contain '..'",
        "lamina: STDIN, document 2: StorageClass in version \"v1\" cannot be handled as a \
         StorageClass: strict decoding error: unknown field \"provisoner\"",
        "lamina: STDIN, document 3: no matches for kind \"Deployment\" in version \"apps/v1\"",
        "lamina: STDIN, document 4: couldn't parse the document as YAML",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // What is right is applied.
    assert_eq!(output.stdout, b"persistentvolumeclaim/good created\n");
    let said = place.fails(&["apply", "-f", "/nowhere"]);
    assert!(said.contains("/nowhere: No such file or directory"), "{said}");
    let said =
        place.fails(&["apply", "-n", "other", "-f", &place.file("c.yaml", &claim("c", "1Gi", ""))]);
    assert!(said.contains("namespaces \"other\" not found"), "{said}");
    for (namespace, words) in [
        ("mine", "namespace from the provided object \"mine\" does not match"),
        ("no", "metadata.namespace is false, not a text: use quotes"),
    ] {
        let named = format!("name: c\n  namespace: {namespace}");
        let file = place.file("n.yaml", &claim("c", "1Gi", "").replace("name: c", &named));
        let said = place.fails(&["apply", "-n", "other", "-f", &file]);
        assert!(said.contains(words), "{said}");
    }
    let said = place.fails(&["get", "deploy"]);
    assert!(said.contains("the server doesn't have a resource type \"deploy\""), "{said}");
    let warned = place.lamina_with(&["apply", "-f", "-"], &volume("w", "/srv/w", "Recycle"));
    let said = String::from_utf8(warned.stderr).unwrap();
    assert!(said.contains("warning: spec.persistentVolumeReclaimPolicy: The Recycle"), "{said}");
}

#[test]
fn directories_lists_and_json_are_applied() {
    let Some(place) = Place::new() else { return };
    let dir = place.directory("manifests");
    let map = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}).to_string()
    };
    fs::create_dir(Path::new(&dir).join("below")).unwrap();
    let list = format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{}, {}]}}",
        map("b"),
        map("c")
    );
    for (name, text) in
        [("1.json", map("a")), ("2.yaml", list), ("3.txt", map("no")), ("below/4.yml", map("d"))]
    {
        fs::write(Path::new(&dir).join(name), text).unwrap();
    }
    let names = |flags: &[&str]| {
        let output = place.lamina_with(&[&["apply", "-f", &dir], flags].concat(), "");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let created = |names: &str| {
        names.split(' ').map(|name| format!("configmap/{name} created\n")).collect::<String>()
    };
    assert_eq!(names(&[]), created("a b c"));
    assert_eq!(names(&["-R"]).lines().last(), Some("configmap/d created"));
    let shown = place.prints(&[
        "get",
        "cm",
        "-l",
        "!x",
        "--field-selector",
        "metadata.name!=a",
        "-o",
        "name",
    ]);
    assert_eq!(shown, "configmap/b\nconfigmap/c\nconfigmap/d\n");
    assert_eq!(place.prints(&["delete", "-R", "-f", &dir]).lines().count(), 4);
}

/// A text without the ages in it.
fn ageless(text: &str) -> String {
    let is_age = |word: &str| {
        word.len() > 1
            && word.ends_with(['s', 'm'])
            && word.starts_with(|c: char| c.is_ascii_digit())
    };
    let lines = text.trim_end().lines().map(|line| {
        line.split(' ').map(|word| if is_age(word) { "AGE" } else { word }).collect::<Vec<_>>()
    });
    lines.map(|words| words.join(" ").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[test]
fn get_and_describe_print_what_kubectl_prints() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let snapshot = "---\napiVersion: snapshot.storage.k8s.io/v1\nkind: VolumeSnapshot\n\
                    metadata: {name: s, labels: {a: b}}\nspec: {volumeSnapshotClassName: c, \
                    source: {persistentVolumeClaimName: made}}\n";
    let options =
        "parameters: {driver: union}\nmountOptions: [noatime]\nallowVolumeExpansion: true";
    place.apply(
        &(class("fast", OWN, options)
            + &claim("made", "64Mi", "storageClassName: fast")
            + &volume("static", "/tmp/static", "Retain")
            + &pod("web", "made")
            + snapshot),
    );
    place.until_phase("pvc/made", "Bound");
    place.until_phase("pv/static", "Available");
    place.until_field("pod/web", ".spec.nodeName", "here");
    let gce = "gcePersistentDisk: {pdName: disk, fsType: ext4}";
    let disk = volume("disk", "/x", "Delete").replace("hostPath: {path: /x}", gce);
    place.apply(&disk);
    place.until_phase("pv/disk", "Available");
    for words in [
        "get pv",
        "get pvc,sc",
        "get pod -A",
        "get pv static -o wide",
        "get sc fast -o yaml",
        "get pv -o name",
        "get pv static -o json",
        "get vs",
        "describe pv",
        "describe pvc made",
        "describe sc fast",
        "describe pod web",
        "describe vs s",
    ] {
        let ours = || ageless(&place.prints(&words.split(' ').collect::<Vec<_>>()));
        let theirs = || ageless(&place.good(words));
        // Something may be written in between.
        let is_yaml = words.ends_with("yaml");
        let same = |a: &str, b: &str| match is_yaml {
            true => a.replace(['"', '\''], "") == b.replace(['"', '\''], ""),
            false => a == b,
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(3);
        let (mut a, mut b) = (ours(), theirs());
        while !same(&a, &b) && std::time::Instant::now() < deadline {
            (a, b) = (ours(), theirs());
        }
        assert!(same(&a, &b), "{words}: lamina prints\n{a}\nand kubectl\n{b}");
    }
    // What is printed as YAML can be applied by both.
    let printed = place.prints(&["get", "pvc,pv", "-o", "yaml"]);
    let output = place.kubectl(&["apply", "-f", "-"], &printed);
    assert!(output.status.success(), "{output:?} {printed}");
    let fresh = place.prints(&["get", "pvc,pv", "-o", "yaml"]);
    place.applies(&fresh);
    assert_eq!(place.field("pvc/made", ".status.phase"), "Bound");
    // It has the version of an object that has changed since.
    let said = place.fails(&["apply", "-f", &place.file("old.yaml", &fresh)]);
    assert!(said.contains("the object has been modified"), "{said}");
}

#[test]
fn clients_may_do_everything_and_learn_who_they_are() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    assert!(place.good("auth whoami").contains("lamina-admin"));
    assert_eq!(place.good("auth can-i create pods").trim(), "yes");
    assert!(place.good("auth can-i --list").contains("*.*"));
    place.apply(&pod("web", "none"));
    let tolerations = place.field("pod/web", ".spec.tolerations[*].tolerationSeconds");
    assert_eq!(tolerations, "300 300");
    assert!(
        place
            .good("describe pod web")
            .contains("node.kubernetes.io/not-ready:NoExecute op=Exists for 300s")
    );
}

//! Wrong manifests and what is said of them: `wrong/*.golden`.
//!
//! An entry is a title, the request, and the answer, which `LAMINA_UPDATE=1` writes anew:
//!
//! ```text
//! == TITLE
//! KIND {..}          a good object of the kind (`GOOD`), with this merged into it, is created;
//!                    KIND+warn and KIND+ignore: with that validation of fields, else Strict
//! change KIND {..}   a good object is there and gets this as a merge patch
//! METHOD PATH [TYPE] a request whose body follows; `{{N*TEXT}}` is TEXT, N times
//! -> CODE REASON
//!    MESSAGE
//! ```

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cases::merge;
use crate::client::{Client, Reply};
use crate::daemon::Place;
use crate::until::until;

/// From this number on, the same characters after each other are shown by their number.
const RUN_MAX: usize = 40;

/// Paths and good objects of the kinds.
const GOOD: [(&str, &str, &str); 14] = [
    (
        "pv",
        "/api/v1/persistentvolumes",
        "{apiVersion: v1, kind: PersistentVolume, spec: {capacity: {storage: 1Gi},
         accessModes: [ReadWriteOnce], hostPath: {path: /tmp/none}}}",
    ),
    (
        "pvc",
        "/api/v1/namespaces/default/persistentvolumeclaims",
        "{apiVersion: v1, kind: PersistentVolumeClaim, spec: {storageClassName: none,
         accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}",
    ),
    (
        "class",
        "/apis/storage.k8s.io/v1/storageclasses",
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, provisioner: example.com/x,
         parameters: {a: b}}",
    ),
    (
        "vac",
        "/apis/storage.k8s.io/v1/volumeattributesclasses",
        "{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, driverName: example.com,
         parameters: {a: b}}",
    ),
    (
        "pod",
        "/api/v1/namespaces/default/pods",
        "{apiVersion: v1, kind: Pod, spec: {containers: [{name: main, image: none}],
         nodeSelector: {none: none}}}",
    ),
    ("ns", "/api/v1/namespaces", "{apiVersion: v1, kind: Namespace}"),
    (
        "cm",
        "/api/v1/namespaces/default/configmaps",
        "{apiVersion: v1, kind: ConfigMap, data: {a: b}}",
    ),
    (
        "secret",
        "/api/v1/namespaces/default/secrets",
        "{apiVersion: v1, kind: Secret, data: {a: Yg==}}",
    ),
    ("node", "/api/v1/nodes", "{apiVersion: v1, kind: Node}"),
    (
        "csidriver",
        "/apis/storage.k8s.io/v1/csidrivers",
        "{apiVersion: storage.k8s.io/v1, kind: CSIDriver, spec: {attachRequired: false}}",
    ),
    (
        "csinode",
        "/apis/storage.k8s.io/v1/csinodes",
        "{apiVersion: storage.k8s.io/v1, kind: CSINode, spec: {drivers: []}}",
    ),
    (
        "vs",
        "/apis/snapshot.storage.k8s.io/v1/namespaces/default/volumesnapshots",
        "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot,
         spec: {source: {persistentVolumeClaimName: none}}}",
    ),
    (
        "vsclass",
        "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses",
        "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotClass,
         driver: example.com, deletionPolicy: Delete}",
    ),
    (
        "vsc",
        "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents",
        "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotContent, spec: {
         deletionPolicy: Delete, driver: example.com, source: {snapshotHandle: h},
         volumeSnapshotRef: {name: none, namespace: default}}}",
    ),
];

struct Entry<'a> {
    /// The title and the request, as they are in the file.
    head: &'a str,
    answer: &'a str,
}

fn entries(text: &str) -> Vec<Entry<'_>> {
    let starts: Vec<usize> = text.match_indices("== ").map(|(at, _)| at).collect();
    let starts = starts.into_iter().filter(|at| *at == 0 || text[..*at].ends_with('\n'));
    let starts: Vec<usize> = starts.collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let parts = starts.iter().zip(ends).map(|(start, end)| &text[*start..end]);
    parts
        .map(|part| {
            let at = part.find("\n-> ").map_or(part.len(), |at| at + 1);
            Entry { head: part[..at].trim_end(), answer: part[at..].trim_end() }
        })
        .collect()
}

/// A text with its repetitions.
fn expand(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{{") else { return text.to_owned() };
    let (inside, after) = rest.split_once("}}").unwrap();
    let (count, of) = inside.split_once('*').unwrap();
    format!("{before}{}{}", of.repeat(count.parse().unwrap()), expand(after))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn good(kind: &str, name: &str) -> (&'static str, Value) {
    let found = GOOD.iter().find(|(one, ..)| *one == kind);
    let (_, path, text) = found.unwrap_or_else(|| panic!("no kind {kind}"));
    let mut object = yaml(text);
    object["metadata"] = json!({"name": name});
    (path, object)
}

fn send(client: &mut Client, request: (&str, &str, &str), body: &str) -> Reply {
    let (method, path, form) = request;
    client.request(method, path, &[&format!("Content-Type: {form}")], body)
}

/// Sends the request of an entry.
fn ask(client: &mut Client, head: &str) -> Reply {
    let request = head.split_once('\n').unwrap().1;
    let (line, body) = request.split_once('\n').unwrap_or((request, ""));
    let (word, rest) = line.split_once(' ').unwrap_or((line, "{}"));
    if word == "change" {
        let (kind, patch) = rest.split_once(' ').unwrap();
        let (path, object) = good(kind, "changed");
        let made = client.post(path, &object);
        assert!(made.code == 201, "{head}: {made:?}");
        let (path, patch) = (format!("{path}/changed"), yaml(&expand(patch)).to_string());
        let strict = format!("{path}?fieldValidation=Strict");
        let reply = send(client, ("PATCH", &strict, "application/merge-patch+json"), &patch);
        client.request("DELETE", &path, &[], r#"{"gracePeriodSeconds":0}"#);
        until("the end of the object", || client.get(&path).code == 404);
        return reply;
    }
    if matches!(word, "GET" | "POST" | "PUT" | "PATCH" | "DELETE") {
        let (path, form) = rest.split_once(' ').unwrap_or((rest, "application/yaml"));
        return send(client, (word, path, form), &expand(body));
    }
    let (kind, validation) = word.split_once('+').unwrap_or((word, "Strict"));
    let validation = ["Warn", "Ignore", "Strict"]
        .into_iter()
        .find(|one| one.eq_ignore_ascii_case(validation))
        .unwrap();
    let (path, mut object) = good(kind, "bad");
    merge(&mut object, &yaml(&expand(rest)));
    let path = format!("{path}?dryRun=All&fieldValidation={validation}");
    send(client, ("POST", &path, "application/json"), &object.to_string())
}

/// A text whose ids are the same in each run.
fn steady(text: &str) -> String {
    let is_id = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
    let edge = |one: char| !one.is_ascii_hexdigit() && one != '-';
    let words = text.split_inclusive(edge).map(|word| {
        let (id, end) = word.split_at(word.trim_end_matches(edge).len());
        if is_id(id) { format!("ID{end}") } else { word.to_owned() }
    });
    words.collect()
}

/// A line in which long runs of one character are short.
fn shortened(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let run = rest.len() - rest.trim_start_matches(first).len();
        let count = run / first.len_utf8();
        if count < RUN_MAX {
            text.push_str(&rest[..run]);
        } else {
            write!(text, "{{{{{count}*{first}}}}}").unwrap();
        }
        rest = &rest[run..];
    }
    text
}

fn show(reply: &Reply) -> String {
    let object = reply.json();
    let reason = object["reason"].as_str().unwrap_or("-");
    let mut text = format!("-> {} {reason}", reply.code);
    let message = steady(object["message"].as_str().unwrap_or_default());
    let message = message.trim_end();
    let warnings = reply.warnings.iter().map(|warning| format!("Warning: {warning}"));
    for line in message.lines().map(str::to_owned).chain(warnings) {
        write!(text, "\n   {}", shortened(&line)).unwrap();
    }
    text
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kube/wrong");
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn wrong_manifests_get_the_messages_of_kubernetes() {
    let place = Place::new();
    let daemon = place.start();
    let mut client = daemon.client();
    let (mut count, mut differences) = (0, String::new());
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        let comment = &text[..text.find("== ").unwrap()];
        let mut written = comment.to_owned();
        for entry in entries(&text[comment.len()..]) {
            count += 1;
            let answer = show(&ask(&mut client, entry.head));
            if answer != entry.answer {
                let (head, before) = (entry.head, entry.answer);
                writeln!(differences, "{head}\nwanted {before}\nfound  {answer}\n").unwrap();
            }
            writeln!(written, "{}\n{answer}\n", entry.head).unwrap();
        }
        if std::env::var_os("LAMINA_UPDATE").is_some() {
            fs::write(&file, written.trim_end().to_owned() + "\n").unwrap();
        }
    }
    assert!(count >= 60, "{count} entries");
    assert!(differences.is_empty(), "LAMINA_UPDATE=1 takes these over:\n{differences}");
    assert!(client.is_ready());
}

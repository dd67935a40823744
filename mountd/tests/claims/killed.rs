//! A daemon that is killed again and again during a walk ends where an undisturbed one ends.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::manifests::{claim, class, pod, volume};
use crate::place::Place;
use crate::until::until;

/// Walks under kills, each with another beginning of the pauses.
const ROUNDS: u64 = 3;

/// Disks of a cloud are volumes of this host.
const CONFIG: &str = "[kube.map.gcePersistentDisk]\ndriver = \"local\"\n";

/// Numbers without a pattern, the same in each run.
pub struct Chance(u64);

impl Chance {
    pub fn new(round: u64) -> Self {
        Self(round * 0x9e37_79b9)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Repeats a command until a daemon answers it.
pub fn insist(place: &Place, words: &str, manifest: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    until(words[0], || place.kubectl(&words, manifest).status.success());
}

fn until_fields(place: &Place, wanted: &[(&str, &str, &str)]) {
    for (object, path, value) in wanted {
        place.until_field(object, path, value);
    }
}

fn begin(place: &Place) {
    let policies = [("kept", "Retain"), ("again", "Recycle"), ("gone", "Delete")];
    let mut manifest = class("fast", "lamina.dev/volume", "allowVolumeExpansion: true");
    let waits = "volumeBindingMode: WaitForFirstConsumer";
    manifest += &class("late", "lamina.dev/volume", waits);
    for (name, policy) in policies {
        let path = place.directory(name);
        std::fs::write(Path::new(&path).join("file"), "x").unwrap();
        manifest += &volume(name, &path, policy);
        manifest += &claim(name, "500Mi", &format!("storageClassName: manual-{name}"));
    }
    for (name, policy) in [("disk", "Retain"), ("flash", "Delete")] {
        let disk = format!("gcePersistentDisk: {{pdName: {name}}}");
        manifest += &volume(name, "/x", policy).replace("hostPath: {path: /x}", &disk);
        manifest += &claim(name, "500Mi", &format!("storageClassName: manual-{name}"));
    }
    for name in ["grows", "removed"] {
        manifest += &claim(name, "64Mi", "storageClassName: fast");
    }
    manifest += &claim("late", "64Mi", "storageClassName: late");
    insist(place, "apply -f -", &manifest);
    insist(place, "apply -f -", &pod("web", "late"));
}

fn walk(place: &Place) {
    begin(place);
    let bound = ["kept", "again", "gone", "disk", "flash", "grows", "removed", "late"];
    for name in bound {
        place.until_phase(&format!("pvc/{name}"), "Bound");
    }
    place.until_field("pod/web", ".spec.nodeName", "here");
    let gone = "delete pvc kept again gone flash removed --wait=false --ignore-not-found";
    insist(place, gone, "");
    insist(place, "apply -f -", &claim("grows", "128Mi", "storageClassName: fast"));
    for name in ["kept", "again", "gone", "flash", "removed"] {
        insist(place, &format!("wait --for=delete pvc/{name} --timeout=20s"), "");
    }
    until_fields(
        place,
        &[
            ("pv/kept", ".status.phase", "Released"),
            ("pv/again", ".status.phase", "Available"),
            ("pvc/grows", ".status.capacity.storage", "128Mi"),
        ],
    );
    let content = ".metadata.annotations.lamina\\.dev/volume";
    assert!(place.awaited("pv/disk", content).starts_with("pv-"));
    until("the end of three volumes", || {
        let shown = place.kubectl(&["get", "pv", "-o", "name"], "");
        shown.status.success() && String::from_utf8(shown.stdout).unwrap().lines().count() == 5
    });
}

/// Removes what differs between two walks: ids, versions, times.
fn settle(value: &mut Value, ids: &[(String, String)]) {
    match value {
        Value::Object(fields) => {
            for name in [
                "uid",
                "resourceVersion",
                "creationTimestamp",
                "managedFields",
                "lastPhaseTransitionTime",
                "lastTransitionTime",
                "kubectl.kubernetes.io/last-applied-configuration",
                "path",
            ] {
                fields.remove(name);
            }
            fields.values_mut().for_each(|value| settle(value, ids));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| settle(value, ids)),
        Value::String(text) => {
            for (id, name) in ids {
                *text = text.replace(id, name);
            }
        }
        _ => {}
    }
}

/// All objects, directories and volumes, as two walks should leave them.
fn state(place: &Place) -> Value {
    let words = ["get", "pv,pvc,pod,sc", "-o", "json"];
    let output = place.kubectl(&words, "");
    assert!(output.status.success(), "{output:?}");
    let mut objects: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = objects["items"].as_array_mut().unwrap();
    let ids: Vec<(String, String)> = all
        .iter()
        .map(|one| {
            let text = |name: &str| one["metadata"][name].as_str().unwrap().to_owned();
            (text("uid"), format!("id-of-{}", text("name")))
        })
        .filter(|(_, name)| !name.contains("pvc-"))
        .collect();
    all.iter_mut().for_each(|one| settle(one, &ids));
    all.sort_by_key(|one| format!("{} {}", one["kind"], one["metadata"]["name"]));
    let mut volumes: Vec<Value> = place
        .volumes()
        .into_iter()
        .map(|one| json!([one["name"], one["driver"], one["size_bytes"]]))
        .collect();
    volumes.iter_mut().for_each(|one| settle(one, &ids));
    volumes.sort_by_key(Value::to_string);
    let counts: Vec<Option<usize>> = ["kept", "again", "gone"]
        .iter()
        .map(|name| std::fs::read_dir(place.at(name)).ok().map(Iterator::count))
        .collect();
    json!({"objects": objects["items"], "volumes": volumes, "directories": counts})
}

#[test]
fn a_daemon_that_is_killed_at_any_time_goes_on_where_it_was() {
    let Some(calm) = Place::new() else { return };
    let daemon = calm.start_with(CONFIG);
    walk(&calm);
    let wanted = state(&calm);
    assert_eq!(wanted["directories"], json!([1, 0, null]));
    drop(daemon);
    let kills = AtomicUsize::new(0);
    for round in 1..=ROUNDS {
        let Some(place) = Place::new() else { return };
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let mut chance = Chance::new(round);
                loop {
                    let daemon = place.start_with(CONFIG);
                    if is_over.load(Ordering::Relaxed) {
                        return daemon;
                    }
                    std::thread::sleep(Duration::from_millis(chance.below(400)));
                    drop(daemon);
                    kills.fetch_add(1, Ordering::Relaxed);
                }
            });
            until("the first start", || place.at("kubeconfig").exists());
            walk(&place);
            is_over.store(true, Ordering::Relaxed);
            let _daemon = killer.join().unwrap();
            until("the state of an undisturbed walk", || state(&place) == wanted);
        });
    }
    let kills = kills.load(Ordering::Relaxed);
    assert!(kills > 10, "only {kills} kills");
}

//! A daemon that is killed again and again while snapshots are taken, restored and deleted: each
//! snapshot exists once, has one moment, and leaves nothing behind.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::killed::{Chance, insist};
use crate::manifests::{claim, class, restored, snapshot, snapshot_class};
use crate::place::Place;
use crate::shown::{Cleanup, Shown, files};
use crate::until::until;

/// Ends the kills, also if a walk fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Walks under kills.
const ROUNDS: u64 = 2;
/// Snapshots of a walk.
const SNAPSHOTS: usize = 4;

fn begin(place: &Place, provisioner: &str) -> String {
    let classes = class("fast", provisioner, "parameters: {driver: union}")
        + &snapshot_class("gone", "csi.lamina.dev", "Delete", true)
        + &snapshot_class("kept", "csi.lamina.dev", "Retain", false);
    insist(place, "apply -f -", &classes);
    insist(place, "apply -f -", &claim("data", "64Mi", "storageClassName: fast"));
    place.until_phase("pvc/data", "Bound");
    let source = place.awaited("pvc/data", ".spec.volumeName");
    Shown::new(place, &source).write("file", "first");
    source
}

fn walk(place: &Place) -> Vec<String> {
    let names: Vec<String> = (0..SNAPSHOTS).map(|number| format!("s{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let class = if number == 0 { "kept" } else { "gone" };
        insist(place, "apply -f -", &snapshot(name, class, "data"));
    }
    for name in &names {
        place.until_field(&format!("vs/{name}"), ".status.readyToUse", "true");
        let copy = format!("copy-{name}");
        insist(place, "apply -f -", &restored(&copy, "64Mi", "fast", "VolumeSnapshot", name));
    }
    for name in &names {
        place.until_phase(&format!("pvc/copy-{name}"), "Bound");
    }
    insist(place, "delete pvc data --wait=false --ignore-not-found", "");
    insist(place, "delete vs --all --wait=false", "");
    for name in &names {
        insist(place, &format!("wait --for=delete vs/{name} --timeout=20s"), "");
    }
    names
}

#[test]
fn snapshots_under_kills_exist_once_and_end_whole() {
    survive("lamina.dev/volume");
}

#[test]
fn calls_of_the_csi_driver_under_kills_happen_once() {
    survive("csi.lamina.dev");
}

fn survive(provisioner: &str) {
    let kills = AtomicUsize::new(0);
    for round in 1..=ROUNDS {
        let Some(place) = Place::new() else { return };
        let _cleanup = Cleanup(&place);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ends = Ends(&is_over);
            let killer = scope.spawn(|| {
                let mut chance = Chance::new(round + 10);
                loop {
                    let daemon = place.start_csi();
                    if is_over.load(Ordering::Relaxed) {
                        return daemon;
                    }
                    std::thread::sleep(Duration::from_millis(50 + chance.below(450)));
                    drop(daemon);
                    kills.fetch_add(1, Ordering::Relaxed);
                }
            });
            until("the first start", || place.at("kubeconfig").exists());
            let source = begin(&place, provisioner);
            let names = walk(&place);
            drop(ends);
            let _daemon = killer.join().unwrap();
            // One snapshot is kept, and one content; the volumes are those of the new claims.
            until("the last content", || {
                place.good("get vsc -o name").lines().count() == 1
                    && place.json(&["volume", "snapshot", "ls", "--json"]).len() == 1
            });
            place.until_gone(&format!("pv/{source}"));
            assert_eq!(place.volumes().len(), names.len(), "{:?}", place.volumes());
            for name in &names {
                let copy = place.field(&format!("pvc/copy-{name}"), ".spec.volumeName");
                assert_eq!(files(&place, &copy)["file"], "first");
            }
        });
    }
    let kills = kills.load(Ordering::Relaxed);
    assert!(kills > 6, "only {kills} kills");
}

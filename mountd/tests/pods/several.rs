//! Several clients on one pod at the same time.

use std::fs;

use crate::manifests::{FOREVER, claim, class, pod};
use crate::place::Place;
use crate::until::until;

#[test]
fn starts_stops_and_deletions_at_once_leave_nothing() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(false);
    place.apply(&(class("union", "union") + &claim("data", "union")));
    let more = "volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]";
    let mount = "volumeMounts: [{name: d, mountPath: /d}]";
    for round in 0..6 {
        place.apply(&pod("race", &format!("echo {round} >> /d/runs; {FOREVER}"), more, mount));
        place.until_field("pod/race", ".spec.nodeName", "here");
        let words: [&[&str]; 4] = [
            &["pod", "start", "race"],
            &["pod", "start", "race"],
            &["pod", "stop", "race"],
            &["pod", "mount", "race"],
        ];
        let all: Vec<_> = words.iter().map(|words| place.spawn(words)).collect();
        if round % 2 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(100 * round));
        }
        place.good("delete pod race --ignore-not-found");
        for child in all {
            child.wait_with_output().unwrap();
        }
        place.until_gone("pod/race");
        let pods = place.at("root/pods");
        let left = || fs::read_dir(&pods).into_iter().flatten().flatten().count();
        until("the end of what pods left", || left() == 0);
        assert_eq!(place.mounted("root/pods"), Vec::<String>::new());
        until("the end of the volume's mount", || place.mounted("root/volumes").is_empty());
    }
    place.good("delete pvc data");
}

#[test]
fn many_pods_run_at_the_same_time() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let names: Vec<String> = (0..12).map(|number| format!("many-{number}")).collect();
    let all: String = names.iter().map(|name| pod(name, FOREVER, "", "")).collect();
    place.apply(&all);
    place.good("wait --for=condition=Ready pod --all --timeout=120s");
    place.good("delete pod --all");
    let pods = place.at("root/pods");
    until("the end of what pods left", || fs::read_dir(&pods).unwrap().count() == 0);
}

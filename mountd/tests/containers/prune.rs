//! Images, and all objects together: what is removed, and what is said of it.

use serde_json::Value;

use crate::place::Place;

fn images(place: &Place) -> Vec<String> {
    let all: Value = serde_json::from_str(&place.good(&["image", "ls", "--json"])).unwrap();
    let names = |one: &Value| one["names"].as_array().unwrap().clone();
    let names = all.as_array().unwrap().iter().flat_map(names);
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn images_are_named_again_and_those_without_a_user_go() {
    let Some(place) = Place::new() else { return };
    place.good(&["image", "tag", "busybox:1", "localhost/short:2"]);
    assert_eq!(place.run(&["short:2", "echo", "x"]), (0, "x\n".to_owned()));
    place.good(&["container", "run", "--name", "c", "busybox:1", "touch", "/f"]);
    place.good(&["container", "commit", "c", "made"]);
    let told = place.good(&["image", "prune", "-a", "--dry-run"]);
    assert!(told.starts_with("made:latest\n1 image name and 1 layer"), "{told}");
    assert!(told.contains("would be removed") && images(&place).len() == 3, "{told}");
    let told = place.good(&["image", "prune", "-a", "--filter", "until=1h"]);
    assert!(told.starts_with("0 image names and 0 layers"), "{told}");
    assert_eq!(place.good(&["image", "rm", "--dry-run", "made"]), "would remove made\n");
    let told = place.good(&["image", "prune", "-a"]);
    assert!(told.contains("made:latest") && told.contains(" removed"), "{told}");
    assert_eq!(images(&place), ["busybox:1", "localhost/short:2"], "a container uses it");
    assert_eq!(place.good(&["image", "ls", "-q"]).trim().len(), 12);
    assert!(place.refused(&["image", "rm", "--dry-run", "busybox:1"], 1).contains('c'));
    place.refused(&["image", "tag", "none", "x"], 1);
}

#[test]
fn the_space_of_all_objects_is_shown_and_freed() {
    let Some(place) = Place::new() else { return };
    place.good(&[
        "container",
        "run",
        "-d",
        "--name",
        "on",
        "-v",
        "v:/v",
        "busybox:1",
        "sleep",
        "1000",
    ]);
    let script = "dd if=/dev/zero of=/f bs=1048576 count=4 2>/dev/null";
    place.good(&["container", "run", "--name", "off", "busybox:1", "sh", "-c", script]);
    place.good(&["volume", "create", "idle"]);
    let rows = || -> Vec<Value> {
        serde_json::from_str(&place.good(&["system", "df", "--json"])).unwrap()
    };
    let before = rows();
    let of = |rows: &[Value], kind: &str, key: &str| {
        rows.iter().find(|row| row["Type"] == kind).unwrap()[key].as_u64().unwrap()
    };
    assert_eq!((of(&before, "Images", "TotalCount"), of(&before, "Images", "Active")), (1, 1));
    assert_eq!(of(&before, "Images", "Reclaimable"), 0);
    assert_eq!(
        (of(&before, "Containers", "TotalCount"), of(&before, "Containers", "Active")),
        (2, 1)
    );
    assert!(of(&before, "Containers", "Reclaimable") >= 4 << 20, "{before:?}");
    assert_eq!((of(&before, "Volumes", "TotalCount"), of(&before, "Volumes", "Active")), (2, 1));
    assert!(place.good(&["system", "df"]).starts_with("TYPE "));
    assert!(place.refused(&["system", "prune"], 2).contains("--force"));
    let told = place.good(&["system", "prune", "-a", "--volumes", "--dry-run"]);
    assert!(told.contains("container off\n") && told.contains("volume idle\n"), "{told}");
    assert_eq!(place.names(), ["off", "on"]);
    let told = place.good(&["system", "prune", "-a", "--volumes", "-f"]);
    assert!(told.contains("container off\n") && told.ends_with("freed\n"), "{told}");
    assert_eq!(place.names(), ["on"]);
    assert_eq!(place.good(&["volume", "ls", "-q"]), "v\n");
    assert!(place.output(&["container", "exec", "on", "true"]).status.success());
}

#[test]
fn the_status_is_shown_again_and_again() {
    use std::io::{BufRead, BufReader};
    let Some(place) = Place::new() else { return };
    place.good(&["container", "run", "-d", "--name", "on", "busybox:1", "sleep", "1000"]);
    let mut child = place.spawn_piped(&["status", "--watch", "1"]);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let heads = lines.map(Result::unwrap).filter(|line| line.starts_with("on on "));
    assert_eq!(heads.take(2).count(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
}

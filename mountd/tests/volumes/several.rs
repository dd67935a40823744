//! Several processes work on the same volumes.

use std::collections::BTreeSet;
use std::fs;

use crate::place::Place;

#[test]
fn of_several_creators_one_makes_the_volume() {
    let place = Place::new();
    for round in 0..10 {
        let name = format!("v{round}");
        let creators: Vec<_> =
            (0..4).map(|_| place.command(&["create", &name]).spawn().unwrap()).collect();
        for mut creator in creators {
            assert!(creator.wait().unwrap().success());
        }
    }
    assert_eq!(place.volumes().len(), 10);
    assert_eq!(place.directories().len(), 10);
}

#[test]
fn verbs_side_by_side_lose_no_volume() {
    let place = Place::new();
    let marked: Vec<String> = (0..8).map(|number| place.marked(&format!("v{number}"))).collect();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let place = &place;
            scope.spawn(move || {
                for step in 0..25 {
                    let name = format!("v{}", (worker + step) % 8);
                    let other = format!("w{}", (worker * 3 + step) % 8);
                    match step % 5 {
                        0 => place.run(&["rename", &name, &other]),
                        1 => place.run(&["rename", &other, &name]),
                        2 => place.run(&["rm", &name]),
                        3 => place.run(&["undelete", &name]),
                        _ => place.run(&["label", &name, "worker=x"]),
                    };
                    place.good(&["prune"]);
                }
            });
        }
    });
    let all = place.checked(&marked);
    let ids: BTreeSet<&String> = all.keys().collect();
    assert_eq!(ids, marked.iter().collect(), "nothing was purged, so nothing is gone");
    assert_eq!(place.directories().len(), marked.len());
}

#[test]
fn labels_that_two_processes_set_are_both_there() {
    let place = Place::new();
    place.good(&["create", "data"]);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let place = &place;
            scope.spawn(move || {
                for step in 0..10 {
                    place.good(&["label", "data", &format!("k{worker}-{step}=v")]);
                }
            });
        }
    });
    let shown: serde_json::Value = serde_json::from_str(&place.good(&["inspect", "data"])).unwrap();
    assert_eq!(shown[0]["labels"].as_object().unwrap().len(), 40);
    let record = fs::read(place.at("root/volumes/data/volume.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["Labels"], shown[0]["labels"]);
}

//! Several writers, several daemons, and daemons after each other.

use std::thread;

use serde_json::{Value, json};

use crate::client::{Client, MAPS, map};
use crate::daemon::{Place, free_address};

const OBJECT: &str = "/api/v1/namespaces/default/configmaps/a";

#[test]
fn of_writers_with_one_version_one_wins_and_no_change_is_lost() {
    const WRITERS: usize = 4;
    const TIMES: usize = 10;
    let place = Place::new();
    let daemon = place.start();
    daemon.client().post(MAPS, &map("a", "0")).is(201);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut client = daemon.client();
                let mut done = 0;
                while done < TIMES {
                    let mut object = client.get(OBJECT).is(200);
                    let count: usize = object["data"]["key"].as_str().unwrap().parse().unwrap();
                    object["data"]["key"] = (count + 1).to_string().into();
                    let reply = client.put(OBJECT, &object);
                    match reply.code {
                        200 => done += 1,
                        409 => assert_eq!(reply.json()["reason"], "Conflict"),
                        _ => panic!("{reply:?}"),
                    }
                }
            });
        }
    });
    let object = daemon.client().get(OBJECT).is(200);
    assert_eq!(object["data"]["key"], (WRITERS * TIMES).to_string());
}

#[test]
fn two_daemons_on_one_catalogue_see_each_other() {
    let place = Place::new();
    let (one, other) = (place.start(), place.start());
    let mut watching = other.client();
    assert_eq!(watching.watch(&format!("{MAPS}?watch=true")).0, 200);
    let mut rest = String::new();
    for round in 0..5 {
        let name = format!("m{round}");
        one.client().post(MAPS, &map(&name, "1")).is(201);
        let (form, object) = watching.event(&mut rest).unwrap();
        assert_eq!((&form[..], &object["metadata"]["name"]), ("ADDED", &json!(name)));
        other.client().delete(&format!("{MAPS}/{name}")).is(200);
        assert_eq!(watching.event(&mut rest).unwrap().0, "DELETED");
        one.client().get(&format!("{MAPS}/{name}")).is(404);
    }
}

#[test]
fn kubeconfigs_that_are_made_at_the_same_time_all_work() {
    let place = Place::new();
    let address = free_address();
    let _daemon = place.start_at(address);
    thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| place.kubeconfig(address))).collect();
        for one in all {
            let config = one.join().unwrap();
            assert!(Client::try_new(&config).unwrap().is_ready(), "{config}");
        }
    });
}

#[test]
fn daemons_that_start_on_one_root_at_the_same_time_all_answer() {
    let place = Place::new();
    let addresses = [free_address(), free_address(), free_address()];
    thread::scope(|scope| {
        let place = &place;
        let all = addresses.map(|address| scope.spawn(move || place.start_at(address)));
        let daemons = all.map(|one| one.join().unwrap());
        for daemon in &daemons {
            assert!(daemon.client().is_ready());
            daemon.client().get(MAPS).is(200);
        }
    });
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[test]
fn a_watch_goes_on_after_a_restart_and_a_kill() {
    let place = Place::new();
    let address = free_address();
    let mut last = String::new();
    for round in 0..3 {
        let mut daemon = place.start_at(address);
        let mut watching = daemon.client();
        let mut rest = String::new();
        if round == 0 {
            let list = daemon.client().get(MAPS).is(200);
            last = version(&list);
        }
        let path = format!("{MAPS}?watch=true&resourceVersion={last}&allowWatchBookmarks=true");
        assert_eq!(watching.watch(&path).0, 200);
        if round > 0 {
            // What happened after the last event that the client of before saw.
            let (form, object) = watching.event(&mut rest).unwrap();
            assert_eq!(form, "MODIFIED");
            assert_eq!(object["data"]["key"], format!("unseen {}", round - 1));
        }
        let name = format!("m{round}");
        daemon.client().post(MAPS, &map(&name, "1")).is(201);
        let (form, object) = watching.event(&mut rest).unwrap();
        assert_eq!((&form[..], &object["metadata"]["name"]), ("ADDED", &json!(name)));
        last = version(&object);
        let unseen = map(&name, &format!("unseen {round}"));
        daemon.client().put(&format!("{MAPS}/{name}"), &unseen).is(200);
        if round == 0 {
            daemon.end()
        } else {
            daemon.kill()
        }
        while watching.event(&mut rest).is_some() {}
    }
}

#[test]
fn a_watch_begins_with_the_objects_that_are_there() {
    let place = Place::new();
    let daemon = place.start();
    for name in ["a", "b"] {
        daemon.client().post(MAPS, &map(name, "1")).is(201);
    }
    let mut client = daemon.client();
    let path = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true\
         &resourceVersionMatch=NotOlderThan&timeoutSeconds=1"
    );
    assert_eq!(client.watch(&path).0, 200);
    let mut rest = String::new();
    let mut seen = Vec::new();
    while let Some((form, object)) = client.event(&mut rest) {
        if form == "BOOKMARK" {
            let notes = &object["metadata"]["annotations"];
            assert_eq!(notes["k8s.io/initial-events-end"], "true");
        }
        seen.push(form);
    }
    assert_eq!(seen, ["ADDED", "ADDED", "BOOKMARK"]);
}

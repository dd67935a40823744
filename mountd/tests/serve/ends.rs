//! Starts, restarts, ends and reloads.

use std::fs;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::daemon::{Place, mode};
use crate::until::until;

#[test]
fn a_restart_keeps_volumes_and_mounts() {
    let place = Place::new();
    let mut daemon = place.start();
    assert_eq!(mode(&daemon.docker), 0o600);
    let mut client = daemon.client();
    client.ok("Create", json!({"Name": "a"}));
    let before = client.ok("Get", json!({"Name": "a"}));
    let at = client.ok("Mount", json!({"Name": "a", "ID": "1"}))["Mountpoint"].clone();
    let file = format!("{}/file", at.as_str().unwrap());
    fs::write(&file, "kept").unwrap();
    daemon.end();
    assert!(!daemon.docker.exists(), "the socket goes with the daemon");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept", "what is in use stays mounted");

    let mut daemon = place.start();
    let mut client = daemon.client();
    assert_eq!(client.ok("Get", json!({"Name": "a"})), before);
    client.ok("Mount", json!({"Name": "a", "ID": "1"}));
    daemon.kill();
    assert!(daemon.docker.exists());

    let daemon = place.start();
    let mut client = daemon.client();
    assert_eq!(client.ok("Get", json!({"Name": "a"})), before);
    client.ok("Mount", json!({"Name": "a", "ID": "2"}));
    client.ok("Unmount", json!({"Name": "a", "ID": "2"}));
    client.ok("Unmount", json!({"Name": "a", "ID": "never"}));
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept", "1 is still a holder");
    // dockerd forgets some ids.
    client.ok("Remove", json!({"Name": "a"}));
    assert!(client.err("Get", json!({"Name": "a"})).contains("does not exist"));
    client.ok("Unmount", json!({"Name": "a", "ID": "1"}));
}

#[test]
fn a_kill_under_load_loses_no_answered_change() {
    let place = Place::new();
    for round in 0..3 {
        let mut daemon = place.start();
        let answers = AtomicUsize::new(0);
        let made = thread::scope(|scope| {
            let create = |number: usize| {
                let mut client = daemon.client();
                let mut made = Vec::new();
                for count in 0.. {
                    let name = format!("r{round}-{number}-{count}");
                    let body = format!("{{\"Name\":\"{name}\"}}");
                    let head = "POST /VolumeDriver.Create HTTP/1.1\r\nHost: \r\n";
                    let text = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                    if client.write(text.as_bytes()).is_err() {
                        break;
                    }
                    let Some(reply) = client.read() else { break };
                    assert_eq!(reply.code, 200);
                    made.push(name);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                made
            };
            let all: Vec<_> = (0..4).map(|number| scope.spawn(move || create(number))).collect();
            until("an answer", || answers.load(Ordering::Relaxed) > 0);
            thread::sleep(Duration::from_millis(150));
            daemon.signal(Signal::KILL);
            all.into_iter().flat_map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        daemon.wait();
        let mut daemon = place.start();
        let mut client = daemon.client();
        assert!(!made.is_empty());
        for name in &made {
            client.ok("Get", json!({"Name": name}));
        }
        daemon.end();
    }
}

#[test]
fn sockets_of_others_stay() {
    let place = Place::new();
    let daemon = place.start();
    let path = daemon.docker.to_str().unwrap();
    let (code, err) = place.refused(&["--docker", path]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(path) && err.contains("another process listens there"), "{err}");
    assert!(daemon.client().activates());
    let file = place.at("file");
    fs::write(&file, "text").unwrap();
    let (code, err) = place.refused(&["--docker", file.to_str().unwrap()]);
    assert!(code == 1 && err.contains("not a socket"), "{err}");
    let (code, err) = place.refused(&[]);
    assert!(code == 2 && err.contains("no front end"), "{err}");
    let (code, err) = place.refused(&["--metrics", "0.0.0.0:9185"]);
    assert!(code == 2 && err.contains("loopback"), "{err}");
}

#[test]
fn a_socket_that_was_replaced_is_not_removed() {
    let place = Place::new();
    let mut daemon = place.start();
    fs::remove_file(&daemon.docker).unwrap();
    let other = UnixListener::bind(&daemon.docker).unwrap();
    daemon.end();
    assert!(daemon.docker.exists());
    drop(other);
    // And now it is stale.
    place.start().end();
}

#[test]
fn the_end_answers_what_is_under_way_and_waits_for_no_idle_connection() {
    let place = Place::new();
    let mut daemon = place.start();
    let mut idle = daemon.client();
    assert!(idle.activates());
    let mut slow = daemon.client();
    let body = r#"{"Name":"late"}"#;
    let head = "POST /VolumeDriver.Create HTTP/1.1\r\nHost: \r\nContent-Length: 15\r\n\r\n{";
    slow.write(head.as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(100));
    daemon.signal(Signal::TERM);
    until("the end of listening", || !daemon.docker.exists());
    slow.write(&body.as_bytes()[1..]).unwrap();
    let reply = slow.read().unwrap();
    assert_eq!((reply.code, reply.text()), (200, r#"{"Err":""}"#.to_owned()));
    assert!(daemon.wait().success());
    assert!(idle.read().is_none());
    assert_eq!(place.start().client().names(), ["late"]);
}

#[test]
fn a_reload_changes_the_trash_at_once() {
    let place = Place::new();
    place.config("");
    let mut daemon = place.start();
    let mut client = daemon.client();
    for name in ["a", "b"] {
        client.ok("Create", json!({"Name": name}));
        client.ok("Remove", json!({"Name": name}));
    }
    let directories = || {
        let entries = fs::read_dir(place.at("root/volumes")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).count()
    };
    assert_eq!(directories(), 2);
    place.config("[trash]\nage_seconds = 1\n");
    daemon.signal(Signal::HUP);
    daemon.says("trash.least_age_seconds is 3600: use at most trash.age_seconds, 1");
    daemon.says("the old configuration stays");
    assert_eq!(directories(), 2);
    place.config("[trash]\nage_seconds = 0\nleast_age_seconds = 0\n");
    daemon.signal(Signal::HUP);
    until("the end of the trash", || directories() == 0);
    daemon.says("volume \"a\" left the trash");
    daemon.end();
}

#[test]
fn a_reload_applies_what_it_can_and_names_the_rest() {
    let place = Place::new();
    place.config("log = \"error\"\n");
    let mut daemon = place.start();
    assert_eq!(daemon.log(), "");
    place.config("log = \"info\"\ndocker = \"/run/other.sock\"\n[limits]\ncalls = 7\n");
    daemon.signal(Signal::HUP);
    daemon.says("reloaded the configuration");
    daemon.says("limits.calls is 128, not 7: restart lamina to apply it");
    assert!(!daemon.log().contains("other.sock"), "a flag is over it: {}", daemon.log());
    place.config("lag = \"info\"\n");
    daemon.signal(Signal::HUP);
    daemon.says("the old configuration stays");
    daemon.says("lag");
    assert!(daemon.client().activates());
    daemon.end();
}

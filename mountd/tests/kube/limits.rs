//! Clients without a certificate, large bodies, many watches.

use std::io::{Read, Write};

use serde_json::json;

use crate::client::{Client, MAPS, connect, map};
use crate::daemon::Place;

/// What the memory of the daemon may grow by, whatever clients do.
const GROWTH_KIB: u64 = 96 << 10;

#[test]
fn a_client_without_a_certificate_of_this_authority_is_served_nothing() {
    let (place, other) = (Place::new(), Place::new());
    let (daemon, stranger) = (place.start(), other.start());
    let mixed = daemon.config.lines().map(|line| {
        let name = line.split(':').next().unwrap_or_default().trim();
        let theirs = stranger.config.lines().find(|line| line.trim().starts_with(name));
        if name.starts_with("client-") { theirs.unwrap() } else { line }
    });
    let mixed: String = mixed.map(|line| format!("{line}\n")).collect();
    for (config, has_certificate) in [(&daemon.config, false), (&mixed, true)] {
        let mut stream = connect(config, has_certificate).unwrap();
        let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut read = Vec::new();
        let end = asked.and_then(|()| stream.read_to_end(&mut read));
        assert!(end.is_err() && read.is_empty(), "{end:?} {read:?}");
    }
    assert!(daemon.client().is_ready());
}

#[test]
fn a_body_of_a_gibibyte_is_refused_without_being_read() {
    let place = Place::new();
    let daemon = place.start();
    let before = daemon.memory_kib();
    let mut client = daemon.client();
    let head = format!("POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1 << 30);
    client.0.write_all(head.as_bytes()).unwrap();
    let status = client.reply().is(413);
    assert_eq!(status["reason"], "RequestEntityTooLarge");
    // One that does not tell its length.
    let mut client = daemon.client();
    let head = format!("POST {MAPS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.0.write_all(head.as_bytes()).unwrap();
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let sent = (0..1024).take_while(|_| client.0.write_all(&chunk).is_ok()).count();
    assert!(sent < 64, "{sent} MiB were taken");
    assert!(daemon.memory_kib() < before + GROWTH_KIB);
    let large = map("large", &"x".repeat(2 << 20));
    daemon.client().post(MAPS, &large).is(422);
    assert!(daemon.client().is_ready());
}

#[test]
fn of_a_thousand_watches_some_are_refused_and_memory_is_bounded() {
    let place = Place::new();
    let daemon = place.start();
    let before = daemon.memory_kib();
    let mut open: Vec<Client> = Vec::new();
    let mut refused = 0;
    for _ in 0..1000 {
        let mut client = daemon.client();
        match client.watch(&format!("{MAPS}?watch=true&resourceVersion=1")) {
            (200, _) => open.push(client),
            (429, head) => {
                assert!(head.to_lowercase().contains("retry-after: 1"), "{head}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((open.len(), refused), (256, 744));
    daemon.client().post(MAPS, &map("a", "1")).is(201);
    for client in &mut open {
        assert_eq!(client.event(&mut String::new()).unwrap().0, "ADDED");
    }
    assert!(daemon.memory_kib() < before + GROWTH_KIB, "{} KiB", daemon.memory_kib());
    drop(open);
    crate::until::until("a free watch", || {
        daemon.client().watch(&format!("{MAPS}?watch=true&resourceVersion=1")).0 == 200
    });
}

#[test]
fn a_deep_or_broken_body_is_a_bad_request() {
    let place = Place::new();
    let daemon = place.start();
    let mut client = daemon.client();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (media_type, body) in [
        ("application/json", &deep[..]),
        ("application/yaml", &deep[..]),
        ("application/json", "{"),
        ("application/yaml", "a: [&a [*a, *a]]: b"),
        ("application/vnd.kubernetes.protobuf", "k8s\0\u{12}\u{7f}"),
    ] {
        let line = format!("Content-Type: {media_type}");
        let status = client.request("POST", MAPS, &[&line], body).is(400);
        assert_eq!(status["reason"], json!("BadRequest"), "{media_type}");
    }
}

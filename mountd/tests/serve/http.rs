//! Requests as clients write them, also odd ones.

use std::thread;

use serde_json::json;

use crate::client::Client;
use crate::daemon::Place;

const TYPE: &str = "content-type: application/vnd.docker.plugins.v1.2+json\r\n";

#[test]
fn one_connection_serves_many_requests_of_any_form() {
    let place = Place::new();
    let daemon = place.start();
    let mut client = daemon.client();
    for body in ["", "{}\n", "{}", "\n"] {
        let reply = client.request("/Plugin.Activate", body);
        assert_eq!((reply.code, reply.head.contains(TYPE)), (200, true), "{reply:?}");
    }
    let capable = json!({"Capabilities": {"Scope": "local"}});
    assert_eq!(client.request("/VolumeDriver.Capabilities", "{}\n").json(), capable);
    // podman has a `Host:`, and others have none in HTTP/1.0 or send chunks.
    for head in ["Host: plugin\r\n", "Host: \r\nTransfer-Encoding: chunked\r\n"] {
        let is_chunked = head.contains("chunked");
        let body = if is_chunked { "5\r\n{}   \r\n0\r\n\r\n" } else { "" };
        let text = format!("POST /Plugin.Activate HTTP/1.1\r\n{head}\r\n{body}");
        client.write(text.as_bytes()).unwrap();
        assert_eq!(client.read().unwrap().code, 200, "{head}");
    }
    for (path, body, code, word) in [
        ("/VolumeDriver.Create", "{", 400, "invalid request"),
        ("/VolumeDriver.Create", "[]", 400, "invalid request"),
        ("/VolumeDriver.Create", "\0", 400, "invalid request"),
        ("/VolumeDriver.Create", "{}", 500, "names no volume"),
        ("/VolumeDriver.Mount", "", 500, "names no volume"),
        ("/VolumeDriver.Create", r#"{"Name":"../x"}"#, 500, "invalid volume name"),
        ("/VolumeDriver.Snapshot", "{}", 404, "unknown call"),
        ("/", "", 404, "unknown call"),
    ] {
        let reply = client.request(path, body);
        assert_eq!(reply.code, code, "{path} {body}");
        assert!(reply.json()["Err"].as_str().unwrap().contains(word), "{path} {body}: {reply:?}");
    }
    assert_eq!(client.get("/VolumeDriver.List").code, 405);
    assert_eq!(client.names(), Vec::<String>::new());
}

#[test]
fn a_body_that_is_too_long_ends_one_connection() {
    let place = Place::new();
    let daemon = place.start();
    let mut client = daemon.client();
    let head = "POST /VolumeDriver.Create HTTP/1.1\r\nHost:\r\nContent-Length: 2097152\r\n\r\n";
    client.write(head.as_bytes()).unwrap();
    // The daemon may close the connection before it has all of it.
    if client.write(&vec![b' '; 2 << 20]).is_ok() {
        let reply = client.read().unwrap();
        assert_eq!(reply.code, 413);
    }
    let mut client = daemon.client();
    client.write(head.as_bytes()).unwrap();
    client.write(&vec![b' '; (1 << 20) + 1]).unwrap();
    let reply = client.read().unwrap();
    assert_eq!(reply.code, 413);
    assert!(reply.json()["Err"].as_str().unwrap().contains("1048576"), "{reply:?}");
    assert!(client.read().is_none(), "the rest of the body is no request");
    // Neither are a head that never ends, and what is no HTTP.
    let mut client = daemon.client();
    let long = format!("POST / HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    if client.write(long.as_bytes()).is_ok() {
        assert_eq!(client.read().unwrap().code, 431);
    }
    let mut client = daemon.client();
    client.write(b"\x16\x03\x01\x00\r\n\r\n").unwrap();
    assert_eq!(client.read().unwrap().code, 400);
    assert!(daemon.client().activates());
}

/// dockerd repeats a request without its body, and takes any error for a missing volume.
#[test]
fn a_get_without_a_name_has_no_reply() {
    let place = Place::new();
    let daemon = place.start();
    for body in ["", "{}\n", "{"] {
        let mut client = daemon.client();
        let head = "POST /VolumeDriver.Get HTTP/1.1\r\nHost: \r\n";
        let text = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        client.write(text.as_bytes()).unwrap();
        assert!(client.read().is_none(), "{body:?}");
    }
    assert!(daemon.client().activates());
}

#[test]
fn a_body_that_breaks_off_changes_nothing() {
    let place = Place::new();
    let daemon = place.start();
    let mut client = daemon.client();
    let half = "POST /VolumeDriver.Create HTTP/1.1\r\nHost:\r\nContent-Length: 99\r\n\r\n\
                {\"Name\":\"a\"}";
    client.write(half.as_bytes()).unwrap();
    drop(client);
    assert_eq!(daemon.client().names(), Vec::<String>::new());
}

#[test]
fn many_clients_at_once_get_right_answers() {
    let place = Place::new();
    let daemon = place.start();
    daemon.client().ok("Create", json!({"Name": "shared"}));
    let use_it = |number: usize| {
        let mut client = daemon.client();
        let name = format!("own{number}");
        for round in 0..5 {
            client.ok("Create", json!({"Name": name, "Opts": null}));
            let id = format!("{number}-{round}");
            let mounted = client.ok("Mount", json!({"Name": name, "ID": id}));
            let got = client.ok("Get", json!({"Name": name}));
            assert_eq!(got["Volume"]["Mountpoint"], mounted["Mountpoint"]);
            client.ok("Mount", json!({"Name": "shared", "ID": id}));
            client.ok("Unmount", json!({"Name": "shared", "ID": id}));
            client.ok("Unmount", json!({"Name": name, "ID": id}));
            assert!(client.names().contains(&name));
            client.ok("Remove", json!({"Name": name}));
        }
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..64).map(|number| scope.spawn(move || use_it(number))).collect();
        all.into_iter().for_each(|one| one.join().unwrap());
    });
    assert_eq!(daemon.client().names(), ["shared"]);
}

#[test]
fn connections_beyond_the_limit_wait() {
    let place = Place::new();
    place.config("[limits]\nconnections = 2\n");
    let daemon = place.start();
    let mut both = [daemon.client(), daemon.client()];
    assert!(both.iter_mut().all(Client::activates));
    let mut third = daemon.client();
    third.write(b"POST /Plugin.Activate HTTP/1.1\r\nHost:\r\n\r\n").unwrap();
    thread::sleep(std::time::Duration::from_millis(50));
    assert!(both[0].activates());
    drop(both);
    assert_eq!(third.read().unwrap().code, 200);
}

//! Engines that lie.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::*;

/// Serves the API with these replies by path, until the process ends.
fn serve(socket: &Path, replies: Vec<(&'static str, String)>) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = vec![0; 4096];
            let len = stream.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..len]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let found = replies.iter().find(|(known, _)| *known == path);
            let (code, body) = match found {
                Some((_, body)) => (200, body.as_str()),
                None => (404, r#"{"message":"no such\u001b thing"}"#),
            };
            let len = body.len();
            let reply = format!("HTTP/1.1 {code} X\r\nContent-Length: {len}\r\n\r\n{body}");
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
}

fn info(storage: &Path) -> (&'static str, String) {
    let storage = storage.display();
    ("/info", format!(r#"{{"DockerRootDir":"{storage}","Driver":"overlay2"}}"#))
}

fn open(dir: &Path, socket: &Path, selection: Selection) -> Result<Migration> {
    let socket = Some(socket.to_owned());
    let source = Source { kind: EngineKind::Docker, socket, storage_root: None };
    Migration::open(&dir.join("root"), &source, selection)
}

#[test]
fn hostile_names_are_refused_and_leave_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, socket) = (dir.path().join("storage"), dir.path().join("sock"));
    fs::create_dir_all(storage.join("volumes/good/_data")).unwrap();
    fs::write(storage.join("volumes/good/_data/f"), "text").unwrap();
    let good = storage.join("volumes/good/_data");
    let volume = |name: &str, place: &str| {
        format!(r#"{{"Name":"{name}","Driver":"local","Mountpoint":"{place}"}}"#)
    };
    let volumes = [
        volume("../../x", "/etc"),
        volume("a/b", "/etc"),
        volume("", "/etc"),
        volume("relative", "etc"),
        volume("good", good.to_str().unwrap()),
        r#"{"Name":"plugged","Driver":"vieux\u001b","Mountpoint":"/etc"}"#.to_owned(),
    ];
    let replies = vec![
        info(&storage),
        ("/volumes", format!(r#"{{"Volumes":[{}]}}"#, volumes.join(","))),
        ("/containers/json?all=1", "[]".to_owned()),
    ];
    serve(&socket, replies);
    let selection = Selection { only_volumes: true, ..Selection::default() };
    let migration = open(dir.path(), &socket, selection).unwrap();
    let planned = migration.plan().unwrap();
    assert!(!dir.path().join("root").exists());
    let root = dir.path().join("root");
    let report = migration.run(Images::open(&root).unwrap(), &mut |_| ()).unwrap();
    for report in [planned, report] {
        let taken = |outcome| matches!(outcome, Outcome::Take | Outcome::Taken);
        let names: Vec<&str> = report
            .volumes
            .iter()
            .filter(|one| taken(one.outcome))
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, ["good"]);
        assert_eq!((report.refused(), report.totals.bytes), (5, 4));
        let reasons = report.volumes.iter().filter_map(|one| one.reason.as_deref());
        assert!(reasons.clone().all(|text| !text.contains('\u{1b}')));
        assert!(reasons.clone().any(|text| text.contains("invalid volume name")));
    }
    let mut listed: Vec<_> = fs::read_dir(root.join("volumes")).unwrap().collect();
    listed.retain(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(listed.len(), 1);
}

#[test]
fn a_storage_with_hostile_ids_gives_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("image/overlay2");
    let ids = base.join("imagedb/content/sha256");
    fs::create_dir_all(&ids).unwrap();
    fs::write(ids.join("nothex"), "{}").unwrap();
    let config = br#"{"rootfs":{"diff_ids":["sha256:../../../../etc/passwd"]}}"#;
    let id = crate::types::Digest::sha256(config);
    fs::write(ids.join(id.hex()), config).unwrap();
    let repositories = format!(r#"{{"Repositories":{{"a":{{"a:1":"{id}","b:2":"../x"}}}}}}"#);
    fs::write(base.join("repositories.json"), repositories).unwrap();
    let storage_root = Some(dir.path().to_owned());
    let source = Source { kind: EngineKind::Docker, socket: None, storage_root };
    let root = dir.path().join("root");
    let migration = Migration::open(&root, &source, Selection::default()).unwrap();
    let planned = migration.plan().unwrap();
    let reasons: Vec<_> = planned.images.iter().map(|one| one.reason.clone()).collect();
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].as_ref().unwrap().contains("invalid digest"), "{reasons:?}");
}

#[test]
fn a_user_names_only_a_storage_of_their_own() {
    if effective_ids().0 != 0 {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (storage, socket) = (dir.path().join("storage"), dir.path().join("sock"));
    fs::create_dir_all(storage.join("volumes/v")).unwrap();
    std::os::unix::fs::symlink("/etc", storage.join("volumes/v/_data")).unwrap();
    let place = storage.join("volumes/v/_data");
    let volume = |name: &str, place: &Path| {
        format!(r#"{{"Name":"{name}","Driver":"local","Mountpoint":"{}"}}"#, place.display())
    };
    let volumes = [volume("v", &place), volume("w", Path::new("/etc"))].join(",");
    let replies = vec![
        info(&storage),
        ("/volumes", format!(r#"{{"Volumes":[{volumes}]}}"#)),
        ("/containers/json?all=1", "[]".to_owned()),
    ];
    serve(&socket, replies);
    std::os::unix::fs::chown(&socket, Some(12_345), None).unwrap();
    let selection = Selection { only_volumes: true, ..Selection::default() };
    let refused = open(dir.path(), &socket, selection.clone()).err().unwrap().to_string();
    assert!(refused.contains("does not belong to user 12345"), "{refused}");
    std::os::unix::fs::chown(&storage, Some(12_345), None).unwrap();
    let planned = open(dir.path(), &socket, selection).unwrap().plan().unwrap();
    assert_eq!(planned.refused(), 2, "{planned:?}");
}

#[test]
fn errors_of_an_engine_have_its_words_and_a_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let away = open(dir.path(), &socket, Selection::default()).err().unwrap();
    assert!(away.to_string().contains("does not answer"), "{away}");
    assert!(away.hint().unwrap().contains("systemctl start docker"));
    serve(&socket, Vec::new());
    let refused = open(dir.path(), &socket, Selection::default()).err().unwrap().to_string();
    assert!(refused.contains("no such\\u{1b} thing (HTTP 404)"), "{refused}");
}

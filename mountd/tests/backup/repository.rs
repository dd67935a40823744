//! Backups and what comes back.

use std::fs;
use std::sync::atomic::Ordering;

use crate::place::Place;
use crate::{proxy, s3, tree};

/// Where a repository is, and how it is opened.
struct Repository {
    url: String,
    key: Vec<String>,
}

impl Repository {
    fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        words.iter().copied().chain(self.key.iter().map(String::as_str)).collect()
    }
}

fn round_trip(place: &Place, repository: &Repository) {
    let url = repository.url.as_str();
    place.good(&["create", "data", "--label", "tier=back"]);
    let data = place.data("root", "data");
    tree::make(&data);
    tree::make_socket(&data);
    let before = tree::described(&data, true);
    let first = place.json(&repository.words(&["backup", "data", url, "--json"]));
    tree::assert_same(&tree::described(&data, true), &before);
    assert!(first["sent_bytes"].as_u64().unwrap() > 9 << 20, "{first}");
    place.good_on("other", &repository.words(&["restore", url, "data"]));
    tree::assert_equal(&data, &place.data("other", "data"), true);
    let shown = place.good_on("other", &["inspect", "data"]);
    assert!(shown.contains("\"tier\": \"back\""), "{shown}");
    // A changed small file, a changed byte of a large one, and nothing else.
    fs::write(data.join("d/small-9"), "changed").unwrap();
    let large = fs::File::options().write(true).open(data.join("d/large")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&large, b"!", 5 << 20).unwrap();
    let second = place.json(&repository.words(&["backup", "data", url, "--json"]));
    let sent = second["sent_bytes"].as_u64().unwrap();
    assert!((1000..6 << 20).contains(&sent), "{second}");
    // One or two chunks each of the large file, of small files and of the list: a random key moves
    // their ends.
    let new = |done: &serde_json::Value| done["new_chunks"].as_u64().unwrap();
    assert!(new(&second) <= 6 && new(&second) < new(&first), "{first} {second}");
    place.good_on("other", &["rm", "--purge", "data"]);
    place.good_on("other", &repository.words(&["restore", url, "data"]));
    tree::assert_equal(&data, &place.data("other", "data"), true);
    // The first backup is as it was.
    let id = first["id"].as_str().unwrap();
    let refused = place.refused_on("other", &repository.words(&["restore", url, "data"]));
    assert!(refused.contains("already exists"), "{refused}");
    place.good_on("other", &repository.words(&["restore", url, "old", "--id", id]));
    let old = tree::described(&place.data("other", "old"), true);
    tree::assert_same(&old, &before);
    let checked = place.good(&repository.words(&["backup", "check", url, "--read-data"]));
    assert!(checked.starts_with("2 backups"), "{checked}");
    // What only the first backup names goes; the second one stays whole.
    place.good(&repository.words(&["backup", "rm", url, id]));
    let young = place.good(&repository.words(&["backup", "prune", url]));
    assert!(young.starts_with("0 chunks"), "{young}");
    let pruned = place.good(&repository.words(&["backup", "prune", url, "--grace", "0"]));
    assert!(!pruned.starts_with("0 chunks"), "{pruned}");
    place.good(&repository.words(&["backup", "check", url, "--read-data"]));
    place.good_on(
        "other",
        &repository.words(&["restore", url, "last", "--id", second["id"].as_str().unwrap()]),
    );
    tree::assert_equal(&data, &place.data("other", "last"), true);
}

#[test]
fn a_directory_holds_backups_without_a_key() {
    let place = Place::new();
    let url = place.url("repository");
    round_trip(&place, &Repository { url, key: Vec::new() });
}

#[test]
fn a_server_of_s3_holds_encrypted_backups() {
    let Some(server) = s3::Server::start() else { return };
    let mut place = Place::new();
    let (port, counts) = proxy::start(server.port, u64::MAX);
    s3::use_port(&mut place, port);
    place.good(&["create", "none"]);
    place.good(&["backup", "key", &place.text("key")]);
    let key = vec!["--key-file".to_owned(), place.text("key")];
    let repository = Repository { url: "s3://bucket/a/b".to_owned(), key };
    round_trip(&place, &repository);
    // Nothing changed: the proxy sees a lease and a manifest.
    let words = repository.words(&["backup", "data", "s3://bucket/a/b"]);
    place.good(&words);
    let load = || (counts.puts.load(Ordering::Acquire), counts.sent.load(Ordering::Acquire));
    let (puts, sent) = load();
    place.good(&words);
    let (more_puts, more_sent) = load();
    assert!(more_puts - puts <= 4, "{} requests", more_puts - puts);
    assert!(more_sent - sent < 64 << 10, "{} bytes", more_sent - sent);
}

#[test]
fn volumes_and_files_share_chunks() {
    let place = Place::new();
    let url = place.url("repository");
    for name in ["a", "b"] {
        place.good(&["create", name]);
        fs::write(place.data("root", name).join(name), tree::noise(6 << 20, 1)).unwrap();
    }
    place.good(&["backup", "a", &url]);
    let second = place.json(&["backup", "b", &url, "--json"]);
    assert!(second["sent_bytes"].as_u64().unwrap() < 64 << 10, "{second}");
    let listed = place.json(&["backup", "ls", &url, "--volume", "b", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["volume"]["name"], "b");
}

#[test]
fn the_last_backups_of_each_volume_are_kept() {
    let place = Place::new();
    let url = place.url("repository");
    let backup = |root: &str, name: &str| {
        let done = place.good_on(root, &["backup", name, &url, "--json"]);
        let done: serde_json::Value = serde_json::from_str(&done).unwrap();
        done["id"].as_str().unwrap().to_owned()
    };
    for (root, name) in [("root", "a"), ("root", "b"), ("other", "a")] {
        place.good_on(root, &["create", name]);
    }
    let of_a: Vec<_> = (0..4).map(|_| backup("root", "a")).collect();
    let of_b: Vec<_> = (0..3).map(|_| backup("root", "b")).collect();
    // A volume of another host with an equal name is another volume.
    let of_other = backup("other", "a");
    let rm = |more: &[&str]| {
        let text = place.good(&[&["backup", "rm", &url, "--keep-last", "2"], more].concat());
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rm(&["--volume", "a", "--dry-run"]), of_a[..2]);
    assert_eq!(rm(&["--volume", "a"]), of_a[..2]);
    assert_eq!(rm(&[]), of_b[..1]);
    assert_eq!(rm(&[]), [""; 0]);
    let listed = place.json(&["backup", "ls", &url, "--json"]);
    let listed: Vec<_> =
        listed.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(listed, [&of_a[2], &of_a[3], &of_b[1], &of_b[2], &of_other]);
    for words in [["--keep-last", "0"], ["--keep-last", "x"], ["--volume", "a"]] {
        let output = place.run_on("root", &[&["backup", "rm", &url], &words[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn a_repository_has_one_key_and_hides_its_content() {
    let place = Place::new();
    let (plain, secret) = (place.url("plain"), place.url("secret"));
    place.good(&["create", "data"]);
    let text = "a text that must not be found ".repeat(3000);
    fs::write(place.data("root", "data").join("f"), text).unwrap();
    for name in ["key", "other-key"] {
        place.good(&["backup", "key", &place.text(name)]);
    }
    let (key, other) = (place.text("key"), place.text("other-key"));
    place.good(&["backup", "data", &plain]);
    place.good(&["backup", "data", &secret, "--key-file", &key]);
    for (words, part) in [
        (&["backup", "data", &secret][..], "is encrypted"),
        (&["restore", &secret, "x"], "is encrypted"),
        (&["restore", &secret, "x", "--key-file", &other], "has another key"),
        (&["backup", "data", &secret, "--key-file", &other], "has another key"),
        (&["backup", "data", &plain, "--key-file", &key], "is not encrypted"),
        (&["restore", &plain, "none"], "no backup of volume none"),
        (&["restore", &plain, "x", "--id", "../x"], "has no backup ../x"),
        (&["restore", &place.url("nowhere"), "x"], "there is no repository"),
        (&["backup", "data", "s3://user:password@bucket/x"], "belong into the environment"),
        (&["backup", "data", "ftp://host/x"], "invalid repository"),
        (&["backup", "none", &plain], "does not exist"),
        (&["backup", "key", &key], "exists"),
    ] {
        let said = place.refused_on("root", words);
        assert!(said.contains(part), "{words:?}: {said}");
        assert!(!said.contains("password"), "{said}");
    }
    // Names of chunks do not show known content.
    let names = |name: &str| {
        let folders = fs::read_dir(place.at(name).join("chunks")).unwrap();
        let folders = folders.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
        folders.map(|file| file.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert!(!names("plain").is_empty());
    assert!(names("plain").iter().all(|name| !names("secret").contains(name)));
}

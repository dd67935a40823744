//! Kills, dead servers and damage.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::place::Place;
use crate::{proxy, s3, tree};

fn filled(place: &Place, bytes: usize) -> PathBuf {
    place.good(&["create", "data"]);
    let data = place.data("root", "data");
    for number in 0..bytes >> 20 {
        fs::write(data.join(format!("f{number}")), tree::noise(1 << 20, number as u64)).unwrap();
    }
    data
}

#[test]
fn killed_backups_are_invisible_and_shorten_the_next_one() {
    let place = Place::new();
    let data = filled(&place, 48 << 20);
    let url = place.url("repository");
    let begun = Instant::now();
    place.good(&["backup", "data", &place.url("measured")]);
    let whole = begun.elapsed();
    let backups = || fs::read_dir(place.at("repository/backups")).map_or(0, Iterator::count);
    for round in 0..16_u32 {
        let mut child = place
            .command("root", &["backup", "data", &url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * (round + 1) / 20);
        child.kill().unwrap();
        child.wait().unwrap();
        if place.at("repository/lamina-backup.json").exists() {
            place.good(&["backup", "check", &url, "--read-data"]);
        }
    }
    let done = backups();
    let last = place.json(&["backup", "data", &url, "--json"]);
    assert_eq!(backups(), done + 1);
    assert!(last["new_chunks"].as_u64().unwrap() < 40, "most were there: {last}");
    place.good(&["backup", "check", &url, "--read-data"]);
    place.good_on("other", &["restore", &url, "data"]);
    tree::assert_equal(&data, &place.data("other", "data"), true);
    // Killed backups may still be at work, as far as a prune knows.
    let refused = place.refused_on("root", &["backup", "prune", &url]);
    assert!(refused.contains("in use by a backup"), "{refused}");
    // What kills left under a temporary name goes too, after a day.
    fs::write(place.at("repository/chunks/rest#7"), "rest").unwrap();
    let files = ["repository/leases", "repository/chunks"];
    let files = files.into_iter().flat_map(|dir| fs::read_dir(place.at(dir)).unwrap());
    let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    for path in files.into_iter().filter(|path| path.is_file()) {
        let old = std::time::SystemTime::now() - Duration::from_secs(2 * 86_400);
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    }
    place.good(&["backup", "prune", &url]);
    assert_eq!(fs::read_dir(place.at("repository/leases")).unwrap().count(), 0);
    assert!(!place.at("repository/chunks/rest#7").exists());
}

#[test]
fn a_killed_restore_leaves_no_volume() {
    let place = Place::new();
    filled(&place, 32 << 20);
    let url = place.url("repository");
    place.good(&["backup", "data", &url]);
    place.good_on("other", &["create", "another"]);
    for round in 0..10_u64 {
        let mut child = place
            .command("other", &["restore", &url, "data"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(5 + round * 4));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            place.good_on("other", &["rm", "--purge", "data"]);
        }
        place.good_on("other", &["prune"]);
        place.has_no("other", "data");
    }
    place.good_on("other", &["restore", &url, "data"]);
}

#[test]
fn a_server_that_dies_leaves_no_backup() {
    let Some(server) = s3::Server::start() else { return };
    let mut place = Place::new();
    let data = filled(&place, 24 << 20);
    let url = "s3://bucket/x";
    let (port, _) = proxy::start(server.port, 12 << 20);
    s3::use_port(&mut place, port);
    let begun = Instant::now();
    let said = place.refused_on("root", &["backup", "data", url]);
    assert!(said.contains("s3://bucket/x") && said.contains("check the address"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
    s3::use_port(&mut place, server.port);
    assert_eq!(place.json(&["backup", "ls", url, "--json"]).as_array().unwrap().len(), 0);
    let second = place.json(&["backup", "data", url, "--json"]);
    assert!(second["sent_bytes"].as_u64().unwrap() < 20 << 20, "the rest alone: {second}");
    // It dies during a restore, too.
    let (port, _) = proxy::start(server.port, 4 << 10);
    s3::use_port(&mut place, port);
    place.refused_on("other", &["restore", url, "data"]);
    place.has_no("other", "data");
    s3::use_port(&mut place, server.port);
    place.good_on("other", &["restore", url, "data"]);
    tree::assert_equal(&data, &place.data("other", "data"), true);
}

#[test]
fn damaged_and_missing_chunks_are_named_and_make_no_volume() {
    let place = Place::new();
    filled(&place, 8 << 20);
    let url = place.url("repository");
    place.good(&["backup", "data", &url]);
    let folders = fs::read_dir(place.at("repository/chunks")).unwrap();
    let files = folders.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
    let mut chunks: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    chunks.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let (large, list) = (chunks.last().unwrap(), chunks.first().unwrap());
    let good = fs::read(large).unwrap();
    for damage in ["flipped", "cut", "missing"] {
        let mut bad = good.clone();
        match damage {
            "flipped" => bad[good.len() / 2] ^= 1,
            _ => bad.truncate(good.len() / 2),
        }
        match damage {
            "missing" => fs::remove_file(large).unwrap(),
            _ => fs::write(large, &bad).unwrap(),
        }
        let said = place.refused_on("other", &["restore", &url, "data"]);
        assert!(said.starts_with("lamina: f"), "it names the file: {said}");
        place.has_no("other", "data");
        let output = place.run_on("root", &["backup", "check", &url, "--read-data"]);
        assert_eq!(output.status.code(), Some(1));
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(found.lines().count() >= 2 && found.contains(": f"), "{found}");
    }
    // The next backup sends what is missing, also of files that did not change.
    place.good(&["backup", "data", &url]);
    place.good(&["backup", "check", &url, "--read-data"]);
    place.good_on("other", &["restore", &url, "data"]);
    fs::write(list, b"LBK1").unwrap();
    let said = place.refused_on("other", &["restore", &url, "x", "--id", &first_id(&place, &url)]);
    assert!(said.contains("damaged"), "{said}");
    place.has_no("other", "x");
}

fn first_id(place: &Place, url: &str) -> String {
    place.json(&["backup", "ls", url, "--json"])[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn two_backups_at_once_are_both_whole() {
    let place = Place::new();
    let data = filled(&place, 16 << 20);
    let url = place.url("repository");
    let start = || {
        let mut command = place.command("root", &["backup", "data", &url]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for mut child in [start(), start(), start()] {
        assert!(child.wait().unwrap().success());
    }
    let listed = place.json(&["backup", "ls", &url, "--json"]);
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 3);
    place.good(&["backup", "prune", &url, "--grace", "0"]);
    for one in listed {
        let id = one["id"].as_str().unwrap();
        place.good_on("other", &["restore", &url, "data", "--id", id]);
        tree::assert_equal(&data, &place.data("other", "data"), true);
        place.good_on("other", &["rm", "--purge", "data"]);
    }
}

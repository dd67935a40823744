//! Snapshots of the driver `image`: their changes as a list for restic, and a backup of one moment.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::place::Place;
use crate::programs::has;
use crate::tree;

/// A file system of a volume that nobody uses, mounted for a change by hand.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let done = Command::new("mount").args(["-o", "loop"]).arg(image).arg(&at).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(&self.0).status().unwrap().success());
    }
}

fn restic(place: &Place, words: &[&str], list: &[u8], within: &Path) -> serde_json::Value {
    let mut child = Command::new("restic")
        .args(["--repo", &place.text("restic"), "--json"])
        .args(words)
        .envs([("RESTIC_PASSWORD", "x"), ("RESTIC_CACHE_DIR", &place.text("cache"))])
        .current_dir(within)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(list).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Of a backup the last line is the summary; the other commands print as they like.
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_default()
}

#[test]
fn restic_reads_the_files_that_changed_between_snapshots() {
    if !has("restic") || !has("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    place.good(&["create", "data", "--driver", "image", "--size", "64M"]);
    let image = place.at("root/volumes/data/image");
    {
        let content = Mounted::new(&image, place.at("mnt"));
        fs::create_dir(content.0.join("d")).unwrap();
        for number in 0..50 {
            fs::write(content.0.join(format!("d/f{number}")), tree::noise(5000, number)).unwrap();
        }
    }
    place.good(&["snapshot", "create", "data", "one"]);
    {
        let content = Mounted::new(&image, place.at("mnt"));
        fs::write(content.0.join("d/f3"), "changed").unwrap();
        fs::write(content.0.join("new"), "new").unwrap();
        fs::remove_file(content.0.join("d/f4")).unwrap();
    }
    place.good(&["snapshot", "create", "data", "two"]);
    let listed = place.good(&["diff", "data@one", "data@two"]);
    assert_eq!(listed, "C /\nC /d\nC /d/f3\nD /d/f4\nA /new\n");
    assert_eq!(place.good(&["diff", "data@two"]), "");
    let list = place.good(&["diff", "data@one", "data@two", "--print0"]);
    assert_eq!(list, "d/f3\0new\0");
    restic(&place, &["init"], b"", Path::new("/"));
    let content = Mounted::new(&image, place.at("mnt"));
    let words = ["backup", "--files-from-raw", "-"];
    let seen = restic(&place, &words, list.as_bytes(), &content.0);
    let read = (&seen["files_new"], &seen["total_files_processed"]);
    assert_eq!(read, (&2.into(), &2.into()), "{seen}");
    drop(content);
    // A backup of the volume is that of one moment, and leaves no snapshot.
    let url = place.url("repository");
    let first = place.json(&["backup", "data", &url, "--json"]);
    assert_eq!(first["still"], true);
    place.good(&["backup", "data@one", &url]);
    let snapshots = place.json(&["snapshot", "ls", "--json"]);
    assert_eq!(snapshots.as_array().unwrap().len(), 2, "{snapshots}");
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&place.text("root")), "{mounts}");
    let id = first["id"].as_str().unwrap();
    place.good_on("other", &["restore", &url, "data", "--id", id]);
    let shown = place.good_on("other", &["inspect", "data"]);
    assert!(shown.contains("\"driver\": \"image\"") && shown.contains("67108864"), "{shown}");
    let expected = Mounted::new(&image, place.at("expected"));
    let found = Mounted::new(&place.at("other/volumes/data/image"), place.at("found"));
    tree::assert_equal(&expected.0, &found.0, true);
}

//! Export, import and diff.

use std::fs;
use std::process::Command;

use crate::place::Place;
use crate::programs::has;
use crate::tar::Tar;
use crate::tree;

#[test]
fn what_goes_out_comes_in_with_every_attribute() {
    let place = Place::new();
    place.good(&["create", "data"]);
    let data = place.data("root", "data");
    tree::make(&data);
    for words in [&[][..], &["--gzip"], &["--zstd"]] {
        let mut export = vec!["export", "data"];
        export.extend(words);
        let mut child = place.command("root", &export);
        let archive = child.output().unwrap();
        assert!(archive.status.success(), "{archive:?}");
        fs::write(place.at("tar"), &archive.stdout).unwrap();
        place.good_on("other", &["import", &place.text("tar"), "copy"]);
        tree::assert_equal(&data, &place.data("other", "copy"), false);
        place.good_on("other", &["rm", "--purge", "copy"]);
    }
}

#[test]
fn tar_and_podman_read_and_write_the_same_archives() {
    let place = Place::new();
    place.good(&["create", "data"]);
    let data = place.data("root", "data");
    tree::make(&data);
    place.good(&["export", "data", "--output", &place.text("tar")]);
    // GNU tar sets no access lists from attributes, and no capabilities before the owner.
    let tar = |words: &[&str]| {
        let done = Command::new("tar").args(words).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    fs::create_dir(place.at("by-tar")).unwrap();
    let include = "--xattrs-include=*";
    let (archive, by_tar) = (place.text("tar"), place.text("by-tar"));
    tar(&["-x", "-p", "--xattrs", include, "--numeric-owner", "-f", &archive, "-C", &by_tar]);
    tree::assert_equal(&data, &place.at("by-tar"), false);
    let (written, from) = (place.text("written"), data.to_str().unwrap());
    tar(&["-c", "-S", "--format=pax", "--xattrs", include, "-f", &written, "-C", from, "."]);
    place.good(&["import", &written, "again"]);
    tree::assert_equal(&data, &place.data("root", "again"), false);
    if !has("podman") {
        return;
    }
    let podman = |words: &[&str]| {
        let dirs = [("--root", "storage"), ("--runroot", "state")];
        let dirs = dirs.map(|(word, name)| format!("{word}={}", place.text(name)));
        let done = Command::new("podman").args(dirs).args(words).output().unwrap();
        assert!(done.status.success(), "{words:?}: {done:?}");
    };
    podman(&["volume", "create", "v"]);
    podman(&["volume", "import", "v", &archive]);
    podman(&["volume", "export", "v", "--output", &place.text("by-podman")]);
    place.good(&["import", &place.text("by-podman"), "by-podman"]);
    let back = place.data("root", "by-podman");
    for name in ["d/large", "d/small-7", "sparse", ".wh.file", "d/e/deep/f"] {
        assert!(fs::read(back.join(name)).unwrap() == fs::read(data.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn bad_archives_make_no_volume_and_lead_nowhere() {
    let place = Place::new();
    place.good(&["create", "other"]);
    fs::create_dir(place.at("outside")).unwrap();
    let outside = place.text("outside");
    let tar = Tar::default;
    let pax = |text: &str| text.as_bytes().to_vec();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("..", tar().file("../evil").end()),
        (".. inside", tar().file("a/../../evil").end()),
        ("link", tar().member(b'2', "l", &outside, b"").file("l/evil").end()),
        ("link upwards", tar().member(b'2', "l", "../../..", b"").file("l/evil").end()),
        ("directory in a link", {
            tar().member(b'2', "l", &outside, b"").member(b'5', "l/d/", "", b"").end()
        }),
        ("hard link out", tar().member(b'1', "l", "/etc/passwd", b"").end()),
        ("hard link up", tar().member(b'1', "l", "../../../etc/passwd", b"").end()),
        ("hard link through a link", {
            tar().member(b'2', "l", "/etc", b"").member(b'1', "h", "l/passwd", b"").end()
        }),
        ("hard link to nothing", tar().member(b'1', "h", "f", b"").end()),
        ("file above a directory", { tar().file("d/f").member(b'0', "d", "", b"file").end() }),
        ("huge header", {
            let mut bytes = tar().member(b'x', "x", "", b"").0;
            bytes[124..136].copy_from_slice(b"77777777777\0");
            let sum: u32 = bytes
                .iter()
                .enumerate()
                .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
                .sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            bytes
        }),
        (
            "exabytes",
            tar().member(b'x', "x", "", &pax("31 size=9000000000000000000000\n")).file("f").end(),
        ),
        ("cut", tar().file("a").file("b").end()[..1200].to_vec()),
        ("cut between members", tar().file("a").file("b").0),
        ("noise", tree::noise(4096, 3)),
        ("empty", Vec::new()),
        (
            "deep",
            tar().file(&"d/".repeat(45)).member(b'x', "x", "", b"9 path=\n").end()[..600].to_vec(),
        ),
    ];
    for (name, bytes) in cases {
        fs::write(place.at("tar"), bytes).unwrap();
        let said = place.refused_on("root", &["import", &place.text("tar"), "bad"]);
        assert!(said.starts_with("lamina: "), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
        place.has_no("root", "bad");
        assert_eq!(fs::read_dir(place.at("outside")).unwrap().count(), 0, "{name}");
        assert!(!place.at("root/volumes/evil").exists() && !place.at("root/evil").exists());
    }
    // A leading slash is dropped, as tar(1) does.
    fs::write(place.at("tar"), tar().file("/abs/f").end()).unwrap();
    place.good(&["import", &place.text("tar"), "fine"]);
    assert_eq!(fs::read(place.data("root", "fine").join("abs/f")).unwrap(), b"evil");
    assert!(place.refused_on("root", &["import", &place.text("tar"), "fine"]).contains("exists"));
}

#[test]
fn changes_are_listed_for_people_scripts_and_tools() {
    let place = Place::new();
    for name in ["a", "b"] {
        place.good(&["create", name]);
    }
    let at = |volume: &str, name: &str| place.data("root", volume).join(name);
    fs::create_dir(at("a", "d")).unwrap();
    for name in ["d/gone", "kept", "data"] {
        fs::write(at("a", name), name).unwrap();
    }
    let copied = Command::new("cp").arg("-a").arg(at("a", ".")).arg(at("b", "")).status();
    assert!(copied.unwrap().success());
    assert_eq!(place.good(&["diff", "a", "b"]), "");
    fs::remove_file(at("b", "d/gone")).unwrap();
    fs::create_dir(at("b", "d/empty")).unwrap();
    fs::write(at("b", "d/new"), "").unwrap();
    fs::write(at("b", "data"), "atad").unwrap();
    let listed = place.good(&["diff", "a", "b"]);
    assert_eq!(listed, "C /d\nA /d/empty\nD /d/gone\nA /d/new\nC /data\n");
    assert_eq!(place.good(&["diff", "a", "b", "--print0"]), "d/empty\0d/new\0data\0");
    let json = place.json(&["diff", "a", "b", "--json"]);
    assert_eq!(json[2]["kind"], "D");
    assert_eq!(json[2]["path"], "/d/gone");
}

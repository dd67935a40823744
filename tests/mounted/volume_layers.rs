//! The layers of volumes of the driver `union`: those of an image below, none for a snapshot of
//! what did not change, and the changes between snapshots as the layers have them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use laminafs::service::volumes::{NewVolume, VolumeService, serve_by};
use laminafs::types::VolumeName;

use crate::harness::{Site, program};
use crate::random::disturb;
use crate::tools::*;
use crate::volume_plugin::until;

judged!(host:
    a_snapshot_of_what_did_not_change_adds_no_layer,
    a_volume_begins_with_the_content_of_an_image,
    changes_between_snapshots_are_those_of_a_walk,
    a_comparison_of_snapshots_looks_only_at_changes,
    a_commit_of_a_volume_has_what_was_written_to_all_of_its_layers,
);

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn root(s: &Site) -> PathBuf {
    s.root().join("store")
}

fn service(s: &Site) -> VolumeService {
    serve_by(program().to_owned());
    VolumeService::open(&root(s)).unwrap()
}

fn union(volume: &str) -> NewVolume {
    NewVolume { driver: Some("union".to_owned()), ..NewVolume::new(name(volume)) }
}

fn snapshot(volumes: &VolumeService, of: &str) {
    volumes.snapshot(&name("v"), Some(name(of))).unwrap();
}

fn lamina(s: &Site, args: &[&str]) -> String {
    let mut command = Command::new(program());
    let output = command.arg(args[0]).arg("--root").arg(root(s)).args(&args[1..]).output().unwrap();
    assert!(output.status.success(), "lamina {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn layers(s: &Site) -> usize {
    let pool = fs::read_dir(root(s).join("volumes/.layers")).unwrap();
    pool.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir()).count()
}

fn a_snapshot_of_what_did_not_change_adds_no_layer(s: &mut Site) {
    let volumes = service(s);
    volumes.create(union("v")).unwrap();
    let mut data = volumes.publish(&name("v"), "user").unwrap();
    put(data.join("f"), "first");
    snapshot(&volumes, "s0");
    let one = layers(s);
    assert_eq!(one, 2, "a layer and the upper");
    for round in 1..4 {
        // In use, and at rest.
        snapshot(&volumes, &format!("in-use-{round}"));
        volumes.unpublish(&name("v"), "user").unwrap();
        snapshot(&volumes, &format!("at-rest-{round}"));
        data = volumes.publish(&name("v"), "user").unwrap();
        drop(get(data.join("f")));
        assert_eq!(layers(s), one);
    }
    chmod(&data, 0o711);
    snapshot(&volumes, "of-the-root");
    assert_eq!(layers(s), one + 1);
    fs::remove_file(data.join("f")).unwrap();
    snapshot(&volumes, "s1");
    assert_eq!(layers(s), one + 2);
    volumes.clone_volume("v@at-rest-3", name("c")).unwrap();
    let shown = volumes.publish(&name("c"), "reader").unwrap();
    assert_eq!(get(shown.join("f")), b"first");
    assert_eq!(stat(&shown).st_mode & 0o777, 0o755);
    for (volume, holder) in [("c", "reader"), ("v", "user")] {
        volumes.unpublish(&name(volume), holder).unwrap();
    }
}

fn a_volume_begins_with_the_content_of_an_image(s: &mut Site) {
    let volumes = service(s);
    let tree = s.root().join("tree");
    dir(&tree);
    dir(tree.join("d"));
    put(tree.join("d/f"), pattern(200_000));
    put(tree.join("gone"), "gone");
    put(tree.join("link"), "links");
    link(tree.join("link"), tree.join("d/link")).unwrap();
    chown(tree.join("d"), USER, OTHER);
    chmod(&tree, 0o1750);
    lamina(s, &["image", "import", "-t", "base", tree.to_str().unwrap()]);
    let refused = volumes.create_from(NewVolume::new(name("v")), "base").unwrap_err();
    assert!(refused.to_string().contains("--driver union"), "{refused}");
    volumes.create_from(union("v"), "absent").unwrap_err();
    // As Docker asks for it: again and again, and by option.
    let mut asked = NewVolume::new(name("asked"));
    asked.options.insert("from".to_owned(), "base".to_owned());
    let (made, is_new) = volumes.ensure(asked.clone()).unwrap();
    assert_eq!((made.driver.as_str(), is_new), ("union", true));
    assert!(!volumes.ensure(asked.clone()).unwrap().1);
    asked.driver = Some("local".to_owned());
    volumes.ensure(asked).unwrap_err();
    let data = volumes.publish(&name("asked"), "user").unwrap();
    assert!(!names(&data).is_empty());
    volumes.unpublish(&name("asked"), "user").unwrap();
    until(|| volumes.erase(&name("asked")).is_ok());
    let volume = volumes.create_from(union("v"), "base").unwrap();
    volumes.create_from(union("v"), "base").unwrap_err();
    lamina(s, &["image", "rm", "base"]);
    assert_eq!(lamina(s, &["image", "gc"]), "", "the volume needs the layer");
    let data = volumes.publish(&name("v"), "user").unwrap();
    assert_eq!(data, volume.mountpoint);
    let as_imported = |data: &Path| {
        assert!(get(data.join("d/f")) == pattern(200_000));
        assert_eq!(names(data), ["d", "gone", "link"]);
        assert_eq!(stat(data.join("link")).st_ino, stat(data.join("d/link")).st_ino);
        let (d, root) = (stat(data.join("d")), stat(data));
        assert_eq!((d.st_uid, d.st_gid, root.st_mode & 0o7777), (USER, OTHER, 0o1750));
    };
    as_imported(&data);
    snapshot(&volumes, "unchanged");
    let ino = stat(data.join("d/f")).st_ino;
    append(data.join("d/f"), b"more");
    fs::remove_file(data.join("gone")).unwrap();
    put(data.join("d/link"), "both names");
    rename(data.join("d"), data.join("e")).unwrap();
    snapshot(&volumes, "changed");
    assert_eq!(stat(data.join("e/f")).st_ino, ino);
    assert_eq!(get(data.join("link")), b"both names");
    volumes.unpublish(&name("v"), "user").unwrap();
    until(|| volumes.erase(&name("v")).is_ok());
    assert_eq!(lamina(s, &["image", "gc"]), "", "the snapshots need the layer");
    let snapshots = volumes.snapshots(None).unwrap();
    for one in &snapshots {
        volumes.clone_volume(&one.id, name(one.name.as_str())).unwrap();
        volumes.remove_snapshot(&one.id).unwrap();
    }
    assert_eq!(lamina(s, &["image", "gc"]), "", "the clones need the layer");
    as_imported(&volumes.publish(&name("unchanged"), "user").unwrap());
    let changed = volumes.publish(&name("changed"), "user").unwrap();
    assert_eq!(names(&changed), ["e", "link"]);
    assert_eq!(get(changed.join("e/f")).len(), 200_004);
    assert_eq!(stat(changed.join("link")).st_nlink, 2);
    for volume in ["unchanged", "changed"] {
        volumes.unpublish(&name(volume), "user").unwrap();
        until(|| volumes.erase(&name(volume)).is_ok());
    }
    // Nobody needs it any more, once the processes that served the volumes have ended.
    until(|| lamina(s, &["image", "gc"]).lines().count() == 1);
}

fn changes(volumes: &VolumeService, old: &str, new: &str) -> Vec<String> {
    let mut found = Vec::new();
    let reported = volumes.changes(old, new, &mut |change| {
        let (path, kind) = (String::from_utf8_lossy(change.path), change.kind);
        found.push(format!("{kind:?} {path} {} {}", change.is_dir, change.is_empty));
        Ok(())
    });
    reported.unwrap();
    found
}

fn changes_between_snapshots_are_those_of_a_walk(s: &mut Site) {
    const SNAPSHOTS: usize = 6;
    for seed in [1_u64, 2, 3] {
        let volumes = service(s);
        volumes.create(union("v")).unwrap();
        let mut seed = seed;
        for round in 0..SNAPSHOTS {
            if round == 4 {
                until(|| volumes.roll_back(&name("v"), &name("s2")).is_ok());
            }
            let data = volumes.publish(&name("v"), "user").unwrap();
            disturb(&data, &mut seed, 60);
            snapshot(&volumes, &format!("s{round}"));
            volumes.unpublish(&name("v"), "user").unwrap();
            // Of a clone, both sides are compared as a whole.
            volumes.clone_volume(&format!("v@s{round}"), name(&format!("c{round}"))).unwrap();
        }
        let mut seen = 0;
        for old in 0..SNAPSHOTS {
            for new in 0..SNAPSHOTS {
                let layers = changes(&volumes, &format!("v@s{old}"), &format!("v@s{new}"));
                let walked = changes(&volumes, &format!("c{old}"), &format!("c{new}"));
                assert_eq!(layers, walked, "{old} {new}");
                seen += walked.len();
            }
        }
        assert!(seen > 100, "{seen}");
        for clone in 0..SNAPSHOTS {
            until(|| volumes.erase(&name(&format!("c{clone}"))).is_ok());
        }
        for one in volumes.snapshots(None).unwrap() {
            volumes.remove_snapshot(&one.id).unwrap();
        }
        until(|| volumes.erase(&name("v")).is_ok());
    }
}

fn a_comparison_of_snapshots_looks_only_at_changes(s: &mut Site) {
    let volumes = service(s);
    volumes.create(union("v")).unwrap();
    let data = volumes.publish(&name("v"), "user").unwrap();
    for at in 0..100 {
        dir(data.join(format!("d{at}")));
        for file in 0..20 {
            put(data.join(format!("d{at}/{file}")), "same");
        }
    }
    snapshot(&volumes, "old");
    put(data.join("d7/3"), "changed");
    fs::remove_file(data.join("d8/4")).unwrap();
    snapshot(&volumes, "new");
    volumes.unpublish(&name("v"), "user").unwrap();
    // Damage in what both have: whoever looks there gets an error.
    let shared = fs::read_dir(root(s).join("volumes/.layers")).unwrap();
    let shared =
        shared.map(|layer| layer.unwrap().path().join("diff/d50")).find(|dir| dir.is_dir());
    set_xattr(shared.unwrap(), "trusted.overlay.redirect", b"/../d").unwrap();
    let expected =
        ["Changed d7/3 false false", "Changed d8 true false", "Deleted d8/4 false false"];
    assert_eq!(changes(&volumes, "v@old", "v@new"), expected);
    assert_eq!(changes(&volumes, "v@new", "v@old")[2], "Added d8/4 false false");
    for of in ["old", "new"] {
        volumes.clone_volume(&format!("v@{of}"), name(of)).unwrap();
    }
    let walked = volumes.changes("old", "new", &mut |_| Ok(()));
    assert!(walked.is_err(), "a walk of the trees looks at all names");
}

fn a_commit_of_a_volume_has_what_was_written_to_all_of_its_layers(s: &mut Site) {
    for mut seed in [11_u64, 12, 13] {
        let volumes = service(s);
        let tree = s.root().join(format!("tree{seed}"));
        dir(&tree);
        disturb(&tree, &mut seed, 80);
        lamina(s, &["image", "import", "-t", "base", tree.to_str().unwrap()]);
        volumes.create_from(union("v"), "base").unwrap();
        let data = volumes.publish(&name("v"), "user").unwrap();
        for round in 0..4 {
            disturb(&data, &mut seed, 60);
            snapshot(&volumes, &format!("s{round}"));
        }
        disturb(&data, &mut seed, 30);
        // In use, and of a snapshot.
        for (of, kept) in [("v", "now"), ("v@s2", "then")] {
            lamina(s, &["image", "commit", "--volume", of, "-t", kept]);
            volumes.create_from(union(kept), kept).unwrap();
        }
        volumes.unpublish(&name("v"), "user").unwrap();
        volumes.clone_volume("v@s2", name("c")).unwrap();
        assert_eq!(changes(&volumes, "v", "now"), [""; 0]);
        assert_eq!(changes(&volumes, "c", "then"), [""; 0]);
        assert_ne!(changes(&volumes, "v", "c"), [""; 0]);
        let listed = lamina(s, &["image", "history", "now"]);
        assert_eq!(listed.lines().filter(|line| line.contains("commit")).count(), 1, "{listed}");
        assert_eq!(volumes.snapshots(Some(&name("v"))).unwrap().len(), 4, "none is left");
        for one in volumes.snapshots(None).unwrap() {
            volumes.remove_snapshot(&one.id).unwrap();
        }
        for one in ["v", "c", "now", "then"] {
            until(|| volumes.erase(&name(one)).is_ok());
        }
        assert_eq!(layers(s), 0);
        lamina(s, &["image", "rm", "base", "now", "then"]);
    }
    let volumes = service(s);
    volumes.create(NewVolume::new(name("plain"))).unwrap();
    let mut command = Command::new(program());
    command.args(["image", "commit", "-t", "x", "--volume", "plain", "--root"]).arg(root(s));
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(said.contains("plain") && said.contains("the driver union alone"), "{said}");
}

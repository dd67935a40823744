//! Snapshots of several volumes at one moment, while they are written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use laminafs::service::volumes::{NewVolume, VolumeService, serve_by};
use laminafs::types::VolumeName;

use crate::harness::{Site, program};
use crate::tools::*;
use crate::volume_block::{Host, MIB, device, leaves_no_device, read, wish};
use crate::volume_plugin::until;

judged!(host:
    a_snapshot_of_several_volumes_is_one_moment,
    a_device_is_taken_with_files_at_one_moment,
    an_error_lets_the_users_of_a_group_go_on,
    an_error_leaves_no_snapshot_of_any_volume,
    users_wait_for_a_freeze_that_does_not_come_for_ten_seconds_at_most,
);

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn service(s: &Site, names: &[&str]) -> VolumeService {
    serve_by(program().to_owned());
    let volumes = VolumeService::open(&s.root().join("store")).unwrap();
    for one in names {
        let driver = Some("union".to_owned());
        volumes.create(NewVolume { driver, ..NewVolume::new(name(one)) }).unwrap();
    }
    volumes
}

fn image(volumes: &VolumeService, one: &str, kind: &str) {
    let driver = Some("image".to_owned());
    let size = if kind == "xfs" { "300M" } else { "16M" };
    let options =
        [("fs", kind), ("size", size)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let options = BTreeMap::from(options);
    volumes.create(NewVolume { driver, options, ..NewVolume::new(name(one)) }).unwrap();
}

/// The number in a file, 0 without one.
pub fn number(path: &Path) -> u64 {
    fs::read_to_string(path).map_or(0, |text| text.parse().unwrap_or(0))
}

/// Counts in files of several directories, always in this order. Each file appears whole.
pub fn count_on(dirs: &[&Path], file: &str, ends: &AtomicBool) {
    for number in 1_u64.. {
        for dir in dirs {
            if ends.load(Ordering::Relaxed) {
                return;
            }
            let new = dir.join(format!("{file}.new"));
            fs::write(&new, number.to_string()).unwrap();
            fs::rename(&new, dir.join(file)).unwrap();
        }
    }
}

fn a_snapshot_of_several_volumes_is_one_moment(s: &mut Site) {
    let volumes = service(s, &["u", "v", "rest"]);
    image(&volumes, "ext4", "ext4");
    image(&volumes, "xfs", "xfs");
    let data = volumes.publish(&name("rest"), "user").unwrap();
    put(data.join("f"), "at rest");
    volumes.unpublish(&name("rest"), "user").unwrap();
    let all = ["ext4", "u", "xfs", "v"];
    let dirs = all.map(|one| volumes.publish(&name(one), "user").unwrap());
    let dirs = dirs.each_ref().map(|dir| &**dir);
    let mut back = dirs;
    back.reverse();
    let ends = AtomicBool::new(false);
    let together: Vec<VolumeName> = all.into_iter().chain(["rest"]).map(name).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| count_on(&dirs, "there", &ends));
        scope.spawn(|| count_on(&back, "back", &ends));
        until(|| number(&dirs[3].join("there")) > 0 && number(&dirs[0].join("back")) > 0);
        // Two groups at once, with the volumes in another order.
        scope.spawn(|| {
            let turned: Vec<VolumeName> = together.iter().rev().cloned().collect();
            for round in 0..10 {
                volumes.snapshot_together(&turned, Some(name(&format!("t{round}")))).unwrap();
            }
        });
        for round in 0..10 {
            let made = volumes.snapshot_together(&together, Some(name(&format!("s{round}"))));
            assert_eq!(made.unwrap().len(), 5);
        }
        until(|| volumes.snapshots(Some(&name("u"))).unwrap().len() == 20);
        ends.store(true, Ordering::Relaxed);
    });
    for snapshot in volumes.snapshots(Some(&name("u"))).unwrap() {
        let shown = ["ext4", "u", "xfs", "v", "rest"].map(|of| {
            let clone = name(&format!("clone-{of}"));
            volumes.clone_volume(&format!("{of}@{}", snapshot.name), clone.clone()).unwrap();
            volumes.publish(&clone, "reader").unwrap()
        });
        let there = [0, 1, 2, 3].map(|at: usize| number(&shown[at].join("there")));
        let back = [3, 2, 1, 0].map(|at: usize| number(&shown[at].join("back")));
        for counts in [there, back] {
            let [first, .., last] = counts;
            assert!(last > 0 && first <= last + 1, "{}: {counts:?}", snapshot.name);
            assert!(counts.is_sorted_by(|a, b| a >= b), "{}: {counts:?}", snapshot.name);
        }
        assert_eq!(get(shown[4].join("f")), b"at rest");
        for of in ["ext4", "u", "xfs", "v", "rest"] {
            let clone = name(&format!("clone-{of}"));
            volumes.unpublish(&clone, "reader").unwrap();
            until(|| volumes.erase(&clone).is_ok());
        }
    }
    for one in all {
        volumes.unpublish(&name(one), "user").unwrap();
    }
}

/// Counts in a file and on a device in turn, durably.
fn count_in_turn(file: &File, on: &File, ends: &AtomicBool) {
    for number in 1_u64.. {
        for one in [file, on] {
            if ends.load(Ordering::Relaxed) {
                return;
            }
            one.write_all_at(&number.to_le_bytes().repeat(512), 0).unwrap();
            one.sync_data().unwrap();
        }
    }
}

/// The number that [`count_in_turn`] wrote.
fn counted(file: &File) -> u64 {
    let bytes = read(file, 0, 4096);
    assert!(bytes.chunks(8).all(|part| part == &bytes[..8]), "a torn write");
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

fn a_device_is_taken_with_files_at_one_moment(s: &mut Site) {
    let host = Host::new(s, "xfs");
    let volumes = host.volumes();
    image(&volumes, "files", "ext4");
    volumes.create(wish("disk", MIB)).unwrap();
    let both = ["files", "disk"].map(name);
    let path = volumes.publish(&both[0], "user").unwrap().join("f");
    put(&path, [0; 4096]);
    let file = device(&path);
    let disk = device(&volumes.publish_device(&both[1], "user").unwrap());
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| count_in_turn(&file, &disk, &ends));
        for round in 0..8 {
            let last = counted(&disk);
            volumes.snapshot_together(&both, Some(name(&format!("s{round}")))).unwrap();
            until(|| counted(&disk) > last);
        }
        ends.store(true, Ordering::Relaxed);
    });
    let mut before = 0;
    for round in 0..8 {
        let clones = both.each_ref().map(|of| {
            let clone = name(&format!("clone-{of}"));
            volumes.clone_volume(&format!("{of}@s{round}"), clone.clone()).unwrap();
            clone
        });
        let path = volumes.publish(&clones[0], "reader").unwrap().join("f");
        let shown = device(&volumes.publish_device(&clones[1], "reader").unwrap());
        let (file, disk) = (counted(&device(&path)), counted(&shown));
        assert!(file == disk || file == disk + 1, "{file} {disk}");
        assert!(disk >= before, "{disk} after {before}");
        before = disk;
        drop(shown);
        for clone in clones {
            volumes.unpublish(&clone, "reader").unwrap();
            until(|| volumes.erase(&clone).is_ok());
        }
    }
    assert!(before > 0);
    // The users of two devices would have to wait for each other.
    volumes.create(wish("other", MIB)).unwrap();
    let other = device(&volumes.publish_device(&name("other"), "user").unwrap());
    let refused = volumes.snapshot_together(&["disk", "other"].map(name), Some(name("t")));
    let refused = refused.unwrap_err();
    assert!(
        refused.is_in_use() && refused.to_string().contains("another block device"),
        "{refused}"
    );
    drop((file, disk, other));
    for one in ["files", "disk", "other"] {
        volumes.unpublish(&name(one), "user").unwrap();
    }
    assert_eq!(volumes.snapshot_together(&["disk", "other"].map(name), None).unwrap().len(), 2);
    leaves_no_device(s.root());
    drop(volumes);
    host.end();
}

/// Files are frozen already when the copy of the device is refused.
fn an_error_lets_the_users_of_a_group_go_on(s: &mut Site) {
    let host = Host::new(s, "ext4");
    let volumes = host.volumes();
    image(&volumes, "files", "ext4");
    volumes.create(wish("disk", MIB)).unwrap();
    let both = ["files", "disk"].map(name);
    let data = volumes.publish(&both[0], "user").unwrap();
    put(data.join("f"), "first");
    volumes.publish_device(&both[1], "user").unwrap();
    let refused = volumes.snapshot_together(&both, Some(name("s"))).unwrap_err();
    assert!(refused.to_string().contains("attached as a block device"), "{refused}");
    put(data.join("f"), "second");
    assert!(volumes.snapshots(None).unwrap().is_empty());
    volumes.unpublish(&both[1], "user").unwrap();
    assert_eq!(volumes.snapshot_together(&both, Some(name("s"))).unwrap().len(), 2);
    put(data.join("f"), "third");
    volumes.unpublish(&both[0], "user").unwrap();
    volumes.clone_volume("files@s", name("c")).unwrap();
    assert_eq!(get(volumes.publish(&name("c"), "user").unwrap().join("f")), b"second");
    volumes.unpublish(&name("c"), "user").unwrap();
    leaves_no_device(s.root());
    drop(volumes);
    host.end();
}

fn an_error_leaves_no_snapshot_of_any_volume(s: &mut Site) {
    let volumes = service(s, &["u", "v"]);
    volumes.create(NewVolume::new(name("plain"))).unwrap();
    let data = volumes.publish(&name("u"), "user").unwrap();
    put(data.join("f"), "first");
    let none = |names: &[&str]| {
        names.iter().all(|one| volumes.snapshots(Some(&name(one))).unwrap().is_empty())
    };
    let held = volumes.publish(&name("plain"), "user").unwrap();
    let with_plain = ["u", "plain", "v"].map(name);
    let refused = volumes.snapshot_together(&with_plain, Some(name("s"))).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("\"plain\"") && text.contains("in use"), "{text}");
    assert!(refused.hint().unwrap().contains("leave it out"));
    assert!(none(&["u", "plain", "v"]));
    put(held.join("f"), "still there");
    volumes.unpublish(&name("plain"), "user").unwrap();
    let refused = volumes.snapshot_together(&with_plain, Some(name("s"))).unwrap_err();
    assert!(refused.to_string().contains("no snapshots"), "{refused}");
    volumes.snapshot(&name("v"), Some(name("taken"))).unwrap();
    volumes.snapshot_together(&["u", "v"].map(name), Some(name("taken"))).unwrap_err();
    assert!(none(&["u", "plain"]));
    assert_eq!(volumes.snapshots(Some(&name("v"))).unwrap().len(), 1);
    volumes.snapshot_together(&["u", "v"].map(name), Some(name("s"))).unwrap();
    put(data.join("f"), "second");
    volumes.clone_volume("u@s", name("c")).unwrap();
    assert_eq!(get(volumes.publish(&name("c"), "user").unwrap().join("f")), b"first");
    for one in ["u", "c"] {
        volumes.unpublish(&name(one), "user").unwrap();
    }
}

struct Control(BufReader<UnixStream>);

impl Control {
    fn ask(&mut self, request: &str) -> String {
        self.0.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        answer
    }

    /// Holds the users of a volume.
    fn hold(volume: &Path, layer: &str) -> Self {
        let pool = volume.parent().unwrap().join(".layers");
        for dir in ["diff", "work"] {
            fs::create_dir_all(pool.join(layer).join(dir)).unwrap();
        }
        let mut held = Self(BufReader::new(UnixStream::connect(volume.join("control")).unwrap()));
        let prepare = format!("{{\"prepare\":{{\"layer\":\"{layer}\"}}}}");
        assert_eq!(held.ask(&prepare), "{\"error\":null}\n");
        assert_eq!(held.ask("\"hold\""), "{\"error\":null}\n");
        held
    }
}

fn users_wait_for_a_freeze_that_does_not_come_for_ten_seconds_at_most(s: &mut Site) {
    let volumes = service(s, &["v"]);
    let data = volumes.publish(&name("v"), "user").unwrap();
    let volume = data.parent().unwrap();
    let stack = || get(volume.join("stack.json"));
    let before = stack();
    for (file, ends) in [("killed", true), ("silent", false)] {
        let begun = Instant::now();
        let layer = if ends { "a" } else { "b" }.repeat(32);
        let mut control = Some(Control::hold(volume, &layer));
        let wrote = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                put(data.join(file), "written");
                begun.elapsed()
            });
            if ends {
                // As the end of a client that is killed.
                drop(control.take());
            }
            writer.join().unwrap()
        });
        match ends {
            true => assert!(wrote < Duration::from_secs(5), "{wrote:?}"),
            false => assert!((9..15).contains(&wrote.as_secs()), "{wrote:?}"),
        }
        // The freeze comes too late.
        if let Some(mut late) = control {
            let sent = late.0.get_mut().write_all(b"\"freeze\"\n");
            let mut answer = String::new();
            assert!(sent.is_err() || late.0.read_line(&mut answer).is_ok_and(|len| len == 0));
        }
        assert_eq!(stack(), before);
    }
    volumes.snapshot(&name("v"), Some(name("s"))).unwrap();
    assert_ne!(stack(), before);
    assert_eq!(names(&data), ["killed", "silent"]);
    volumes.unpublish(&name("v"), "user").unwrap();
}

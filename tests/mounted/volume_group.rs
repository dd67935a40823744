//! Snapshots of several volumes at one moment, while they are written.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use laminafs::service::volumes::{NewVolume, VolumeService, serve_by};
use laminafs::types::VolumeName;

use crate::harness::{Site, program};
use crate::tools::*;
use crate::volume_plugin::until;

judged!(host:
    a_snapshot_of_several_volumes_is_one_moment,
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
    let volumes = service(s, &["u", "v", "w", "rest"]);
    let data = volumes.publish(&name("rest"), "user").unwrap();
    put(data.join("f"), "at rest");
    volumes.unpublish(&name("rest"), "user").unwrap();
    let all = ["u", "v", "w"].map(name);
    let dirs = all.clone().map(|one| volumes.publish(&one, "user").unwrap());
    let dirs = [&*dirs[0], &*dirs[1], &*dirs[2]];
    let back = [dirs[2], dirs[1], dirs[0]];
    let ends = AtomicBool::new(false);
    let together: Vec<VolumeName> = all.iter().cloned().chain([name("rest")]).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| count_on(&dirs, "there", &ends));
        scope.spawn(|| count_on(&back, "back", &ends));
        until(|| number(&dirs[2].join("there")) > 0 && number(&dirs[0].join("back")) > 0);
        // Two groups at once, with the volumes in another order.
        scope.spawn(|| {
            let turned: Vec<VolumeName> = together.iter().rev().cloned().collect();
            for round in 0..10 {
                volumes.snapshot_together(&turned, Some(name(&format!("t{round}")))).unwrap();
            }
        });
        for round in 0..10 {
            let made = volumes.snapshot_together(&together, Some(name(&format!("s{round}"))));
            assert_eq!(made.unwrap().len(), 4);
        }
        until(|| volumes.snapshots(Some(&name("u"))).unwrap().len() == 20);
        ends.store(true, Ordering::Relaxed);
    });
    for snapshot in volumes.snapshots(Some(&name("u"))).unwrap() {
        let shown = ["u", "v", "w", "rest"].map(|of| {
            let clone = name(&format!("clone-{of}"));
            volumes.clone_volume(&format!("{of}@{}", snapshot.name), clone.clone()).unwrap();
            volumes.publish(&clone, "reader").unwrap()
        });
        let there = [0, 1, 2].map(|at: usize| number(&shown[at].join("there")));
        let back = [2, 1, 0].map(|at: usize| number(&shown[at].join("back")));
        for counts in [there, back] {
            let [first, second, third] = counts;
            assert!(third > 0 && first <= third + 1, "{}: {counts:?}", snapshot.name);
            assert!(first >= second && second >= third, "{}: {counts:?}", snapshot.name);
        }
        assert_eq!(get(shown[3].join("f")), b"at rest");
        for of in ["u", "v", "w", "rest"] {
            let clone = name(&format!("clone-{of}"));
            volumes.unpublish(&clone, "reader").unwrap();
            until(|| volumes.erase(&clone).is_ok());
        }
    }
    for one in &all {
        volumes.unpublish(one, "user").unwrap();
    }
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

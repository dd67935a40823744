//! Two clients on one object at the same moment: no acknowledged data is lost, and no order of the
//! calls causes an error.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{AtFlags, CWD, RenameFlags, StatxFlags, renameat_with, statat, statx};

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    two_writers_of_a_lower_file_both_count,
    appenders_and_chmod_of_a_lower_file_all_count,
    a_file_that_is_removed_all_the_time_opens_or_is_absent,
    directories_that_change_places_keep_their_own_files,
    a_file_is_linked_while_other_links_go_and_its_count_is_asked_for,
);

// The kernel's overlayfs now and then returns EEXIST to an open that meets a replacement.
judged!(beyond_kernel: a_file_that_is_replaced_all_the_time_opens);

const ROUNDS: usize = 20;
const SIZE: usize = 300_000;

/// Runs two functions that start at the same moment.
fn together(one: impl FnOnce() + Send, two: impl FnOnce() + Send) {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            one();
        });
        scope.spawn(|| {
            start.wait();
            two();
        });
    });
}

fn two_writers_of_a_lower_file_both_count(s: &mut Site) {
    for round in 0..ROUNDS {
        put(s.lower(&format!("f{round}")), vec![b'-'; SIZE]);
    }
    s.mount();
    for round in 0..ROUNDS {
        let path = s.at(&format!("f{round}"));
        let write = |byte: u8, offset: u64| {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[byte; 4096], offset).unwrap();
            file.sync_all().unwrap();
        };
        together(|| write(b'a', 65_536), || write(b'b', 196_608));
    }
    s.remount();
    for round in 0..ROUNDS {
        let data = std::fs::read(s.at(&format!("f{round}"))).unwrap();
        assert_eq!(data.len(), SIZE);
        assert!(data[65_536..69_632].iter().all(|byte| *byte == b'a'), "file {round}, first");
        assert!(data[196_608..200_704].iter().all(|byte| *byte == b'b'), "file {round}, second");
    }
}

fn appenders_and_chmod_of_a_lower_file_all_count(s: &mut Site) {
    for round in 0..ROUNDS {
        put(s.lower(&format!("f{round}")), vec![b'-'; SIZE]);
    }
    s.mount();
    for round in 0..ROUNDS {
        let path = s.at(&format!("f{round}"));
        together(
            || append(&path, b"one"),
            || {
                chmod(&path, 0o640);
                append(&path, b"two");
            },
        );
    }
    s.remount();
    for round in 0..ROUNDS {
        let path = s.at(&format!("f{round}"));
        let tail = std::fs::read(&path).unwrap().split_off(SIZE);
        assert!(tail == b"onetwo" || tail == b"twoone", "{:?}", String::from_utf8_lossy(&tail));
        assert_eq!(mode(&path), 0o640);
    }
}

// The kernel subtracts a removed name from the link count that it received last.
fn a_file_is_linked_while_other_links_go_and_its_count_is_asked_for(s: &mut Site) {
    put(s.lower("f"), b"f");
    s.mount();
    let file = s.at("f");
    let stop = AtomicBool::new(false);
    let link = |number: usize| {
        for round in 0..1000 {
            let new = s.at(&format!("link{number}-{round}"));
            std::fs::hard_link(&file, &new).unwrap();
            std::fs::remove_file(&new).unwrap();
        }
    };
    let ask = || {
        while !stop.load(Ordering::Relaxed) {
            statx(CWD, &file, AtFlags::STATX_FORCE_SYNC, StatxFlags::NLINK).unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(ask);
        scope.spawn(ask);
        together(|| link(1), || link(2));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(std::fs::metadata(&file).unwrap().nlink(), 1);
}

fn a_file_that_is_replaced_all_the_time_opens(s: &mut Site) {
    put(s.lower("f"), vec![b'-'; SIZE]);
    s.mount();
    let done = AtomicBool::new(false);
    let (path, other) = (s.at("f"), s.at("new"));
    together(
        || {
            for round in 0..600 {
                put(&other, vec![b'-'; if round % 2 == 0 { 10 } else { SIZE }]);
                std::fs::rename(&other, &path).unwrap();
            }
            done.store(true, Ordering::Release);
        },
        || {
            while !done.load(Ordering::Acquire) {
                let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
                let len = file.metadata().unwrap().len();
                assert!(len == 10 || len == SIZE as u64, "{len}");
                chmod(&path, 0o600);
            }
        },
    );
}

fn a_file_that_is_removed_all_the_time_opens_or_is_absent(s: &mut Site) {
    s.mount();
    let done = AtomicBool::new(false);
    let path = s.at("f");
    together(
        || {
            for _ in 0..1000 {
                put(&path, "x");
                std::fs::remove_file(&path).unwrap();
            }
            done.store(true, Ordering::Release);
        },
        || {
            while !done.load(Ordering::Acquire) {
                match std::fs::File::open(&path).and_then(|file| file.metadata()) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
                }
            }
        },
    );
}

fn directories_that_change_places_keep_their_own_files(s: &mut Site) {
    s.mount();
    for dir in ["a", "b"] {
        std::fs::create_dir(s.at(dir)).unwrap();
        put(s.at(&format!("{dir}/{dir}")), dir);
    }
    let done = AtomicBool::new(false);
    let held = |dir: &str| std::fs::File::open(s.at(dir)).unwrap();
    let (a, b) = (held("a"), held("b"));
    together(
        || {
            for _ in 0..400 {
                let flags = RenameFlags::EXCHANGE;
                renameat_with(CWD, s.at("a"), CWD, s.at("b"), flags).unwrap();
            }
            done.store(true, Ordering::Release);
        },
        || {
            while !done.load(Ordering::Acquire) {
                for (dir, name) in [(&a, "a"), (&b, "b")] {
                    let found = statat(dir, name, AtFlags::empty());
                    assert_eq!(found.unwrap().st_size, 1, "{name}");
                }
            }
        },
    );
}

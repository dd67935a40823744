//! Walks through images: directories are listed ahead of the reader, and only the time shows that.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Site, daemons_of};
use crate::tools::*;

judged!(over_blobs:
    directories_are_listed_ahead,
    a_reader_of_names_is_left_alone,
    a_walk_that_ends_early_holds_nothing,
    a_killed_daemon_is_gone,
    a_daemon_that_would_dump_is_gone,
    where_nothing_is_kept_nothing_is_listed_ahead,
);

/// The number of entries in the tree of `grow`.
const DIRS: u64 = 20 * 30;

fn grow(s: &mut Site) {
    for top in 0..20 {
        for inner in 0..30 {
            let dir = s.lower(&format!("t{top}/i{inner}"));
            fs::create_dir_all(&dir).unwrap();
            for file in 0..4 {
                put(dir.join(format!("f{file}")), pattern(10 * inner + file));
            }
        }
    }
    s.read_only = true;
}

type Seen = BTreeMap<PathBuf, (u32, u64, i64)>;

/// Descends like find(1): attributes of each entry, directories as they come. `seen` can end it.
fn walk(dir: &Path, seen: &mut dyn FnMut(&Path, &fs::Metadata) -> bool) -> io::Result<bool> {
    let entries: Vec<_> = fs::read_dir(dir)?.collect::<io::Result<_>>()?;
    for path in entries.iter().map(fs::DirEntry::path) {
        let stat = path.symlink_metadata()?;
        if !seen(&path, &stat) || (stat.is_dir() && !walk(&path, seen)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn all(root: &Path) -> Seen {
    let mut found = Seen::new();
    walk(root, &mut |path, stat| {
        let name = path.strip_prefix(root).unwrap().to_owned();
        let size = if stat.is_dir() { 0 } else { stat.size() };
        found.insert(name, (stat.mode(), size, stat.mtime()));
        true
    })
    .unwrap();
    found
}

fn directories_are_listed_ahead(s: &mut Site) {
    grow(s);
    let expected = all(&s.lower(""));
    let mut listed = 0;
    // The distance that the thread gets ahead depends on the load of the processors.
    for _ in 0..20 {
        s.mount();
        assert!(all(&s.mnt()) == expected);
        listed = number(&status(s), "listed_ahead");
        assert!(listed <= DIRS, "{listed}");
        s.unmount();
        if listed > DIRS / 10 {
            break;
        }
    }
    assert!(listed > DIRS / 10, "{listed}");
    // Several at once, in several orders.
    s.mount();
    let mnt = s.mnt();
    std::thread::scope(|scope| {
        let whole = || assert!(all(&mnt) == expected);
        scope.spawn(whole);
        scope.spawn(whole);
        for top in (0..20).rev() {
            assert_eq!(all(&mnt.join(format!("t{top}"))).len(), 30 * 5);
        }
    });
}

fn a_reader_of_names_is_left_alone(s: &mut Site) {
    grow(s);
    s.mount();
    for top in 0..20 {
        for inner in 0..30 {
            assert_eq!(names(s.at(&format!("t{top}/i{inner}"))).len(), 4);
        }
    }
    assert_eq!(number(&status(s), "listed_ahead"), 0);
}

fn a_walk_that_ends_early_holds_nothing(s: &mut Site) {
    grow(s);
    for entries in [50, 200, 700, 1500] {
        s.mount();
        let mut left = entries;
        walk(&s.mnt(), &mut |_, _| {
            left -= 1;
            left > 0
        })
        .unwrap();
        // No attempt may find the mount busy.
        unmount(s.mnt(), UnmountFlags::empty()).unwrap();
        s.unmounted();
    }
}

fn a_killed_daemon_is_gone(s: &mut Site) {
    end_in_a_walk(s, Signal::KILL);
}

fn a_daemon_that_would_dump_is_gone(s: &mut Site) {
    end_in_a_walk(s, Signal::ABORT);
}

/// Kills the daemon during a walk, which then fails.
fn end_in_a_walk(s: &mut Site, signal: Signal) {
    grow(s);
    for round in 0..24 {
        s.mount();
        let [daemon] = daemons_of(s.root())[..] else { panic!("one daemon") };
        let pid = Pid::from_raw(daemon).unwrap();
        let mut seen = 0;
        let walked = walk(&s.mnt(), &mut |_, _| {
            seen += 1;
            if seen == 60 * (round + 2) {
                kill_process(pid, signal).unwrap();
            }
            true
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_gone(daemon) {
            assert!(Instant::now() < deadline, "a thread of the daemon stays, walk: {walked:?}");
            std::thread::yield_now();
        }
        unmount(s.mnt(), UnmountFlags::DETACH).unwrap();
        s.unmounted();
    }
}

/// Whether all threads of a process that could hold resources are gone.
fn is_gone(pid: i32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(true, |mut tasks| {
        tasks.all(|task| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z") || stat.contains(") X")
        })
    })
}

fn where_nothing_is_kept_nothing_is_listed_ahead(s: &mut Site) {
    grow(s);
    s.options = "timeout=0".to_owned();
    s.mount();
    assert_eq!(all(&s.mnt()), all(&s.lower("")));
    assert_eq!(number(&status(s), "listed_ahead"), 0);
}

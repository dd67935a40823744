//! Directories with many entries and trees with many levels: linear time, no stack overflow.

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, mkdirat, openat};

use crate::harness::{Site, daemons_of};
use crate::tools::*;

judged!(unions: huge_directory_is_listed_in_time_while_it_changes);
judged!(lamina: deep_tree_is_found_and_removed, deep_tree_is_copied_up_and_renamed);
judged!(lamina: table_of_descriptors_has_its_size_at_the_start);

/// Entries of each part. A listing that started again for each request would take hours.
const ENTRIES: usize = 60_000;
/// Far more than both need, even on a busy host.
const DEADLINE: Duration = Duration::from_secs(60);
/// More levels than the stack of a thread could hold if each level were a call.
const LEVELS: usize = 3_000;

/// A reading in buffers of some thousand entries.
struct Reader {
    folder: OwnedFd,
    seen: BTreeSet<String>,
    /// Names that were listed more than once.
    again: Vec<String>,
}

impl Reader {
    fn new(path: &Path) -> Self {
        let folder = open(path, OFlags::DIRECTORY).unwrap();
        Self { folder, seen: BTreeSet::new(), again: Vec::new() }
    }

    /// Reads one buffer. Returns whether there was any entry.
    fn read(&mut self) -> bool {
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        let mut raw = RawDir::new(self.folder.as_fd(), &mut buffer);
        let mut any = false;
        while let Some(entry) = raw.next() {
            let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
            any = true;
            if !self.seen.insert(name.clone()) {
                self.again.push(name);
            }
            if raw.is_buffer_empty() {
                break;
            }
        }
        any
    }
}

fn huge_directory_is_listed_in_time_while_it_changes(s: &mut Site) {
    for (layer, word) in [(s.lower("d"), "low"), (s.upper("d"), "up")] {
        dir(&layer);
        for number in 0..ENTRIES {
            mknod(layer.join(format!("{word}{number:06}")), FileType::RegularFile, 0, 0).unwrap();
        }
    }
    s.mount();
    let start = Instant::now();
    let folder = s.at("d");
    let mut readers = [Reader::new(&folder), Reader::new(&folder)];
    let (mut step, mut changed) = (0, BTreeSet::new());
    loop {
        // One reader reads a part while the other reads three.
        let ended = !readers[0].read();
        let others = (0..3).fold(false, |any, _| readers[1].read() | any);
        if ended && !others {
            break;
        }
        assert!(start.elapsed() < DEADLINE, "after {:?}: {} read", start.elapsed(), step);
        step += 1;
        if step % 8 != 0 {
            continue;
        }
        for word in ["low", "up"] {
            let gone = format!("{word}{:06}", step * 97 % ENTRIES);
            if changed.insert(gone.clone()) {
                fs::remove_file(folder.join(gone)).unwrap();
            }
            // The file is copied up.
            chmod(folder.join(format!("low{:06}", ENTRIES - step)), 0o600);
        }
        changed.insert(format!("new{step}"));
        put(folder.join(format!("new{step}")), "");
    }
    for reader in &readers {
        assert_eq!(reader.again, Vec::<String>::new(), "told twice");
        let stable = ["low", "up"]
            .iter()
            .flat_map(|word| (0..ENTRIES).map(move |number| format!("{word}{number:06}")));
        let missing = stable.filter(|name| !changed.contains(name) && !reader.seen.contains(name));
        assert_eq!(missing.count(), 0);
    }
    let count = fs::read_dir(&folder).unwrap().count();
    let gone = changed.iter().filter(|name| !name.starts_with("new")).count();
    assert_eq!(count, 2 * ENTRIES - gone + (changed.len() - gone));
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
}

fn run(program: &str, words: &[&str], path: &Path) -> String {
    let output = Command::new(program).arg(path).args(words).output().unwrap();
    // An error message may contain a path with all these names.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {}", said.chars().take(200).collect::<String>());
    String::from_utf8(output.stdout).unwrap()
}

/// A directory this many levels below another.
fn bottom(top: &Path, make: bool) -> OwnedFd {
    let mut here = openat(CWD, top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..LEVELS {
        if make {
            mkdirat(&here, "d", Mode::from_raw_mode(0o755)).unwrap();
        }
        here = openat(&here, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    here
}

fn make_deep(s: &Site) {
    dir(s.lower("top"));
    let bottom = bottom(&s.lower("top"), true);
    let flags = OFlags::CREATE | OFlags::WRONLY;
    drop(openat(bottom, "file", flags, Mode::from_raw_mode(0o644)).unwrap());
}

// The removal of the temporary directory does not go so deep.
fn remove_deep(s: &mut Site) {
    s.unmount();
    run("rm", &["-rf"], &s.lower("top"));
}

fn deep_tree_is_found_and_removed(s: &mut Site) {
    make_deep(s);
    s.mount();
    assert_eq!(run("find", &["-printf", "."], &s.at("top")).len(), LEVELS + 2);
    run("rm", &["-rf"], &s.at("top"));
    assert!(!exists(s.at("top")));
    remove_deep(s);
}

fn deep_tree_is_copied_up_and_renamed(s: &mut Site) {
    make_deep(s);
    s.mount();
    let file = openat(bottom(&s.at("top"), false), "file", OFlags::WRONLY, Mode::empty()).unwrap();
    rustix::io::write(&file, b"changed").unwrap();
    drop(file);
    rename(s.at("top"), s.at("moved")).unwrap();
    let mut data = [0; 16];
    let file =
        openat(bottom(&s.at("moved"), false), "file", OFlags::RDONLY, Mode::empty()).unwrap();
    assert_eq!(rustix::io::read(&file, &mut data).unwrap(), 7);
    drop(file);
    run("rm", &["-rf"], &s.at("moved"));
    assert_eq!(names(s.mnt()), Vec::<String>::new());
    remove_deep(s);
}

fn table_of_descriptors_has_its_size_at_the_start(s: &mut Site) {
    s.mount();
    for pid in daemons_of(s.root()) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap().trim();
        assert!(size.parse::<u64>().unwrap() >= 832, "FDSize {size}");
    }
    assert!(!daemons_of(s.root()).is_empty());
}

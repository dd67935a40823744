//! One client of the benchmarks: does each operation many times below a directory and prints how
//! long one took. `scripts/bench` mounts what it runs on.
//!
//! `ops meta DIR` wants `DIR/tree/dNN/fNNN` (4 KiB files) and `DIR/big/NNNNN`; `ops data DIR` wants
//! `DIR/large` (256 MiB), `DIR/large2` and `DIR/small/NNN` (4 KiB). Each line: name, nanoseconds.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark stops at a surprise"
)]

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Files that are made, moved and removed.
const MADE: usize = 1000;
/// Random reads and writes.
const RANDOM: u64 = 20_000;
const BLOCK: usize = 4096;
const STEP: usize = 1 << 20;

fn report(name: &str, count: u64, act: impl FnOnce()) {
    let start = Instant::now();
    act();
    let nanos = start.elapsed().as_nanos() / u128::from(count.max(1));
    println!("{name} {nanos}");
}

fn each(name: &str, paths: &[PathBuf], mut act: impl FnMut(&Path)) {
    report(name, paths.len() as u64, || paths.iter().for_each(|path| act(path)));
}

fn walk(dir: &Path, stat: bool, found: &mut u64) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        *found += 1;
        if stat {
            black_box(fs::symlink_metadata(entry.path()).unwrap());
        }
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), stat, found);
        }
    }
}

fn read(path: &Path) {
    let mut buffer = [0; BLOCK];
    let mut file = File::open(path).unwrap();
    assert_eq!(file.read(&mut buffer).unwrap(), BLOCK);
}

fn meta(dir: &Path) {
    let tree = dir.join("tree");
    let mut files = Vec::new();
    for d in 0..20 {
        files.extend((0..250).map(|f| tree.join(format!("d{d:02}/f{f:03}"))));
    }
    let stat = |path: &Path| {
        black_box(fs::symlink_metadata(path).unwrap());
    };
    let missing: Vec<PathBuf> = files.iter().map(|path| path.with_extension("no")).collect();
    let absent = |path: &Path| assert!(fs::symlink_metadata(path).is_err());
    let (early, late) = files.split_at(2500);
    each("stat_cold", early, stat);
    each("stat_warm", early, stat);
    each("absent_cold", &missing, absent);
    each("absent_warm", &missing, absent);
    each("read_cold", late, read);
    each("read_warm", late, read);
    let find = |name: &str, stat| {
        let mut found = 0;
        report(name, 5020, || walk(&tree, stat, &mut found));
        assert_eq!(found, 5020);
    };
    find("find_cold", false);
    find("find_warm", false);
    find("find_stat", true);
    let list = |name: &str| {
        report(name, 10_000, || assert_eq!(fs::read_dir(dir.join("big")).unwrap().count(), 10_000));
    };
    list("readdir_cold");
    list("readdir_warm");
    changes(dir, &files);
}

fn changes(dir: &Path, files: &[PathBuf]) {
    let place = dir.join("made");
    fs::create_dir(&place).unwrap();
    let made: Vec<PathBuf> = (0..MADE).map(|n| place.join(format!("f{n}"))).collect();
    let bytes = [7; BLOCK];
    each("create", &made, |path| File::create(path).unwrap().write_all(&bytes).unwrap());
    each("rename", &made, |path| fs::rename(path, path.with_extension("r")).unwrap());
    each("unlink", &made, |path| fs::remove_file(path.with_extension("r")).unwrap());
    each("mkdir", &made, |path| fs::create_dir(path).unwrap());
    each("rmdir", &made, |path| fs::remove_dir(path).unwrap());
    let mode = fs::Permissions::from_mode(0o600);
    let (chmods, rest) = files.split_at(MADE);
    each("chmod_lower", chmods, |path| fs::set_permissions(path, mode.clone()).unwrap());
    let (renames, rest) = rest.split_at(MADE);
    each("rename_lower", renames, |path| fs::rename(path, path.with_extension("r")).unwrap());
    let (removes, _) = rest.split_at(MADE);
    each("unlink_lower", removes, |path| fs::remove_file(path).unwrap());
}

fn sequential(file: &File, len: u64, write: bool) {
    let mut buffer = vec![7; STEP];
    for offset in (0..len).step_by(STEP) {
        if write {
            file.write_all_at(&buffer, offset).unwrap();
        } else {
            file.read_exact_at(&mut buffer, offset).unwrap();
        }
    }
}

fn random(file: &File, len: u64, write: bool) {
    let mut buffer = [7; BLOCK];
    let mut state = 42_u64;
    for _ in 0..RANDOM {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let offset = (state >> 33) % (len / BLOCK as u64) * BLOCK as u64;
        if write {
            file.write_all_at(&buffer, offset).unwrap();
        } else {
            file.read_exact_at(&mut buffer, offset).unwrap();
        }
    }
}

fn data(dir: &Path) {
    let len = fs::metadata(dir.join("large")).unwrap().len();
    let large = File::open(dir.join("large")).unwrap();
    report("rand_read_4k", RANDOM, || random(&large, len, false));
    report("seq_read", len / BLOCK as u64, || sequential(&large, len, false));
    drop(large);
    let options = || OpenOptions::new().read(true).write(true).create(true).clone();
    let new = options().open(dir.join("new")).unwrap();
    report("seq_write", len / BLOCK as u64, || sequential(&new, len, true));
    report("rand_write_4k", RANDOM, || random(&new, len, true));
    report("rand_read_upper_4k", RANDOM, || random(&new, len, false));
    drop(new);
    let small: Vec<PathBuf> = (0..500).map(|n| dir.join(format!("small/{n:03}"))).collect();
    each("copy_up_4k", &small, |path| {
        options().open(path).unwrap().write_all_at(b"x", 0).unwrap();
    });
    report("copy_up_large", 1, || {
        options().open(dir.join("large2")).unwrap().write_all_at(b"x", 0).unwrap();
    });
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1..3) {
        Some([set, dir]) if set == "meta" => meta(Path::new(dir)),
        Some([set, dir]) if set == "data" => data(Path::new(dir)),
        _ => println!("ops meta|data DIR"),
    }
}

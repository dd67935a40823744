//! Directory listings: complete, without duplicates, stable while names come and go, and with the
//! inode numbers and kinds that `stat` returns.

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{FileType, OFlags, RawDir, SeekFrom, seek};

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    listing_shows_each_name_once,
    listing_while_removing_misses_nothing,
    listing_while_adding_doubles_nothing,
    remove_what_is_listed_empties_the_directory,
    offsets_can_be_sought,
    rewound_listing_is_fresh,
    kinds_and_numbers_agree_with_stat,
    dots_are_listed_once,
    large_directory_is_listed_whole,
    removed_directory_lists_nothing,
);
judged!(unions: layers_are_merged, upper_kind_wins);

/// Entries of one pass over a directory from its current position: name, inode, kind, offset.
fn pass(dir: impl AsFd) -> Vec<(String, u64, FileType, u64)> {
    let mut buffer = vec![MaybeUninit::uninit(); 4096];
    let mut raw = RawDir::new(dir, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        entries.push((name, entry.ino(), entry.file_type(), entry.next_entry_cookie()));
    }
    entries
}

fn fill(s: &Site, from: usize, to: usize) {
    dir(s.lower("d"));
    for index in from..to {
        put(s.lower(&format!("d/low{index:04}")), "");
    }
}

fn listing_shows_each_name_once(s: &mut Site) {
    fill(s, 0, 50);
    s.mount();
    for index in 0..50 {
        put(s.at(&format!("d/up{index:04}")), "");
        append(s.at(&format!("d/low{index:04}")), b"x");
    }
    let listed: Vec<String> = names(s.at("d"));
    assert_eq!(listed.len(), 100);
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), 100);
}

fn listing_while_removing_misses_nothing(s: &mut Site) {
    fill(s, 0, 400);
    s.mount();
    for index in 400..800 {
        put(s.at(&format!("d/low{index:04}")), "");
    }
    let mut seen = BTreeSet::new();
    for (count, entry) in fs::read_dir(s.at("d")).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(seen.insert(name.clone()), "{name} came twice");
        if count % 2 == 0 {
            fs::remove_file(s.at("d").join(&name)).unwrap();
        }
    }
    assert_eq!(seen.len(), 800);
    assert_eq!(names(s.at("d")).len(), 400);
}

fn listing_while_adding_doubles_nothing(s: &mut Site) {
    fill(s, 0, 300);
    s.mount();
    let mut seen = Vec::new();
    for (count, entry) in fs::read_dir(s.at("d")).unwrap().enumerate() {
        seen.push(entry.unwrap().file_name().into_string().unwrap());
        if count < 300 {
            put(s.at(&format!("d/added{count}")), "");
        }
    }
    let old = seen.iter().filter(|name| name.starts_with("low")).count();
    assert_eq!(old, 300);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
}

fn remove_what_is_listed_empties_the_directory(s: &mut Site) {
    fill(s, 0, 1500);
    s.mount();
    for entry in fs::read_dir(s.at("d")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(names(s.at("d")), Vec::<String>::new());
    fs::remove_dir(s.at("d")).unwrap();
}

fn offsets_can_be_sought(s: &mut Site) {
    fill(s, 0, 500);
    s.mount();
    put(s.at("d/upper"), "");
    let folder = open(s.at("d"), OFlags::DIRECTORY).unwrap();
    let all = pass(&folder);
    for start in [0, 1, 77, 250, 501] {
        seek(&folder, SeekFrom::Start(all[start].3)).unwrap();
        let rest: Vec<_> = pass(&folder).into_iter().map(|entry| entry.0).collect();
        let expected: Vec<_> = all[start + 1..].iter().map(|entry| entry.0.clone()).collect();
        assert_eq!(rest, expected, "from {start}");
    }
}

fn rewound_listing_is_fresh(s: &mut Site) {
    fill(s, 0, 5);
    s.mount();
    let folder = open(s.at("d"), OFlags::DIRECTORY).unwrap();
    assert_eq!(pass(&folder).len(), 7);
    put(s.at("d/new"), "");
    fs::remove_file(s.at("d/low0000")).unwrap();
    seek(&folder, SeekFrom::Start(0)).unwrap();
    let mut listed: Vec<_> = pass(&folder).into_iter().map(|entry| entry.0).collect();
    listed.sort();
    assert_eq!(listed, [".", "..", "low0001", "low0002", "low0003", "low0004", "new"]);
}

fn kinds_and_numbers_agree_with_stat(s: &mut Site) {
    dir(s.lower("d/low_dir"));
    put(s.lower("d/low_file"), "x");
    put(s.lower("d/changed"), "x");
    link(s.lower("d/low_file"), s.lower("d/low_link")).unwrap();
    std::os::unix::fs::symlink("x", s.lower("d/low_symlink")).unwrap();
    mknod(s.lower("d/low_pipe"), FileType::Fifo, 0, 0).unwrap();
    s.mount();
    dir(s.at("d/up_dir"));
    put(s.at("d/up_file"), "x");
    append(s.at("d/changed"), b"y");
    rename(s.at("d/low_dir"), s.at("d/moved_dir")).unwrap();
    mknod(s.at("d/null"), FileType::CharacterDevice, 1, 3).unwrap();
    for _ in 0..2 {
        let folder = open(s.at("d"), OFlags::DIRECTORY).unwrap();
        for (name, ino, kind, _) in pass(&folder) {
            let meta = if name == ".." { stat(s.mnt()) } else { stat(s.at("d").join(&name)) };
            assert_eq!(ino, meta.st_ino, "{name}");
            assert_eq!(kind, FileType::from_raw_mode(meta.st_mode), "{name}");
        }
        drop(folder);
        s.remount();
    }
}

fn dots_are_listed_once(s: &mut Site) {
    dir(s.lower("d"));
    s.mount();
    for path in [s.mnt(), s.at("d")] {
        let folder = open(&path, OFlags::DIRECTORY).unwrap();
        let listed = pass(&folder);
        assert_eq!(listed.iter().filter(|entry| entry.0 == ".").count(), 1);
        assert_eq!(listed.iter().filter(|entry| entry.0 == "..").count(), 1);
    }
}

fn large_directory_is_listed_whole(s: &mut Site) {
    fill(s, 0, 5000);
    s.mount();
    for index in 5000..6000 {
        put(s.at(&format!("d/low{index:04}")), "");
    }
    for index in (0..5000).step_by(10) {
        fs::remove_file(s.at(&format!("d/low{index:04}"))).unwrap();
    }
    assert_eq!(names(s.at("d")).len(), 5500);
    s.remount();
    assert_eq!(names(s.at("d")).len(), 5500);
}

fn removed_directory_lists_nothing(s: &mut Site) {
    fill(s, 0, 3);
    s.mount();
    let folder = open(s.at("d"), OFlags::DIRECTORY).unwrap();
    fs::remove_dir_all(s.at("d")).unwrap();
    dir(s.at("d"));
    put(s.at("d/other"), "");
    let mut buffer = vec![MaybeUninit::uninit(); 4096];
    let mut raw = RawDir::new(&folder, &mut buffer);
    while let Some(Ok(entry)) = raw.next() {
        let name = entry.file_name().to_bytes();
        assert!(name == b"." || name == b"..", "{name:?}");
    }
}

fn layers_are_merged(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/top"), "1");
    put(s.lower("d/both"), "from the first");
    let second = s.add_lower("second");
    dir(second.join("d/deep"));
    put(second.join("d/both"), "from the second");
    put(second.join("d/deep/x"), "x");
    let third = s.add_lower("third");
    dir(third.join("d/deep"));
    put(third.join("d/deep/y"), "y");
    dir(s.upper("d"));
    put(s.upper("d/upper"), "u");
    s.mount();
    assert_eq!(names(s.at("d")), ["both", "deep", "top", "upper"]);
    assert_eq!(names(s.at("d/deep")), ["x", "y"]);
    assert_eq!(get(s.at("d/both")), b"from the first");
}

fn upper_kind_wins(s: &mut Site) {
    dir(s.lower("x/inner"));
    let second = s.add_lower("second");
    put(second.join("x"), "a file below a directory");
    let third = s.add_lower("third");
    dir(third.join("x"));
    put(third.join("x/unseen"), "");
    s.mount();
    assert_eq!(names(s.at("x")), ["inner"]);
    fs::remove_dir_all(s.at("x")).unwrap();
    assert!(!exists(s.at("x")));
    s.remount();
    assert_eq!(names(s.mnt()), Vec::<String>::new());
}

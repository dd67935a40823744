//! Inode numbers: one for each object, kept over copy-up, rename and remount.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{FileType, OFlags};

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    numbers_stay_over_every_copy_up,
    numbers_stay_over_remount,
    numbers_are_unique,
    descriptor_and_path_agree,
    device_number_is_one,
    number_is_not_reused_while_open,
);
judged!(unions: numbers_are_unique_over_file_systems);

fn prepare(s: &Site) {
    dir(s.lower("d/sub"));
    for name in ["chmod", "chown", "write", "truncate", "xattr", "times", "link", "rename"] {
        put(s.lower(name), name);
    }
    symlink("x", s.lower("symlink")).unwrap();
    mknod(s.lower("pipe"), FileType::Fifo, 0, 0).unwrap();
    mknod(s.lower("device"), FileType::CharacterDevice, 1, 3).unwrap();
}

fn numbers(s: &Site) -> BTreeMap<String, u64> {
    let mut found: BTreeMap<_, _> =
        names(s.mnt()).into_iter().map(|name| (name.clone(), stat(s.at(&name)).st_ino)).collect();
    found.insert("d/sub".to_owned(), stat(s.at("d/sub")).st_ino);
    found.insert(".".to_owned(), stat(s.mnt()).st_ino);
    found
}

fn change_all(s: &Site) {
    chmod(s.at("chmod"), 0o600);
    chown(s.at("chown"), 1, 1);
    append(s.at("write"), b"x");
    drop(open(s.at("truncate"), OFlags::WRONLY | OFlags::TRUNC).unwrap());
    set_xattr(s.at("xattr"), "user.a", b"b").unwrap();
    fs::File::open(s.at("times")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    link(s.at("link"), s.at("link2")).unwrap();
    fs::remove_file(s.at("link2")).unwrap();
    rename(s.at("rename"), s.at("renamed")).unwrap();
    rename(s.at("renamed"), s.at("rename")).unwrap();
    chown(s.at("symlink"), 1, 1);
    chmod(s.at("pipe"), 0o600);
    chmod(s.at("device"), 0o600);
    chmod(s.at("d"), 0o700);
    put(s.at("d/sub/new"), "x");
    fs::remove_file(s.at("d/sub/new")).unwrap();
}

fn numbers_stay_over_every_copy_up(s: &mut Site) {
    prepare(s);
    s.mount();
    let before = numbers(s);
    change_all(s);
    assert_eq!(numbers(s), before);
    drop_caches();
    assert_eq!(numbers(s), before);
}

fn numbers_stay_over_remount(s: &mut Site) {
    prepare(s);
    s.mount();
    let before = numbers(s);
    s.remount();
    assert_eq!(numbers(s), before);
    change_all(s);
    s.remount();
    assert_eq!(numbers(s), before);
    put(s.at("new"), "x");
    let new = stat(s.at("new")).st_ino;
    s.remount();
    assert_eq!(stat(s.at("new")).st_ino, new);
}

fn numbers_are_unique(s: &mut Site) {
    prepare(s);
    s.mount();
    change_all(s);
    for index in 0..50 {
        put(s.at(&format!("new{index}")), "x");
    }
    let found = numbers(s);
    let mut owner = BTreeMap::new();
    for (name, ino) in &found {
        assert_eq!(owner.insert(*ino, name), None, "{name} shares {ino}");
    }
}

fn descriptor_and_path_agree(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    let reader = open(s.at("f"), OFlags::RDONLY).unwrap();
    append(s.at("f"), b"y");
    let writer = open(s.at("f"), OFlags::RDWR).unwrap();
    let seen = [rustix::fs::fstat(&reader), rustix::fs::fstat(&writer)];
    for meta in seen {
        let meta = meta.unwrap();
        assert_eq!((meta.st_ino, meta.st_size), (stat(s.at("f")).st_ino, 2));
        assert_eq!(meta.st_dev, stat(s.at("f")).st_dev);
    }
}

fn device_number_is_one(s: &mut Site) {
    prepare(s);
    s.mount();
    change_all(s);
    let root = stat(s.mnt()).st_dev;
    for name in names(s.mnt()) {
        assert_eq!(stat(s.at(&name)).st_dev, root, "{name}");
    }
}

fn number_is_not_reused_while_open(s: &mut Site) {
    s.mount();
    put(s.at("f"), "x");
    let held = open(s.at("f"), OFlags::RDONLY).unwrap();
    fs::remove_file(s.at("f")).unwrap();
    let held = rustix::fs::fstat(&held).unwrap().st_ino;
    for index in 0..100 {
        let path = s.at(&format!("g{index}"));
        put(&path, "x");
        assert_ne!(stat(&path).st_ino, held);
    }
}

fn numbers_are_unique_over_file_systems(s: &mut Site) {
    let second = s.add_lower("second");
    rustix::mount::mount("none", &second, "tmpfs", rustix::mount::MountFlags::empty(), None)
        .unwrap();
    // New file systems assign similar numbers, so collisions are likely.
    for index in 0..300 {
        put(second.join(format!("second{index}")), "x");
        put(s.lower(&format!("first{index}")), "x");
    }
    s.mount();
    let mut owner = BTreeMap::new();
    for name in names(s.mnt()) {
        let meta = stat(s.at(&name));
        assert_eq!(owner.insert((meta.st_dev, meta.st_ino), name.clone()), None, "{name}");
    }
    let before = stat(s.at("second7")).st_ino;
    append(s.at("second7"), b"y");
    assert_eq!(stat(s.at("second7")).st_ino, before);
    s.remount();
    assert_eq!(stat(s.at("second7")).st_ino, before);
    s.unmount();
    rustix::mount::unmount(&second, rustix::mount::UnmountFlags::empty()).unwrap();
}

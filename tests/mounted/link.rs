//! Hard links, link counts, unlinked files that are still open, and files without a name.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    link_makes_a_second_name,
    link_refuses_directories_and_taken_names,
    lower_links_stay_linked_after_copy_up,
    lower_links_stay_linked_over_directories,
    lower_link_count_is_right_at_once,
    link_to_lower_file_survives_remount,
    link_to_symlink_links_the_symlink,
    removing_one_of_two_names_keeps_the_other,
    replacing_one_of_two_lower_names_leaves_the_other,
    unlinked_open_file_can_be_written_and_changed,
    unlinked_then_made_again_are_two_files,
    last_name_gone_means_no_links,
    unnamed_file_gets_a_name,
    unnamed_file_without_name_leaves_nothing,
    unnamed_exclusive_file_gets_no_name,
    unlinked_descriptor_cannot_be_linked_again,
    directory_link_count_follows_subdirectories,
);
// Overlayfs keeps the link count of the lower object that a whiteout hides.
judged!(beyond_kernel: unlinked_open_lower_file_reads_on);

fn link_makes_a_second_name(s: &mut Site) {
    put(s.lower("a"), "x");
    s.mount();
    link(s.at("a"), s.at("b")).unwrap();
    assert_eq!(stat(s.at("a")).st_nlink, 2);
    assert_eq!(stat(s.at("a")).st_ino, stat(s.at("b")).st_ino);
    append(s.at("b"), b"y");
    assert_eq!(get(s.at("a")), b"xy");
    chmod(s.at("a"), 0o600);
    assert_eq!(mode(s.at("b")), 0o600);
}

fn link_refuses_directories_and_taken_names(s: &mut Site) {
    put(s.lower("a"), "x");
    dir(s.lower("d"));
    s.mount();
    fails(link(s.at("d"), s.at("e")), Errno::PERM);
    fails(link(s.at("a"), s.at("d")), Errno::EXIST);
    fails(link(s.at("missing"), s.at("m")), Errno::NOENT);
    fails(link(s.at("a"), s.at("missing/m")), Errno::NOENT);
}

fn lower_links_stay_linked_after_copy_up(s: &mut Site) {
    put(s.lower("a"), "x");
    link(s.lower("a"), s.lower("b")).unwrap();
    s.mount();
    append(s.at("a"), b"1");
    assert_eq!(get(s.at("b")), b"x1");
    append(s.at("b"), b"2");
    for _ in 0..2 {
        assert_eq!(get(s.at("a")), b"x12");
        assert_eq!(get(s.at("b")), b"x12");
        assert_eq!(stat(s.at("a")).st_ino, stat(s.at("b")).st_ino);
        s.remount();
    }
}

fn lower_links_stay_linked_over_directories(s: &mut Site) {
    dir(s.lower("d/e"));
    put(s.lower("d/a"), "x");
    link(s.lower("d/a"), s.lower("d/e/b")).unwrap();
    link(s.lower("d/a"), s.lower("c")).unwrap();
    s.mount();
    rename(s.at("d"), s.at("moved")).unwrap();
    append(s.at("moved/e/b"), b"!");
    assert_eq!(get(s.at("c")), b"x!");
    s.remount();
    append(s.at("c"), b"?");
    assert_eq!(get(s.at("moved/a")), b"x!?");
    assert_eq!(stat(s.at("moved/a")).st_nlink, 3);
}

fn lower_link_count_is_right_at_once(s: &mut Site) {
    put(s.lower("a"), "x");
    for name in ["b", "c"] {
        link(s.lower("a"), s.lower(name)).unwrap();
    }
    s.mount();
    assert_eq!(stat(s.at("a")).st_nlink, 3);
    append(s.at("a"), b"y");
    assert_eq!(stat(s.at("a")).st_nlink, 3);
    fs::remove_file(s.at("b")).unwrap();
    assert_eq!(stat(s.at("a")).st_nlink, 2);
    link(s.at("c"), s.at("d")).unwrap();
    for _ in 0..2 {
        assert_eq!(stat(s.at("a")).st_nlink, 3);
        assert_eq!(stat(s.at("d")).st_nlink, 3);
        s.remount();
    }
}

fn link_to_lower_file_survives_remount(s: &mut Site) {
    put(s.lower("a"), "x");
    s.mount();
    link(s.at("a"), s.at("b")).unwrap();
    fs::remove_file(s.at("a")).unwrap();
    s.remount();
    assert_eq!(names(s.mnt()), ["b"]);
    assert_eq!(get(s.at("b")), b"x");
    assert_eq!(stat(s.at("b")).st_nlink, 1);
}

fn link_to_symlink_links_the_symlink(s: &mut Site) {
    symlink("target", s.lower("l")).unwrap();
    s.mount();
    link(s.at("l"), s.at("m")).unwrap();
    assert_eq!(fs::read_link(s.at("m")).unwrap().to_str(), Some("target"));
    assert_eq!(stat(s.at("l")).st_nlink, 2);
}

fn removing_one_of_two_names_keeps_the_other(s: &mut Site) {
    put(s.lower("a"), "x");
    link(s.lower("a"), s.lower("b")).unwrap();
    s.mount();
    fs::remove_file(s.at("a")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(s.mnt()), ["b"]);
        assert_eq!(get(s.at("b")), b"x");
        assert_eq!(stat(s.at("b")).st_nlink, 1);
        s.remount();
    }
}

fn replacing_one_of_two_lower_names_leaves_the_other(s: &mut Site) {
    put(s.lower("a"), "old");
    link(s.lower("a"), s.lower("b")).unwrap();
    put(s.lower("c"), "new");
    s.mount();
    rename(s.at("c"), s.at("a")).unwrap();
    for _ in 0..2 {
        assert_eq!(get(s.at("a")), b"new");
        assert_eq!(get(s.at("b")), b"old");
        assert_eq!((stat(s.at("a")).st_nlink, stat(s.at("b")).st_nlink), (1, 1));
        s.remount();
    }
}

fn unlinked_open_lower_file_reads_on(s: &mut Site) {
    put(s.lower("a"), "still here");
    s.mount();
    let held = open(s.at("a"), OFlags::RDONLY).unwrap();
    fs::remove_file(s.at("a")).unwrap();
    drop_caches();
    let mut seen = [0u8; 10];
    assert_eq!(rustix::io::pread(&held, &mut seen, 0).unwrap(), 10);
    assert_eq!(&seen, b"still here");
    assert_eq!(rustix::fs::fstat(&held).unwrap().st_nlink, 0);
}

fn unlinked_open_file_can_be_written_and_changed(s: &mut Site) {
    put(s.lower("a"), "lower");
    s.mount();
    let held = open(s.at("a"), OFlags::RDWR).unwrap();
    fs::remove_file(s.at("a")).unwrap();
    rustix::io::pwrite(&held, b"UPPER and more", 0).unwrap();
    rustix::fs::ftruncate(&held, 9).unwrap();
    rustix::fs::fchmod(&held, Mode::from_raw_mode(0o600)).unwrap();
    rustix::fs::fsync(&held).unwrap();
    let meta = rustix::fs::fstat(&held).unwrap();
    assert_eq!((meta.st_size, meta.st_nlink, meta.st_mode & 0o777), (9, 0, 0o600));
    let mut seen = [0u8; 16];
    assert_eq!(rustix::io::pread(&held, &mut seen, 0).unwrap(), 9);
    assert_eq!(&seen[..9], b"UPPER and");
    drop(held);
    assert_eq!(names(s.mnt()), Vec::<String>::new());
}

fn unlinked_then_made_again_are_two_files(s: &mut Site) {
    put(s.lower("a"), "old");
    s.mount();
    let held = open(s.at("a"), OFlags::RDWR).unwrap();
    fs::remove_file(s.at("a")).unwrap();
    put(s.at("a"), "new");
    rustix::io::pwrite(&held, b"OLD", 0).unwrap();
    assert_eq!(get(s.at("a")), b"new");
    assert_ne!(rustix::fs::fstat(&held).unwrap().st_ino, stat(s.at("a")).st_ino);
}

fn last_name_gone_means_no_links(s: &mut Site) {
    put(s.lower("a"), "x");
    s.mount();
    link(s.at("a"), s.at("b")).unwrap();
    let held = open(s.at("a"), OFlags::RDONLY).unwrap();
    fs::remove_file(s.at("a")).unwrap();
    assert_eq!(rustix::fs::fstat(&held).unwrap().st_nlink, 1);
    fs::remove_file(s.at("b")).unwrap();
    assert_eq!(rustix::fs::fstat(&held).unwrap().st_nlink, 0);
}

fn unnamed_file_gets_a_name(s: &mut Site) {
    dir(s.lower("d"));
    s.mount();
    let file = open(s.at("d"), OFlags::TMPFILE | OFlags::RDWR).unwrap();
    rustix::io::write(&file, b"unnamed").unwrap();
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_nlink, 0);
    assert_eq!(names(s.at("d")), Vec::<String>::new());
    let proc = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, proc, CWD, s.at("d/named"), AtFlags::SYMLINK_FOLLOW).unwrap();
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_nlink, 1);
    assert_eq!(stat(s.at("d/named")).st_ino, rustix::fs::fstat(&file).unwrap().st_ino);
    rustix::io::write(&file, b"+").unwrap();
    drop(file);
    s.remount();
    assert_eq!(get(s.at("d/named")), b"unnamed+");
}

fn unnamed_file_without_name_leaves_nothing(s: &mut Site) {
    s.mount();
    let file = open(s.mnt(), OFlags::TMPFILE | OFlags::RDWR).unwrap();
    rustix::io::write(&file, b"unnamed").unwrap();
    let mut seen = [0u8; 7];
    rustix::io::pread(&file, &mut seen, 0).unwrap();
    assert_eq!(&seen, b"unnamed");
    drop(file);
    s.unmount();
    if s.is_union() {
        assert_eq!(names(s.upper("")), Vec::<String>::new());
    }
}

fn unnamed_exclusive_file_gets_no_name(s: &mut Site) {
    s.mount();
    let file = open(s.mnt(), OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL).unwrap();
    let proc = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    let linked = rustix::fs::linkat(CWD, proc, CWD, s.at("named"), AtFlags::SYMLINK_FOLLOW);
    fails(linked, Errno::NOENT);
}

fn unlinked_descriptor_cannot_be_linked_again(s: &mut Site) {
    put(s.lower("a"), "x");
    s.mount();
    let held = open(s.at("a"), OFlags::RDWR).unwrap();
    fs::remove_file(s.at("a")).unwrap();
    let proc = format!("/proc/thread-self/fd/{}", held.as_raw_fd());
    let linked = rustix::fs::linkat(CWD, proc, CWD, s.at("b"), AtFlags::SYMLINK_FOLLOW);
    fails(linked, Errno::NOENT);
}

fn directory_link_count_follows_subdirectories(s: &mut Site) {
    s.mount();
    dir(s.at("d"));
    let alone = stat(s.at("d")).st_nlink;
    dir(s.at("d/a"));
    dir(s.at("d/b"));
    let with_two = stat(s.at("d")).st_nlink;
    // A link count of 1 means that the file system does not count links.
    assert!((alone, with_two) == (2, 4) || (alone, with_two) == (1, 1), "{alone} {with_two}");
}

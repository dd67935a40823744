//! Renames: rules, errnos, flags, and directories that lie in lower layers.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    rename_moves_a_lower_file,
    rename_replaces_a_file,
    rename_keeps_the_inode,
    rename_to_itself_and_to_a_link_of_itself_does_nothing,
    rename_checks_kinds,
    rename_into_own_subtree_is_refused,
    directory_replaces_only_an_empty_one,
    directory_replaces_one_emptied_of_lower_names,
    lower_directory_moves_with_its_tree,
    merged_directory_moves_with_its_tree,
    moved_directory_leaves_nothing_behind,
    renamed_directory_can_be_renamed_again,
    file_moved_into_renamed_directory_stays,
    swap_of_names_by_three_renames,
    noreplace_refuses_what_exists,
    exchange_of_lower_files,
    exchange_of_file_and_directory,
    exchange_of_lower_directories,
    exchange_wants_both,
    rename_of_open_file_keeps_the_descriptor,
    links_and_special_files_move,
    rename_updates_the_change_time,
    rename_of_directory_updates_its_parent_entry,
);
judged!(beyond_kernel: rename_over_an_open_file_keeps_the_old_one, whiteout_flag_leaves_a_device);

fn rename2(s: &Site, from: &str, to: &str, flags: RenameFlags) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, s.at(from), CWD, s.at(to), flags)
}

fn rename_moves_a_lower_file(s: &mut Site) {
    put(s.lower("a"), "content");
    dir(s.lower("d"));
    s.mount();
    rename(s.at("a"), s.at("d/b")).unwrap();
    assert_eq!(names(s.mnt()), ["d"]);
    assert_eq!(get(s.at("d/b")), b"content");
    s.remount();
    assert_eq!(names(s.mnt()), ["d"]);
    assert_eq!(get(s.at("d/b")), b"content");
}

fn rename_replaces_a_file(s: &mut Site) {
    put(s.lower("a"), "new");
    put(s.lower("b"), "old");
    s.mount();
    rename(s.at("a"), s.at("b")).unwrap();
    assert_eq!(names(s.mnt()), ["b"]);
    assert_eq!(get(s.at("b")), b"new");
    s.remount();
    assert_eq!(get(s.at("b")), b"new");
    assert!(!exists(s.at("a")));
}

fn rename_keeps_the_inode(s: &mut Site) {
    put(s.lower("a"), "x");
    dir(s.lower("d"));
    s.mount();
    let before = (stat(s.at("a")).st_ino, stat(s.at("d")).st_ino);
    rename(s.at("a"), s.at("b")).unwrap();
    rename(s.at("d"), s.at("e")).unwrap();
    assert_eq!((stat(s.at("b")).st_ino, stat(s.at("e")).st_ino), before);
}

fn rename_to_itself_and_to_a_link_of_itself_does_nothing(s: &mut Site) {
    put(s.lower("a"), "x");
    s.mount();
    rename(s.at("a"), s.at("a")).unwrap();
    link(s.at("a"), s.at("b")).unwrap();
    rename(s.at("a"), s.at("b")).unwrap();
    assert_eq!(names(s.mnt()), ["a", "b"]);
    assert_eq!(stat(s.at("a")).st_nlink, 2);
}

fn rename_checks_kinds(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    s.mount();
    fails(rename(s.at("f"), s.at("d")), Errno::ISDIR);
    fails(rename(s.at("d"), s.at("f")), Errno::NOTDIR);
    fails(rename(s.at("missing"), s.at("f")), Errno::NOENT);
    fails(rename(s.at("f"), s.at("missing/x")), Errno::NOENT);
    fails(rename(s.at("f"), s.at("f/x")), Errno::NOTDIR);
    assert_eq!(names(s.mnt()), ["d", "f"]);
}

fn rename_into_own_subtree_is_refused(s: &mut Site) {
    dir(s.lower("d/e"));
    s.mount();
    fails(rename(s.at("d"), s.at("d/e/f")), Errno::INVAL);
    fails(rename(s.at("d/e"), s.at("d")), Errno::NOTEMPTY);
}

fn directory_replaces_only_an_empty_one(s: &mut Site) {
    dir(s.lower("a/x"));
    dir(s.lower("full/y"));
    dir(s.lower("empty"));
    s.mount();
    fails(rename(s.at("a"), s.at("full")), Errno::NOTEMPTY);
    rename(s.at("a"), s.at("empty")).unwrap();
    assert_eq!(names(s.mnt()), ["empty", "full"]);
    assert_eq!(names(s.at("empty")), ["x"]);
    s.remount();
    assert_eq!(names(s.at("empty")), ["x"]);
}

fn directory_replaces_one_emptied_of_lower_names(s: &mut Site) {
    dir(s.lower("a"));
    put(s.lower("a/new"), "n");
    dir(s.lower("b"));
    put(s.lower("b/old"), "o");
    s.mount();
    fs::remove_file(s.at("b/old")).unwrap();
    rename(s.at("a"), s.at("b")).unwrap();
    assert_eq!(names(s.at("b")), ["new"]);
    s.remount();
    assert_eq!(names(s.mnt()), ["b"]);
    assert_eq!(names(s.at("b")), ["new"]);
    assert!(!exists(s.at("b/old")));
}

fn lower_directory_moves_with_its_tree(s: &mut Site) {
    dir(s.lower("d/sub/deep"));
    put(s.lower("d/f"), "one");
    put(s.lower("d/sub/deep/g"), "two");
    s.mount();
    rename(s.at("d"), s.at("e")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(s.mnt()), ["e"]);
        assert_eq!(names(s.at("e")), ["f", "sub"]);
        assert_eq!(get(s.at("e/sub/deep/g")), b"two");
        s.remount();
    }
}

fn merged_directory_moves_with_its_tree(s: &mut Site) {
    dir(s.lower("d/sub"));
    put(s.lower("d/low"), "l");
    put(s.lower("d/gone"), "g");
    put(s.lower("d/sub/deep"), "d");
    s.mount();
    put(s.at("d/up"), "u");
    fs::remove_file(s.at("d/gone")).unwrap();
    dir(s.at("elsewhere"));
    rename(s.at("d"), s.at("elsewhere/e")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(s.mnt()), ["elsewhere"]);
        assert_eq!(names(s.at("elsewhere/e")), ["low", "sub", "up"]);
        assert_eq!(get(s.at("elsewhere/e/sub/deep")), b"d");
        s.remount();
    }
    append(s.at("elsewhere/e/sub/deep"), b"+");
    assert_eq!(get(s.at("elsewhere/e/sub/deep")), b"d+");
}

fn moved_directory_leaves_nothing_behind(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/f"), "old");
    s.mount();
    rename(s.at("d"), s.at("e")).unwrap();
    dir(s.at("d"));
    for _ in 0..2 {
        assert_eq!(names(s.at("d")), Vec::<String>::new());
        assert!(!exists(s.at("d/f")));
        assert_eq!(get(s.at("e/f")), b"old");
        s.remount();
    }
}

fn renamed_directory_can_be_renamed_again(s: &mut Site) {
    dir(s.lower("a/b"));
    put(s.lower("a/b/f"), "x");
    s.mount();
    rename(s.at("a"), s.at("c")).unwrap();
    rename(s.at("c/b"), s.at("b2")).unwrap();
    s.remount();
    rename(s.at("b2"), s.at("c/b3")).unwrap();
    rename(s.at("c"), s.at("a")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(s.mnt()), ["a"]);
        assert_eq!(names(s.at("a")), ["b3"]);
        assert_eq!(get(s.at("a/b3/f")), b"x");
        s.remount();
    }
}

fn file_moved_into_renamed_directory_stays(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/low"), "l");
    put(s.lower("f"), "f");
    s.mount();
    rename(s.at("d"), s.at("e")).unwrap();
    rename(s.at("f"), s.at("e/low")).unwrap();
    s.remount();
    assert_eq!(names(s.at("e")), ["low"]);
    assert_eq!(get(s.at("e/low")), b"f");
    fs::remove_file(s.at("e/low")).unwrap();
    assert_eq!(names(s.at("e")), Vec::<String>::new());
    s.remount();
    assert_eq!(names(s.at("e")), Vec::<String>::new());
    fs::remove_dir(s.at("e")).unwrap();
}

fn swap_of_names_by_three_renames(s: &mut Site) {
    dir(s.lower("a"));
    put(s.lower("a/1"), "");
    dir(s.lower("b"));
    put(s.lower("b/2"), "");
    s.mount();
    rename(s.at("a"), s.at("t")).unwrap();
    rename(s.at("b"), s.at("a")).unwrap();
    rename(s.at("t"), s.at("b")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(s.at("a")), ["2"]);
        assert_eq!(names(s.at("b")), ["1"]);
        assert_eq!(names(s.mnt()), ["a", "b"]);
        s.remount();
    }
}

fn noreplace_refuses_what_exists(s: &mut Site) {
    put(s.lower("a"), "a");
    put(s.lower("b"), "b");
    s.mount();
    fails(rename2(s, "a", "b", RenameFlags::NOREPLACE), Errno::EXIST);
    fs::remove_file(s.at("b")).unwrap();
    rename2(s, "a", "b", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(names(s.mnt()), ["b"]);
    assert_eq!(get(s.at("b")), b"a");
}

fn exchange_of_lower_files(s: &mut Site) {
    put(s.lower("a"), "a");
    put(s.lower("b"), "b");
    s.mount();
    rename2(s, "a", "b", RenameFlags::EXCHANGE).unwrap();
    for _ in 0..2 {
        assert_eq!((get(s.at("a")), get(s.at("b"))), (b"b".to_vec(), b"a".to_vec()));
        s.remount();
    }
}

fn exchange_of_file_and_directory(s: &mut Site) {
    put(s.lower("f"), "f");
    dir(s.lower("d"));
    put(s.lower("d/in"), "i");
    s.mount();
    rename2(s, "f", "d", RenameFlags::EXCHANGE).unwrap();
    for _ in 0..2 {
        assert_eq!(get(s.at("d")), b"f");
        assert_eq!(names(s.at("f")), ["in"]);
        s.remount();
    }
}

fn exchange_of_lower_directories(s: &mut Site) {
    for name in ["a", "b"] {
        dir(s.lower(&format!("{name}/sub")));
        put(s.lower(&format!("{name}/sub/{name}")), name);
    }
    s.mount();
    rename2(s, "a", "b", RenameFlags::EXCHANGE).unwrap();
    for _ in 0..2 {
        assert_eq!(names(s.at("a/sub")), ["b"]);
        assert_eq!(names(s.at("b/sub")), ["a"]);
        s.remount();
    }
}

fn exchange_wants_both(s: &mut Site) {
    put(s.lower("a"), "a");
    put(s.lower("gone"), "a");
    s.mount();
    fs::remove_file(s.at("gone")).unwrap();
    fails(rename2(s, "a", "gone", RenameFlags::EXCHANGE), Errno::NOENT);
    fails(rename2(s, "gone", "a", RenameFlags::EXCHANGE), Errno::NOENT);
    fails(rename2(s, "a", "a", RenameFlags::EXCHANGE | RenameFlags::NOREPLACE), Errno::INVAL);
}

fn whiteout_flag_leaves_a_device(s: &mut Site) {
    put(s.lower("a"), "a");
    s.mount();
    rename2(s, "a", "b", RenameFlags::WHITEOUT).unwrap();
    assert_eq!(get(s.at("b")), b"a");
    let left = stat(s.at("a"));
    assert_eq!(FileType::from_raw_mode(left.st_mode), FileType::CharacterDevice);
    assert_eq!(left.st_rdev, 0);
    s.remount();
    assert_eq!(names(s.mnt()), ["a", "b"]);
}

fn rename_of_open_file_keeps_the_descriptor(s: &mut Site) {
    put(s.lower("a"), "abc");
    s.mount();
    let reader = open(s.at("a"), OFlags::RDONLY).unwrap();
    rename(s.at("a"), s.at("b")).unwrap();
    let writer = open(s.at("b"), OFlags::RDWR).unwrap();
    rename(s.at("b"), s.at("c")).unwrap();
    rustix::io::write(&writer, b"XYZ").unwrap();
    assert_eq!(get(s.at("c")), b"XYZ");
    let mut seen = [0u8; 3];
    assert_eq!(rustix::io::read(&reader, &mut seen).unwrap(), 3);
    assert_eq!(&seen, b"XYZ");
}

fn rename_over_an_open_file_keeps_the_old_one(s: &mut Site) {
    put(s.lower("a"), "new");
    put(s.lower("b"), "old");
    s.mount();
    let held = open(s.at("b"), OFlags::RDONLY).unwrap();
    rename(s.at("a"), s.at("b")).unwrap();
    let mut seen = [0u8; 3];
    rustix::io::read(&held, &mut seen).unwrap();
    assert_eq!(&seen, b"old");
    assert_eq!(rustix::fs::fstat(&held).unwrap().st_nlink, 0);
    assert_eq!(get(s.at("b")), b"new");
}

fn links_and_special_files_move(s: &mut Site) {
    symlink("target", s.lower("l")).unwrap();
    mknod(s.lower("p"), FileType::Fifo, 0, 0).unwrap();
    s.mount();
    rename(s.at("l"), s.at("l2")).unwrap();
    rename(s.at("p"), s.at("p2")).unwrap();
    s.remount();
    assert_eq!(fs::read_link(s.at("l2")).unwrap().to_str(), Some("target"));
    assert_eq!(names(s.mnt()), ["l2", "p2"]);
}

fn rename_updates_the_change_time(s: &mut Site) {
    put(s.lower("a"), "a");
    s.mount();
    let before = stat(s.at("a"));
    let changed = |path| (stat(&path).st_ctime, stat(&path).st_ctime_nsec);
    // The clock of a file system has a coarse resolution: wait until it has advanced.
    while !exists(s.at("probe")) || changed(s.at("probe")) <= changed(s.at("a")) {
        put(s.at("probe"), "x");
    }
    rename(s.at("a"), s.at("b")).unwrap();
    let after = stat(s.at("b"));
    assert!((after.st_ctime, after.st_ctime_nsec) > (before.st_ctime, before.st_ctime_nsec));
    assert_eq!((after.st_mtime, after.st_mtime_nsec), (before.st_mtime, before.st_mtime_nsec));
}

fn rename_of_directory_updates_its_parent_entry(s: &mut Site) {
    dir(s.lower("a/d"));
    dir(s.lower("b"));
    put(s.lower("b/f"), "in b");
    s.mount();
    let held = open(s.at("a/d"), OFlags::DIRECTORY).unwrap();
    rename(s.at("a/d"), s.at("b/d")).unwrap();
    let above = rustix::fs::openat(&held, "../f", OFlags::RDONLY, rustix::fs::Mode::empty());
    let mut seen = [0u8; 4];
    rustix::io::read(above.unwrap(), &mut seen).unwrap();
    assert_eq!(&seen, b"in b");
}

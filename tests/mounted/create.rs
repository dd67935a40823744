//! Creating, opening and removing objects: flags, modes and errnos.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    create_gives_mode_less_umask,
    exclusive_create_refuses_what_exists,
    exclusive_create_refuses_dangling_link,
    create_through_dangling_link_makes_its_target,
    open_checks_the_kind,
    truncating_open_empties_a_lower_file,
    append_goes_to_the_end_of_a_lower_file,
    path_descriptor_names_but_does_not_open,
    removed_name_can_be_made_again,
    file_replaces_removed_directory_and_back,
    rmdir_wants_an_empty_directory,
    directory_emptied_of_lower_names_can_go,
    unlink_refuses_a_directory,
    trailing_slash_wants_a_directory,
    link_loops_end,
    running_program_cannot_be_written,
    permission_bits_hold_for_users,
    sticky_directory_protects_names,
    special_files_keep_kind_and_number,
    fifo_connects_two_ends,
    statfs_tells_of_the_upper,
    write_needs_a_writable_descriptor,
);
// Overlayfs keeps the link count of the lower object that a whiteout hides.
judged!(beyond_kernel: create_in_removed_directory_is_refused);
judged!(unions: read_only_union_refuses_changes);

fn create_gives_mode_less_umask(s: &mut Site) {
    s.mount();
    let old = rustix::process::umask(Mode::from_raw_mode(0o027));
    let made = rustix::fs::openat(CWD, s.at("f"), OFlags::CREATE, Mode::from_raw_mode(0o666));
    rustix::fs::mkdirat(CWD, s.at("d"), Mode::from_raw_mode(0o777)).unwrap();
    rustix::process::umask(old);
    drop(made.unwrap());
    assert_eq!(mode(s.at("f")), 0o640);
    assert_eq!(mode(s.at("d")), 0o750);
}

fn exclusive_create_refuses_what_exists(s: &mut Site) {
    put(s.lower("f"), "old");
    dir(s.lower("d"));
    s.mount();
    for name in ["f", "d"] {
        fails(open(s.at(name), OFlags::CREATE | OFlags::EXCL | OFlags::RDWR), Errno::EXIST);
        fails(rustix::fs::mkdirat(CWD, s.at(name), Mode::RWXU), Errno::EXIST);
        fails(rustix::fs::symlinkat("x", CWD, s.at(name)), Errno::EXIST);
        fails(mknod(s.at(name), FileType::Fifo, 0, 0), Errno::EXIST);
    }
    assert_eq!(get(s.at("f")), b"old");
}

fn exclusive_create_refuses_dangling_link(s: &mut Site) {
    symlink("nowhere", s.lower("l")).unwrap();
    s.mount();
    fails(open(s.at("l"), OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY), Errno::EXIST);
    assert!(!exists(s.at("nowhere")));
}

fn create_through_dangling_link_makes_its_target(s: &mut Site) {
    symlink("target", s.lower("l")).unwrap();
    s.mount();
    put(s.at("l"), "through");
    assert_eq!(get(s.at("target")), b"through");
    assert_eq!(fs::read_link(s.at("l")).unwrap().to_str(), Some("target"));
}

fn open_checks_the_kind(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    symlink("f", s.lower("l")).unwrap();
    s.mount();
    fails(open(s.at("f"), OFlags::DIRECTORY), Errno::NOTDIR);
    fails(open(s.at("f/x"), OFlags::RDONLY), Errno::NOTDIR);
    fails(open(s.at("d"), OFlags::WRONLY), Errno::ISDIR);
    fails(open(s.at("d"), OFlags::RDWR | OFlags::CREATE), Errno::ISDIR);
    fails(open(s.at("l"), OFlags::NOFOLLOW), Errno::LOOP);
    fails(open(s.at("missing"), OFlags::RDONLY), Errno::NOENT);
    fails(rustix::fs::readlinkat(CWD, s.at("f"), Vec::new()), Errno::INVAL);
}

fn truncating_open_empties_a_lower_file(s: &mut Site) {
    put(s.lower("w"), "old content");
    put(s.lower("r"), "old content");
    s.mount();
    drop(open(s.at("w"), OFlags::WRONLY | OFlags::TRUNC).unwrap());
    assert_eq!(stat(s.at("w")).st_size, 0);
    assert_eq!(get(s.at("w")), b"");
    drop(open(s.at("r"), OFlags::RDONLY | OFlags::TRUNC).unwrap());
    assert_eq!(get(s.at("r")), b"");
    s.remount();
    assert_eq!(get(s.at("w")), b"");
}

fn append_goes_to_the_end_of_a_lower_file(s: &mut Site) {
    put(s.lower("f"), "one");
    s.mount();
    let first = open(s.at("f"), OFlags::WRONLY | OFlags::APPEND).unwrap();
    let second = open(s.at("f"), OFlags::WRONLY | OFlags::APPEND).unwrap();
    rustix::io::write(&first, b"two").unwrap();
    rustix::io::write(&second, b"three").unwrap();
    rustix::io::write(&first, b"four").unwrap();
    assert_eq!(get(s.at("f")), b"onetwothreefour");
}

fn path_descriptor_names_but_does_not_open(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    let file = open(s.at("f"), OFlags::PATH).unwrap();
    fails(rustix::io::read(&file, &mut [0u8; 1]), Errno::BADF);
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 1);
}

fn removed_name_can_be_made_again(s: &mut Site) {
    put(s.lower("f"), "old");
    s.mount();
    for round in 0..3 {
        fs::remove_file(s.at("f")).unwrap();
        assert!(!exists(s.at("f")));
        assert_eq!(names(s.mnt()), Vec::<String>::new());
        put(s.at("f"), format!("new {round}"));
        assert_eq!(get(s.at("f")), format!("new {round}").as_bytes());
    }
    s.remount();
    assert_eq!(get(s.at("f")), b"new 2");
}

fn file_replaces_removed_directory_and_back(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/inner"), "x");
    s.mount();
    fs::remove_dir_all(s.at("d")).unwrap();
    put(s.at("d"), "a file now");
    s.remount();
    assert_eq!(get(s.at("d")), b"a file now");
    fs::remove_file(s.at("d")).unwrap();
    dir(s.at("d"));
    assert_eq!(names(s.at("d")), Vec::<String>::new());
    assert!(!exists(s.at("d/inner")));
    s.remount();
    assert_eq!(names(s.at("d")), Vec::<String>::new());
    assert!(!exists(s.at("d/inner")));
}

fn create_in_removed_directory_is_refused(s: &mut Site) {
    dir(s.lower("d"));
    s.mount();
    let held = open(s.at("d"), OFlags::DIRECTORY).unwrap();
    fs::remove_dir(s.at("d")).unwrap();
    let made = rustix::fs::openat(&held, "x", OFlags::CREATE | OFlags::RDWR, Mode::RWXU);
    fails(made, Errno::NOENT);
    fails(rustix::fs::mkdirat(&held, "x", Mode::RWXU), Errno::NOENT);
    assert_eq!(rustix::fs::fstat(&held).unwrap().st_nlink, 0);
}

fn rmdir_wants_an_empty_directory(s: &mut Site) {
    dir(s.lower("d/e"));
    put(s.lower("f"), "");
    s.mount();
    fails_io(fs::remove_dir(s.at("d")), Errno::NOTEMPTY);
    fails_io(fs::remove_dir(s.at("f")), Errno::NOTDIR);
    fails_io(fs::remove_dir(s.at("missing")), Errno::NOENT);
    fails(rustix::fs::unlinkat(CWD, s.at("d/."), AtFlags::REMOVEDIR), Errno::INVAL);
    fs::remove_dir(s.at("d/e")).unwrap();
    fs::remove_dir(s.at("d")).unwrap();
    assert!(!exists(s.at("d")));
}

fn directory_emptied_of_lower_names_can_go(s: &mut Site) {
    dir(s.lower("d"));
    for index in 0..20 {
        put(s.lower(&format!("d/{index}")), "x");
    }
    s.mount();
    put(s.at("d/upper"), "x");
    fails_io(fs::remove_dir(s.at("d")), Errno::NOTEMPTY);
    fs::remove_dir_all(s.at("d")).unwrap();
    assert_eq!(names(s.mnt()), Vec::<String>::new());
    s.remount();
    assert_eq!(names(s.mnt()), Vec::<String>::new());
}

fn unlink_refuses_a_directory(s: &mut Site) {
    dir(s.lower("d"));
    s.mount();
    fails_io(fs::remove_file(s.at("d")), Errno::ISDIR);
    fails_io(fs::remove_file(s.at("missing")), Errno::NOENT);
}

fn trailing_slash_wants_a_directory(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    fails(try_stat(s.at("f/")), Errno::NOTDIR);
    fails(open(s.at("new/"), OFlags::CREATE | OFlags::RDWR), Errno::ISDIR);
    fs::create_dir(s.at("d/")).unwrap();
    fs::remove_dir(s.at("d/")).unwrap();
}

fn link_loops_end(s: &mut Site) {
    symlink("b", s.lower("a")).unwrap();
    symlink("a", s.lower("b")).unwrap();
    s.mount();
    fails(open(s.at("a"), OFlags::RDONLY), Errno::LOOP);
    let long = "x".repeat(4095);
    symlink(&long, s.at("long")).unwrap();
    assert_eq!(fs::read_link(s.at("long")).unwrap().to_str(), Some(long.as_str()));
    assert_eq!(stat(s.at("long")).st_size, 4095);
}

fn running_program_cannot_be_written(s: &mut Site) {
    fs::copy("/bin/sleep", s.lower("sleep")).unwrap();
    s.mount();
    let mut child = Command::new(s.at("sleep")).arg("600").spawn().unwrap();
    fails(open(s.at("sleep"), OFlags::WRONLY), Errno::TXTBSY);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    open(s.at("sleep"), OFlags::WRONLY).unwrap();
}

fn permission_bits_hold_for_users(s: &mut Site) {
    dir(s.lower("closed"));
    put(s.lower("closed/f"), "x");
    chmod(s.lower("closed"), 0o700);
    put(s.lower("secret"), "x");
    chmod(s.lower("secret"), 0o600);
    put(s.lower("group"), "x");
    chmod(s.lower("group"), 0o060);
    chown(s.lower("group"), 0, OTHER);
    s.mount();
    as_user(USER, || {
        fails(open(s.at("secret"), OFlags::RDONLY), Errno::ACCESS);
        fails(try_stat(s.at("closed/f")), Errno::ACCESS);
        fails(open(s.at("new"), OFlags::CREATE | OFlags::RDWR), Errno::ACCESS);
        fails_io(fs::remove_file(s.at("secret")), Errno::ACCESS);
        fails(open(s.at("group"), OFlags::RDONLY), Errno::ACCESS);
        let read = rustix::fs::accessat(CWD, s.at("secret"), Access::READ_OK, AtFlags::EACCESS);
        fails(read, Errno::ACCESS);
    });
    as_ids(USER, USER, &[OTHER], || {
        open(s.at("group"), OFlags::RDWR).unwrap();
    });
}

fn sticky_directory_protects_names(s: &mut Site) {
    dir(s.lower("t"));
    chmod(s.lower("t"), 0o1777);
    put(s.lower("t/theirs"), "x");
    chown(s.lower("t/theirs"), OTHER, OTHER);
    s.mount();
    as_user(USER, || {
        put(s.at("t/mine"), "x");
        fails_io(fs::remove_file(s.at("t/theirs")), Errno::PERM);
        fails(rename(s.at("t/mine"), s.at("t/theirs")), Errno::PERM);
        fs::remove_file(s.at("t/mine")).unwrap();
    });
    assert_eq!(names(s.at("t")), ["theirs"]);
}

fn special_files_keep_kind_and_number(s: &mut Site) {
    mknod(s.lower("null"), FileType::CharacterDevice, 1, 3).unwrap();
    mknod(s.lower("pipe"), FileType::Fifo, 0, 0).unwrap();
    s.mount();
    mknod(s.at("block"), FileType::BlockDevice, 7, 200).unwrap();
    mknod(s.at("socket"), FileType::Socket, 0, 0).unwrap();
    chmod(s.at("null"), 0o666);
    chown(s.at("pipe"), 3, 4);
    s.remount();
    assert_eq!(stat(s.at("null")).st_rdev, rustix::fs::makedev(1, 3));
    assert_eq!(mode(s.at("null")), 0o666);
    assert_eq!(stat(s.at("block")).st_rdev, rustix::fs::makedev(7, 200));
    assert_eq!(FileType::from_raw_mode(stat(s.at("pipe")).st_mode), FileType::Fifo);
    assert_eq!(stat(s.at("pipe")).st_uid, 3);
    assert_eq!(FileType::from_raw_mode(stat(s.at("socket")).st_mode), FileType::Socket);
    for name in ["null", "pipe", "block", "socket"] {
        fs::remove_file(s.at(name)).unwrap();
    }
    assert_eq!(names(s.mnt()), Vec::<String>::new());
}

fn fifo_connects_two_ends(s: &mut Site) {
    mknod(s.lower("pipe"), FileType::Fifo, 0, 0).unwrap();
    s.mount();
    let path = s.at("pipe");
    let writer = std::thread::spawn(move || fs::write(path, "through the pipe"));
    assert_eq!(get(s.at("pipe")), b"through the pipe");
    writer.join().unwrap().unwrap();
}

fn statfs_tells_of_the_upper(s: &mut Site) {
    s.mount();
    let (mount, host) = (rustix::fs::statvfs(s.mnt()).unwrap(), s.root().to_owned());
    let host = rustix::fs::statvfs(&host).unwrap();
    assert_eq!(mount.f_blocks * mount.f_frsize, host.f_blocks * host.f_frsize);
    assert_eq!(mount.f_namemax, 255);
    assert_eq!(mount.f_files, host.f_files);
}

fn write_needs_a_writable_descriptor(s: &mut Site) {
    put(s.lower("f"), "abc");
    s.mount();
    let file = open(s.at("f"), OFlags::RDONLY).unwrap();
    fails(rustix::io::write(&file, b"x"), Errno::BADF);
    fails(rustix::fs::ftruncate(&file, 0), Errno::INVAL);
    fails(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 9), Errno::BADF);
    assert_eq!(get(s.at("f")), b"abc");
}

fn read_only_union_refuses_changes(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    let mut second = s.add_lower("second");
    second.push("g");
    put(&second, "y");
    s.read_only = true;
    s.mount();
    assert_eq!(names(s.mnt()), ["d", "f", "g"]);
    assert_eq!(get(s.at("g")), b"y");
    fails(open(s.at("f"), OFlags::WRONLY), Errno::ROFS);
    fails(open(s.at("new"), OFlags::WRONLY | OFlags::CREATE), Errno::ROFS);
    fails(rename(s.at("f"), s.at("h")), Errno::ROFS);
    fails(link(s.at("f"), s.at("h")), Errno::ROFS);
    fails_io(fs::remove_file(s.at("f")), Errno::ROFS);
    fails_io(fs::remove_dir(s.at("d")), Errno::ROFS);
    fails(set_xattr(s.at("f"), "user.x", b"y"), Errno::ROFS);
    assert!(exists(s.upper("")) && names(s.upper("")).is_empty());
}

//! File handles that stay valid, and the inode flags of `chattr`.

use std::fs;
use std::os::fd::AsFd;

use rustix::fs::{IFlags, OFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use crate::calls::{fs_xattr, name_to_handle, open_by_handle, set_fs_xattr};
use crate::harness::Site;
use crate::tools::*;

// Overlayfs has handles only with nfs_export, which excludes metacopy.
judged!(beyond_kernel:
    handle_opens_the_file,
    handle_outlives_the_caches,
    handle_outlives_copy_up_and_rename,
    handle_of_directory_opens_it,
    handle_of_removed_file_is_stale,
);
judged!(lamina: handle_never_opens_another_file_after_a_remount);
judged!(everywhere:
    flags_of_a_new_file_are_empty,
    append_only_file_can_only_grow,
    immutable_file_cannot_change,
    immutable_directory_keeps_its_names,
    flags_can_be_set_on_a_lower_file,
    users_cannot_set_flags,
    extended_flags_agree,
    unknown_requests_are_refused,
);

fn content(file: &std::os::fd::OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let len = rustix::io::pread(file, bytes.as_mut_slice(), 0).unwrap();
    bytes.truncate(len);
    bytes
}

fn handle_opens_the_file(s: &mut Site) {
    put(s.lower("f"), "lower");
    s.mount();
    put(s.at("g"), "upper");
    let root = open(s.mnt(), OFlags::DIRECTORY).unwrap();
    for (name, expected) in [("f", "lower"), ("g", "upper")] {
        let handle = name_to_handle(&s.at(name)).unwrap();
        let file = open_by_handle(root.as_fd(), &handle, 0).unwrap();
        assert_eq!(content(&file), expected.as_bytes());
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_ino, stat(s.at(name)).st_ino);
    }
}

fn handle_outlives_the_caches(s: &mut Site) {
    dir(s.lower("d/e"));
    put(s.lower("d/e/f"), "lower");
    s.mount();
    put(s.at("d/e/g"), "upper");
    let low = name_to_handle(&s.at("d/e/f")).unwrap();
    let up = name_to_handle(&s.at("d/e/g")).unwrap();
    drop_caches();
    let root = open(s.mnt(), OFlags::DIRECTORY).unwrap();
    assert_eq!(content(&open_by_handle(root.as_fd(), &low, 0).unwrap()), b"lower");
    assert_eq!(content(&open_by_handle(root.as_fd(), &up, 0).unwrap()), b"upper");
}

fn handle_outlives_copy_up_and_rename(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    s.mount();
    let handle = name_to_handle(&s.at("f")).unwrap();
    append(s.at("f"), b"y");
    rename(s.at("f"), s.at("d/g")).unwrap();
    drop_caches();
    let root = open(s.mnt(), OFlags::DIRECTORY).unwrap();
    let file = open_by_handle(root.as_fd(), &handle, OFlags::RDWR.bits() as i32);
    let file = file.unwrap();
    assert_eq!(content(&file), b"xy");
    rustix::io::pwrite(&file, b"XY", 0).unwrap();
    assert_eq!(get(s.at("d/g")), b"XY");
}

fn handle_of_directory_opens_it(s: &mut Site) {
    dir(s.lower("d/sub"));
    put(s.lower("d/sub/f"), "x");
    s.mount();
    let handle = name_to_handle(&s.at("d/sub")).unwrap();
    drop_caches();
    let root = open(s.mnt(), OFlags::DIRECTORY).unwrap();
    let flags = OFlags::DIRECTORY.bits() as i32;
    let folder = open_by_handle(root.as_fd(), &handle, flags).unwrap();
    let above = rustix::fs::openat(&folder, "../sub/f", OFlags::RDONLY, rustix::fs::Mode::empty());
    assert_eq!(content(&above.unwrap()), b"x");
}

fn handle_of_removed_file_is_stale(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    put(s.at("g"), "x");
    let root = open(s.mnt(), OFlags::DIRECTORY).unwrap();
    for name in ["f", "g"] {
        let handle = name_to_handle(&s.at(name)).unwrap();
        fs::remove_file(s.at(name)).unwrap();
        fails_io(open_by_handle(root.as_fd(), &handle, 0), Errno::STALE);
        put(s.at(name), "another");
        fails_io(open_by_handle(root.as_fd(), &handle, 0), Errno::STALE);
    }
}

// The next session assigns node numbers again, in the order of its first lookups.
fn handle_never_opens_another_file_after_a_remount(s: &mut Site) {
    let names: Vec<String> = (0..3000).map(|number| format!("f{number}")).collect();
    for name in &names {
        put(s.lower(name), name);
    }
    s.mount();
    let handles: Vec<_> = names.iter().map(|name| name_to_handle(&s.at(name)).unwrap()).collect();
    s.remount();
    for name in names.iter().rev() {
        stat(s.at(name));
    }
    let root = open(s.mnt(), OFlags::DIRECTORY).unwrap();
    for (name, handle) in names.iter().zip(&handles) {
        match open_by_handle(root.as_fd(), handle, 0) {
            Ok(file) => assert_eq!(content(&file), name.as_bytes()),
            Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::STALE.raw_os_error())),
        }
    }
}

fn flags(s: &Site, name: &str) -> IFlags {
    let file = open(s.at(name), OFlags::RDONLY).unwrap();
    ioctl_getflags(&file).unwrap() & (IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NOATIME)
}

fn set_flags(s: &Site, name: &str, flags: IFlags) -> rustix::io::Result<()> {
    let file = open(s.at(name), OFlags::RDONLY).unwrap();
    let rest = ioctl_getflags(&file)? - (IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NOATIME);
    ioctl_setflags(&file, rest | flags)
}

fn flags_of_a_new_file_are_empty(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    s.mount();
    put(s.at("g"), "x");
    for name in ["f", "d", "g"] {
        assert_eq!(flags(s, name), IFlags::empty(), "{name}");
    }
}

fn append_only_file_can_only_grow(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    set_flags(s, "f", IFlags::APPEND).unwrap();
    assert_eq!(flags(s, "f"), IFlags::APPEND);
    append(s.at("f"), b"y");
    fails(open(s.at("f"), OFlags::WRONLY), Errno::PERM);
    fails(open(s.at("f"), OFlags::WRONLY | OFlags::APPEND | OFlags::TRUNC), Errno::PERM);
    fails_io(fs::remove_file(s.at("f")), Errno::PERM);
    set_flags(s, "f", IFlags::empty()).unwrap();
    fs::remove_file(s.at("f")).unwrap();
}

fn immutable_file_cannot_change(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    set_flags(s, "f", IFlags::IMMUTABLE).unwrap();
    assert_eq!(flags(s, "f"), IFlags::IMMUTABLE);
    fails(open(s.at("f"), OFlags::WRONLY), Errno::PERM);
    fails(rename(s.at("f"), s.at("g")), Errno::PERM);
    fails(link(s.at("f"), s.at("g")), Errno::PERM);
    fails_io(fs::remove_file(s.at("f")), Errno::PERM);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fails_io(fs::set_permissions(s.at("f"), mode), Errno::PERM);
    fails(set_xattr(s.at("f"), "user.a", b"1"), Errno::PERM);
    assert_eq!(get(s.at("f")), b"x");
    set_flags(s, "f", IFlags::empty()).unwrap();
    append(s.at("f"), b"y");
}

fn immutable_directory_keeps_its_names(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/f"), "x");
    s.mount();
    set_flags(s, "d", IFlags::IMMUTABLE).unwrap();
    fails(open(s.at("d/new"), OFlags::CREATE | OFlags::RDWR), Errno::PERM);
    fails_io(fs::remove_file(s.at("d/f")), Errno::PERM);
    set_flags(s, "d", IFlags::empty()).unwrap();
    fs::remove_file(s.at("d/f")).unwrap();
}

fn flags_can_be_set_on_a_lower_file(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    set_flags(s, "f", IFlags::NOATIME | IFlags::APPEND).unwrap();
    s.remount();
    assert_eq!(flags(s, "f"), IFlags::NOATIME | IFlags::APPEND);
    fails(open(s.at("f"), OFlags::WRONLY), Errno::PERM);
    set_flags(s, "f", IFlags::empty()).unwrap();
    s.remount();
    assert_eq!(flags(s, "f"), IFlags::empty());
}

fn users_cannot_set_flags(s: &mut Site) {
    put(s.lower("f"), "x");
    chown(s.lower("f"), USER, USER);
    s.mount();
    as_user(USER, || fails(set_flags(s, "f", IFlags::APPEND), Errno::PERM));
    as_user(OTHER, || assert!(set_flags(s, "f", IFlags::NOATIME).is_err()));
    as_user(USER, || set_flags(s, "f", IFlags::NOATIME)).unwrap();
    assert_eq!(flags(s, "f"), IFlags::NOATIME);
}

fn extended_flags_agree(s: &mut Site) {
    /// `FS_XFLAG_APPEND` of the kernel's `fs.h`.
    const APPEND: u32 = 0x10;
    put(s.lower("f"), "x");
    s.mount();
    let file = open(s.at("f"), OFlags::RDONLY).unwrap();
    let mut attr = fs_xattr(file.as_fd()).unwrap();
    assert_eq!(attr.xflags & APPEND, 0);
    attr.xflags |= APPEND;
    set_fs_xattr(file.as_fd(), &attr).unwrap();
    assert_eq!(flags(s, "f"), IFlags::APPEND);
    assert_eq!(fs_xattr(file.as_fd()).unwrap().xflags & APPEND, APPEND);
    attr.xflags &= !APPEND;
    set_fs_xattr(file.as_fd(), &attr).unwrap();
    assert_eq!(flags(s, "f"), IFlags::empty());
}

fn unknown_requests_are_refused(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    let file = open(s.at("f"), OFlags::RDONLY).unwrap();
    fails(rustix::fs::ioctl_blkpbszget(&file), Errno::NOTTY);
}

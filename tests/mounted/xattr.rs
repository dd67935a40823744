//! Extended attributes: kept in copy-ups, limited and refused as on the host, and without Lamina's
//! own.

use std::os::unix::fs::symlink;

use rustix::fs::{OFlags, XattrFlags, lremovexattr, lsetxattr};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    attributes_survive_copy_up,
    set_get_list_remove,
    create_and_replace_flags,
    short_buffers_are_told,
    attributes_of_symlinks_are_their_own,
    binary_and_empty_values,
    long_values_and_many_names,
    user_attributes_only_on_files_and_directories,
    users_cannot_set_trusted_attributes,
    write_permission_rules_user_attributes,
    open_descriptors_carry_attributes,
);
judged!(unions: nothing_of_ours_is_listed, overlay_names_are_escaped_or_refused);

fn attributes_survive_copy_up(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    for name in ["f", "d"] {
        for key in ["user.a", "trusted.b", "security.c"] {
            set_xattr(s.lower(name), key, key.as_bytes()).unwrap();
        }
    }
    s.mount();
    append(s.at("f"), b"y");
    chmod(s.at("d"), 0o700);
    for _ in 0..2 {
        for name in ["f", "d"] {
            assert_eq!(xattr_names(s.at(name)), ["security.c", "trusted.b", "user.a"]);
            for key in ["user.a", "trusted.b", "security.c"] {
                assert_eq!(xattr(s.at(name), key).unwrap(), key.as_bytes());
            }
        }
        s.remount();
    }
}

fn set_get_list_remove(s: &mut Site) {
    put(s.lower("f"), "x");
    set_xattr(s.lower("f"), "user.low", b"l").unwrap();
    s.mount();
    set_xattr(s.at("f"), "user.new", b"n").unwrap();
    assert_eq!(xattr_names(s.at("f")), ["user.low", "user.new"]);
    lremovexattr(s.at("f"), "user.low").unwrap();
    fails(xattr(s.at("f"), "user.low"), Errno::NODATA);
    fails(lremovexattr(s.at("f"), "user.low"), Errno::NODATA);
    s.remount();
    assert_eq!(xattr_names(s.at("f")), ["user.new"]);
    assert_eq!(get(s.at("f")), b"x");
}

fn create_and_replace_flags(s: &mut Site) {
    put(s.lower("f"), "x");
    set_xattr(s.lower("f"), "user.a", b"1").unwrap();
    s.mount();
    fails(lsetxattr(s.at("f"), "user.a", b"2", XattrFlags::CREATE), Errno::EXIST);
    fails(lsetxattr(s.at("f"), "user.b", b"2", XattrFlags::REPLACE), Errno::NODATA);
    lsetxattr(s.at("f"), "user.a", b"2", XattrFlags::REPLACE).unwrap();
    lsetxattr(s.at("f"), "user.b", b"3", XattrFlags::CREATE).unwrap();
    assert_eq!(xattr(s.at("f"), "user.a").unwrap(), b"2");
}

fn short_buffers_are_told(s: &mut Site) {
    put(s.lower("f"), "x");
    set_xattr(s.lower("f"), "user.a", b"12345").unwrap();
    s.mount();
    let mut short = [0u8; 3];
    fails(rustix::fs::lgetxattr(s.at("f"), "user.a", short.as_mut_slice()), Errno::RANGE);
    fails(rustix::fs::llistxattr(s.at("f"), short.as_mut_slice()), Errno::RANGE);
    assert_eq!(rustix::fs::lgetxattr_query(s.at("f"), "user.a").unwrap(), 5);
    assert_eq!(rustix::fs::llistxattr_query(s.at("f")).unwrap(), 7);
}

fn attributes_of_symlinks_are_their_own(s: &mut Site) {
    put(s.lower("f"), "x");
    symlink("f", s.lower("l")).unwrap();
    s.mount();
    set_xattr(s.at("l"), "trusted.on", b"link").unwrap();
    fails(xattr(s.at("f"), "trusted.on"), Errno::NODATA);
    fails(set_xattr(s.at("l"), "user.on", b"link"), Errno::PERM);
    s.remount();
    assert_eq!(xattr(s.at("l"), "trusted.on").unwrap(), b"link");
}

fn binary_and_empty_values(s: &mut Site) {
    put(s.lower("f"), "x");
    set_xattr(s.lower("f"), "user.bin", &[0, 255, 0, 10]).unwrap();
    set_xattr(s.lower("f"), "user.empty", b"").unwrap();
    s.mount();
    chmod(s.at("f"), 0o600);
    append(s.at("f"), b"");
    assert_eq!(xattr(s.at("f"), "user.bin").unwrap(), [0, 255, 0, 10]);
    assert_eq!(xattr(s.at("f"), "user.empty").unwrap(), b"");
}

fn long_values_and_many_names(s: &mut Site) {
    put(s.lower("f"), "x");
    let value = vec![b'v'; 1800];
    set_xattr(s.lower("f"), "user.long", &value).unwrap();
    for index in 0..20 {
        set_xattr(s.lower("f"), &format!("user.n{index}"), b"1").unwrap();
    }
    s.mount();
    append(s.at("f"), b"y");
    assert_eq!(xattr(s.at("f"), "user.long").unwrap(), value);
    assert_eq!(xattr_names(s.at("f")).len(), 21);
    let name = format!("user.{}", "n".repeat(250));
    set_xattr(s.at("f"), &name, b"1").unwrap();
    assert_eq!(xattr(s.at("f"), &name).unwrap(), b"1");
    fails(set_xattr(s.at("f"), &format!("{name}x"), b"1"), Errno::RANGE);
    fails(set_xattr(s.at("f"), "user.huge", &vec![0; 65_537]), Errno::TOOBIG);
    fails(set_xattr(s.at("f"), "unknown.a", b"1"), Errno::OPNOTSUPP);
}

fn user_attributes_only_on_files_and_directories(s: &mut Site) {
    mknod(s.lower("p"), rustix::fs::FileType::Fifo, 0, 0).unwrap();
    s.mount();
    fails(set_xattr(s.at("p"), "user.a", b"1"), Errno::PERM);
    set_xattr(s.at("p"), "trusted.a", b"1").unwrap();
    s.remount();
    assert_eq!(xattr(s.at("p"), "trusted.a").unwrap(), b"1");
}

fn users_cannot_set_trusted_attributes(s: &mut Site) {
    put(s.lower("f"), "x");
    set_xattr(s.lower("f"), "trusted.a", b"1").unwrap();
    chown(s.lower("f"), USER, USER);
    s.mount();
    as_user(USER, || {
        fails(set_xattr(s.at("f"), "trusted.b", b"1"), Errno::PERM);
        fails(xattr(s.at("f"), "trusted.a"), Errno::NODATA);
        assert_eq!(xattr_names(s.at("f")), Vec::<String>::new());
        set_xattr(s.at("f"), "user.mine", b"1").unwrap();
    });
}

fn write_permission_rules_user_attributes(s: &mut Site) {
    put(s.lower("f"), "x");
    set_xattr(s.lower("f"), "user.a", b"1").unwrap();
    put(s.lower("closed"), "x");
    set_xattr(s.lower("closed"), "user.a", b"1").unwrap();
    chmod(s.lower("closed"), 0o600);
    s.mount();
    as_user(USER, || {
        assert_eq!(xattr(s.at("f"), "user.a").unwrap(), b"1");
        fails(set_xattr(s.at("f"), "user.a", b"2"), Errno::ACCESS);
        fails(xattr(s.at("closed"), "user.a"), Errno::ACCESS);
    });
}

fn open_descriptors_carry_attributes(s: &mut Site) {
    put(s.lower("f"), "x");
    set_xattr(s.lower("f"), "user.a", b"1").unwrap();
    s.mount();
    let held = open(s.at("f"), OFlags::RDONLY).unwrap();
    set_xattr(s.at("f"), "user.b", b"2").unwrap();
    let mut value = [0u8; 8];
    assert_eq!(rustix::fs::fgetxattr(&held, "user.b", value.as_mut_slice()).unwrap(), 1);
    rustix::fs::fsetxattr(&held, "user.c", b"3", XattrFlags::empty()).unwrap();
    assert_eq!(xattr(s.at("f"), "user.c").unwrap(), b"3");
}

fn nothing_of_ours_is_listed(s: &mut Site) {
    dir(s.lower("d/e"));
    put(s.lower("f"), "x");
    link(s.lower("f"), s.lower("g")).unwrap();
    s.mount();
    rename(s.at("d"), s.at("moved")).unwrap();
    std::fs::remove_dir_all(s.at("moved/e")).unwrap();
    dir(s.at("moved/e"));
    chmod(s.at("f"), 0o600);
    append(s.at("g"), b"y");
    for _ in 0..2 {
        for name in ["", "moved", "moved/e", "f", "g"] {
            assert_eq!(xattr_names(s.at(name)), Vec::<String>::new(), "{name}");
        }
        for key in ["opaque", "redirect", "origin", "metacopy", "impure"] {
            fails(xattr(s.at("moved"), &format!("trusted.overlay.{key}")), Errno::NODATA);
        }
        s.remount();
    }
}

fn overlay_names_are_escaped_or_refused(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/f"), "x");
    s.mount();
    // The kernel stores it under an escaped name; a refusal is as good. It may never become a mark.
    match set_xattr(s.at("d"), "trusted.overlay.opaque", b"y") {
        Ok(()) => assert_eq!(xattr(s.at("d"), "trusted.overlay.opaque").unwrap(), b"y"),
        Err(error) => assert!(matches!(error, Errno::PERM | Errno::OPNOTSUPP), "{error}"),
    }
    s.remount();
    assert_eq!(names(s.at("d")), ["f"]);
}

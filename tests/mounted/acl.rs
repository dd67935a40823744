//! POSIX ACLs and the set-group-id bit: inheritance by new objects, and changes of the mode.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    default_acl_is_inherited_and_umask_ignored,
    access_acl_grants_and_denies,
    chmod_changes_the_mask,
    acl_survives_copy_up,
    setting_an_acl_changes_the_mode,
    acl_equal_to_the_mode_is_no_acl,
    absent_acl_is_no_data,
    set_group_directory_passes_its_group_on,
    set_group_bit_falls_for_foreign_groups,
    setting_an_acl_drops_set_group_bit_of_non_members,
    copies_get_nothing_from_the_parent_of_the_work_directory,
);

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Tags of `posix_acl_xattr.h`.
const USER_OBJ: u16 = 1;
const NAMED_USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const MASK: u16 = 16;
const REST: u16 = 32;

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permission, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permission.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const NO_ID: u32 = u32::MAX;

fn one_user(user: u32, permission: u16, mask: u16) -> Vec<u8> {
    acl(&[
        (USER_OBJ, 6, NO_ID),
        (NAMED_USER, permission, user),
        (GROUP_OBJ, 4, NO_ID),
        (MASK, mask, NO_ID),
        (REST, 0, NO_ID),
    ])
}

fn default_acl_is_inherited_and_umask_ignored(s: &mut Site) {
    dir(s.lower("d"));
    let entries = acl(&[
        (USER_OBJ, 7, NO_ID),
        (NAMED_USER, 7, USER),
        (GROUP_OBJ, 5, NO_ID),
        (MASK, 7, NO_ID),
        (REST, 5, NO_ID),
    ]);
    set_xattr(s.lower("d"), DEFAULT, &entries).unwrap();
    s.mount();
    let old = rustix::process::umask(Mode::from_raw_mode(0o077));
    let file = rustix::fs::openat(
        CWD,
        s.at("d/f"),
        OFlags::CREATE | OFlags::RDWR,
        Mode::from_raw_mode(0o666),
    );
    rustix::fs::mkdirat(CWD, s.at("d/sub"), Mode::from_raw_mode(0o777)).unwrap();
    rustix::process::umask(old);
    drop(file.unwrap());
    assert_eq!(mode(s.at("d/f")), 0o664);
    assert_eq!(mode(s.at("d/sub")), 0o775);
    assert_eq!(xattr(s.at("d/sub"), DEFAULT).unwrap(), entries);
    let inherited = acl(&[
        (USER_OBJ, 6, NO_ID),
        (NAMED_USER, 7, USER),
        (GROUP_OBJ, 5, NO_ID),
        (MASK, 6, NO_ID),
        (REST, 4, NO_ID),
    ]);
    assert_eq!(xattr(s.at("d/f"), ACCESS).unwrap(), inherited);
    fails(xattr(s.at("d/f"), DEFAULT), Errno::NODATA);
}

fn access_acl_grants_and_denies(s: &mut Site) {
    put(s.lower("granted"), "x");
    set_xattr(s.lower("granted"), ACCESS, &one_user(USER, 6, 6)).unwrap();
    put(s.lower("denied"), "x");
    set_xattr(s.lower("denied"), ACCESS, &one_user(USER, 0, 6)).unwrap();
    s.mount();
    as_user(USER, || {
        open(s.at("granted"), OFlags::RDWR).unwrap();
        fails(open(s.at("denied"), OFlags::RDONLY), Errno::ACCESS);
    });
    as_user(OTHER, || fails(open(s.at("granted"), OFlags::RDONLY), Errno::ACCESS));
}

fn chmod_changes_the_mask(s: &mut Site) {
    put(s.lower("f"), "x");
    set_xattr(s.lower("f"), ACCESS, &one_user(USER, 6, 6)).unwrap();
    s.mount();
    chmod(s.at("f"), 0o600);
    assert_eq!(xattr(s.at("f"), ACCESS).unwrap(), one_user(USER, 6, 0));
    as_user(USER, || fails(open(s.at("f"), OFlags::RDONLY), Errno::ACCESS));
    s.remount();
    assert_eq!(xattr(s.at("f"), ACCESS).unwrap(), one_user(USER, 6, 0));
}

fn acl_survives_copy_up(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    set_xattr(s.lower("f"), ACCESS, &one_user(USER, 6, 6)).unwrap();
    set_xattr(s.lower("d"), DEFAULT, &one_user(USER, 7, 7)).unwrap();
    s.mount();
    append(s.at("f"), b"y");
    chown(s.at("d"), USER, USER);
    for _ in 0..2 {
        assert_eq!(xattr(s.at("f"), ACCESS).unwrap(), one_user(USER, 6, 6));
        assert_eq!(xattr(s.at("d"), DEFAULT).unwrap(), one_user(USER, 7, 7));
        assert_eq!(mode(s.at("f")), 0o660);
        s.remount();
    }
}

fn setting_an_acl_changes_the_mode(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    set_xattr(s.at("f"), ACCESS, &one_user(USER, 7, 5)).unwrap();
    assert_eq!(mode(s.at("f")), 0o650);
    rustix::fs::lremovexattr(s.at("f"), ACCESS).unwrap();
    fails(xattr(s.at("f"), ACCESS), Errno::NODATA);
}

fn acl_equal_to_the_mode_is_no_acl(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    let plain = acl(&[(USER_OBJ, 7, NO_ID), (GROUP_OBJ, 5, NO_ID), (REST, 1, NO_ID)]);
    set_xattr(s.at("f"), ACCESS, &plain).unwrap();
    assert_eq!(mode(s.at("f")), 0o751);
    fails(xattr(s.at("f"), ACCESS), Errno::NODATA);
}

fn absent_acl_is_no_data(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    s.mount();
    for name in ["f", "d"] {
        fails(xattr(s.at(name), ACCESS), Errno::NODATA);
        fails(xattr(s.at(name), DEFAULT), Errno::NODATA);
    }
    fails(set_xattr(s.at("f"), DEFAULT, &one_user(USER, 7, 7)), Errno::ACCESS);
    fails(set_xattr(s.at("f"), ACCESS, b"nonsense"), Errno::OPNOTSUPP);
}

fn set_group_directory_passes_its_group_on(s: &mut Site) {
    dir(s.lower("d"));
    chown(s.lower("d"), 0, OTHER);
    chmod(s.lower("d"), 0o2777);
    s.mount();
    as_user(USER, || {
        put(s.at("d/f"), "x");
        dir(s.at("d/sub"));
        mknod(s.at("d/p"), rustix::fs::FileType::Fifo, 0, 0).unwrap();
        std::os::unix::fs::symlink("f", s.at("d/l")).unwrap();
    });
    for name in ["f", "sub", "p", "l"] {
        assert_eq!(stat(s.at("d").join(name)).st_gid, OTHER, "{name}");
        assert_eq!(stat(s.at("d").join(name)).st_uid, USER, "{name}");
    }
    assert_eq!(mode(s.at("d/sub")) & 0o2000, 0o2000);
    assert_eq!(mode(s.at("d/f")) & 0o2000, 0);
}

fn set_group_bit_falls_for_foreign_groups(s: &mut Site) {
    dir(s.lower("d"));
    chown(s.lower("d"), USER, OTHER);
    chmod(s.lower("d"), 0o2777);
    put(s.lower("f"), "x");
    chown(s.lower("f"), USER, OTHER);
    s.mount();
    as_user(USER, || {
        chmod(s.at("f"), 0o2755);
        let flags = OFlags::CREATE | OFlags::RDWR;
        let made = rustix::fs::openat(CWD, s.at("d/f"), flags, Mode::from_raw_mode(0o2775));
        drop(made.unwrap());
    });
    assert_eq!(mode(s.at("f")), 0o755);
    assert_eq!(mode(s.at("d/f")), 0o755);
}

fn setting_an_acl_drops_set_group_bit_of_non_members(s: &mut Site) {
    put(s.lower("f"), "x");
    chown(s.lower("f"), USER, OTHER);
    chmod(s.lower("f"), 0o2775);
    put(s.lower("g"), "x");
    chown(s.lower("g"), USER, USER);
    chmod(s.lower("g"), 0o2775);
    s.mount();
    as_user(USER, || {
        set_xattr(s.at("f"), ACCESS, &one_user(OTHER, 7, 7)).unwrap();
        set_xattr(s.at("g"), ACCESS, &one_user(OTHER, 7, 7)).unwrap();
    });
    assert_eq!(mode(s.at("f")) & 0o2000, 0);
    assert_eq!(mode(s.at("g")) & 0o2000, 0o2000);
}

fn copies_get_nothing_from_the_parent_of_the_work_directory(s: &mut Site) {
    put(s.lower("f"), "lower");
    dir(s.lower("d"));
    put(s.lower("gone"), "x");
    let inherited = acl(&[
        (USER_OBJ, 7, NO_ID),
        (NAMED_USER, 7, USER),
        (GROUP_OBJ, 5, NO_ID),
        (MASK, 7, NO_ID),
        (REST, 5, NO_ID),
    ]);
    let work = s.root().join("work");
    if s.is_union() {
        set_xattr(&work, DEFAULT, &inherited).unwrap();
    }
    s.mount();
    append(s.at("f"), b"+");
    chmod(s.at("d"), 0o711);
    std::fs::remove_file(s.at("gone")).unwrap();
    put(s.at("gone"), "new");
    dir(s.at("new"));
    for name in ["f", "d", "gone", "new"] {
        for key in [ACCESS, DEFAULT] {
            fails(xattr(s.at(name), key), Errno::NODATA);
        }
    }
    assert_eq!((mode(s.at("f")), mode(s.at("d"))), (0o644, 0o711));
    s.remount();
    if s.is_union() {
        fails(xattr(s.upper("f"), ACCESS), Errno::NODATA);
        assert_eq!(xattr(&work, DEFAULT).unwrap(), inherited, "what was given stays");
    }
}

//! Layers that store owner, mode and kind in an attribute (`xattr_permissions`).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;

judged!(lamina:
    an_upper_keeps_what_its_inodes_do_not,
    a_lower_shows_what_it_states,
    users_cannot_state_anything,
    a_damaged_statement_is_an_error,
);

const KEY: &str = "user.containers.override_stat";

/// User, group, permission bits.
fn owner(path: impl AsRef<std::path::Path>) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

fn stated(path: impl AsRef<std::path::Path>) -> String {
    String::from_utf8(xattr(path, KEY).unwrap()).unwrap()
}

fn an_upper_keeps_what_its_inodes_do_not(s: &mut Site) {
    s.options = "xattr_permissions=2".to_owned();
    put(s.lower("old"), "old");
    chown(s.lower("old"), 5, 6);
    chmod(s.lower("old"), 0o6755);
    s.mount();
    as_user(0, || put(s.at("new"), "new"));
    chown(s.at("new"), 1000, 100);
    chmod(s.at("new"), 0o4711);
    dir(s.at("d"));
    chmod(s.at("d"), 0o1777);
    as_user(1000, || put(s.at("d/mine"), "mine"));
    mknod(s.at("null"), FileType::CharacterDevice, 1, 3).unwrap();
    set_xattr(s.at("new"), "security.capability", CAPABILITY).unwrap();
    chmod(s.at("old"), 0o2751);
    for _ in 0..2 {
        assert_eq!(owner(s.at("new")), (1000, 100, 0o4711));
        assert_eq!(owner(s.at("old")), (5, 6, 0o2751));
        assert_eq!(owner(s.at("d")), (0, 0, 0o1777));
        assert_eq!(owner(s.at("d/mine")), (1000, 1000, 0o644));
        assert_eq!(get(s.at("old")), b"old");
        assert_eq!(xattr(s.at("new"), "security.capability").unwrap(), CAPABILITY);
        assert!(fs::metadata(s.at("null")).unwrap().file_type().is_char_device());
        fs::write(s.at("null"), "gone").unwrap();
        let is_device = |entry: &fs::DirEntry| entry.file_type().unwrap().is_char_device();
        let listed = fs::read_dir(s.mnt()).unwrap().map(Result::unwrap);
        let devices = listed.filter(is_device).map(|entry| entry.file_name());
        assert_eq!(devices.collect::<Vec<_>>(), ["null"]);
        // The mark on the upper is sufficient from now on.
        s.unmount();
        s.options = String::new();
        s.mount();
    }
    assert_eq!(owner(s.upper("new")), (0, 0, 0o711));
    assert_eq!(stated(s.upper("new")), "1000:100:04711:file");
    assert_eq!(stated(s.upper("d")), "0:0:01777:dir");
    assert_eq!(stated(s.upper("null")), "0:0:0644:char-1-3");
    assert_eq!(owner(s.upper("null")), (0, 0, 0o600));
    assert!(fs::metadata(s.upper("null")).unwrap().is_file());
    fs::remove_file(s.at("null")).unwrap();
    fs::remove_file(s.at("old")).unwrap();
    s.remount();
    assert!(!exists(s.at("old")) && !exists(s.at("null")));
}

/// cap_net_raw=ep, as `setcap` writes it (`struct vfs_cap_data`).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn a_lower_shows_what_it_states(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/f"), "f");
    put(s.lower("pipe"), "");
    put(s.lower("plain"), "p");
    chown(s.lower("d/f"), 9, 9);
    let state = |path: &str, value: &str| set_xattr(s.lower(path), KEY, value.as_bytes()).unwrap();
    state("", "0:0:0755:dir");
    state("d", "1:2:40750");
    state("d/f", "3:4:0640");
    state("pipe", "0:0:0600:pipe");
    s.mount();
    assert_eq!(owner(s.at("d")), (1, 2, 0o750));
    assert_eq!(owner(s.at("d/f")), (3, 4, 0o640));
    assert_eq!(owner(s.at("plain")), (0, 0, 0o644));
    assert!(fs::metadata(s.at("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(xattr_names(s.at("d/f")), Vec::<String>::new());
    // After the copy-up the inode has the stored attributes.
    append(s.at("d/f"), b"!");
    assert_eq!(owner(s.at("d/f")), (3, 4, 0o640));
    s.unmount();
    assert_eq!(owner(s.upper("d/f")), (3, 4, 0o640));
    assert_eq!(owner(s.upper("d")), (1, 2, 0o750));
    assert_eq!(get(s.lower("d/f")), b"f");
}

fn users_cannot_state_anything(s: &mut Site) {
    put(s.lower("f"), "f");
    for options in ["", "xattr_permissions=2"] {
        s.options = options.to_owned();
        s.mount();
        for path in ["f", ""] {
            fails(set_xattr(s.at(path), KEY, b"0:0:04755"), Errno::PERM);
            fails(xattr(s.at(path), KEY), Errno::NODATA);
            assert_eq!(xattr_names(s.at(path)), Vec::<String>::new());
        }
        s.unmount();
    }
}

fn a_damaged_statement_is_an_error(s: &mut Site) {
    put(s.lower("f"), "f");
    set_xattr(s.lower(""), KEY, b"0:0:0755:dir").unwrap();
    set_xattr(s.lower("f"), KEY, b"0:0:0755:dir").unwrap();
    s.mount();
    fails(try_stat(s.at("f")), Errno::IO);
}

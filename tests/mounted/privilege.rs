//! Set-id bits and file capabilities: kept by a copy-up, cleared by a change of the content.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::calls::Map;
use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    write_clears_set_id_bits,
    positioned_write_clears_set_id_bits,
    vector_write_clears_set_id_bits,
    mapped_write_after_write_keeps_them_cleared,
    truncate_clears_set_id_bits,
    truncating_open_clears_set_id_bits,
    allocate_clears_set_id_bits,
    punch_clears_set_id_bits,
    copy_range_clears_set_id_bits,
    root_of_another_user_namespace_clears_set_id_bits,
    chown_clears_set_id_bits_and_capabilities,
    write_of_root_keeps_set_id_bits,
    set_group_without_execute_stays,
    write_clears_capabilities,
    capabilities_survive_attribute_copy_up,
    set_id_bits_survive_attribute_copy_up,
    reading_keeps_set_id_bits,
    set_id_program_runs_as_its_owner,
    chmod_and_chown_want_ownership,
);

const CAPABILITY: &str = "security.capability";

/// `cap_net_raw=ep` in version 2 of the kernel's `vfs_cap_data`.
fn net_raw() -> Vec<u8> {
    let words: [u32; 5] = [0x0200_0001, 1 << 13, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Lets a user change a lower file with mode 6777 and checks that both bits are gone: in the
/// mount, after a remount, and in the upper.
fn cleared_by(s: &mut Site, change: impl Fn(&Site) + Sync) {
    put(s.lower("f"), vec![b'-'; 8192]);
    chmod(s.lower("f"), 0o6777);
    s.mount();
    assert_eq!(mode(s.at("f")), 0o6777);
    as_user(USER, || change(s));
    assert_eq!(mode(s.at("f")), 0o777);
    s.remount();
    assert_eq!(mode(s.at("f")), 0o777);
    if s.is_union() {
        assert_eq!(mode(s.upper("f")), 0o777);
    }
}

fn writer(s: &Site) -> OwnedFd {
    open(s.at("f"), OFlags::RDWR).unwrap()
}

fn write_clears_set_id_bits(s: &mut Site) {
    cleared_by(s, |s| assert_eq!(rustix::io::write(writer(s), b"x").unwrap(), 1));
}

fn positioned_write_clears_set_id_bits(s: &mut Site) {
    cleared_by(s, |s| assert_eq!(rustix::io::pwrite(writer(s), b"x", 9000).unwrap(), 1));
}

fn vector_write_clears_set_id_bits(s: &mut Site) {
    cleared_by(s, |s| {
        let parts = [std::io::IoSlice::new(b"ab"), std::io::IoSlice::new(b"c")];
        assert_eq!(rustix::io::writev(writer(s), &parts).unwrap(), 3);
    });
}

fn mapped_write_after_write_keeps_them_cleared(s: &mut Site) {
    cleared_by(s, |s| {
        let file = writer(s);
        rustix::io::write(&file, b"x").unwrap();
        let map = Map::new(file.as_fd(), 8192, true, true).unwrap();
        map.write(100, b"mapped");
        map.sync().unwrap();
    });
    assert_eq!(&get(s.at("f"))[100..106], b"mapped");
}

fn truncate_clears_set_id_bits(s: &mut Site) {
    cleared_by(s, |s| rustix::fs::ftruncate(writer(s), 10).unwrap());
}

fn truncating_open_clears_set_id_bits(s: &mut Site) {
    cleared_by(s, |s| drop(open(s.at("f"), OFlags::WRONLY | OFlags::TRUNC).unwrap()));
}

fn allocate_clears_set_id_bits(s: &mut Site) {
    cleared_by(s, |s| {
        rustix::fs::fallocate(writer(s), FallocateFlags::empty(), 0, 20_000).unwrap();
    });
}

fn punch_clears_set_id_bits(s: &mut Site) {
    cleared_by(s, |s| {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(writer(s), mode, 0, 4096).unwrap();
    });
}

fn copy_range_clears_set_id_bits(s: &mut Site) {
    put(s.lower("from"), "source");
    cleared_by(s, |s| {
        let from = open(s.at("from"), OFlags::RDONLY).unwrap();
        assert_eq!(rustix::fs::copy_file_range(&from, None, writer(s), None, 6).unwrap(), 6);
    });
}

/// Runs a command as root of its own user namespace, with all capabilities there.
fn as_root_elsewhere(words: &[&std::ffi::OsStr]) {
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user"]).args(words);
    let output = command.output().expect("unshare (util-linux)");
    assert!(output.status.success(), "{output:?}");
}

fn root_of_another_user_namespace_clears_set_id_bits(s: &mut Site) {
    for name in ["grown", "copied", "written"] {
        put(s.lower(name), vec![b'-'; 8192]);
        chmod(s.lower(name), 0o6777);
    }
    put(s.lower("from"), vec![b'+'; 8192]);
    s.mount();
    let word = std::ffi::OsStr::new;
    let (grown, copied, written) = (s.at("grown"), s.at("copied"), s.at("written"));
    let script = "import os, sys; a = os.open(sys.argv[1], os.O_RDONLY); \
                  b = os.open(sys.argv[2], os.O_WRONLY); \
                  assert os.copy_file_range(a, b, 100) == 100";
    as_root_elsewhere(&[word("fallocate"), word("-l"), word("20000"), grown.as_os_str()]);
    let from = s.at("from");
    let words = [word("python3"), word("-c"), word(script), from.as_os_str(), copied.as_os_str()];
    as_root_elsewhere(&words);
    let words = [word("truncate"), word("-s"), word("5"), written.as_os_str()];
    as_root_elsewhere(&words);
    for _ in 0..2 {
        for name in ["grown", "copied", "written"] {
            assert_eq!(mode(s.at(name)), 0o777, "{name}");
        }
        s.remount();
    }
    // Root of the host keeps them with the same calls.
    chmod(s.at("grown"), 0o6777);
    let file = open(s.at("grown"), OFlags::RDWR).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 30_000).unwrap();
    let from = open(s.at("from"), OFlags::RDONLY).unwrap();
    assert_eq!(rustix::fs::copy_file_range(&from, None, &file, None, 6).unwrap(), 6);
    assert_eq!(mode(s.at("grown")), 0o6777);
}

fn chown_clears_set_id_bits_and_capabilities(s: &mut Site) {
    put(s.lower("f"), "x");
    set_xattr(s.lower("f"), CAPABILITY, &net_raw()).unwrap();
    chmod(s.lower("f"), 0o6777);
    dir(s.lower("d"));
    chmod(s.lower("d"), 0o6777);
    s.mount();
    chown(s.at("f"), USER, USER);
    chown(s.at("d"), USER, USER);
    for _ in 0..2 {
        assert_eq!(mode(s.at("f")), 0o777);
        fails(xattr(s.at("f"), CAPABILITY), Errno::NODATA);
        assert_eq!(mode(s.at("d")), 0o6777);
        s.remount();
    }
}

fn write_of_root_keeps_set_id_bits(s: &mut Site) {
    put(s.lower("f"), "x");
    chmod(s.lower("f"), 0o6755);
    s.mount();
    append(s.at("f"), b"y");
    assert_eq!(mode(s.at("f")), 0o6755);
    s.remount();
    assert_eq!(mode(s.at("f")), 0o6755);
}

fn set_group_without_execute_stays(s: &mut Site) {
    put(s.lower("f"), "x");
    chown(s.lower("f"), USER, USER);
    chmod(s.lower("f"), 0o2666);
    s.mount();
    as_user(USER, || append(s.at("f"), b"y"));
    assert_eq!(mode(s.at("f")), 0o2666);
}

fn write_clears_capabilities(s: &mut Site) {
    for name in ["user", "root", "cut"] {
        put(s.lower(name), "x");
        chmod(s.lower(name), 0o777);
        set_xattr(s.lower(name), CAPABILITY, &net_raw()).unwrap();
    }
    s.mount();
    as_user(USER, || append(s.at("user"), b"y"));
    append(s.at("root"), b"y");
    drop(open(s.at("cut"), OFlags::WRONLY | OFlags::TRUNC).unwrap());
    for _ in 0..2 {
        for name in ["user", "root", "cut"] {
            fails(xattr(s.at(name), CAPABILITY), Errno::NODATA);
        }
        s.remount();
    }
}

fn capabilities_survive_attribute_copy_up(s: &mut Site) {
    put(s.lower("f"), "x");
    set_xattr(s.lower("f"), CAPABILITY, &net_raw()).unwrap();
    s.mount();
    chmod(s.at("f"), 0o711);
    set_xattr(s.at("f"), "user.a", b"b").unwrap();
    link(s.at("f"), s.at("g")).unwrap();
    for _ in 0..2 {
        assert_eq!(xattr(s.at("f"), CAPABILITY).unwrap(), net_raw());
        assert_eq!(xattr(s.at("g"), CAPABILITY).unwrap(), net_raw());
        s.remount();
    }
}

fn set_id_bits_survive_attribute_copy_up(s: &mut Site) {
    put(s.lower("f"), "x");
    chmod(s.lower("f"), 0o6711);
    s.mount();
    set_xattr(s.at("f"), "user.a", b"b").unwrap();
    fs::File::open(s.at("f")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    rename(s.at("f"), s.at("g")).unwrap();
    s.remount();
    assert_eq!(mode(s.at("g")), 0o6711);
}

fn reading_keeps_set_id_bits(s: &mut Site) {
    put(s.lower("f"), "x");
    chmod(s.lower("f"), 0o6777);
    s.mount();
    as_user(USER, || {
        assert_eq!(get(s.at("f")), b"x");
        drop(open(s.at("f"), OFlags::RDWR).unwrap());
    });
    assert_eq!(mode(s.at("f")), 0o6777);
}

fn set_id_program_runs_as_its_owner(s: &mut Site) {
    fs::copy("/usr/bin/id", s.lower("id")).unwrap();
    chown(s.lower("id"), OTHER, OTHER);
    chmod(s.lower("id"), 0o4755);
    s.mount();
    let said = as_user(USER, || std::process::Command::new(s.at("id")).arg("-u").output());
    assert_eq!(String::from_utf8(said.unwrap().stdout).unwrap().trim(), OTHER.to_string());
}

fn chmod_and_chown_want_ownership(s: &mut Site) {
    put(s.lower("theirs"), "x");
    put(s.lower("mine"), "x");
    chown(s.lower("mine"), USER, USER);
    s.mount();
    let bits = || std::os::unix::fs::PermissionsExt::from_mode(0o640);
    as_user(USER, || {
        fails_io(fs::set_permissions(s.at("theirs"), bits()), Errno::PERM);
        fs::set_permissions(s.at("mine"), bits()).unwrap();
        fails_io(std::os::unix::fs::chown(s.at("mine"), Some(OTHER), None), Errno::PERM);
        fails_io(std::os::unix::fs::chown(s.at("mine"), None, Some(OTHER)), Errno::PERM);
    });
    as_ids(USER, USER, &[USER, OTHER], || {
        std::os::unix::fs::chown(s.at("mine"), None, Some(OTHER)).unwrap();
    });
    assert_eq!(stat(s.at("mine")).st_gid, OTHER);
}

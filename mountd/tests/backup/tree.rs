//! A tree with every kind of object and attribute, and what a tree is, as text.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

const HOLE: u64 = 300 << 20;

/// Bytes that no compression shortens.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn set_time(path: &Path, secs: i64, nanos: i64) {
    let time = |secs| Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time(secs + 10), last_modification: time(secs) };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// u::rwx u:1234:rwx g::r-x m::rwx o::---
fn access_list() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 7, 1234), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        list.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()));
        list.extend(id.to_le_bytes());
    }
    list
}

/// Makes the tree.
pub fn make(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("d/e/deep")).unwrap();
    fs::create_dir(at("acl")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(at(name), key, value, XattrFlags::empty()).unwrap();
    };
    set("acl", "system.posix_acl_default", &access_list());
    set("acl", "system.posix_acl_access", &access_list());
    fs::write(at("acl/inherits"), "x").unwrap();
    fs::write(at("acl/plain"), "x").unwrap();
    rustix::fs::lremovexattr(at("acl/plain"), "system.posix_acl_access").unwrap();
    for number in 0..200_usize {
        fs::write(at(&format!("d/small-{number}")), noise(number * 97 % 9000, number as u64))
            .unwrap();
    }
    fs::write(at("d/large"), noise(9 << 20, 5)).unwrap();
    fs::write(at("d/e/deep/f"), "f").unwrap();
    fs::write(at("null"), "").unwrap();
    make_links_and_holes(root);
    make_special(root);
    set_attributes(root);
}

fn make_links_and_holes(root: &Path) {
    let at = |name: &str| root.join(name);
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(HOLE).unwrap();
    for part in 0..40 {
        sparse.write_all_at(&noise(8192, part), part * (5 << 20) + 4096).unwrap();
    }
    let short = File::create(at("short-sparse")).unwrap();
    short.set_len(200 << 10).unwrap();
    short.write_all_at(b"middle", 100 << 10).unwrap();
    fs::hard_link(at("d/large"), at("e-link")).unwrap();
    fs::hard_link(at("d/small-3"), at("acl/link")).unwrap();
    symlink("../no/where", at("dangling")).unwrap();
    fs::hard_link(at("dangling"), at("d/dangling-2")).unwrap();
    fs::write(at("od\u{e4}\n name\u{1b}[2J"), "odd").unwrap();
    fs::write(at(".wh.file"), "no whiteout").unwrap();
    fs::write(at(&format!("d/{}", "n".repeat(255))), "long").unwrap();
}

fn make_special(root: &Path) {
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o620), device)
            .unwrap();
    };
    make("fifo", FileType::Fifo, 0);
    make("char", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    make("block", FileType::BlockDevice, rustix::fs::makedev(259, 70_000));
    make("zero", FileType::CharacterDevice, 0);
}

fn set_attributes(root: &Path) {
    let at = |name: &str| root.join(name);
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(at(name), key, value, XattrFlags::empty()).unwrap();
    };
    set("d/small-1", "user.lamina", b"\0binary\n");
    set("d/small-1", "security.lamina", b"s");
    set("char", "trusted.lamina", b"t");
    set("d", "trusted.overlay.opaque", b"y");
    for (name, uid, gid) in [("d", 5, 6), ("d/small-2", 4_000_000_000, 3_000_000), ("fifo", 7, 8)] {
        chown(at(name), Some(uid), Some(gid)).unwrap();
    }
    rustix::fs::chownat(
        CWD,
        at("dangling"),
        Some(rustix::fs::Uid::from_raw(9)),
        None,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
    // A capability of a file, which a later chown would remove.
    set(
        "d/small-4",
        "security.capability",
        &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    for (name, mode) in [("d/small-5", 0o6751), ("empty", 0o1777), ("d/e", 0o500), ("", 0o3770)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, secs) in [("dangling", 1), ("d/small-6", -5_000_000_000), ("null", 9_000_000_000)] {
        set_time(&at(name), secs, 987_654_321);
    }
    for name in ["d/e/deep", "d/e", "d", "acl", "empty", "block", ""] {
        set_time(&at(name), 1_000_000_000, 5);
    }
}

/// Sockets, which no tar can hold.
pub fn make_socket(root: &Path) {
    let bound = std::path::PathBuf::from("/var/tmp").join(format!("s{}", std::process::id()));
    drop(UnixListener::bind(&bound).unwrap());
    fs::rename(&bound, root.join("socket")).unwrap();
    set_time(root, 1_000_000_000, 5);
}

/// What a tree is: each object with all attributes, `atime` only where it is wanted.
pub fn described(root: &Path, with_access: bool) -> BTreeMap<String, String> {
    let (mut found, mut first) = (BTreeMap::new(), BTreeMap::new());
    describe(root, root, with_access, &mut (&mut found, &mut first));
    found
}

type State<'a> = (&'a mut BTreeMap<String, String>, &'a mut BTreeMap<u64, String>);

fn describe(root: &Path, path: &Path, with_access: bool, state: &mut State<'_>) {
    let stat = fs::symlink_metadata(path).unwrap();
    let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
    let (kind, is_file) = (stat.file_type(), stat.is_file());
    let mut text = format!(
        "mode {:o} owner {}:{} links {} mtime {}.{:09} rdev {}",
        stat.mode(),
        stat.uid(),
        stat.gid(),
        if stat.is_dir() { 0 } else { stat.nlink() },
        stat.mtime(),
        stat.mtime_nsec(),
        if kind.is_char_device() || kind.is_block_device() { stat.rdev() } else { 0 },
    );
    // Reading a symbolic link changes its time of access.
    if with_access && !kind.is_symlink() {
        text.push_str(&format!(" atime {}.{:09}", stat.atime(), stat.atime_nsec()));
    }
    let one = state.1.entry(stat.ino()).or_insert_with(|| name.clone());
    if *one != name {
        text.push_str(&format!(" is {one}"));
    }
    let mut keys = vec![0; 1 << 16];
    let len = rustix::fs::llistxattr(path, &mut keys[..]).unwrap();
    let mut keys: Vec<&[u8]> = keys[..len].split(|byte| *byte == 0).collect();
    keys.sort_unstable();
    for key in keys.into_iter().filter(|key| !key.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(path, key, &mut value[..]).unwrap();
        text.push_str(&format!(" {}={}", key.escape_ascii(), value[..len].escape_ascii()));
    }
    if kind.is_symlink() {
        text.push_str(&format!(" -> {:?}", fs::read_link(path).unwrap()));
    } else if is_file {
        use rustix::fs::OFlags;
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOATIME, Mode::empty()).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut File::from(file), &mut bytes).unwrap();
        let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
        text.push_str(&format!(" size {} {digest:x}", stat.size()));
        let is_sparse = stat.blocks() * 512 < stat.size() / 2;
        text.push_str(if is_sparse { " with holes" } else { "" });
    }
    state.0.insert(name, text);
    if stat.is_dir() {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        // Reading a directory changes its time of access.
        let times = |nanos: i64, secs| Timespec { tv_sec: secs, tv_nsec: nanos };
        let times = Timestamps {
            last_access: times(stat.atime_nsec(), stat.atime()),
            last_modification: times(stat.mtime_nsec(), stat.mtime()),
        };
        rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
        names.iter().for_each(|path| describe(root, path, with_access, state));
    }
}

/// Compares two trees.
#[track_caller]
pub fn assert_equal(left: &Path, right: &Path, with_access: bool) {
    assert_same(&described(left, with_access), &described(right, with_access));
}

/// Compares what two trees are.
#[track_caller]
pub fn assert_same(left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) {
    for name in left.keys().chain(right.keys()) {
        assert_eq!(left.get(name), right.get(name), "{name:?}");
    }
}

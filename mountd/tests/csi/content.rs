//! Content with every attribute that a file can have, and what is read of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};
use sha2::{Digest, Sha256};

use crate::host::MIB;
use crate::kinds::Kind;

/// What is read of a volume: lines by path, or by offset.
pub type Content = BTreeMap<Vec<u8>, String>;

const HOLE: u64 = 2 * MIB;

/// Writes content that differs for each number.
pub fn write(kind: Kind, at: &Path, number: u64) {
    if kind.is_block() { write_device(at, number) } else { write_tree(at, number) }
}

/// Reads all of it.
pub fn read(kind: Kind, at: &Path) -> Content {
    if kind.is_block() { read_device(at) } else { read_tree(at) }
}

fn write_tree(at: &Path, number: u64) {
    let dir = at.join("all");
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join("file");
    fs::write(&file, format!("content {number}")).unwrap();
    let set = |path: &Path, uid, gid, mode| {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    set(&file, 1000, 1001, 0o640);
    fs::write(dir.join("setuid"), "program").unwrap();
    set(&dir.join("setuid"), 12, 34, 0o6755);
    for (name, mode) in [("sticky", 0o1777), ("setgid", 0o2775)] {
        fs::create_dir_all(dir.join(name)).unwrap();
        set(&dir.join(name), 5, 2000, mode);
    }
    let replace = |name: &[u8]| {
        let path = dir.join(OsStr::from_bytes(name));
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).unwrap();
        }
        path
    };
    symlink(OsStr::from_bytes(b"../no where\xff\n"), replace(b"dangling")).unwrap();
    fs::hard_link(&file, replace(b"second name")).unwrap();
    rustix::fs::mknodat(CWD, replace(b"fifo"), FileType::Fifo, Mode::from_raw_mode(0o622), 0)
        .unwrap();
    fs::write(replace(b"n\xff\nw \\"), "a name of bytes").unwrap();
    fs::write(replace("ü".repeat(127).as_bytes()), "a long name").unwrap();
    let sparse = File::create(dir.join("sparse")).unwrap();
    sparse.write_all_at(&number.to_be_bytes().repeat(512), HOLE).unwrap();
    sparse.set_len(2 * HOLE).unwrap();
    let value = [b"\0\xff".as_slice(), &number.to_be_bytes()].concat();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&file, "user.of mine", &value, flags).unwrap();
    rustix::fs::setxattr(&file, "trusted.too", b"x", flags).unwrap();
    let time = Timespec { tv_sec: 1_234_567_890, tv_nsec: 123_456_789 };
    let unset = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: unset, last_modification: time };
    for name in ["file", "sticky"] {
        let path = dir.join(name);
        rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    rustix::fs::syncfs(File::open(&dir).unwrap()).unwrap();
}

fn read_tree(at: &Path) -> Content {
    let (mut found, mut names) = (Content::new(), BTreeMap::new());
    let mut left = vec![at.to_owned()];
    while let Some(dir) = left.pop() {
        let mut paths: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|one| one.unwrap().path()).collect();
        paths.retain(|path| !path.ends_with("lost+found"));
        paths.sort();
        for path in paths {
            let name = path.strip_prefix(at).unwrap().as_os_str().as_bytes().to_owned();
            let meta = path.symlink_metadata().unwrap();
            let first = names.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
            if meta.is_dir() {
                left.push(path.clone());
            }
            found.insert(name, described(&path, &meta, &first));
        }
    }
    found
}

fn described(path: &Path, meta: &fs::Metadata, first: &[u8]) -> String {
    let data = if meta.is_file() {
        format!("{:x}", Sha256::digest(fs::read(path).unwrap()))
    } else if meta.is_symlink() {
        format!("{:?}", fs::read_link(path).unwrap())
    } else {
        String::new()
    };
    let (owner, group, mode) = (meta.uid(), meta.gid(), meta.mode());
    let (size, links) = if meta.is_dir() { (0, 0) } else { (meta.size(), meta.nlink()) };
    let has_hole = meta.is_file() && meta.blocks() * 512 < meta.size() / 2;
    let time = (meta.mtime(), meta.mtime_nsec());
    let same = first.escape_ascii();
    format!(
        "{mode:o} {owner}:{group} {size} {links} {time:?} {has_hole} {same} {data} {:?}",
        attributes(path)
    )
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let len = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        value.truncate(len);
        (String::from_utf8(name.to_vec()).unwrap(), value)
    };
    // What a mount adds is not of the volume.
    names.map(read).filter(|(name, _)| name.starts_with("user.") || name == "trusted.too").collect()
}

/// The offsets that are written of a device of 16 MiB, in blocks of 4 KiB.
fn places(number: u64) -> [u64; 4] {
    [0, 1 + number % 7, 1000 + number % 50, 4095]
}

fn write_device(at: &Path, number: u64) {
    let device = OpenOptions::new().write(true).open(at).unwrap();
    for place in places(number) {
        let text = format!("{number} {place} ").repeat(512);
        device.write_all_at(&text.as_bytes()[..4096.min(text.len())], place * 4096).unwrap();
    }
    device.sync_all().unwrap();
}

fn read_device(at: &Path) -> Content {
    let mut device = File::open(at).unwrap();
    let size = device.seek(SeekFrom::End(0)).unwrap();
    device.seek(SeekFrom::Start(0)).unwrap();
    let mut found = Content::new();
    let mut block = [0; 4096];
    for index in 0..size / 4096 {
        device.read_exact(&mut block).unwrap();
        if block != [0; 4096] {
            let key = format!("{index:08}").into_bytes();
            found.insert(key, format!("{:x}", Sha256::digest(block)));
        }
    }
    found
}

/// Writes until there is no space, and returns the bytes that were written.
pub fn fill(kind: Kind, at: &Path) -> u64 {
    let path = if kind.is_block() { at.to_owned() } else { at.join("fill") };
    let mut file = OpenOptions::new().write(true).create(!kind.is_block()).open(path).unwrap();
    let mut written = 0;
    let block = vec![7; usize::try_from(MIB / 4).unwrap()];
    loop {
        match file.write(&block) {
            Ok(0) => return written,
            Ok(bytes) => written += u64::try_from(bytes).unwrap(),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(28), "{error}");
                return written;
            }
        }
        assert!(written < 1024 * MIB, "no end of space");
    }
}

/// The size that a user sees.
pub fn size(kind: Kind, at: &Path) -> u64 {
    if kind.is_block() {
        return File::open(at).unwrap().seek(SeekFrom::End(0)).unwrap();
    }
    let stat = rustix::fs::statvfs(at).unwrap();
    stat.f_blocks * stat.f_frsize
}

//! Names and paths: any bytes, up to 255 of them, in paths up to PATH_MAX.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    names_of_255_bytes_work,
    lower_names_of_255_bytes_can_be_removed,
    longer_names_are_refused,
    names_are_bytes,
    names_with_separators_of_options,
    paths_reach_path_max,
    deep_trees_work,
    dot_names_are_ordinary,
);

fn names_of_255_bytes_work(s: &mut Site) {
    let name = "n".repeat(255);
    put(s.lower(&name), "lower");
    dir(s.lower("d"));
    s.mount();
    append(s.at(&name), b"+");
    rename(s.at(&name), s.at("d").join(&name)).unwrap();
    let other = "o".repeat(255);
    put(s.at(&other), "new");
    link(s.at(&other), s.at("d").join(&other)).unwrap();
    s.remount();
    assert_eq!(names(s.mnt()), ["d".to_owned(), other.clone()]);
    assert_eq!(names(s.at("d")), [name.clone(), other.clone()]);
    assert_eq!(get(s.at("d").join(&name)), b"lower+");
}

fn lower_names_of_255_bytes_can_be_removed(s: &mut Site) {
    let name = "n".repeat(255);
    let folder = "d".repeat(255);
    put(s.lower(&name), "x");
    dir(s.lower(&folder).join(&name));
    s.mount();
    fs::remove_file(s.at(&name)).unwrap();
    fs::remove_dir_all(s.at(&folder)).unwrap();
    s.remount();
    assert_eq!(names(s.mnt()), Vec::<String>::new());
    dir(s.at(&folder));
    assert_eq!(names(s.at(&folder)), Vec::<String>::new());
}

fn longer_names_are_refused(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    s.mount();
    let long = s.at(&"n".repeat(256));
    fails(try_stat(&long), Errno::NAMETOOLONG);
    fails(open(&long, OFlags::CREATE | OFlags::RDWR), Errno::NAMETOOLONG);
    fails(rename(s.at("f"), &long), Errno::NAMETOOLONG);
    fails(rename(s.at("d"), &long), Errno::NAMETOOLONG);
    fails(link(s.at("f"), &long), Errno::NAMETOOLONG);
    fails(mknod(&long, rustix::fs::FileType::Fifo, 0, 0), Errno::NAMETOOLONG);
    fails_io(fs::create_dir(&long), Errno::NAMETOOLONG);
    fails_io(symlink("x", &long), Errno::NAMETOOLONG);
    fails_io(fs::remove_file(&long), Errno::NAMETOOLONG);
    fails_io(fs::remove_dir(&long), Errno::NAMETOOLONG);
}

fn names_are_bytes(s: &mut Site) {
    let names: [&[u8]; 6] =
        [b"\xff\xfe", b"new\nline", b"tab\tname", b" ", b"\xe2\x80\xaetxt.exe", b"*?[a]'\""];
    for name in &names[..3] {
        put(s.lower("").join(OsStr::from_bytes(name)), name);
    }
    s.mount();
    for name in &names[3..] {
        put(s.mnt().join(OsStr::from_bytes(name)), name);
    }
    append(s.mnt().join(OsStr::from_bytes(names[0])), b"");
    for _ in 0..2 {
        let mut listed: Vec<Vec<u8>> = fs::read_dir(s.mnt())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
            .collect();
        listed.sort();
        let mut expected = names.map(<[u8]>::to_vec);
        expected.sort();
        assert_eq!(listed, expected);
        for name in names {
            assert_eq!(get(s.mnt().join(OsStr::from_bytes(name))), name);
        }
        s.remount();
    }
}

fn names_with_separators_of_options(s: &mut Site) {
    for name in ["a:b", "c,d", "e\\f", "lowerdir=x", "#g"] {
        dir(s.lower(name));
        put(s.lower(name).join("in"), name);
    }
    s.mount();
    for name in ["a:b", "c,d", "e\\f", "lowerdir=x", "#g"] {
        let moved = format!("{name}.moved");
        rename(s.at(name), s.at(&moved)).unwrap();
    }
    s.remount();
    for name in ["a:b", "c,d", "e\\f", "lowerdir=x", "#g"] {
        assert_eq!(get(s.at(&format!("{name}.moved")).join("in")), name.as_bytes());
    }
}

fn paths_reach_path_max(s: &mut Site) {
    s.mount();
    let base = s.mnt();
    let mut path = base.clone();
    let part = "p".repeat(200);
    while path.as_os_str().len() + 201 < 4000 {
        path.push(&part);
        fs::create_dir(&path).unwrap();
    }
    let rest = 4095 - path.as_os_str().len() - 1;
    let last = path.join("f".repeat(rest));
    assert_eq!(last.as_os_str().len(), 4095);
    put(&last, "far");
    chmod(&last, 0o600);
    assert_eq!(get(&last), b"far");
    fails(try_stat(path.join("f".repeat(rest + 1))), Errno::NAMETOOLONG);
    let moved = path.join("g".repeat(rest));
    rename(&last, &moved).unwrap();
    fs::remove_file(&moved).unwrap();
}

fn deep_trees_work(s: &mut Site) {
    s.mount();
    // Deeper than PATH_MAX: only reachable by descriptor.
    let mut at = open(s.mnt(), OFlags::DIRECTORY).unwrap();
    let name = "deep".repeat(20);
    for _ in 0..80 {
        mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = openat(&at, name.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let file = openat(&at, "f", OFlags::CREATE | OFlags::RDWR, Mode::RWXU).unwrap();
    rustix::io::write(&file, b"bottom").unwrap();
    drop(file);
    let meta = rustix::fs::statat(&at, "f", AtFlags::empty()).unwrap();
    assert_eq!(meta.st_size, 6);
    rustix::fs::renameat(&at, "f", &at, "g").unwrap();
    rustix::fs::unlinkat(&at, "g", AtFlags::empty()).unwrap();
    drop(at);
    fs::remove_dir_all(s.at(&name)).unwrap();
    assert_eq!(names(s.mnt()), Vec::<String>::new());
}

fn dot_names_are_ordinary(s: &mut Site) {
    for name in [".hidden", "...", "..x", ".wh", "a.wh.b"] {
        put(s.lower(name), name);
    }
    s.mount();
    assert_eq!(names(s.mnt()), ["...", "..x", ".hidden", ".wh", "a.wh.b"]);
    for name in [".hidden", "...", "..x", ".wh", "a.wh.b"] {
        assert_eq!(get(s.at(name)), name.as_bytes());
        fs::remove_file(s.at(name)).unwrap();
    }
    s.remount();
    assert_eq!(names(s.mnt()), Vec::<String>::new());
}

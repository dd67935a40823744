//! Memory mappings: coherent with reads and writes, before and after a copy-up.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use crate::calls::Map;
use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    mapped_writes_are_read,
    writes_show_in_a_shared_mapping,
    private_mapping_keeps_its_writes,
    mapping_outlives_descriptor_and_name,
    mapped_writes_reach_the_layer,
    program_in_a_lower_runs_after_chmod,
);
// In overlayfs a mapping of the lower file stays on the lower file.
judged!(beyond_kernel: mapping_of_lower_file_sees_later_writes);

fn read_write(s: &Site) -> std::os::fd::OwnedFd {
    open(s.at("f"), OFlags::RDWR).unwrap()
}

fn mapped_writes_are_read(s: &mut Site) {
    put(s.lower("f"), vec![b'-'; 10_000]);
    s.mount();
    let file = read_write(s);
    let map = Map::new(file.as_fd(), 10_000, true, true).unwrap();
    map.write(5000, b"mapped");
    map.sync().unwrap();
    assert_eq!(&get(s.at("f"))[4999..5007], b"-mapped-");
    drop(map);
    drop(file);
    s.remount();
    assert_eq!(&get(s.at("f"))[4999..5007], b"-mapped-");
}

fn writes_show_in_a_shared_mapping(s: &mut Site) {
    put(s.lower("f"), vec![b'-'; 10_000]);
    s.mount();
    let file = read_write(s);
    let map = Map::new(file.as_fd(), 10_000, true, false).unwrap();
    assert_eq!(map.read(5000, 3), b"---");
    rustix::io::pwrite(&file, b"abc", 5000).unwrap();
    assert_eq!(map.read(5000, 3), b"abc");
    let other = open(s.at("f"), OFlags::WRONLY).unwrap();
    rustix::io::pwrite(&other, b"xyz", 5000).unwrap();
    assert_eq!(map.read(5000, 3), b"xyz");
}

fn private_mapping_keeps_its_writes(s: &mut Site) {
    put(s.lower("f"), "0123456789");
    s.mount();
    let file = open(s.at("f"), OFlags::RDONLY).unwrap();
    let map = Map::new(file.as_fd(), 10, false, true).unwrap();
    map.write(0, b"private");
    assert_eq!(map.read(0, 10), b"private789");
    assert_eq!(get(s.at("f")), b"0123456789");
}

fn mapping_outlives_descriptor_and_name(s: &mut Site) {
    put(s.lower("f"), vec![b'm'; 8192]);
    s.mount();
    let file = read_write(s);
    let map = Map::new(file.as_fd(), 8192, true, true).unwrap();
    drop(file);
    fs::remove_file(s.at("f")).unwrap();
    drop_caches();
    assert_eq!(map.read(4096, 2), b"mm");
    map.write(4096, b"x");
    assert_eq!(map.read(4096, 2), b"xm");
}

fn mapped_writes_reach_the_layer(s: &mut Site) {
    put(s.lower("f"), vec![b'-'; 8192]);
    s.mount();
    let file = read_write(s);
    let map = Map::new(file.as_fd(), 8192, true, true).unwrap();
    map.write(100, b"late");
    drop(map);
    drop(file);
    s.unmount();
    if s.is_union() {
        assert_eq!(&get(s.upper("f"))[100..104], b"late");
    } else {
        assert_eq!(&get(s.at("f"))[100..104], b"late");
    }
}

fn program_in_a_lower_runs_after_chmod(s: &mut Site) {
    fs::copy("/bin/true", s.lower("true")).unwrap();
    chmod(s.lower("true"), 0o600);
    s.mount();
    chmod(s.at("true"), 0o755);
    assert!(std::process::Command::new(s.at("true")).status().unwrap().success());
}

fn mapping_of_lower_file_sees_later_writes(s: &mut Site) {
    put(s.lower("f"), vec![b'-'; 10_000]);
    s.mount();
    let file = open(s.at("f"), OFlags::RDONLY).unwrap();
    let map = Map::new(file.as_fd(), 10_000, true, false).unwrap();
    assert_eq!(map.read(5000, 3), b"---");
    let writer = fs::OpenOptions::new().write(true).open(s.at("f")).unwrap();
    writer.write_all_at(b"abc", 5000).unwrap();
    assert_eq!(map.read(5000, 3), b"abc");
}

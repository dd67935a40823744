//! Sparse files: holes are kept and can be found, and every `fallocate` mode of the upper works.

use std::fs;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    copy_up_keeps_holes,
    seek_finds_data_and_holes,
    seek_past_the_end_fails,
    allocate_reserves_and_grows,
    allocate_keeping_the_size,
    punched_hole_reads_as_zeroes,
    zeroed_range_reads_as_zeroes,
    allocate_checks_its_arguments,
    size_beyond_four_gigabytes,
);
// `fuse_file_fallocate()` in the kernel's fs/fuse/file.c does not support such modes.
judged!(beyond_fuse: collapsed_range_is_gone, inserted_range_moves_the_rest);
judged!(lamina: collapse_and_insert_are_refused);

const MIB: u64 = 1 << 20;
/// Four MiB in blocks of 512 bytes: overlayfs keeps only holes of a MiB and more.
const BLOCKS: i64 = 8192;

fn sparse(s: &Site, name: &str) {
    let file = fs::File::create(s.lower(name)).unwrap();
    file.write_all_at(b"head", 0).unwrap();
    file.write_all_at(b"tail", 64 * MIB).unwrap();
    file.sync_all().unwrap();
}

fn copy_up_keeps_holes(s: &mut Site) {
    sparse(s, "f");
    s.mount();
    append(s.at("f"), b"!");
    assert_eq!(stat(s.at("f")).st_size, 64 * 1024 * 1024 + 5);
    assert!(stat(s.at("f")).st_blocks < BLOCKS, "blocks: {}", stat(s.at("f")).st_blocks);
    s.remount();
    assert!(stat(s.at("f")).st_blocks < BLOCKS, "blocks: {}", stat(s.at("f")).st_blocks);
    let file = fs::File::open(s.at("f")).unwrap();
    let mut seen = [0u8; 5];
    file.read_exact_at(&mut seen, 64 * MIB).unwrap();
    assert_eq!(&seen, b"tail!");
}

fn seek_finds_data_and_holes(s: &mut Site) {
    sparse(s, "f");
    s.mount();
    for round in 0..2 {
        let file = open(s.at("f"), OFlags::RDONLY).unwrap();
        assert_eq!(seek(&file, SeekFrom::Data(0)).unwrap(), 0);
        let hole = seek(&file, SeekFrom::Hole(0)).unwrap();
        assert!((4096..=MIB).contains(&hole), "{hole}");
        assert_eq!(seek(&file, SeekFrom::Data(hole)).unwrap(), 64 * MIB);
        let end = 64 * MIB + 4 + round;
        assert_eq!(seek(&file, SeekFrom::Hole(64 * MIB)).unwrap(), end);
        append(s.at("f"), b"x");
    }
}

fn seek_past_the_end_fails(s: &mut Site) {
    put(s.lower("f"), "abc");
    s.mount();
    let file = open(s.at("f"), OFlags::RDONLY).unwrap();
    fails(seek(&file, SeekFrom::Data(3)), Errno::NXIO);
    fails(seek(&file, SeekFrom::Hole(3)), Errno::NXIO);
    fails(seek(&file, SeekFrom::Current(-1)), Errno::INVAL);
    assert_eq!(seek(&file, SeekFrom::End(0)).unwrap(), 3);
}

fn allocate_reserves_and_grows(s: &mut Site) {
    put(s.lower("f"), "abc");
    s.mount();
    let file = open(s.at("f"), OFlags::RDWR).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, MIB).unwrap();
    let meta = stat(s.at("f"));
    assert_eq!(meta.st_size, 1 << 20);
    assert!(meta.st_blocks >= 2048);
    assert_eq!(&get(s.at("f"))[..4], b"abc\0");
}

fn allocate_keeping_the_size(s: &mut Site) {
    put(s.lower("f"), "abc");
    s.mount();
    let file = open(s.at("f"), OFlags::RDWR).unwrap();
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, MIB).unwrap();
    let meta = rustix::fs::fstat(&file).unwrap();
    assert_eq!(meta.st_size, 3);
    assert!(meta.st_blocks >= 2048);
}

fn filled(s: &Site) {
    let content: Vec<u8> = b"ABCD".iter().flat_map(|letter| [*letter; 4096]).collect();
    put(s.lower("f"), content);
}

fn letters(s: &Site) -> String {
    let content = get(s.at("f"));
    content.chunks(4096).map(|page| if page[0] == 0 { '.' } else { page[0].into() }).collect()
}

/// Applies one mode to the second page of a lower file and reads the pages back, cached and not.
#[track_caller]
fn second_page(s: &mut Site, mode: FallocateFlags, expected: &str) {
    filled(s);
    s.mount();
    let file = open(s.at("f"), OFlags::RDWR).unwrap();
    assert_eq!(letters(s), "ABCD");
    fallocate(&file, mode, 4096, 4096).unwrap();
    assert_eq!(letters(s), expected);
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, expected.len() as i64 * 4096);
    drop(file);
    s.remount();
    assert_eq!(letters(s), expected);
}

fn punched_hole_reads_as_zeroes(s: &mut Site) {
    second_page(s, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, "A.CD");
    let file = open(s.at("f"), OFlags::RDONLY).unwrap();
    assert_eq!(seek(&file, SeekFrom::Hole(0)).unwrap(), 4096);
}

fn zeroed_range_reads_as_zeroes(s: &mut Site) {
    second_page(s, FallocateFlags::ZERO_RANGE, "A.CD");
}

fn collapsed_range_is_gone(s: &mut Site) {
    second_page(s, FallocateFlags::COLLAPSE_RANGE, "ACD");
}

fn inserted_range_moves_the_rest(s: &mut Site) {
    second_page(s, FallocateFlags::INSERT_RANGE, "A.BCD");
}

fn allocate_checks_its_arguments(s: &mut Site) {
    put(s.lower("f"), "abc");
    mknod(s.lower("pipe"), rustix::fs::FileType::Fifo, 0, 0).unwrap();
    s.mount();
    let file = open(s.at("f"), OFlags::RDWR).unwrap();
    fails(fallocate(&file, FallocateFlags::empty(), 0, 0), Errno::INVAL);
    fails(fallocate(&file, FallocateFlags::PUNCH_HOLE, 0, 4096), Errno::OPNOTSUPP);
    fails(fallocate(&file, FallocateFlags::empty(), 1 << 62, 1 << 62), Errno::FBIG);
    assert_eq!(get(s.at("f")), b"abc");
}

fn collapse_and_insert_are_refused(s: &mut Site) {
    let bytes = vec![7; 16_384];
    put(s.lower("f"), &bytes);
    s.mount();
    let file = open(s.at("f"), OFlags::RDWR).unwrap();
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        fails(fallocate(&file, mode, 4096, 4096), Errno::OPNOTSUPP);
    }
    assert_eq!(get(s.at("f")), bytes);
}

fn size_beyond_four_gigabytes(s: &mut Site) {
    let file = fs::File::create(s.lower("f")).unwrap();
    file.write_all_at(b"far", 5 << 30).unwrap();
    s.mount();
    let file = fs::OpenOptions::new().read(true).write(true).open(s.at("f")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (5 << 30) + 3);
    file.write_all_at(b"near", (4 << 30) + 7).unwrap();
    let mut seen = [0u8; 4];
    file.read_exact_at(&mut seen, (4 << 30) + 7).unwrap();
    assert_eq!(&seen, b"near");
    let mut seen = [0u8; 3];
    file.read_exact_at(&mut seen, 5 << 30).unwrap();
    assert_eq!(&seen, b"far");
}

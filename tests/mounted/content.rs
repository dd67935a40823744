//! The content of files: reading and writing over a copy-up, truncation, append, copies inside the
//! kernel, and descriptors that were opened before the copy-up.

use std::fs;
use std::os::unix::fs::FileExt;

use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;

judged!(everywhere:
    write_into_a_lower_file_keeps_the_rest,
    lower_is_never_written,
    large_file_is_copied_whole,
    truncate_shrinks_and_grows,
    truncate_checks_its_arguments,
    append_flag_wins_over_the_offset,
    appends_of_two_descriptors_do_not_overlap,
    write_past_the_end_leaves_zeroes,
    reads_end_at_the_end,
    old_reader_sees_what_is_written_later,
    old_reader_sees_it_after_caches_are_dropped,
    old_reader_sees_a_truncation,
    two_openers_see_each_other,
    vectors_are_written_in_order,
    copy_range_between_lower_and_new_file,
    copy_range_within_a_lower_file,
    copy_range_needs_open_descriptors_only,
    sendfile_reads_a_lower_file,
    sync_calls_succeed,
    direct_io_agrees_with_buffered_io,
    many_small_writes_add_up,
    dup_shares_its_offset_across_copy_up,
);

// overlayfs copies up without the data before it checks whether the file is being executed.
judged!(beyond_kernel: a_running_program_is_not_truncated);

judged!(lamina: small_files_cost_no_read);

const LARGE: usize = 12 << 20;

fn write_into_a_lower_file_keeps_the_rest(s: &mut Site) {
    let mut expected = pattern(100_000);
    put(s.lower("f"), &expected);
    s.mount();
    let file = fs::OpenOptions::new().write(true).open(s.at("f")).unwrap();
    file.write_all_at(b"CHANGED", 50_000).unwrap();
    drop(file);
    expected[50_000..50_007].copy_from_slice(b"CHANGED");
    assert!(get(s.at("f")) == expected);
    s.remount();
    assert!(get(s.at("f")) == expected);
}

fn lower_is_never_written(s: &mut Site) {
    put(s.lower("f"), "lower");
    dir(s.lower("d"));
    let lower = s.is_union().then(|| s.lower(""));
    let before = lower.as_ref().map(|path| crate::tree::read(path));
    s.mount();
    append(s.at("f"), b"!");
    chmod(s.at("d"), 0o700);
    set_xattr(s.at("f"), "user.x", b"y").unwrap();
    fs::remove_file(s.at("f")).unwrap();
    fs::remove_dir(s.at("d")).unwrap();
    s.unmount();
    if let (Some(path), Some(before)) = (lower, before) {
        crate::tree::assert_same("before", &before, "after", &crate::tree::read(&path));
    }
}

fn large_file_is_copied_whole(s: &mut Site) {
    let mut expected = pattern(LARGE);
    put(s.lower("f"), &expected);
    chown(s.lower("f"), 7, 8);
    chmod(s.lower("f"), 0o640);
    s.mount();
    let file = fs::OpenOptions::new().read(true).write(true).open(s.at("f")).unwrap();
    file.write_all_at(b"x", 9_000_001).unwrap();
    expected[9_000_001] = b'x';
    let mut seen = vec![0; LARGE];
    file.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == expected);
    drop(file);
    s.remount();
    assert!(get(s.at("f")) == expected);
    let meta = stat(s.at("f"));
    assert_eq!((meta.st_uid, meta.st_gid, meta.st_mode & 0o7777), (7, 8, 0o640));
}

fn truncate_shrinks_and_grows(s: &mut Site) {
    put(s.lower("f"), "0123456789");
    put(s.lower("g"), "0123456789");
    s.mount();
    let file = open(s.at("f"), OFlags::RDWR).unwrap();
    rustix::fs::ftruncate(&file, 4).unwrap();
    assert_eq!(get(s.at("f")), b"0123");
    rustix::fs::ftruncate(&file, 8).unwrap();
    assert_eq!(get(s.at("f")), b"0123\0\0\0\0");
    let path = s.at("g");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(3).unwrap();
    assert_eq!(get(&path), b"012");
    drop(file);
    s.remount();
    assert_eq!(get(s.at("f")), b"0123\0\0\0\0");
    assert_eq!(get(s.at("g")), b"012");
}

fn truncate_checks_its_arguments(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    s.mount();
    let file = open(s.at("f"), OFlags::RDWR).unwrap();
    fails(rustix::fs::ftruncate(&file, u64::MAX >> 1), Errno::FBIG);
    let folder = open(s.at("d"), OFlags::RDONLY).unwrap();
    fails(rustix::fs::ftruncate(&folder, 0), Errno::INVAL);
    assert_eq!(get(s.at("f")), b"x");
}

fn append_flag_wins_over_the_offset(s: &mut Site) {
    put(s.lower("f"), "abc");
    s.mount();
    let file = open(s.at("f"), OFlags::RDWR | OFlags::APPEND).unwrap();
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
    rustix::io::write(&file, b"def").unwrap();
    assert_eq!(get(s.at("f")), b"abcdef");
}

fn appends_of_two_descriptors_do_not_overlap(s: &mut Site) {
    put(s.lower("f"), "");
    s.mount();
    let path = s.at("f");
    std::thread::scope(|scope| {
        for letter in [b'a', b'b'] {
            let path = &path;
            scope.spawn(move || {
                let file = open(path, OFlags::WRONLY | OFlags::APPEND).unwrap();
                for _ in 0..500 {
                    assert_eq!(rustix::io::write(&file, &[letter; 10]).unwrap(), 10);
                }
            });
        }
    });
    let content = get(&path);
    assert_eq!(content.len(), 10_000);
    assert!(content.chunks(10).all(|part| part.iter().all(|byte| *byte == part[0])));
}

fn write_past_the_end_leaves_zeroes(s: &mut Site) {
    put(s.lower("f"), "abc");
    s.mount();
    let file = fs::OpenOptions::new().write(true).open(s.at("f")).unwrap();
    file.write_all_at(b"z", 10_000).unwrap();
    let content = get(s.at("f"));
    assert_eq!(content.len(), 10_001);
    assert_eq!(&content[..4], b"abc\0");
    assert!(content[3..10_000].iter().all(|byte| *byte == 0));
}

fn reads_end_at_the_end(s: &mut Site) {
    put(s.lower("f"), "abc");
    s.mount();
    let file = fs::File::open(s.at("f")).unwrap();
    let mut buffer = [0u8; 16];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 3);
    assert_eq!(file.read_at(&mut buffer, 3).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
}

fn old_reader_sees_what_is_written_later(s: &mut Site) {
    put(s.lower("f"), "old old");
    s.mount();
    let reader = fs::File::open(s.at("f")).unwrap();
    let mut seen = [0u8; 7];
    reader.read_exact_at(&mut seen, 0).unwrap();
    put(s.at("f"), "new new");
    reader.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"new new");
    append(s.at("f"), b"!");
    assert_eq!(reader.metadata().unwrap().len(), 8);
}

fn old_reader_sees_it_after_caches_are_dropped(s: &mut Site) {
    put(s.lower("f"), pattern(300_000));
    // With passthrough the reader keeps the lower file, see SEMANTICS.
    s.options = "passthrough=off".to_owned();
    s.mount();
    let reader = fs::File::open(s.at("f")).unwrap();
    let mut seen = [0u8; 7];
    reader.read_exact_at(&mut seen, 100_000).unwrap();
    let writer = fs::OpenOptions::new().write(true).open(s.at("f")).unwrap();
    writer.write_all_at(b"new new", 100_000).unwrap();
    writer.sync_all().unwrap();
    drop_caches();
    reader.read_exact_at(&mut seen, 100_000).unwrap();
    assert_eq!(&seen, b"new new");
    fs::File::open(s.at("f")).unwrap().read_exact_at(&mut seen, 100_000).unwrap();
    assert_eq!(&seen, b"new new");
}

fn old_reader_sees_a_truncation(s: &mut Site) {
    put(s.lower("f"), "a long line");
    s.mount();
    let reader = fs::File::open(s.at("f")).unwrap();
    let mut seen = [0u8; 16];
    assert_eq!(reader.read_at(&mut seen, 0).unwrap(), 11);
    put(s.at("f"), "short");
    assert_eq!(reader.read_at(&mut seen, 0).unwrap(), 5);
    assert_eq!(&seen[..5], b"short");
    assert_eq!(reader.metadata().unwrap().len(), 5);
}

fn two_openers_see_each_other(s: &mut Site) {
    put(s.lower("f"), "------");
    s.mount();
    let flags = || fs::OpenOptions::new().read(true).write(true).open(s.at("f")).unwrap();
    let (one, two) = (flags(), flags());
    one.write_all_at(b"one", 0).unwrap();
    two.write_all_at(b"two", 3).unwrap();
    let mut seen = [0u8; 6];
    one.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"onetwo");
}

fn vectors_are_written_in_order(s: &mut Site) {
    put(s.lower("f"), "");
    s.mount();
    let file = open(s.at("f"), OFlags::RDWR).unwrap();
    let parts = [b"abc".as_slice(), b"", b"defg"].map(std::io::IoSlice::new);
    assert_eq!(rustix::io::writev(&file, &parts).unwrap(), 7);
    assert_eq!(get(s.at("f")), b"abcdefg");
}

fn copy_range_between_lower_and_new_file(s: &mut Site) {
    let content = pattern(200_000);
    put(s.lower("from"), &content);
    s.mount();
    let from = open(s.at("from"), OFlags::RDONLY).unwrap();
    let to = open(s.at("to"), OFlags::RDWR | OFlags::CREATE).unwrap();
    let mut copied = 0;
    while copied < content.len() {
        let left = content.len() - copied;
        match rustix::fs::copy_file_range(&from, None, &to, None, left).unwrap() {
            0 => break,
            len => copied += len,
        }
    }
    assert_eq!(copied, content.len());
    assert!(get(s.at("to")) == content);
}

fn copy_range_within_a_lower_file(s: &mut Site) {
    put(s.lower("f"), "0123456789");
    s.mount();
    let file = open(s.at("f"), OFlags::RDWR).unwrap();
    let (mut from, mut to) = (0, 10);
    let done = rustix::fs::copy_file_range(&file, Some(&mut from), &file, Some(&mut to), 5);
    assert_eq!(done.unwrap(), 5);
    assert_eq!(get(s.at("f")), b"012345678901234");
    let (mut from, mut to) = (0, 2);
    let overlap = rustix::fs::copy_file_range(&file, Some(&mut from), &file, Some(&mut to), 5);
    fails(overlap, Errno::INVAL);
}

fn copy_range_needs_open_descriptors_only(s: &mut Site) {
    put(s.lower("from"), "content");
    chmod(s.lower("from"), 0o444);
    dir(s.lower("d"));
    chown(s.lower("d"), USER, USER);
    s.mount();
    as_user(USER, || {
        let from = open(s.at("from"), OFlags::RDONLY).unwrap();
        let flags = OFlags::RDWR | OFlags::CREATE;
        let mode = rustix::fs::Mode::from_raw_mode(0o444);
        let to = rustix::fs::openat(CWD, s.at("d/to"), flags, mode).unwrap();
        assert_eq!(rustix::fs::copy_file_range(&from, None, &to, None, 7).unwrap(), 7);
    });
    assert_eq!(get(s.at("d/to")), b"content");
}

fn sendfile_reads_a_lower_file(s: &mut Site) {
    put(s.lower("f"), pattern(50_000));
    s.mount();
    let from = open(s.at("f"), OFlags::RDONLY).unwrap();
    let to = open(s.at("g"), OFlags::RDWR | OFlags::CREATE).unwrap();
    assert_eq!(rustix::fs::sendfile(&to, &from, None, 50_000).unwrap(), 50_000);
    assert!(get(s.at("g")) == pattern(50_000));
}

fn sync_calls_succeed(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    s.mount();
    append(s.at("f"), b"y");
    let (file, folder) = (open(s.at("f"), OFlags::RDWR), open(s.at("d"), OFlags::RDONLY));
    let (file, folder) = (file.unwrap(), folder.unwrap());
    rustix::fs::fsync(&file).unwrap();
    rustix::fs::fdatasync(&file).unwrap();
    rustix::fs::fsync(&folder).unwrap();
    rustix::fs::syncfs(&folder).unwrap();
}

fn direct_io_agrees_with_buffered_io(s: &mut Site) {
    put(s.lower("f"), pattern(64 << 10));
    s.mount();
    let file = match open(s.at("f"), OFlags::RDWR | OFlags::DIRECT) {
        // The file system below (tmpfs) has no direct I/O.
        Err(Errno::INVAL) => return,
        other => other.unwrap(),
    };
    let mut buffer = vec![0u8; 3 * 4096];
    let start = buffer.as_ptr().align_offset(4096);
    let page = &mut buffer[start..start + 4096];
    assert_eq!(rustix::io::pread(&file, &mut *page, 8192).unwrap(), 4096);
    assert!(*page == pattern(64 << 10)[8192..12288]);
    page.fill(b'D');
    assert_eq!(rustix::io::pwrite(&file, page, 4096).unwrap(), 4096);
    assert!(get(s.at("f"))[4096..8192].iter().all(|byte| *byte == b'D'));
}

fn many_small_writes_add_up(s: &mut Site) {
    put(s.lower("f"), "");
    s.mount();
    let file = open(s.at("f"), OFlags::WRONLY).unwrap();
    for index in 0..2000u32 {
        rustix::io::write(&file, &index.to_le_bytes()).unwrap();
    }
    drop(file);
    let expected: Vec<u8> = (0..2000u32).flat_map(u32::to_le_bytes).collect();
    s.remount();
    assert!(get(s.at("f")) == expected);
}

fn dup_shares_its_offset_across_copy_up(s: &mut Site) {
    put(s.lower("f"), "0123456789");
    s.mount();
    let first = open(s.at("f"), OFlags::RDONLY).unwrap();
    let second = rustix::io::dup(&first).unwrap();
    let mut seen = [0u8; 4];
    rustix::io::read(&first, &mut seen).unwrap();
    append(s.at("f"), b"x");
    rustix::io::read(&second, &mut seen).unwrap();
    assert_eq!(&seen, b"4567");
}

// open(2) with O_TRUNC but without write access truncates too, and is refused only then.
fn a_running_program_is_not_truncated(s: &mut Site) {
    fs::copy("/bin/sleep", s.lower("old")).unwrap();
    s.mount();
    fs::copy("/bin/sleep", s.at("new")).unwrap();
    for name in ["old", "new"] {
        let path = s.at(name);
        let before = get(&path);
        let mut program = std::process::Command::new(&path).arg("60").spawn().unwrap();
        for flags in [OFlags::RDONLY | OFlags::TRUNC, OFlags::WRONLY, OFlags::RDWR | OFlags::TRUNC]
        {
            let opened = rustix::fs::open(&path, flags, rustix::fs::Mode::empty());
            assert_eq!(opened.err(), Some(Errno::TXTBSY), "{name} {flags:?}");
        }
        assert!(program.try_wait().unwrap().is_none(), "{name} still runs");
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(get(&path) == before, "{name} is whole");
        let free = || rustix::fs::open(&path, OFlags::RDONLY | OFlags::TRUNC, 0.into());
        let freed = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            free().is_ok()
        });
        assert!(freed && get(&path).is_empty(), "{name} may be truncated again");
    }
}

// The first OPEN of a small lower file also brings its data: neither it nor a second OPEN causes a
// READ.
fn small_files_cost_no_read(s: &mut Site) {
    let sizes = [0, 1, 4095, 4096, 4097, 65_535];
    for size in sizes {
        put(s.lower(&format!("f{size}")), vec![b'x'; size]);
    }
    s.mount();
    for _ in 0..2 {
        for size in sizes {
            assert!(get(s.at(&format!("f{size}"))) == vec![b'x'; size], "{size} bytes");
        }
    }
    let status = std::process::Command::new(crate::harness::program())
        .args(["status", "--json"])
        .output()
        .unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    let (_, own) = status.split_once(&format!("\"target\": \"{}\"", s.mnt().display())).unwrap();
    let (own, _) = own.split_once("malformed").unwrap();
    let words: Vec<&str> = own.split_whitespace().collect();
    let asked = |code: &str| words.windows(2).any(|pair| pair == ["[", &format!("{code},")[..]]);
    assert!(asked("14"), "OPEN: {own}");
    assert!(!asked("15"), "READ: {own}");
}

//! The upper has the kernel's format: changes of the kernel and of Lamina look equal in both.
//!
//! Each case lets them take turns on one upper and compares whole trees after each turn.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, OFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;
use crate::tree;

judged!(lamina:
    trusted_upper_is_exchanged,
    upper_of_user_attributes_is_exchanged,
    kernel_writes_first,
    copied_links_are_exchanged,
    renamed_directories_are_exchanged,
    attributes_without_data_are_exchanged,
    removed_directories_are_exchanged,
    holes_and_times_are_exchanged,
    escaped_attributes_are_exchanged,
);

/// Fills a lower with one object of each kind.
fn fill(s: &Site) {
    for name in ["d/sub/deep", "e", "gone/inside", "emptied", "swap1", "swap2"] {
        dir(s.lower(name));
    }
    for name in ["f", "g", "d/x", "d/sub/y", "d/sub/deep/z", "emptied/old", "gone/inside/w"] {
        put(s.lower(name), format!("lower {name}"));
    }
    for round in 0..4 {
        put(s.lower(&format!("file{round}")), vec![b'a'; 9000]);
        put(s.lower(&format!("pair{round}")), "pair");
        link(s.lower(&format!("pair{round}")), s.lower(&format!("e/pair{round}"))).unwrap();
        dir(s.lower(&format!("move{round}/sub")));
        put(s.lower(&format!("move{round}/sub/f")), "moved");
    }
    symlink("d/x", s.lower("link")).unwrap();
    mknod(s.lower("fifo"), FileType::Fifo, 0, 0).unwrap();
    mknod(s.lower("null"), FileType::CharacterDevice, 1, 3).unwrap();
    set_xattr(s.lower("g"), "user.lower", b"value").unwrap();
    chown(s.lower("d/x"), USER, OTHER);
    chmod(s.lower("d/x"), 0o6755);
}

/// Changes one object of each kind; each round has its own files.
fn change(at: &Path, round: usize) {
    let path = |name: &str| at.join(name);
    let own = |name: &str| at.join(format!("{name}{round}"));
    append(path("f"), format!("+{round}").as_bytes());
    chmod(own("file"), 0o640);
    chown(own("pair"), USER, USER);
    append(at.join(format!("e/pair{round}")), b"!");
    link(path("g"), own("g-link-")).unwrap();
    put(own("new"), format!("made in round {round}"));
    symlink("nowhere", own("link")).unwrap();
    mknod(own("fifo"), FileType::Fifo, 0, 0).unwrap();
    mknod(own("device"), FileType::BlockDevice, 7, 9).unwrap();
    dir(own("made/with/depth"));
    set_xattr(path("d/x"), &format!("user.round{round}"), b"set").unwrap();
    let file = fs::OpenOptions::new().write(true).open(own("file")).unwrap();
    file.write_all_at(b"tail", 300_000).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::new(1_000_000 + round as u64, 123_456_789)).unwrap();
    // Without redirects the kernel does not rename a directory of a lower.
    match rename(own("move"), own("moved-")) {
        Ok(()) | Err(Errno::XDEV) => {}
        Err(error) => panic!("rename of a directory: {error}"),
    }
    match round {
        0 => {
            fs::remove_dir_all(path("gone")).unwrap();
            fs::remove_file(path("emptied/old")).unwrap();
        }
        1 => {
            dir(path("gone"));
            put(path("gone/mine"), "");
            fs::remove_file(path("e/pair0")).unwrap();
        }
        2 => {
            fs::remove_dir_all(path("d/sub")).unwrap();
            dir(path("d/sub/deep"));
            rename(path("link"), path("d/link")).unwrap();
        }
        _ => {
            fs::remove_dir_all(path("gone")).unwrap();
            rustix::fs::renameat_with(CWD, path("f"), CWD, path("g"), RenameFlags::EXCHANGE)
                .unwrap();
        }
    }
}

/// Whether another process has the site in its arguments.
fn is_served(s: &Site) -> bool {
    let root = s.root().as_os_str().as_encoded_bytes();
    let own = std::process::id().to_string();
    let others = fs::read_dir("/proc").unwrap().flatten();
    others.filter(|entry| entry.file_name().to_string_lossy() != own).any(|entry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        words.windows(root.len()).any(|part| part == root)
    })
}

/// Mounts with the other implementation and asserts that the tree is equal.
#[track_caller]
fn hand_over(s: &mut Site, to_kernel: bool) {
    let before = tree::read(&s.mnt());
    s.unmount();
    // The kernel refuses a work directory that a daemon is still emptying.
    let deadline = Instant::now() + Duration::from_secs(15);
    while is_served(s) {
        assert!(Instant::now() < deadline, "the daemon leaves");
        std::thread::yield_now();
    }
    if to_kernel {
        s.mount_kernel().expect("the kernel takes the upper");
    } else {
        s.mount_lamina();
    }
    let names = if to_kernel { ("lamina", "kernel") } else { ("kernel", "lamina") };
    tree::assert_same(names.0, &before, names.1, &tree::read(&s.mnt()));
}

fn take_turns(s: &mut Site, kernel_first: bool) {
    fill(s);
    let mut kernel = kernel_first;
    if kernel {
        s.mount_kernel().unwrap()
    } else {
        s.mount_lamina()
    }
    for round in 0..4 {
        change(&s.mnt(), round);
        kernel = !kernel;
        hand_over(s, kernel);
    }
    // And once more without a change in between.
    hand_over(s, !kernel);
}

fn trusted_upper_is_exchanged(s: &mut Site) {
    take_turns(s, false);
}

fn upper_of_user_attributes_is_exchanged(s: &mut Site) {
    s.options = "userxattr".to_owned();
    take_turns(s, false);
}

fn kernel_writes_first(s: &mut Site) {
    take_turns(s, true);
}

fn copied_links_are_exchanged(s: &mut Site) {
    dir(s.lower("d"));
    for name in ["b", "d/c", "d/e"] {
        if !exists(s.lower("a")) {
            put(s.lower("a"), "text");
        }
        link(s.lower("a"), s.lower(name)).unwrap();
    }
    s.mount_lamina();
    append(s.at("b"), b"1");
    hand_over(s, true);
    append(s.at("d/c"), b"2");
    fs::remove_file(s.at("a")).unwrap();
    hand_over(s, false);
    link(s.at("d/e"), s.at("new")).unwrap();
    fs::remove_file(s.at("b")).unwrap();
    append(s.at("new"), b"3");
    hand_over(s, true);
    for name in ["d/c", "d/e", "new"] {
        assert_eq!(get(s.at(name)), b"text123", "{name}");
        assert_eq!(stat(s.at(name)).st_nlink, 3, "{name}");
    }
    fs::remove_file(s.at("new")).unwrap();
    append(s.at("d/e"), b"4");
    hand_over(s, false);
    assert_eq!(get(s.at("d/c")), b"text1234");
    assert_eq!(stat(s.at("d/c")).st_nlink, 2);
}

fn renamed_directories_are_exchanged(s: &mut Site) {
    dir(s.lower("a/b/c"));
    put(s.lower("a/b/c/f"), "deep");
    put(s.lower("a/x"), "x");
    dir(s.lower("t"));
    s.mount_lamina();
    rename(s.at("a/b"), s.at("b")).unwrap();
    hand_over(s, true);
    rename(s.at("a"), s.at("t/a")).unwrap();
    rename(s.at("b/c"), s.at("c")).unwrap();
    hand_over(s, false);
    rename(s.at("c"), s.at("t/a/c")).unwrap();
    dir(s.at("a"));
    dir(s.at("b/c"));
    hand_over(s, true);
    assert_eq!(get(s.at("t/a/c/f")), b"deep");
    assert_eq!(names(s.at("a")), Vec::<String>::new());
    assert_eq!(names(s.at("b/c")), Vec::<String>::new());
    rename(s.at("t"), s.at("last")).unwrap();
    hand_over(s, false);
    assert_eq!(get(s.at("last/a/c/f")), b"deep");
}

fn attributes_without_data_are_exchanged(s: &mut Site) {
    dir(s.lower("d"));
    for name in ["d/one", "d/two", "d/three"] {
        put(s.lower(name), vec![b'm'; 200_000]);
    }
    s.mount_lamina();
    for name in ["d/one", "d/two", "d/three"] {
        chmod(s.at(name), 0o600);
    }
    rename(s.at("d/two"), s.at("two")).unwrap();
    assert!(stat(s.upper("d/one")).st_blocks < 100, "no data was copied");
    hand_over(s, true);
    chown(s.at("d/three"), USER, USER);
    rename(s.at("d"), s.at("moved")).unwrap();
    append(s.at("two"), b"!");
    hand_over(s, false);
    append(s.at("moved/one"), b"?");
    rename(s.at("moved/three"), s.at("three")).unwrap();
    hand_over(s, true);
    assert_eq!(get(s.at("three")), vec![b'm'; 200_000]);
    append(s.at("three"), b".");
    hand_over(s, false);
    for (name, end) in [("moved/one", b'?'), ("two", b'!'), ("three", b'.')] {
        let data = get(s.at(name));
        assert_eq!((data.len(), data[200_000]), (200_001, end), "{name}");
    }
}

fn removed_directories_are_exchanged(s: &mut Site) {
    dir(s.lower("d/sub"));
    dir(s.lower("e/sub"));
    put(s.lower("d/sub/f"), "");
    s.mount_lamina();
    fs::remove_dir_all(s.at("d")).unwrap();
    dir(s.at("d"));
    hand_over(s, true);
    fs::remove_dir_all(s.at("e")).unwrap();
    dir(s.at("e"));
    dir(s.at("d/sub"));
    hand_over(s, false);
    assert!(!exists(s.at("e/sub")) && !exists(s.at("d/sub/f")));
    fs::remove_dir_all(s.at("d")).unwrap();
    put(s.at("d"), "a file");
    hand_over(s, true);
    fs::remove_file(s.at("d")).unwrap();
    dir(s.at("d"));
    hand_over(s, false);
    assert_eq!(names(s.at("d")), Vec::<String>::new());
}

fn holes_and_times_are_exchanged(s: &mut Site) {
    let sparse = fs::File::create(s.lower("sparse")).unwrap();
    sparse.write_all_at(b"head", 0).unwrap();
    sparse.write_all_at(b"tail", 8 << 20).unwrap();
    let old = UNIX_EPOCH - Duration::new(1000, 5);
    sparse.set_modified(old).unwrap();
    s.mount_lamina();
    for kernel in [true, false, true] {
        let file = open(s.at("sparse"), OFlags::RDWR).unwrap();
        rustix::io::pwrite(&file, b"x", 4 << 20).unwrap();
        drop(file);
        fs::File::open(s.at("sparse")).unwrap().set_modified(old).unwrap();
        hand_over(s, kernel);
        let file = open(s.at("sparse"), OFlags::RDONLY).unwrap();
        let seek = |from| rustix::fs::seek(file.as_fd(), from).unwrap();
        let hole = seek(SeekFrom::Hole(0));
        assert!(hole < 1 << 20, "{hole}");
        assert_eq!(seek(SeekFrom::Data(hole)), 4 << 20);
        let meta = stat(s.at("sparse"));
        assert_eq!((meta.st_mtime, meta.st_mtime_nsec), (-1001, 999_999_995));
        assert!(meta.st_blocks < 200, "{} blocks", meta.st_blocks);
    }
}

fn escaped_attributes_are_exchanged(s: &mut Site) {
    dir(s.lower("d/below"));
    s.mount_lamina();
    let key = "trusted.overlay.opaque";
    set_xattr(s.at("d"), key, b"y").unwrap();
    assert_eq!(xattr(s.at("d"), key).unwrap(), b"y");
    hand_over(s, true);
    assert_eq!(xattr(s.at("d"), key).unwrap(), b"y", "it is content to the kernel too");
    assert_eq!(names(s.at("d")), ["below"]);
    set_xattr(s.at("d"), key, b"x").unwrap();
    hand_over(s, false);
    assert_eq!(xattr(s.at("d"), key).unwrap(), b"x");
    assert_eq!(names(s.at("d")), ["below"]);
}

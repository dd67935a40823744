//! Times: kept to the nanosecond, before 1970 too, and updated by the right operations.

use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;

// Like a tar, a blob holds no access times.
judged!(over_directories:
    attribute_changes_keep_the_modification_time,
    omitted_times_stay,
);
judged!(everywhere:
    times_are_set_to_the_nanosecond,
    times_before_1970_are_kept,
    copy_up_keeps_times,
    link_times_are_its_own,
    writing_moves_the_modification_time,
    entries_move_the_time_of_their_directory,
    users_set_times_only_of_their_own,
    birth_time_is_told_and_stays,
    listing_counts_as_access_of_a_directory,
);
judged!(lamina: listing_is_no_access_where_the_mount_says_so);

const OLD: Timespec = Timespec { tv_sec: -1_234_567, tv_nsec: 123_456_789 };
const NEW: Timespec = Timespec { tv_sec: 1_234_567_890, tv_nsec: 987_654_321 };

fn set(path: &Path, access: Timespec, modified: Timespec) -> rustix::io::Result<()> {
    let times = Timestamps { last_access: access, last_modification: modified };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

fn modified(path: impl AsRef<Path>) -> (i64, u64) {
    let meta = stat(path);
    (meta.st_mtime, meta.st_mtime_nsec)
}

fn accessed(path: impl AsRef<Path>) -> (i64, u64) {
    let meta = stat(path);
    (meta.st_atime, meta.st_atime_nsec)
}

fn times_are_set_to_the_nanosecond(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    s.mount();
    for name in ["f", "d"] {
        set(&s.at(name), OLD, NEW).unwrap();
    }
    for _ in 0..2 {
        for name in ["f", "d"] {
            assert_eq!(modified(s.at(name)), (1_234_567_890, 987_654_321));
            assert_eq!(accessed(s.at(name)), (-1_234_567, 123_456_789));
        }
        s.remount();
    }
}

fn times_before_1970_are_kept(s: &mut Site) {
    put(s.lower("f"), "x");
    set(&s.lower("f"), OLD, OLD).unwrap();
    s.mount();
    assert_eq!(modified(s.at("f")), (-1_234_567, 123_456_789));
    chmod(s.at("f"), 0o600);
    s.remount();
    assert_eq!(modified(s.at("f")), (-1_234_567, 123_456_789));
}

fn copy_up_keeps_times(s: &mut Site) {
    dir(s.lower("d/e"));
    put(s.lower("d/e/f"), "x");
    for name in ["d/e/f", "d/e", "d"] {
        set(&s.lower(name), NEW, NEW).unwrap();
    }
    s.mount();
    let file = open(s.at("d/e/f"), OFlags::WRONLY).unwrap();
    drop(file);
    for _ in 0..2 {
        for name in ["d/e/f", "d/e", "d"] {
            assert_eq!(modified(s.at(name)), (1_234_567_890, 987_654_321), "{name}");
        }
        s.remount();
    }
}

fn attribute_changes_keep_the_modification_time(s: &mut Site) {
    put(s.lower("f"), "x");
    set(&s.lower("f"), OLD, NEW).unwrap();
    s.mount();
    chmod(s.at("f"), 0o755);
    chown(s.at("f"), 1, 2);
    set_xattr(s.at("f"), "user.a", b"b").unwrap();
    link(s.at("f"), s.at("g")).unwrap();
    rename(s.at("g"), s.at("h")).unwrap();
    assert_eq!(modified(s.at("f")), (1_234_567_890, 987_654_321));
    assert_eq!(accessed(s.at("f")), (-1_234_567, 123_456_789));
}

fn omitted_times_stay(s: &mut Site) {
    put(s.lower("f"), "x");
    set(&s.lower("f"), OLD, NEW).unwrap();
    s.mount();
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    set(&s.at("f"), omit, now).unwrap();
    assert_eq!(accessed(s.at("f")), (-1_234_567, 123_456_789));
    assert!(modified(s.at("f")).0 > 1_600_000_000);
    set(&s.at("f"), NEW, omit).unwrap();
    assert_eq!(accessed(s.at("f")), (1_234_567_890, 987_654_321));
    assert!(modified(s.at("f")).0 > 1_600_000_000);
}

fn link_times_are_its_own(s: &mut Site) {
    put(s.lower("f"), "x");
    std::os::unix::fs::symlink("f", s.lower("l")).unwrap();
    s.mount();
    set(&s.at("l"), OLD, NEW).unwrap();
    assert_eq!(modified(s.at("l")), (1_234_567_890, 987_654_321));
    assert!(modified(s.at("f")).0 > 1_600_000_000);
    s.remount();
    assert_eq!(modified(s.at("l")), (1_234_567_890, 987_654_321));
}

fn writing_moves_the_modification_time(s: &mut Site) {
    for name in ["w", "t", "same"] {
        put(s.lower(name), "abc");
        set(&s.lower(name), NEW, NEW).unwrap();
    }
    s.mount();
    append(s.at("w"), b"x");
    drop(open(s.at("t"), OFlags::WRONLY | OFlags::TRUNC).unwrap());
    fs::OpenOptions::new().write(true).open(s.at("same")).unwrap().set_len(3).unwrap();
    for name in ["w", "t"] {
        assert!(modified(s.at(name)).0 > 1_600_000_000, "{name}");
        assert!(stat(s.at(name)).st_ctime > 1_600_000_000);
    }
    s.remount();
    assert!(modified(s.at("w")).0 > 1_600_000_000);
}

fn entries_move_the_time_of_their_directory(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/gone"), "x");
    s.mount();
    let steps: [(&str, &dyn Fn()); 5] = [
        ("create", &|| put(s.at("d/new"), "x")),
        ("unlink", &|| fs::remove_file(s.at("d/gone")).unwrap()),
        ("mkdir", &|| dir(s.at("d/sub"))),
        ("rename", &|| rename(s.at("d/new"), s.at("d/newer")).unwrap()),
        ("link", &|| link(s.at("d/newer"), s.at("d/newest")).unwrap()),
    ];
    for (what, step) in steps {
        set(&s.at("d"), NEW, NEW).unwrap();
        step();
        let meta = stat(s.at("d"));
        assert!(meta.st_mtime > 1_600_000_000, "{what}");
        assert!(meta.st_ctime > 1_600_000_000, "{what}");
    }
}

fn users_set_times_only_of_their_own(s: &mut Site) {
    put(s.lower("theirs"), "x");
    chmod(s.lower("theirs"), 0o666);
    put(s.lower("mine"), "x");
    chown(s.lower("mine"), USER, USER);
    s.mount();
    as_user(USER, || {
        fails(set(&s.at("theirs"), NEW, NEW), Errno::PERM);
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        set(&s.at("theirs"), now, now).unwrap();
        set(&s.at("mine"), NEW, NEW).unwrap();
    });
    assert_eq!(modified(s.at("mine")), (1_234_567_890, 987_654_321));
}

fn birth_time_is_told_and_stays(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    let birth = || {
        let seen = rustix::fs::statx(CWD, s.at("f"), AtFlags::empty(), StatxFlags::BTIME).unwrap();
        assert_eq!(seen.stx_mask & StatxFlags::BTIME.bits(), StatxFlags::BTIME.bits());
        (seen.stx_btime.tv_sec, seen.stx_btime.tv_nsec)
    };
    let before = birth();
    assert!(before.0 > 1_600_000_000);
    rename(s.at("f"), s.at("g")).unwrap();
    rename(s.at("g"), s.at("f")).unwrap();
    let after = birth();
    append(s.at("f"), b"y");
    assert_eq!(birth(), after);
}

fn listing_counts_as_access_of_a_directory(s: &mut Site) {
    dir(s.lower("merged"));
    put(s.lower("merged/f"), "x");
    s.mount();
    dir(s.at("new"));
    put(s.at("new/f"), "x");
    chmod(s.at("merged"), 0o750);
    let (long_ago, later) = (second(1000), second(2000));
    for name in ["new", "merged"] {
        set(&s.at(name), long_ago, later).unwrap();
        assert_eq!(accessed(s.at(name)).0, 1000);
        assert_eq!(names(s.at(name)), ["f"]);
        assert!(accessed(s.at(name)).0 > 2000, "{name}");
    }
    s.remount();
    for name in ["new", "merged"] {
        assert!(accessed(s.at(name)).0 > 2000, "{name}");
    }
}

fn listing_is_no_access_where_the_mount_says_so(s: &mut Site) {
    dir(s.lower("merged"));
    put(s.lower("merged/f"), "x");
    for options in ["noatime", "nodiratime"] {
        s.options = options.to_owned();
        s.mount();
        chmod(s.at("merged"), 0o750);
        set(&s.at("merged"), second(1000), second(2000)).unwrap();
        assert_eq!(names(s.at("merged")), ["f"]);
        assert_eq!(accessed(s.at("merged")).0, 1000, "{options}");
        s.unmount();
    }
}

const fn second(tv_sec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec: 0 }
}

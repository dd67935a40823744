//! Data of layers that a mount accepts, and data that it does not trust.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{IFlags, OFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::harness::{Site, program};
use crate::tools::*;

judged!(over_directories:
    immutable_lower_file_cannot_change,
    append_only_lower_file_can_only_grow,
    immutable_lower_directory_keeps_its_names,
    append_only_lower_directory_takes_names,
    parent_with_flags_lets_what_is_beneath_change,
    flags_of_a_lower_are_taken_away_through_the_mount,
);
judged!(unions_of_directories:
    marks_of_users_lead_nowhere,
);
judged!(lamina:
    marks_that_options_forbid_are_refused,
    overlapping_layers_are_refused_by_name,
    numbers_are_those_of_one_object_without_an_index,
    numbers_of_another_mount_lead_to_nothing,
    whiteouts_of_an_engine_in_the_upper_hide,
);

const BOTH: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

fn set_flags(path: impl AsRef<Path>, flags: IFlags) -> rustix::io::Result<()> {
    let file = open(path, OFlags::RDONLY)?;
    let rest = ioctl_getflags(&file)? - BOTH;
    ioctl_setflags(&file, rest | flags)
}

fn flags(path: impl AsRef<Path>) -> IFlags {
    ioctl_getflags(open(path, OFlags::RDONLY).unwrap()).unwrap() & BOTH
}

/// Clears the inode flags that a case has set, so that its directory can be removed.
fn release(s: &Site, names: &[&str]) {
    for name in names {
        set_flags(s.lower(name), IFlags::empty()).unwrap();
        if s.is_union() && exists(s.upper(name)) {
            set_flags(s.upper(name), IFlags::empty()).unwrap();
        }
    }
}

fn immutable_lower_file_cannot_change(s: &mut Site) {
    put(s.lower("f"), "x");
    put(s.lower("other"), "x");
    set_flags(s.lower("f"), IFlags::IMMUTABLE).unwrap();
    s.mount();
    for _ in 0..2 {
        assert_eq!(flags(s.at("f")), IFlags::IMMUTABLE);
        fails(open(s.at("f"), OFlags::WRONLY), Errno::PERM);
        fails(open(s.at("f"), OFlags::WRONLY | OFlags::APPEND), Errno::PERM);
        fails(open(s.at("f"), OFlags::WRONLY | OFlags::TRUNC), Errno::PERM);
        fails(rename(s.at("f"), s.at("g")), Errno::PERM);
        fails(rename(s.at("other"), s.at("f")), Errno::PERM);
        fails(link(s.at("f"), s.at("g")), Errno::PERM);
        fails_io(fs::remove_file(s.at("f")), Errno::PERM);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fails_io(fs::set_permissions(s.at("f"), mode), Errno::PERM);
        fails(set_xattr(s.at("f"), "user.a", b"1"), Errno::PERM);
        assert_eq!(get(s.at("f")), b"x");
        s.remount();
    }
    release(s, &["f"]);
}

fn append_only_lower_file_can_only_grow(s: &mut Site) {
    put(s.lower("f"), "x");
    set_flags(s.lower("f"), IFlags::APPEND).unwrap();
    s.mount();
    for round in 1..3 {
        fails(open(s.at("f"), OFlags::WRONLY), Errno::PERM);
        append(s.at("f"), b"y");
        fails(open(s.at("f"), OFlags::WRONLY | OFlags::APPEND | OFlags::TRUNC), Errno::PERM);
        fails_io(fs::remove_file(s.at("f")), Errno::PERM);
        fails(rename(s.at("f"), s.at("g")), Errno::PERM);
        assert_eq!(flags(s.at("f")), IFlags::APPEND, "kept by the copy");
        assert_eq!(get(s.at("f")).len(), 1 + round);
        s.remount();
    }
    release(s, &["f"]);
}

fn immutable_lower_directory_keeps_its_names(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/f"), "x");
    set_flags(s.lower("d"), IFlags::IMMUTABLE).unwrap();
    s.mount();
    for _ in 0..2 {
        fails(open(s.at("d/new"), OFlags::CREATE | OFlags::RDWR), Errno::PERM);
        fails_io(fs::create_dir(s.at("d/new")), Errno::PERM);
        fails_io(fs::remove_file(s.at("d/f")), Errno::PERM);
        fails(rename(s.at("d"), s.at("e")), Errno::PERM);
        append(s.at("d/f"), b"y");
        s.remount();
    }
    assert_eq!(get(s.at("d/f")), b"xyy");
    release(s, &["d"]);
}

fn append_only_lower_directory_takes_names(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/f"), "x");
    set_flags(s.lower("d"), IFlags::APPEND).unwrap();
    s.mount();
    for name in ["d/new", "d/newer"] {
        put(s.at(name), "new");
        fails_io(fs::remove_file(s.at(name)), Errno::PERM);
        fails_io(fs::remove_file(s.at("d/f")), Errno::PERM);
        fails(rename(s.at("d/f"), s.at("d/g")), Errno::PERM);
        s.remount();
    }
    assert_eq!(names(s.at("d")), ["f", "new", "newer"]);
    release(s, &["d"]);
}

fn parent_with_flags_lets_what_is_beneath_change(s: &mut Site) {
    dir(s.lower("d"));
    dir(s.lower("d/sub"));
    set_flags(s.lower("d"), IFlags::IMMUTABLE).unwrap();
    s.mount();
    put(s.at("d/sub/f"), "new");
    for _ in 0..2 {
        assert_eq!(flags(s.at("d")), IFlags::IMMUTABLE, "kept by the copy");
        fails_io(fs::create_dir(s.at("d/new")), Errno::PERM);
        assert_eq!(get(s.at("d/sub/f")), b"new");
        s.remount();
    }
    release(s, &["d"]);
}

fn flags_of_a_lower_are_taken_away_through_the_mount(s: &mut Site) {
    put(s.lower("f"), "x");
    dir(s.lower("d"));
    for name in ["f", "d"] {
        set_flags(s.lower(name), IFlags::IMMUTABLE).unwrap();
    }
    s.mount();
    for name in ["f", "d"] {
        set_flags(s.at(name), IFlags::empty()).unwrap();
    }
    append(s.at("f"), b"y");
    put(s.at("d/new"), "new");
    for _ in 0..2 {
        assert_eq!((flags(s.at("f")), flags(s.at("d"))), (IFlags::empty(), IFlags::empty()));
        chmod(s.at("f"), 0o600);
        s.remount();
    }
    fs::remove_file(s.at("f")).unwrap();
    s.unmount();
    release(s, &["d"]);
    if s.is_union() {
        set_flags(s.lower("f"), IFlags::empty()).unwrap();
    }
}

fn marks_of_users_lead_nowhere(s: &mut Site) {
    put(s.lower("shadow"), "secret");
    chmod(s.lower("shadow"), 0o600);
    dir(s.lower("closed"));
    put(s.lower("closed/f"), "secret");
    s.add_lower("image");
    let image = s.root().join("image");
    for place in [s.lower(""), s.root().join("upper"), image] {
        let name = |kind: &str| {
            place.join(format!("{kind}-{}", place.file_name().unwrap().to_str().unwrap()))
        };
        put(name("file"), " ".repeat(6));
        set_xattr(name("file"), "user.overlay.metacopy", b"").unwrap();
        set_xattr(name("file"), "user.overlay.redirect", b"/shadow").unwrap();
        dir(name("dir"));
        set_xattr(name("dir"), "user.overlay.redirect", b"/closed").unwrap();
    }
    s.mount();
    for place in ["lower", "upper", "image"] {
        assert_eq!(get(s.at(&format!("file-{place}"))), b"      ", "{place}");
        assert_eq!(names(s.at(&format!("dir-{place}"))), Vec::<String>::new(), "{place}");
    }
}

fn marks_that_options_forbid_are_refused(s: &mut Site) {
    put(s.lower("data"), "data");
    dir(s.lower("d"));
    put(s.lower("d/f"), "x");
    let upper = s.root().join("upper");
    dir(upper.join("moved"));
    set_xattr(upper.join("moved"), "trusted.overlay.redirect", b"/d").unwrap();
    put(upper.join("meta"), "    ");
    set_xattr(upper.join("meta"), "trusted.overlay.metacopy", b"").unwrap();
    set_xattr(upper.join("meta"), "trusted.overlay.redirect", b"/data").unwrap();
    for (options, moved, meta) in [
        ("redirect_dir=on,metacopy=on", true, true),
        ("redirect_dir=on,metacopy=off", true, false),
        ("redirect_dir=off", true, false),
        ("redirect_dir=follow", true, false),
        ("redirect_dir=nofollow", false, false),
    ] {
        s.options = options.to_owned();
        s.mount();
        assert_eq!(names(s.mnt()), ["d", "data", "meta", "moved"], "{options}");
        match moved {
            true => assert_eq!(names(s.at("moved")), ["f"], "{options}"),
            false => fails(try_stat(s.at("moved")), Errno::PERM),
        }
        match meta {
            true => assert_eq!(get(s.at("meta")), b"data", "{options}"),
            false => fails(try_stat(s.at("meta")), Errno::PERM),
        }
        s.unmount();
    }
    s.options = "metacopy=on,redirect_dir=off".to_owned();
    let refused = s.try_lamina();
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("metacopy=on") && text.contains("redirect_dir="), "{text}");
}

fn overlapping_layers_are_refused_by_name(s: &mut Site) {
    put(s.root().join("upper/keep"), "1");
    let path = |name: &str| s.root().join(name).display().to_string();
    for (lower, upper, work, first, second) in [
        ("upper", "upper", "work", "lowerdir=", "upperdir="),
        ("work", "upper", "work", "lowerdir=", "workdir="),
        ("upper/inner", "upper", "work", "lowerdir=", "upperdir="),
    ] {
        fs::create_dir_all(s.root().join("upper/inner")).unwrap();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", path(lower), path(upper), path(work));
        let mut command = Command::new(program());
        command.arg("-o").arg(options).arg(s.mnt()).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{lower}");
        for word in [first, second, "ELOOP"] {
            assert!(text.contains(word), "{text}");
        }
    }
    assert_eq!(names(s.root().join("upper")), ["inner", "keep"]);
    assert_eq!(names(s.root().join("work")), Vec::<String>::new(), "nothing was touched");
}

/// The content behind each number: `cp -a`, `tar` and `rsync -H` treat names with one number as one
/// file.
fn contents_of_numbers(s: &Site, names: &[&str]) {
    let mut known: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for name in names {
        let (ino, data) = (stat(s.at(name)).st_ino, get(s.at(name)));
        let other = known.entry(ino).or_insert_with(|| data.clone());
        assert_eq!(*other, data, "{name} shares number {ino} with another file");
    }
}

fn numbers_are_those_of_one_object_without_an_index(s: &mut Site) {
    put(s.lower("a"), vec![b'-'; 100_000]);
    let paths = ["a", "b", "c"];
    for name in &paths[1..] {
        link(s.lower("a"), s.lower(name)).unwrap();
    }
    s.options = "index=off".to_owned();
    s.mount();
    assert!(paths.iter().all(|name| exists(s.at(name))));
    append(s.at("a"), b"written");
    chmod(s.at("b"), 0o600);
    for _ in 0..2 {
        contents_of_numbers(s, &paths);
        assert_ne!(stat(s.at("a")).st_ino, stat(s.at("c")).st_ino);
        assert_eq!((mode(s.at("b")), mode(s.at("c"))), (0o600, 0o644));
        let copy = s.root().join("copy");
        let done = Command::new("cp").arg("-a").arg(s.mnt()).arg(&copy).status().unwrap();
        assert!(done.success());
        paths.iter().for_each(|name| assert_eq!(get(copy.join(name)), get(s.at(name)), "{name}"));
        fs::remove_dir_all(copy).unwrap();
        s.remount();
    }
}

fn numbers_of_another_mount_lead_to_nothing(s: &mut Site) {
    let names: Vec<String> = (0..50).map(|number| format!("f{number}")).collect();
    for name in &names {
        put(s.lower(name), name);
        link(s.lower(name), s.lower(&format!("{name}-too"))).unwrap();
    }
    let (below, inner) = (s.lower(""), s.root().join("inner"));
    let mount_inner = || {
        let mut command = Command::new(program());
        command.args(["mount", "--lower"]).arg(&below).arg(&inner).stdin(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    s.add_lower("inner");
    s.leave_out("lower");
    for round in 0..3 {
        mount_inner();
        // Another order of lookups: the inner mount numbers its nodes as they are looked up.
        let order: Vec<&String> = match round % 2 {
            0 => names.iter().collect(),
            _ => names.iter().rev().collect(),
        };
        assert!(order.iter().all(|name| exists(inner.join(name))));
        s.mount();
        for (index, name) in names.iter().enumerate() {
            let expected =
                if round > 0 && index < 10 { "changed".to_owned() } else { name.clone() };
            assert_eq!(String::from_utf8(get(s.at(name))).unwrap(), expected, "{name}");
            assert_eq!(get(s.at(&format!("{name}-too"))), name.as_bytes());
        }
        names[..10].iter().for_each(|name| put(s.at(name), "changed"));
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        contents_of_numbers(s, &all);
        s.unmount();
        rustix::mount::unmount(&inner, UnmountFlags::empty()).unwrap();
    }
}

fn whiteouts_of_an_engine_in_the_upper_hide(s: &mut Site) {
    dir(s.lower("data"));
    dir(s.lower("data/a"));
    put(s.lower("data/a/f"), "x");
    put(s.lower("top"), "t");
    put(s.lower("kept"), "k");
    let upper = s.root().join("upper");
    dir(upper.join("data"));
    put(upper.join("data/.wh.a"), "");
    put(upper.join(".wh.top"), "");
    s.mount();
    put(s.at(".wh.kept"), "a name of a user");
    for _ in 0..2 {
        assert_eq!(names(s.mnt()), [".wh.kept", "data", "kept"]);
        assert_eq!(names(s.at("data")), Vec::<String>::new());
        for gone in ["data/a", "top", ".wh.top", "data/.wh.a"] {
            fails(try_stat(s.at(gone)), Errno::NOENT);
        }
        s.remount();
    }
    fs::create_dir(s.at("data/a")).unwrap();
    assert_eq!(names(s.at("data/a")), Vec::<String>::new());
    fs::remove_dir(s.at("data/a")).unwrap();
    fs::remove_dir(s.at("data")).unwrap();
    s.remount();
    assert_eq!(names(s.mnt()), [".wh.kept", "kept"]);
}

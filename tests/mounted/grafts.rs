//! Grafts as bind mounts of the kernel: their places, their content, and their end.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::harness::{Site, mount_points_below, program};
use crate::tools::*;

judged!(lamina:
    grafts_are_mounts_of_the_kernel_unless_they_are_to_be_served,
    unmount_takes_grafts_along_or_leaves_all,
    unmount_is_refused_over_a_mount_of_somebody_else,
    place_behind_a_link_stays_inside_the_mount,
    flags_of_a_graft_are_its_own_and_those_of_the_mount,
    remount_changes_grafts_too,
    mounts_beneath_a_bind_are_shown_when_asked,
    grafts_stand_in_grafts,
    served_file_may_have_the_name_of_its_place,
    copy_of_the_mount_alone_shows_grafts,
    what_cannot_be_bound_is_refused,
    signal_takes_grafts_along,
    volume_of_a_container_is_in_use,
);

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("a plain path").trim_end_matches('/').to_owned()
}

fn lamina(words: &[&str]) -> Output {
    Command::new(program()).args(words).stdin(Stdio::null()).output().expect("lamina starts")
}

/// A directory of the host that is bound at a path of the mount.
fn bind(s: &mut Site, name: &str, place: &str) -> PathBuf {
    let source = s.root().join(name);
    dir(&source);
    s.words.extend(["--bind".to_owned(), format!("{}:{place}", text(&source))]);
    source
}

/// The mount points beneath the mount.
fn bound(s: &Site) -> Vec<String> {
    let mnt = s.mnt();
    let below = mount_points_below(&mnt);
    below.iter().filter_map(|place| place.strip_prefix(&mnt).ok()).map(text).skip(1).collect()
}

fn grafts_are_mounts_of_the_kernel_unless_they_are_to_be_served(s: &mut Site) {
    bind(s, "host", "/d");
    s.words.extend(["--tmpfs".to_owned(), "/memory".to_owned()]);
    s.mount();
    assert_eq!(bound(s), ["d", "memory"]);
    assert!(status(s).contains("\"driver\": \"bind\""));
    assert!(!status(s).contains("\"driver\": \"served\""));
    s.unmount();
    s.options = "graft=served".to_owned();
    s.mount();
    assert_eq!(bound(s), Vec::<String>::new());
    assert!(status(s).contains("\"driver\": \"served\""));
    s.unmount();
    s.options = "graft=bind".to_owned();
    s.mount();
    assert_eq!(bound(s), ["d", "memory"]);
}

fn unmount_takes_grafts_along_or_leaves_all(s: &mut Site) {
    let (one, two) = (bind(s, "one", "/one"), bind(s, "two", "/deep/two"));
    put(one.join("f"), "one");
    put(two.join("f"), "two");
    s.mount();
    // The graft moves with its directory within the mount.
    rename(s.at("deep"), s.at("moved")).unwrap();
    let open = open(s.at("moved/two/f"), OFlags::RDONLY).unwrap();
    let busy = lamina(&["umount", &text(s.mnt())]);
    assert!(!busy.status.success(), "a file of a graft is open");
    assert_eq!(bound(s), ["moved/two", "one"], "all or nothing");
    assert_eq!(get(s.at("one/f")), b"one");
    put(s.at("one/g"), "still there");
    assert_eq!(get(one.join("g")), b"still there");
    drop(open);
    let done = lamina(&["umount", &text(s.mnt())]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(mount_points_below(&s.mnt()), Vec::<PathBuf>::new());
    s.unmounted();
    assert_eq!(names(s.upper("")), ["moved", "one"], "the places alone");
    assert_eq!(names(s.upper("one")), Vec::<String>::new());
}

fn unmount_is_refused_over_a_mount_of_somebody_else(s: &mut Site) {
    bind(s, "host", "/d");
    dir(s.lower("other"));
    s.mount();
    rustix::mount::mount("x", s.at("other"), "tmpfs", MountFlags::empty(), None).unwrap();
    let busy = lamina(&["umount", &text(s.mnt())]);
    assert!(!busy.status.success());
    assert_eq!(bound(s), ["d", "other"]);
    rustix::mount::unmount(s.at("other"), UnmountFlags::empty()).unwrap();
    let done = lamina(&["umount", &text(s.mnt())]);
    assert!(done.status.success(), "{done:?}");
    s.unmounted();
}

fn place_behind_a_link_stays_inside_the_mount(s: &mut Site) {
    let outside = s.root().join("outside");
    dir(outside.join("d"));
    symlink(&outside, s.lower("absolute")).unwrap();
    symlink("../../../../../../../..", s.lower("up")).unwrap();
    let one = bind(s, "one", "/absolute/d");
    bind(s, "two", "/up/place");
    put(one.join("f"), "one");
    s.mount();
    assert_eq!(mount_points_below(&outside), Vec::<PathBuf>::new());
    assert_eq!(names(outside.join("d")), Vec::<String>::new());
    let inside = text(&outside)[1..].to_owned() + "/d";
    assert_eq!(bound(s), ["place", &inside]);
    assert_eq!(get(s.at(&inside).join("f")), b"one");
    assert!(!Path::new("/place").exists());
}

fn flags_of_a_graft_are_its_own_and_those_of_the_mount(s: &mut Site) {
    let source = bind(s, "host", "/closed:noexec,nosuid,ro");
    bind(s, "host", "/open");
    put(source.join("f"), "#!/bin/sh\n");
    chmod(source.join("f"), 0o755);
    s.options = "nodev".to_owned();
    s.mount();
    let run = |path: PathBuf| Command::new(path).status().map(|status| status.success());
    fails_io(run(s.at("closed/f")), Errno::ACCESS);
    assert!(run(s.at("open/f")).unwrap());
    fails_io(fs::write(s.at("closed/g"), ""), Errno::ROFS);
    let options = |place: &str| {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let wanted = text(s.at(place));
        let line = table.lines().find(|line| line.split(' ').nth(4) == Some(&wanted)).unwrap();
        line.split(' ').nth(5).unwrap().to_owned()
    };
    assert!(options("closed").starts_with("ro,nosuid,nodev,noexec"), "{}", options("closed"));
    assert!(options("open").starts_with("rw,nodev"), "{}", options("open"));
    s.unmount();
    // Flags that only a bind mount supports are refused without one.
    s.options = "graft=served".to_owned();
    let output = s.try_lamina();
    assert!(String::from_utf8_lossy(&output.stderr).contains("nosuid"), "{output:?}");
}

fn remount_changes_grafts_too(s: &mut Site) {
    bind(s, "host", "/closed:ro");
    bind(s, "host", "/open");
    s.mount();
    let remount = |word: &str| {
        let done = lamina(&["mount", "-o", &format!("remount,{word}"), &text(s.mnt())]);
        assert!(done.status.success(), "{done:?}");
    };
    remount("ro");
    fails_io(fs::write(s.at("open/f"), ""), Errno::ROFS);
    remount("rw");
    put(s.at("open/f"), "");
    fails_io(fs::write(s.at("closed/f"), ""), Errno::ROFS);
}

fn mounts_beneath_a_bind_are_shown_when_asked(s: &mut Site) {
    let source = bind(s, "host", "/plain");
    dir(source.join("sub"));
    rustix::mount::mount("x", source.join("sub"), "tmpfs", MountFlags::empty(), None).unwrap();
    put(source.join("sub/f"), "beneath");
    s.words.extend(["--bind".to_owned(), format!("{}:/whole:rbind", text(&source))]);
    s.mount();
    assert_eq!(names(s.at("plain/sub")), Vec::<String>::new());
    assert_eq!(get(s.at("whole/sub/f")), b"beneath");
    let done = lamina(&["umount", &text(s.mnt())]);
    assert!(done.status.success(), "{done:?}");
    s.unmounted();
    assert_eq!(get(source.join("sub/f")), b"beneath", "the host keeps its mount");
    rustix::mount::unmount(source.join("sub"), UnmountFlags::empty()).unwrap();
}

fn grafts_stand_in_grafts(s: &mut Site) {
    let (outer, inner) = (bind(s, "outer", "/a"), bind(s, "inner", "/a/b/c"));
    put(inner.join("f"), "inner");
    s.mount();
    assert_eq!(bound(s), ["a", "a/b/c"]);
    assert_eq!(get(s.at("a/b/c/f")), b"inner");
    put(s.at("a/b/g"), "outer");
    assert_eq!(names(outer.join("b")), ["c", "g"]);
    let done = lamina(&["umount", &text(s.mnt())]);
    assert!(done.status.success(), "{done:?}");
    s.unmounted();
}

fn served_file_may_have_the_name_of_its_place(s: &mut Site) {
    put(s.root().join("file"), "one");
    let source = text(s.root().join("file"));
    for place in ["/file", "/other"] {
        s.words.extend(["--bind".to_owned(), format!("{source}:{place}")]);
    }
    s.options = "graft=served".to_owned();
    s.mount();
    assert_eq!((get(s.at("file")), get(s.at("other"))), (b"one".to_vec(), b"one".to_vec()));
    append(s.at("file"), b", two");
    assert_eq!(get(s.root().join("file")), b"one, two");
    assert_eq!(get(s.at("other")), b"one, two");
}

fn copy_of_the_mount_alone_shows_grafts(s: &mut Site) {
    let source = bind(s, "host", "/d");
    put(source.join("f"), "host");
    s.mount();
    let copy = s.root().join("copy");
    dir(&copy);
    rustix::mount::mount_bind(s.mnt(), &copy).unwrap();
    assert_eq!(get(copy.join("d/f")), b"host");
    put(copy.join("d/g"), "through the copy");
    assert_eq!(get(source.join("g")), b"through the copy");
    assert_eq!(names(s.upper("d")), Vec::<String>::new());
    rustix::mount::unmount(&copy, UnmountFlags::empty()).unwrap();
    rustix::mount::mount_bind_recursive(s.mnt(), &copy).unwrap();
    assert_eq!(mount_points_below(&copy).len(), 2, "the graft is taken along");
    rustix::mount::unmount(&copy, UnmountFlags::DETACH).unwrap();
}

fn what_cannot_be_bound_is_refused(s: &mut Site) {
    dir(s.lower("d"));
    s.words = vec!["--bind".to_owned(), "/proc/self/nothing:/d".to_owned()];
    assert!(!s.try_lamina().status.success());
    put(s.root().join("file"), "");
    s.words[1] = format!("{}:/d", text(s.root().join("file")));
    let output = s.try_lamina();
    assert!(!output.status.success(), "a file over a directory: {output:?}");
    assert_eq!(mount_points_below(&s.mnt()), Vec::<PathBuf>::new());
}

fn signal_takes_grafts_along(s: &mut Site) {
    bind(s, "host", "/d");
    s.mount();
    let pid = i32::try_from(number(&format!("\"pid\": {}", daemon(s)), "pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while !mount_points_below(&s.mnt()).is_empty() {
        assert!(std::time::Instant::now() < deadline, "the mount and its graft go");
        std::thread::yield_now();
    }
    s.unmounted();
}

fn daemon(s: &Site) -> i32 {
    *crate::harness::daemons_of(s.root()).first().expect("a daemon")
}

fn volume_of_a_container_is_in_use(s: &mut Site) {
    let root = text(s.root().join("data"));
    put(s.root().join("lower/f"), "");
    let lower = text(s.root().join("lower"));
    let run = |words: &[&str]| {
        let mut all = words[..2].to_vec();
        all.extend(["--root", &root]);
        all.extend(&words[2..]);
        lamina(&all)
    };
    assert!(run(&["image", "import", "-t", "app", &lower]).status.success());
    let made = run(&["container", "create", "--name", "web", "--volume", "data:/d", "app"]);
    assert!(made.status.success(), "{made:?}");
    assert!(run(&["volume", "create", "data"]).status.success());
    let refused = run(&["volume", "rm", "data"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("web"), "{said}");
    assert!(run(&["container", "rm", "web"]).status.success());
    assert!(run(&["volume", "rm", "data"]).status.success());
}

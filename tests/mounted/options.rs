//! The options that clients pass, the ways in which they call the program, and its messages when it
//! refuses.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal};

use crate::harness::{Site, program};
use crate::tools::*;
use crate::tree;

judged!(lamina:
    mount_program_form_mounts,
    source_and_target_come_before_options,
    options_come_repeatedly_and_joined,
    separators_in_paths_are_escaped,
    quoted_option_keeps_its_commas,
    lowers_are_resolved_by_the_kernel,
    mappings_shift_ids_both_ways,
    squash_shows_one_owner,
    volatile_upper_is_refused_after_a_kill,
    read_only_mount_touches_neither_upper_nor_work,
    mount_table_shows_source_type_and_flags,
    unknown_option_is_a_warning_or_an_error,
    refusals_name_the_path_and_the_next_step,
    upper_of_a_live_mount_is_refused,
    helper_takes_the_words_of_mount,
    helper_changes_the_flags_of_a_mount,
    help_and_version_are_answered,
    daemon_holds_no_pipe_and_no_directory,
    closed_standard_descriptors_do_no_harm,
    mounts_follow_each_other_at_once,
    termination_ends_the_mount,
    upper_is_complete_when_umount_returns,
    whiteouts_are_files_on_demand,
    volume_is_filled_from_the_image_and_outlives_the_mount,
    binds_and_memory_appear_in_the_tree,
    nothing_crosses_the_edge_of_a_graft,
    place_of_a_graft_stays,
    grafts_never_reach_the_upper,
    graft_refusals_name_the_word,
);

/// The time limit of every operation of a daemon.
const LIMIT: Duration = Duration::from_secs(15);

pub fn wait_for(what: &str, mut is_done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_done() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::yield_now();
    }
}

/// A command with the environment and the descriptors that engines pass.
pub fn command(name: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(words).stdin(Stdio::null());
    command
}

pub fn run(words: &[&str]) -> Output {
    command(program(), words).output().expect("lamina starts")
}

#[track_caller]
pub fn succeeds(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// Asserts a refusal with all these words in its message, and that nothing is mounted.
#[track_caller]
pub fn refuses(s: &Site, output: &Output, words: &[&str]) {
    assert!(!output.status.success(), "succeeded: {output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert_eq!(mount_line(&s.mnt()), None);
}

pub fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("a plain path").trim_end_matches('/').to_owned()
}

/// The option list of the site's own layers.
pub fn list(s: &Site) -> String {
    let (upper, work) = (text(s.upper("")), text(s.root().join("work")));
    format!("lowerdir={},upperdir={upper},workdir={work}", text(s.lower("")))
}

/// Unmounts; a program that another case starts holds our descriptors until it executes.
pub fn unmount(path: &Path) {
    wait_for("the unmount", || match rustix::mount::unmount(path, UnmountFlags::empty()) {
        Err(Errno::BUSY) => false,
        done => done.map(|()| true).expect("unmounts"),
    });
}

/// The line of a mount in the table.
pub fn mount_line(target: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let wanted = text(target);
    let mut lines = table.lines().rev();
    lines.find(|line| line.split(' ').nth(4) == Some(&wanted)).map(str::to_owned)
}

/// The process that serves the mounts of the site.
pub fn daemon(s: &Site) -> Pid {
    let root = text(s.root());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let serves = |path: &PathBuf| {
        fs::read_link(path.join("exe")).is_ok_and(|exe| exe == fs::canonicalize(program()).unwrap())
            && fs::read(path.join("cmdline"))
                .is_ok_and(|words| String::from_utf8_lossy(&words).contains(&root))
    };
    let path = processes.map(|entry| entry.path()).find(serves).expect("a daemon");
    let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    Pid::from_raw(number).unwrap()
}

fn mount_program_form_mounts(s: &mut Site) {
    put(s.lower("f"), "lower");
    let output = run(&["-o", &list(s), &text(s.mnt())]);
    succeeds(&output);
    assert_eq!(get(s.at("f")), b"lower", "usable when the command returns");
    put(s.at("g"), "new");
    unmount(&s.mnt());
    assert_eq!(get(s.upper("g")), b"new");
}

fn source_and_target_come_before_options(s: &mut Site) {
    succeeds(&run(&["my-source", &text(s.mnt()), "-o", &list(s)]));
    let line = mount_line(&s.mnt()).unwrap();
    assert!(line.contains(" my-source "), "{line}");
    unmount(&s.mnt());
}

fn options_come_repeatedly_and_joined(s: &mut Site) {
    put(s.lower("f"), "lower");
    let lower = format!("lowerdir={}", text(s.lower("")));
    let upper = format!("-oupperdir={},,private", text(s.upper("")));
    let work = format!(",workdir={},volatile,", text(s.root().join("work")));
    let output = run(&["-o", &lower, &upper, "-o", &work, &text(s.mnt())]);
    succeeds(&output);
    assert_eq!(output.stderr, b"", "empty options are nothing");
    put(s.at("f"), "upper");
    unmount(&s.mnt());
    assert_eq!(get(s.upper("f")), b"upper");
}

fn separators_in_paths_are_escaped(s: &mut Site) {
    let odd = ["a:b", "c,d", "e\\f", "g h", "i\"j"];
    for name in odd {
        dir(s.root().join(name));
        put(s.root().join(name).join(name), name);
    }
    for name in ["up:per", "work,1"] {
        dir(s.root().join(name));
    }
    let root = text(s.root());
    let lowers: Vec<String> =
        ["a\\:b", "c\\,d", "e\\\\f", "g h", "i\"j"].map(|name| format!("{root}/{name}")).into();
    let options =
        format!("lowerdir={},upperdir={root}/up:per,workdir={root}/work\\,1", lowers.join(":"));
    succeeds(&run(&["-o", &options, &text(s.mnt())]));
    let mut wanted = odd.to_vec();
    wanted.sort_unstable();
    assert_eq!(names(s.mnt()), wanted);
    put(s.at("new"), "");
    unmount(&s.mnt());
    assert!(exists(s.root().join("up:per/new")));
}

fn quoted_option_keeps_its_commas(s: &mut Site) {
    let context = "context=\"system_u:object_r:container_file_t:s0:c1,c2\"";
    let output = run(&["-o", &format!("{},{context}", list(s)), &text(s.mnt())]);
    succeeds(&output);
    assert_eq!(output.stderr, b"");
    unmount(&s.mnt());
}

fn lowers_are_resolved_by_the_kernel(s: &mut Site) {
    dir(s.root().join("real/inner"));
    dir(s.root().join("real/other"));
    put(s.root().join("real/other/f"), "behind a link");
    put(s.lower("g"), "relative");
    symlink("real/inner", s.root().join("link")).unwrap();
    let mut mount = command(program(), &["-o", "lowerdir=lower:link/../other", "mnt"]);
    succeeds(&mount.current_dir(s.root()).output().unwrap());
    // Layers are held by descriptor, so later changes of the paths do not matter.
    fs::remove_file(s.root().join("link")).unwrap();
    fs::rename(s.root().join("real"), s.root().join("moved")).unwrap();
    assert_eq!(names(s.mnt()), ["f", "g"]);
    assert_eq!(get(s.at("f")), b"behind a link");
    unmount(&s.mnt());
}

fn mappings_shift_ids_both_ways(s: &mut Site) {
    put(s.lower("f"), "");
    put(s.lower("other"), "");
    chown(s.lower("f"), 7, 8);
    chown(s.lower("other"), 9000, 9000);
    chmod(s.lower(""), 0o777);
    chmod(s.upper(""), 0o777);
    let maps = "uidmapping=:0:200000:5000,gidmapping=:0:300000:10:10:400000:10";
    succeeds(&run(&["-o", &format!("{},{maps}", list(s)), &text(s.mnt())]));
    assert_eq!((stat(s.at("f")).st_uid, stat(s.at("f")).st_gid), (200_007, 300_008));
    assert_eq!(stat(s.at("other")).st_uid, 65_534, "outside the map");
    as_ids(200_003, 400_002, &[400_002], || put(s.at("new"), ""));
    chown(s.at("f"), 200_001, 300_001);
    assert_eq!(stat(s.at("new")).st_uid, 200_003);
    unmount(&s.mnt());
    assert_eq!((stat(s.upper("new")).st_uid, stat(s.upper("new")).st_gid), (3, 12));
    assert_eq!((stat(s.upper("f")).st_uid, stat(s.upper("f")).st_gid), (1, 1));
}

fn squash_shows_one_owner(s: &mut Site) {
    put(s.lower("f"), "");
    chown(s.lower("f"), USER, OTHER);
    for (option, ids) in [("squash_to_root", (0, 0)), ("squash_to_uid=5,squash_to_gid=6", (5, 6))] {
        succeeds(&run(&["-o", &format!("{},{option}", list(s)), &text(s.mnt())]));
        assert_eq!((stat(s.at("f")).st_uid, stat(s.at("f")).st_gid), ids, "{option}");
        append(s.at("f"), b"x");
        unmount(&s.mnt());
        assert_eq!(stat(s.upper("f")).st_uid, USER, "stored as it was");
    }
}

fn volatile_upper_is_refused_after_a_kill(s: &mut Site) {
    s.options = "volatile".to_owned();
    s.mount();
    put(s.at("f"), "");
    s.remount();
    let daemon = daemon(s);
    rustix::process::kill_process(daemon, Signal::KILL).unwrap();
    wait_for("the daemon to die", || rustix::process::test_kill_process(daemon).is_err());
    s.unmount();
    let output = s.try_lamina();
    refuses(s, &output, &[&text(s.upper("")), "volatile", "try"]);
    fs::remove_dir(s.root().join("work/work/incompat/volatile")).unwrap();
    s.mount();
    assert_eq!(names(s.mnt()), ["f"]);
}

fn read_only_mount_touches_neither_upper_nor_work(s: &mut Site) {
    put(s.lower("f"), "lower");
    s.mount();
    put(s.at("g"), "upper");
    let held = open(s.at("f"), OFlags::RDWR).unwrap();
    fs::remove_file(s.at("f")).unwrap();
    dir(s.root().join("second"));
    let second = s.root().join("second");
    let layers = || (tree::read(&s.upper("")), tree::read(&s.root().join("work")));
    let before = layers();
    succeeds(&run(&["-o", &format!("{},ro", list(s)), &text(&second)]));
    assert_eq!(names(&second), ["g"]);
    fails_io(fs::write(second.join("h"), ""), Errno::ROFS);
    fails_io(fs::remove_file(second.join("g")), Errno::ROFS);
    unmount(&second);
    assert_eq!(layers(), before, "while another mount writes there");
    rustix::io::write(&held, b"still served").unwrap();
}

fn mount_table_shows_source_type_and_flags(s: &mut Site) {
    let options = format!("{},fsname=image\\,1,noexec,nosuid,nodev,noatime", list(s));
    succeeds(&run(&["-o", &options, &text(s.mnt())]));
    let line = mount_line(&s.mnt()).unwrap();
    assert!(line.contains(" - fuse.lamina image,1 "), "{line}");
    for flag in ["noexec", "nosuid", "nodev", "noatime", "allow_other", "default_permissions"] {
        assert!(line.contains(flag), "{flag}: {line}");
    }
    as_user(USER, || assert_eq!(names(s.mnt()), Vec::<String>::new()));
    unmount(&s.mnt());
}

fn unknown_option_is_a_warning_or_an_error(s: &mut Site) {
    let options = format!("{},bogus=1", list(s));
    let output = run(&["-o", &options, &text(s.mnt())]);
    succeeds(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("bogus=1"), "{output:?}");
    unmount(&s.mnt());
    let mnt = text(s.mnt());
    let is_shown = || String::from_utf8_lossy(&run(&["status"]).stdout).contains(&mnt);
    wait_for("the daemon to leave", || !is_shown());
    let output = run(&["mount", "-o", &options, &text(s.mnt())]);
    refuses(s, &output, &["bogus=1"]);
    let words = ["src", &text(s.mnt()), "-o", &options];
    let output = command(&called(s, "mount.lamina"), &words).output().unwrap();
    refuses(s, &output, &["bogus=1"]);
    assert_eq!(output.status.code(), Some(32), "as mount(8) says it");
}

/// The program under another name.
pub fn called(s: &Site, name: &str) -> PathBuf {
    let path = s.root().join(name);
    if !exists(&path) {
        symlink(program(), &path).unwrap();
    }
    path
}

fn refusals_name_the_path_and_the_next_step(s: &mut Site) {
    let (root, lower, mnt) = (text(s.root()), text(s.lower("")), text(s.mnt()));
    let try_list = |options: &str| run(&["-o", options, &mnt]);
    let lowers = format!("lowerdir={lower},upperdir={root}/upper");
    refuses(s, &try_list(&format!("{lowers},workdir={root}/no")), &[&format!("{root}/no"), "try"]);
    refuses(s, &try_list(&lowers), &["workdir"]);
    refuses(s, &try_list(&format!("lowerdir={root}/absent")), &[&format!("{root}/absent"), "try"]);
    refuses(s, &try_list("ro"), &["lower"]);
    let inside = format!("{root}/upper/work");
    dir(&inside);
    refuses(s, &try_list(&format!("{lowers},workdir={inside}")), &[&inside, "try"]);
    refuses(s, &run(&["-o", &list(s), &format!("{root}/nowhere")]), &["nowhere", "try"]);
    dir(s.at("layer"));
    let layer = format!("{mnt}/layer");
    refuses(s, &try_list(&format!("lowerdir={layer}")), &[&layer, &mnt, "try"]);
    put(s.root().join("file"), "");
    refuses(s, &try_list(&format!("lowerdir={root}/file")), &[&format!("{root}/file")]);
    let other = s.root().join("other");
    dir(&other);
    rustix::mount::mount("tmpfs", &other, "tmpfs", MountFlags::empty(), None).unwrap();
    let apart = try_list(&format!("{lowers},workdir={root}/other"));
    unmount(&other);
    refuses(s, &apart, &[&format!("{root}/upper"), &format!("{root}/other"), "try"]);
}

fn upper_of_a_live_mount_is_refused(s: &mut Site) {
    s.mount();
    dir(s.root().join("second"));
    let second = s.root().join("second");
    let output = run(&["-o", &list(s), &text(&second)]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&text(s.mnt())) && said.contains("upper"), "{said}");
    assert_eq!(mount_line(&second), None);
    put(s.at("f"), "the first is well");
}

fn helper_takes_the_words_of_mount(s: &mut Site) {
    put(s.lower("f"), "lower");
    for (name, kind) in [("mount.lamina", "lamina"), ("mount.fuse.lamina", "fuse.lamina")] {
        let options = format!("rw,{},dev,suid,nofail,_netdev,x-systemd.automount", list(s));
        let mnt = text(s.mnt());
        let words = ["spec", &mnt, "-sn", "-o", &options, "-t", kind];
        succeeds(&command(&called(s, name), &words).env_clear().output().unwrap());
        assert_eq!(get(s.at("f")), b"lower");
        let line = mount_line(&s.mnt()).unwrap();
        assert!(line.contains(" - fuse.lamina spec "), "{line}");
        mknod(s.at("null"), rustix::fs::FileType::CharacterDevice, 1, 3).unwrap();
        put(s.at("null"), "devices work");
        fs::remove_file(s.at("null")).unwrap();
        unmount(&s.mnt());
    }
}

fn helper_changes_the_flags_of_a_mount(s: &mut Site) {
    put(s.lower("f"), "lower");
    s.mount();
    let change = |flags: &str| {
        let options = format!("{flags},remount,user_id=0,group_id=0,default_permissions,dev,suid");
        let mnt = text(s.mnt());
        let words = ["lamina", &mnt, "-o", &options];
        succeeds(&command(&called(s, "mount.fuse.lamina"), &words).output().unwrap());
    };
    change("ro,noatime");
    fails_io(fs::write(s.at("f"), "x"), Errno::ROFS);
    assert_eq!(get(s.at("f")), b"lower");
    change("rw");
    put(s.at("f"), "written");
}

fn help_and_version_are_answered(_: &mut Site) {
    for word in ["--version", "-V", "--help", "-h"] {
        let output = run(&[word]);
        succeeds(&output);
        assert!(!output.stdout.is_empty(), "{word}");
        assert_eq!(output.stderr, b"", "{word}");
    }
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert!(version.starts_with("lamina "), "{version}");
}

fn daemon_holds_no_pipe_and_no_directory(s: &mut Site) {
    // `output` returns at the end of both pipes, so it would wait for a daemon that holds one.
    s.mount();
    let process = PathBuf::from(format!("/proc/{}", daemon(s).as_raw_nonzero()));
    assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/"));
    for number in 0..3 {
        let target = fs::read_link(process.join(format!("fd/{number}"))).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "descriptor {number}");
    }
    let status = fs::read_to_string(process.join("stat")).unwrap();
    let session = status.rsplit(')').next().unwrap().split(' ').nth(4).unwrap().to_owned();
    assert_eq!(session, daemon(s).as_raw_nonzero().to_string(), "a session of its own");
}

fn closed_standard_descriptors_do_no_harm(s: &mut Site) {
    put(s.lower("f"), "lower");
    let line = format!("exec {} -o {} {} <&- >&- 2>&-", text(program()), list(s), text(s.mnt()));
    succeeds(&command(Path::new("/bin/sh"), &["-c", &line]).output().unwrap());
    append(s.at("f"), b"!");
    assert_eq!(get(s.at("f")), b"lower!");
    unmount(&s.mnt());
    assert_eq!(get(s.upper("f")), b"lower!");
}

fn mounts_follow_each_other_at_once(s: &mut Site) {
    for round in 0..10 {
        s.mount();
        put(s.at(&format!("f{round}")), "");
        s.unmount();
    }
    assert_eq!(names(s.upper("")).len(), 10);
}

fn termination_ends_the_mount(s: &mut Site) {
    succeeds(&run(&["-o", &list(s), &text(s.mnt())]));
    put(s.at("f"), "kept");
    let daemon = daemon(s);
    rustix::process::kill_process(daemon, Signal::TERM).unwrap();
    wait_for("the unmount", || mount_line(&s.mnt()).is_none());
    wait_for("the daemon to leave", || rustix::process::test_kill_process(daemon).is_err());
    assert_eq!(get(s.upper("f")), b"kept");
    assert_eq!(names(s.root().join("work/work")), Vec::<String>::new(), "nothing is left");
}

fn upper_is_complete_when_umount_returns(s: &mut Site) {
    for round in 0..5u8 {
        s.mount();
        let data = vec![b'0' + round; 5_000_000];
        put(s.at("f"), &data);
        s.unmount();
        assert_eq!(get(s.upper("f")), data);
    }
}

fn whiteouts_are_files_on_demand(s: &mut Site) {
    put(s.lower("f"), "");
    dir(s.lower("d/sub"));
    let mnt = text(s.mnt());
    let options = list(s);
    let mount = || {
        let mut mount = command(program(), &["-o", &options, &mnt]);
        succeeds(&mount.env("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1").output().unwrap());
    };
    mount();
    fs::remove_file(s.at("f")).unwrap();
    fs::remove_dir_all(s.at("d")).unwrap();
    assert_eq!(names(s.mnt()), Vec::<String>::new());
    dir(s.at("d"));
    unmount(&s.mnt());
    assert!(exists(s.upper(".wh.f")));
    mount();
    assert_eq!(names(s.mnt()), ["d"]);
    assert_eq!(names(s.at("d")), Vec::<String>::new());
    unmount(&s.mnt());
}

/// Adds arguments for `lamina mount`, with volumes in the site.
fn graft(s: &mut Site, words: &[&str]) {
    s.words = vec!["--root".to_owned(), text(s.root().join("data"))];
    s.words.extend(words.iter().map(|word| (*word).to_owned()));
}

fn volume_is_filled_from_the_image_and_outlives_the_mount(s: &mut Site) {
    dir(s.lower("db/sub"));
    put(s.lower("db/sub/f"), "from the image");
    chown(s.lower("db"), USER, OTHER);
    chmod(s.lower("db"), 0o2750);
    dir(s.lower("bare"));
    put(s.lower("bare/f"), "");
    graft(s, &["--volume", "data:/db", "--volume", "empty:/bare:nocopy"]);
    s.mount();
    assert_eq!(get(s.at("db/sub/f")), b"from the image");
    assert_eq!((mode(s.at("db")), stat(s.at("db")).st_uid), (0o2750, USER));
    assert_eq!(names(s.at("bare")), Vec::<String>::new());
    fs::remove_file(s.at("db/sub/f")).unwrap();
    put(s.at("db/mine"), "kept");
    s.unmount();
    fs::remove_dir_all(s.upper("")).unwrap();
    fs::create_dir(s.upper("")).unwrap();
    s.mount();
    assert_eq!(get(s.at("db/mine")), b"kept");
    assert!(!exists(s.at("db/sub/f")), "filled once");
    s.unmount();
    let root = text(s.root().join("data"));
    let listed = run(&["volume", "--root", &root, "ls", "--quiet"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "data\nempty\n");
}

fn binds_and_memory_appear_in_the_tree(s: &mut Site) {
    dir(s.root().join("host/sub"));
    put(s.root().join("host/f"), "host");
    put(s.root().join("single"), "one file");
    put(s.lower("file"), "hidden by the bind");
    let (host, single) = (text(s.root().join("host")), text(s.root().join("single")));
    let (bind, closed) = (format!("{host}:/new/place"), format!("{host}:/closed:ro"));
    let file = format!("type=bind,src={single},dst=/file,readonly");
    let memory = "/memory:size=1m,mode=1770";
    graft(s, &["--bind", &bind, "--bind", &closed, "--mount", &file, "--tmpfs", memory]);
    s.mount();
    append(s.at("new/place/f"), b"+");
    assert_eq!(get(s.root().join("host/f")), b"host+");
    assert_eq!(get(s.at("closed/f")), b"host+");
    fails_io(fs::write(s.at("closed/f"), "x"), Errno::ROFS);
    fails_io(fs::create_dir(s.at("closed/d")), Errno::ROFS);
    assert_eq!(get(s.at("file")), b"one file");
    fails_io(fs::write(s.at("file"), "x"), Errno::ROFS);
    assert_eq!(mode(s.at("memory")), 0o1770);
    put(s.at("memory/f"), vec![0; 500_000]);
    let full = fs::write(s.at("memory/g"), vec![0; 2_000_000]);
    assert_eq!(full.unwrap_err().raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
    assert_eq!(names(s.mnt()), ["closed", "file", "memory", "new"]);
    s.remount();
    assert_eq!(names(s.at("memory")), Vec::<String>::new(), "it ends with the mount");
}

fn nothing_crosses_the_edge_of_a_graft(s: &mut Site) {
    put(s.lower("f"), "");
    dir(s.lower("d"));
    graft(s, &["--volume", "one:/one", "--volume", "two:/two"]);
    s.mount();
    put(s.at("one/g"), "");
    fails(rename(s.at("f"), s.at("one/f")), Errno::XDEV);
    fails(rename(s.at("d"), s.at("one/d")), Errno::XDEV);
    fails(rename(s.at("one/g"), s.at("g")), Errno::XDEV);
    fails(rename(s.at("one/g"), s.at("two/g")), Errno::XDEV);
    fails(link(s.at("f"), s.at("one/f")), Errno::XDEV);
    fails(link(s.at("one/g"), s.at("two/g")), Errno::XDEV);
    dir(s.at("one/a"));
    rename(s.at("one/g"), s.at("one/a/h")).unwrap();
    link(s.at("one/a/h"), s.at("one/i")).unwrap();
    assert_eq!(names(s.at("one")), ["a", "i"]);
}

fn place_of_a_graft_stays(s: &mut Site) {
    dir(s.lower("d/place"));
    graft(s, &["--volume", "data:/d/place"]);
    s.mount();
    fails_io(fs::remove_dir(s.at("d/place")), Errno::BUSY);
    fails(rename(s.at("d/place"), s.at("other")), Errno::BUSY);
    dir(s.at("empty"));
    fails(rename(s.at("empty"), s.at("d/place")), Errno::BUSY);
    // The directory above it moves and takes it along, like a mount point.
    put(s.at("d/place/f"), "volume");
    rename(s.at("d"), s.at("other")).unwrap();
    drop_caches();
    assert_eq!(names(s.at("other")), ["place"]);
    assert_eq!(get(s.at("other/place/f")), b"volume");
    fails_io(fs::remove_dir(s.at("other/place")), Errno::BUSY);
}

fn grafts_never_reach_the_upper(s: &mut Site) {
    dir(s.lower("place"));
    put(s.lower("place/f"), "image");
    graft(s, &["--volume", "data:/place"]);
    s.mount();
    put(s.at("place/g"), "volume");
    fs::remove_file(s.at("place/f")).unwrap();
    s.unmount();
    assert_eq!(names(s.upper("")), Vec::<String>::new());
    s.words.clear();
    s.mount();
    assert_eq!(names(s.at("place")), ["f"]);
}

fn graft_refusals_name_the_word(s: &mut Site) {
    dir(s.lower("d"));
    let absent = text(s.root().join("absent"));
    let bind = format!("{absent}:/d");
    let long = "type=nfs,source=a,target=/d";
    let words: [(&str, &str, &str); 5] = [
        ("--volume", "../up:/d", "../up"),
        ("--volume", "data:relative", "relative"),
        ("--bind", &bind, &absent),
        ("--volume", "data:/a/../b", "/a/../b"),
        ("--mount", long, "nfs"),
    ];
    for (option, word, said) in words {
        graft(s, &[option, word]);
        let output = s.try_lamina();
        refuses(s, &output, &[said]);
    }
}

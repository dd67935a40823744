//! Restricted access for other users, restrictions for images, and privileges that the daemon gives
//! up.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::io::Errno;

use crate::harness::{Site, program};
use crate::options::{called, command, daemon, list, mount_line, refuses, run, succeeds, text};
use crate::options::{unmount, wait_for};
use crate::tools::*;

judged!(lamina:
    data_root_is_closed_under_any_umask,
    data_root_of_an_earlier_version_is_closed,
    status_is_told_to_the_owner_alone,
    export_is_made_with_the_umask_of_its_user,
    link_in_a_mount_is_not_followed_on_demand,
    every_flag_is_shown_by_the_kernel,
    sync_mount_answers_when_it_is_on_the_disk,
    option_that_cannot_be_honoured_is_refused_by_name,
    helper_flags_are_honoured,
    helper_mounts_in_the_namespace_that_is_asked_for,
    image_brings_neither_devices_nor_privileges,
    container_brings_no_devices,
    directories_are_trusted_as_their_user_says,
    daemon_gives_up_what_it_does_not_need,
);

fn flags(target: &Path) -> Vec<String> {
    let line = mount_line(target).expect("mounted");
    line.split([' ', ',']).map(str::to_owned).collect()
}

#[track_caller]
fn has(target: &Path, wanted: &[&str], unwanted: &[&str]) {
    let flags = flags(target);
    for flag in wanted {
        assert!(flags.iter().any(|word| word == flag), "{flag} is not in {flags:?}");
    }
    for flag in unwanted {
        assert!(!flags.iter().any(|word| word == flag), "{flag} is in {flags:?}");
    }
}

/// The program with a data root in the site.
fn at_root(s: &Site, words: &[&str]) -> Command {
    let mut command = command(program(), words);
    command.env("LAMINA_ROOT", s.root().join("data"));
    command.env("LAMINA_RUNTIME_DIR", s.root().join("run"));
    command
}

#[track_caller]
fn done(mut command: Command) -> Output {
    let output = command.output().unwrap();
    succeeds(&output);
    output
}

/// Objects below a directory that are open to others, except the contents of volumes and
/// containers.
fn open_below(path: &Path, found: &mut Vec<PathBuf>) {
    let is_content = ["_data", "upper", "work", "merged"];
    if path.file_name().is_some_and(|name| is_content.iter().any(|one| name == *one)) {
        return;
    }
    let meta = fs::symlink_metadata(path).unwrap();
    if mode(path) & 0o077 != 0 {
        found.push(path.to_owned());
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            open_below(&entry.unwrap().path(), found);
        }
    }
}

fn data_root_is_closed_under_any_umask(s: &mut Site) {
    put(s.lower("f"), vec![7; 300_000]);
    let (lower, mnt) = (text(s.lower("")), text(s.mnt()));
    for mask in [0o000, 0o022, 0o777] {
        let masked = |words: &[&str]| {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("umask {mask:o}; exec \"$0\" \"$@\"")]);
            command.arg(program()).args(words);
            let own = at_root(s, &[]);
            command.envs(own.get_envs().filter_map(|(key, value)| Some((key, value?))));
            done(command)
        };
        masked(&["volume", "create", "made-alone"]);
        masked(&["image", "import", "-t", "a", &lower]);
        masked(&["container", "create", "--name", "c", "a"]);
        masked(&["container", "start", "c", &mnt]);
        masked(&["container", "stop", "c"]);
        masked(&["mount", "--image", "a", "--ephemeral", "--volume", "by-mount:/v", &mnt]);
        assert_eq!(get(s.at("f")).len(), 300_000);
        put(s.at("v/g"), "");
        let mut found = Vec::new();
        open_below(&s.root().join("data"), &mut found);
        open_below(&s.root().join("run"), &mut found);
        assert_eq!(found, Vec::<PathBuf>::new(), "umask {mask:o}");
        masked(&["umount", &mnt]);
        assert_eq!(mode(s.root().join("data/volumes/by-mount/_data")), 0o755);
        masked(&["container", "rm", "c"]);
        fs::remove_dir_all(s.root().join("data")).unwrap();
    }
}

fn data_root_of_an_earlier_version_is_closed(s: &mut Site) {
    done(at_root(s, &["volume", "create", "v"]));
    let root = s.root().join("data");
    let wide = [("", 0o711), ("volumes", 0o711), ("volumes/v", 0o711)];
    for (path, bits) in wide {
        chmod(root.join(path), bits);
    }
    chmod(root.join("volumes/v/volume.json"), 0o666);
    done(at_root(s, &["volume", "ls"]));
    let mut found = Vec::new();
    open_below(&root, &mut found);
    assert_eq!(found, Vec::<PathBuf>::new());
    assert_eq!(mode(root.join("volumes/v/_data")), 0o755);
    put(root.join("volumes/v/_data/f"), "");
    as_user(USER, || {
        let seen = fs::read(root.join("volumes/v/_data/f"));
        fails_io(seen, Errno::ACCESS);
    });
}

fn status_is_told_to_the_owner_alone(s: &mut Site) {
    let mnt = text(s.mnt());
    done(at_root(s, &["mount", "-o", &list(s), &mnt]));
    let socket = fs::read_dir(s.root().join("run")).unwrap().next().unwrap().unwrap().path();
    assert_eq!((mode(&socket), mode(s.root().join("run"))), (0o600, 0o700));
    let status = done(at_root(s, &["status"]));
    assert!(String::from_utf8_lossy(&status.stdout).contains(&mnt));
    unmount(&s.mnt());
}

fn export_is_made_with_the_umask_of_its_user(s: &mut Site) {
    put(s.lower("f"), "");
    let (lower, out) = (text(s.lower("")), s.root().join("out.tar"));
    done(at_root(s, &["image", "import", "-t", "a", &lower]));
    done(at_root(s, &["image", "export", "a", "-o", &text(&out)]));
    assert_eq!(mode(out), 0o644);
}

fn link_in_a_mount_is_not_followed_on_demand(s: &mut Site) {
    put(s.lower("f"), "lower");
    symlink("f", s.lower("link")).unwrap();
    s.options = "nosymfollow".to_owned();
    s.mount();
    fails_io(fs::read(s.at("link")), Errno::LOOP);
    assert_eq!(fs::read_link(s.at("link")).unwrap(), Path::new("f"));
    assert_eq!(get(s.at("f")), b"lower");
}

fn every_flag_is_shown_by_the_kernel(s: &mut Site) {
    let words = [
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "nodiratime",
        "nosymfollow",
        "sync",
        "dirsync",
        "lazytime",
    ];
    for word in words {
        s.options = word.to_owned();
        s.mount();
        has(&s.mnt(), &[word], &[]);
        s.unmount();
    }
    for (options, wanted, unwanted) in [
        ("user", &["nosuid", "nodev", "noexec"][..], &[][..]),
        ("owner", &["nosuid", "nodev"], &["noexec"]),
        ("users,exec,dev", &["nosuid"], &["noexec", "nodev"]),
        ("strictatime", &["rw"], &["relatime", "noatime"]),
        ("nosuid,suid,nodev,dev", &["rw"], &["nosuid", "nodev"]),
        ("defaults,auto,nofail,_netdev,x-a,comment=b,X-c=d", &["rw"], &["nosuid", "nodev"]),
    ] {
        s.options = options.to_owned();
        s.mount();
        has(&s.mnt(), wanted, unwanted);
        s.unmount();
    }
    for (options, mark) in [("shared", "shared:"), ("private", "")] {
        s.options = options.to_owned();
        s.mount();
        let line = mount_line(&s.mnt()).unwrap();
        assert_eq!(line.contains("shared:"), !mark.is_empty(), "{line}");
        s.unmount();
    }
}

fn sync_mount_answers_when_it_is_on_the_disk(s: &mut Site) {
    for (options, names, data) in [("rw", 0, false), ("dirsync", 2, false), ("sync", 3, true)] {
        s.options = options.to_owned();
        s.mount();
        put(s.at("f"), "data");
        chmod(s.at("f"), 0o600);
        fs::remove_file(s.at("f")).unwrap();
        let told = status(s);
        assert_eq!(number(&told, "synced"), names, "{options}: make, change, remove");
        let told: String = told.split_whitespace().collect();
        assert_eq!(told.contains("[20,"), data, "{options}: FSYNC after the write");
        s.unmount();
    }
    s.options = "sync,io=passthrough".to_owned();
    let output = s.try_lamina();
    refuses(s, &output, &["io=passthrough", "sync"]);
}

fn option_that_cannot_be_honoured_is_refused_by_name(s: &mut Site) {
    let mut words = vec!["mand", "iversion", "quota", "usrquota", "grpquota", "bind", "move"];
    words.extend(["loop", "verity=require", "nfs_export=on", "uuid=on"]);
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        words.push("context=system_u:object_r:tmp_t:s0");
    }
    for word in words {
        s.options = word.to_owned();
        let output = s.try_lamina();
        let name = word.split(':').next().and_then(|word| word.split("=system").next()).unwrap();
        refuses(s, &output, &[name]);
        let (mnt, options) = (text(s.mnt()), format!("{},{word}", list(s)));
        let words = ["src", &mnt, "-o", &options];
        let output = command(&called(s, "mount.lamina"), &words).output().unwrap();
        refuses(s, &output, &[name]);
    }
    s.options = "verity=off,nfs_export=off,uuid=null".to_owned();
    s.mount();
}

fn helper_flags_are_honoured(s: &mut Site) {
    let helper = called(s, "mount.lamina");
    let (mnt, options) = (text(s.mnt()), list(s));
    let run = |words: &[&str]| command(&helper, words).output().unwrap();
    succeeds(&run(&["src", &mnt, "-f", "-o", &options]));
    assert_eq!(mount_line(&s.mnt()), None, "-f mounts nothing");
    refuses(s, &run(&["src", &mnt, "-f", "-o", "bogus"]), &["bogus"]);
    refuses(s, &run(&["src", &mnt, "-x", "-o", &options]), &["-x"]);
    refuses(s, &run(&["src", &mnt, "-o", &options, "-N"]), &["-N"]);
    refuses(s, &run(&["src", &mnt, "-o", &options, "-N", "/absent"]), &["/absent"]);
    let output = run(&["src", &mnt, "-v", "-r", "-o", &options]);
    succeeds(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("src mounted on {mnt}\n"));
    has(&s.mnt(), &["ro"], &[]);
    unmount(&s.mnt());
    let sloppy = run(&["src", &mnt, "-s", "-o", &format!("{options},bogus,mand")]);
    succeeds(&sloppy);
    let said = String::from_utf8_lossy(&sloppy.stderr).into_owned();
    assert!(said.contains("bogus") && said.contains("mand"), "{said}");
    unmount(&s.mnt());
}

fn helper_mounts_in_the_namespace_that_is_asked_for(s: &mut Site) {
    put(s.lower("f"), "lower");
    let words = ["-m", "--propagation", "private", "sleep", "600"];
    let mut sleeper = Command::new("unshare").args(words).spawn().unwrap();
    let of = |name: &str| format!("/proc/{}/{name}", sleeper.id());
    let comm = of("comm");
    wait_for("the namespace", || fs::read(&comm).is_ok_and(|name| name == b"sleep\n"));
    let (mnt, options, namespace) = (text(s.mnt()), list(s), of("ns/mnt"));
    let words = ["src", &mnt, "-o", &options, "-N", &namespace];
    let output = command(&called(s, "mount.fuse.lamina"), &words).output().unwrap();
    let table = fs::read_to_string(of("mountinfo")).unwrap();
    let inside = fs::read(of("root") + &format!("{mnt}/f"));
    let words = [&mnt[..], "-N", &namespace];
    let ended = command(&called(s, "umount.fuse.lamina"), &words).output().unwrap();
    let after = fs::read_to_string(of("mountinfo")).unwrap();
    sleeper.kill().and_then(|()| sleeper.wait()).unwrap();
    succeeds(&output);
    assert!(table.contains(&mnt), "mounted there");
    assert_eq!(mount_line(&s.mnt()), None, "and not here");
    assert_eq!(inside.unwrap(), b"lower");
    succeeds(&ended);
    assert!(!after.contains(&mnt), "unmounted there");
}

fn image_brings_neither_devices_nor_privileges(s: &mut Site) {
    mknod(s.lower("null"), rustix::fs::FileType::CharacterDevice, 1, 3).unwrap();
    put(s.lower("tool"), "");
    chmod(s.lower("tool"), 0o4755);
    let (lower, mnt) = (text(s.lower("")), text(s.mnt()));
    done(at_root(s, &["image", "import", "-t", "a", &lower]));
    for (options, wanted, unwanted) in [
        ("rw", &["nosuid", "nodev"][..], &[][..]),
        ("defaults", &["nosuid", "nodev"], &[]),
        ("suid", &["nodev"], &["nosuid"]),
        ("dev", &["nosuid"], &["nodev"]),
        ("suid,dev", &[], &["nosuid", "nodev"]),
    ] {
        done(at_root(s, &["mount", "--image", "a", "-o", options, &mnt]));
        has(&s.mnt(), wanted, unwanted);
        assert_eq!(mode(s.at("tool")), 0o4755);
        unmount(&s.mnt());
    }
    for name in ["mount.lamina", "fuse-overlayfs"] {
        let words = ["src", &mnt, "-o", "image=a"];
        let mut mount = command(&called(s, name), &words);
        mount.env("LAMINA_ROOT", s.root().join("data"));
        succeeds(&mount.output().unwrap());
        has(&s.mnt(), &["nosuid", "nodev"], &[]);
        fails_io(fs::read(s.at("null")), Errno::ACCESS);
        unmount(&s.mnt());
    }
}

fn container_brings_no_devices(s: &mut Site) {
    put(s.lower("f"), "");
    let (lower, mnt) = (text(s.lower("")), text(s.mnt()));
    done(at_root(s, &["image", "import", "-t", "a", &lower]));
    done(at_root(s, &["container", "create", "--name", "c", "a"]));
    done(at_root(s, &["container", "start", "c", &mnt]));
    has(&s.mnt(), &["nodev"], &["nosuid"]);
    done(at_root(s, &["container", "stop", "c"]));
    done(at_root(s, &["container", "start", "-o", "dev", "c", &mnt]));
    has(&s.mnt(), &[], &["nodev", "nosuid"]);
    done(at_root(s, &["container", "stop", "c"]));
}

fn directories_are_trusted_as_their_user_says(s: &mut Site) {
    s.mount();
    has(&s.mnt(), &[], &["nodev", "nosuid"]);
}

/// The status in /proc of each thread of the daemon. Threads start and end at any time, so each is
/// read once.
fn threads(s: &Site) -> Vec<String> {
    let tasks = format!("/proc/{}/task", daemon(s).as_raw_nonzero());
    let tasks = fs::read_dir(tasks).unwrap().map(|task| task.unwrap().path().join("status"));
    let status = |path: PathBuf| match fs::read_to_string(path) {
        // The thread has ended.
        Err(error) if [2, 3].contains(&error.raw_os_error().unwrap()) => None,
        status => Some(status.unwrap()),
    };
    tasks.filter_map(status).collect()
}

fn daemon_gives_up_what_it_does_not_need(s: &mut Site) {
    s.mount();
    // capabilities(7): the rest is for acting on files, taking ids of files, mounting and
    // unmounting.
    let kept = [0, 1, 2, 3, 4, 6, 7, 9, 21, 27, 31, 32, 33];
    let kept = kept.iter().fold(0_u64, |bits, number| bits | 1 << number);
    let threads = threads(s);
    assert!(threads.len() > 4, "{threads:?}");
    for status in threads {
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("no {key} in {status}")).trim()
        };
        for key in ["CapEff:", "CapPrm:", "CapBnd:"] {
            let bits = u64::from_str_radix(value(key), 16).unwrap();
            assert_eq!(bits & !kept, 0, "{key} {bits:x}");
        }
        assert_eq!(value("NoNewPrivs:"), "1", "{status}");
        assert_eq!(value("Seccomp:"), "2", "a filter: {status}");
    }
    // It can still create files for other users, and still end its mount.
    chmod(s.mnt(), 0o777);
    as_user(USER, || put(s.at("f"), "mine"));
    assert_eq!(stat(s.upper("f")).st_uid, USER);
    set_xattr(s.at("f"), "trusted.mark", b"x").unwrap();
    succeeds(&run(&["umount", &text(s.mnt())]));
    s.unmounted();
}

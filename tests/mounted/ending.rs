//! The end of a mount: `lamina umount`, umount(8) through the helper, and signals.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::OFlags;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::harness::{Site, program};
use crate::options::{called, command, daemon, list, mount_line, run, succeeds, text, unmount};
use crate::options::{refuses, wait_for};
use crate::tools::*;

judged!(lamina:
    umount_follows_links,
    umount_leaves_what_is_not_ours,
    umount_names_what_holds_the_mount,
    umount_names_what_is_mounted_below,
    umount_names_what_holds_a_graft,
    lazy_umount_leaves_a_file_to_its_user,
    umount_returns_while_a_bind_lives,
    umount_returns_while_another_namespace_has_a_copy,
    umount_waits_though_the_number_is_given_away,
    umount_returns_whatever_the_daemon_does,
    umount_ends_a_mount_whose_daemon_is_dead,
    umount_helper_takes_the_words_of_umount,
    every_signal_ends_the_mount_or_is_ignored,
    user_of_a_mount_is_served_after_a_signal,
    signal_leaves_the_mount_above_alone,
    mount_of_a_user_ends_by_a_signal,
    remount_keeps_what_is_not_named,
);

/// A user with a name, which `fusermount3` looks up.
const NOBODY: u32 = 65_534;

fn umount(words: &[&str], path: &Path) -> Output {
    command(program(), &[&["umount"], words, &[&text(path)]].concat()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn send(daemon: Pid, signal: Signal) {
    kill_process(daemon, signal).expect("the daemon lives");
}

fn is_gone(daemon: Pid) -> bool {
    test_kill_process(daemon).is_err()
}

/// A process that does nothing, with the file as its standard input; it is killed on drop.
struct Sleeper(Child);

impl Sleeper {
    fn with(file: impl Into<Stdio>) -> Self {
        let mut sleep = Command::new("sleep");
        Self(sleep.arg("600").stdin(file).spawn().expect("sleep starts"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("sleep ends");
    }
}

fn umount_follows_links(s: &mut Site) {
    put(s.lower("f"), "");
    symlink("mnt", s.root().join("link")).unwrap();
    let link = s.root().join("link");
    succeeds(&run(&["mount", "-o", &list(s), &text(&link)]));
    assert_eq!(names(s.mnt()), ["f"]);
    succeeds(&umount(&[], &link));
    assert_eq!(mount_line(&s.mnt()), None);
    // Who else may exchange a link would choose the place of the mount.
    let theirs = s.root().join("theirs");
    dir(&theirs);
    symlink("../mnt", theirs.join("link")).unwrap();
    for (bits, owner, is_refused) in
        [(0o755, 0, false), (0o1777, 0, false), (0o777, 0, true), (0o755, USER, true)]
    {
        chmod(&theirs, bits);
        chown(&theirs, owner, owner);
        for link in [text(theirs.join("link")), format!("{}/", text(theirs.join("link")))] {
            let output = run(&["mount", "-o", &list(s), &link]);
            if is_refused {
                refuses(s, &output, &[&link, "symbolic link"]);
            } else {
                succeeds(&output);
                succeeds(&umount(&[], &s.mnt()));
            }
        }
    }
    assert_eq!(names(s.root().join("work/work")), Vec::<String>::new(), "the daemon has left");
}

fn umount_leaves_what_is_not_ours(s: &mut Site) {
    dir(s.root().join("bound"));
    let bound = s.root().join("bound");
    rustix::mount::mount_bind(s.lower(""), &bound).unwrap();
    let output = umount(&[], &bound);
    let lazily = umount(&["--lazy"], &bound);
    let change = run(&["mount", "-o", "remount,ro", &text(&bound)]);
    assert!(mount_line(&bound).is_some(), "it stays");
    put(bound.join("f"), "still writable");
    unmount(&bound);
    for output in [output, lazily, change] {
        refuses(s, &output, &[&text(&bound), "not of lamina", "umount"]);
    }
    refuses(s, &umount(&[], &s.mnt()), &[&text(s.mnt()), "not a mount point"]);
    refuses(s, &umount(&[], &s.root().join("absent")), &["absent"]);
}

fn umount_names_what_holds_the_mount(s: &mut Site) {
    put(s.lower("f"), "lower");
    put(s.lower("g"), "lower");
    s.mount();
    let open = Sleeper::with(fs::File::open(s.at("f")).unwrap());
    let mut sleep = Command::new("sleep");
    let sleep = sleep.arg("600").stdin(Stdio::null()).current_dir(s.mnt());
    let inside = Sleeper(sleep.spawn().unwrap());
    let output = umount(&[], &s.mnt());
    assert_eq!(output.status.code(), Some(1));
    let words = said(&output);
    for wanted in [
        format!("process {} (sleep): open file {}", open.0.id(), text(s.at("f"))),
        format!("process {} (sleep): working directory {}", inside.0.id(), text(s.mnt())),
        "--lazy".to_owned(),
    ] {
        assert!(words.contains(&wanted), "{wanted:?} is not in: {words}");
    }
    assert_eq!(get(s.at("f")), b"lower", "still mounted");
    drop((open, inside));
    succeeds(&umount(&[], &s.mnt()));
    s.unmounted();
}

fn umount_names_what_is_mounted_below(s: &mut Site) {
    dir(s.lower("d"));
    s.mount();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("mine", s.at("d"), "tmpfs", flags, None).unwrap();
    let output = umount(&[], &s.mnt());
    unmount(&s.at("d"));
    let wanted = format!("mount on {}: tmpfs from mine", text(s.at("d")));
    assert!(said(&output).contains(&wanted), "{output:?}");
}

fn umount_names_what_holds_a_graft(s: &mut Site) {
    dir(s.lower("v"));
    dir(s.root().join("host"));
    put(s.root().join("host/f"), "");
    s.words = vec!["--bind".to_owned(), format!("{}:/v", text(s.root().join("host")))];
    s.mount();
    let open = Sleeper::with(fs::File::open(s.at("v/f")).unwrap());
    let output = umount(&[], &s.mnt());
    let wanted = format!("process {} (sleep): open file {}", open.0.id(), text(s.at("v/f")));
    assert!(said(&output).contains(&wanted), "{output:?}");
    assert!(!said(&output).contains("mount on"), "a graft is no reason: {output:?}");
    drop(open);
    succeeds(&umount(&[], &s.mnt()));
    s.unmounted();
}

fn lazy_umount_leaves_a_file_to_its_user(s: &mut Site) {
    s.mount();
    let daemon = daemon(s);
    let held = open(s.at("f"), OFlags::RDWR | OFlags::CREATE).unwrap();
    succeeds(&umount(&["--lazy"], &s.mnt()));
    s.unmounted();
    assert_eq!(mount_line(&s.mnt()), None);
    rustix::io::write(&held, b"later").unwrap();
    drop(held);
    wait_for("the daemon to leave", || is_gone(daemon));
    assert_eq!(get(s.upper("f")), b"later");
}

fn umount_returns_while_a_bind_lives(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/f"), "lower");
    dir(s.root().join("bound"));
    let bound = s.root().join("bound");
    s.mount();
    rustix::mount::mount_bind(s.at("d"), &bound).unwrap();
    let daemon = daemon(s);
    let output = umount(&[], &s.mnt());
    succeeds(&output);
    s.unmounted();
    assert!(said(&output).contains(&text(&bound)), "{output:?}");
    assert!(said(&output).contains(&format!("process {}", daemon.as_raw_nonzero())), "{output:?}");
    assert_eq!(get(bound.join("f")), b"lower");
    put(bound.join("g"), "through the bind");
    succeeds(&umount(&[], &bound));
    wait_for("the daemon to leave", || is_gone(daemon));
    assert_eq!(get(s.upper("d/g")), b"through the bind");
}

fn umount_returns_while_another_namespace_has_a_copy(s: &mut Site) {
    s.mount();
    let daemon = daemon(s);
    let words = ["-m", "--propagation", "private", "sleep", "600"];
    let sleeper = Sleeper(Command::new("unshare").args(words).spawn().unwrap());
    let id = sleeper.0.id();
    let comm = format!("/proc/{id}/comm");
    wait_for("the copy", || fs::read(&comm).is_ok_and(|name| name == b"sleep\n"));
    let output = umount(&[], &s.mnt());
    succeeds(&output);
    s.unmounted();
    assert!(said(&output).contains(&format!("process {id} (sleep)")), "{output:?}");
    assert!(!is_gone(daemon));
    drop(sleeper);
    wait_for("the daemon to leave", || is_gone(daemon));
}

fn umount_waits_though_the_number_is_given_away(s: &mut Site) {
    use std::sync::atomic::{AtomicBool, Ordering};
    let next = s.root().join("next");
    dir(&next);
    for _ in 0..10 {
        s.mount();
        let is_over = AtomicBool::new(false);
        let (output, left) = std::thread::scope(|scope| {
            // Each takes the lowest free number and keeps it.
            let taking = scope.spawn(|| {
                let flags = rustix::mount::MountFlags::empty();
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) && count < 1000 {
                    rustix::mount::mount("next", &next, "tmpfs", flags, None).unwrap();
                    count += 1;
                }
                count
            });
            let output = umount(&[], &s.mnt());
            let left = crate::harness::daemons_of(&s.mnt());
            is_over.store(true, Ordering::Relaxed);
            for _ in 0..taking.join().unwrap() {
                rustix::mount::unmount(&next, UnmountFlags::DETACH).unwrap();
            }
            (output, left)
        });
        succeeds(&output);
        s.unmounted();
        assert_eq!((said(&output), left), (String::new(), Vec::new()));
    }
}

fn umount_returns_whatever_the_daemon_does(s: &mut Site) {
    s.mount();
    let daemon = daemon(s);
    send(daemon, Signal::STOP);
    let output = umount(&["--timeout", "5"], &s.mnt());
    send(daemon, Signal::CONT);
    assert_eq!(mount_line(&s.mnt()), None, "{output:?}");
    s.unmounted();
    wait_for("the daemon to leave", || is_gone(daemon));
}

fn umount_ends_a_mount_whose_daemon_is_dead(s: &mut Site) {
    s.mount();
    let daemon = daemon(s);
    send(daemon, Signal::KILL);
    wait_for("the daemon to die", || is_gone(daemon));
    succeeds(&umount(&[], &s.mnt()));
    s.unmounted();
    assert_eq!(mount_line(&s.mnt()), None);
}

fn umount_helper_takes_the_words_of_umount(s: &mut Site) {
    let helper = called(s, "umount.fuse.lamina");
    let mnt = text(s.mnt());
    let run = |words: &[&str]| command(&helper, &[&[&mnt[..]], words].concat()).output().unwrap();
    s.mount();
    let held = open(s.at("f"), OFlags::WRONLY | OFlags::CREATE).unwrap();
    assert_eq!(run(&["-n"]).status.code(), Some(32), "in use");
    drop(held);
    let held = open(s.mnt(), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    succeeds(&run(&["-r"]));
    assert!(mount_line(&s.mnt()).unwrap().contains(" ro,"), "read-only instead");
    succeeds(&run(&["-l", "-v"]));
    assert_eq!(mount_line(&s.mnt()), None);
    drop(held);
    s.unmounted();
    assert_eq!(run(&["-x"]).status.code(), Some(32));
}

/// Ends the mount, or is ignored so that an ordinary unmount ends it.
fn every_signal_ends_the_mount_or_is_ignored(s: &mut Site) {
    let ends = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];
    let ignored = [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::PIPE,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::POWER,
        Signal::XCPU,
        Signal::XFSZ,
        Signal::TSTP,
        Signal::TTIN,
        Signal::TTOU,
        Signal::URG,
        Signal::WINCH,
        Signal::CHILD,
        Signal::CONT,
    ];
    for (signal, ends) in
        ends.map(|one| (one, true)).into_iter().chain(ignored.map(|one| (one, false)))
    {
        let mut mount =
            command(program(), &["mount", "--foreground", "-o", &list(s), &text(s.mnt())]);
        let mut daemon = mount.spawn().unwrap();
        wait_for("the mount", || mount_line(&s.mnt()).is_some());
        // The table shows the mount before it is served; a first response comes only after that.
        put(s.at("f"), "kept");
        send(Pid::from_child(&daemon), signal);
        if ends {
            wait_for("the unmount", || mount_line(&s.mnt()).is_none());
        } else {
            assert_eq!(get(s.at("f")), b"kept", "{signal:?}");
            unmount(&s.mnt());
        }
        assert!(daemon.wait().unwrap().success(), "{signal:?}");
        assert_eq!(names(s.root().join("work/work")), Vec::<String>::new(), "{signal:?}");
    }
    assert_eq!(get(s.upper("f")), b"kept");
}

fn user_of_a_mount_is_served_after_a_signal(s: &mut Site) {
    put(s.lower("f"), "lower");
    let mut mount = command(program(), &["mount", "--foreground", "-o", &list(s), &text(s.mnt())]);
    let mut daemon = mount.spawn().unwrap();
    wait_for("the mount", || mount_line(&s.mnt()).is_some());
    let held = open(s.at("f"), OFlags::RDWR).unwrap();
    for _ in 0..2 {
        send(Pid::from_child(&daemon), Signal::TERM);
        wait_for("the unmount", || mount_line(&s.mnt()).is_none());
    }
    // Longer than a daemon would wait before it gave up.
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert!(daemon.try_wait().unwrap().is_none(), "it serves");
    rustix::io::write(&held, b"UPPER").unwrap();
    rustix::fs::fsync(&held).unwrap();
    drop(held);
    assert!(daemon.wait().unwrap().success());
    assert_eq!(get(s.upper("f")), b"UPPER");
}

fn signal_leaves_the_mount_above_alone(s: &mut Site) {
    s.mount();
    let daemon = daemon(s);
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("above", s.mnt(), "tmpfs", flags, None).unwrap();
    send(daemon, Signal::TERM);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(mount_line(&s.mnt()).is_some_and(|line| line.contains(" above ")));
    unmount(&s.mnt());
    wait_for("the unmount", || mount_line(&s.mnt()).is_none());
    s.unmounted();
    wait_for("the daemon to leave", || is_gone(daemon));
}

fn mount_of_a_user_ends_by_a_signal(s: &mut Site) {
    if !Path::new("/etc/fuse.conf").exists() {
        assert!(std::env::var_os("LAMINA_NO_SKIP").is_none(), "this case needs fusermount3");
        return;
    }
    // A device that users may open, as on most hosts.
    let device = s.root().join("fuse");
    mknod(&device, rustix::fs::FileType::CharacterDevice, 10, 229).unwrap();
    chmod(&device, 0o666);
    rustix::mount::mount_bind(&device, "/dev/fuse").unwrap();
    for name in ["lower", "upper", "work", "mnt"] {
        chown(s.root().join(name), NOBODY, NOBODY);
    }
    // The program may be in a directory that the user cannot enter.
    let program = s.root().join("lamina");
    fs::copy(crate::harness::program(), &program).unwrap();
    let user = NOBODY.to_string();
    let as_user = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(&program);
        command.args(words).env_remove("XDG_RUNTIME_DIR").env("LAMINA_RUNTIME_DIR", "/nonexistent");
        command.env("LAMINA_ROOT", s.root().join("data")).stdin(Stdio::null()).output().unwrap()
    };
    let (mnt, options) = (text(s.mnt()), list(s));
    succeeds(&as_user(&["mount", "-o", &options, &mnt]));
    let daemons = || {
        let root = text(s.root());
        let found = crate::harness::daemons_of(Path::new(&root));
        found.into_iter().filter_map(Pid::from_raw).collect::<Vec<_>>()
    };
    let all = daemons();
    let line = |pid: &Pid| {
        fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default()
    };
    let sealed = all.iter().find(|pid| line(pid).contains("NoNewPrivs:\t1")).copied();
    let sealed = sealed.expect("the daemon is sealed, and its helper is not");
    send(sealed, Signal::TERM);
    wait_for("the unmount", || mount_line(&s.mnt()).is_none());
    wait_for("the daemon to leave", || daemons().is_empty());
    succeeds(&as_user(&["mount", "-o", &options, &mnt]));
    succeeds(&as_user(&["umount", &mnt]));
    assert_eq!(mount_line(&s.mnt()), None);
    wait_for("the daemon to leave", || daemons().is_empty());
    rustix::mount::unmount("/dev/fuse", UnmountFlags::DETACH).unwrap();
}

fn remount_keeps_what_is_not_named(s: &mut Site) {
    s.options = "nosuid,nodev,noatime,nosymfollow".to_owned();
    s.mount();
    succeeds(&run(&["mount", "-o", "remount,ro", &text(s.mnt())]));
    let line = mount_line(&s.mnt()).unwrap();
    for flag in ["ro", "nosuid", "nodev", "noatime", "nosymfollow"] {
        assert!(line.split([' ', ',']).any(|word| word == flag), "{flag}: {line}");
    }
    // mount(8) passes all flags to its helper, including the old ones.
    let mnt = text(s.mnt());
    let words = ["src", &mnt, "-o", "rw,nodev,noatime,remount,user_id=0,allow_other"];
    succeeds(&command(&called(s, "mount.fuse.lamina"), &words).output().unwrap());
    let line = mount_line(&s.mnt()).unwrap();
    assert!(line.contains("nodev") && !line.contains("nosuid"), "{line}");
    let output = run(&["mount", "-o", "remount,sync", &text(s.mnt())]);
    assert!(!output.status.success() && said(&output).contains("sync"), "{output:?}");
    rustix::mount::unmount(s.mnt(), UnmountFlags::empty()).unwrap();
    s.unmounted();
}

//! umount(8) by root, and the table of libmount, through which it finds the helper.
//!
//! Every case has its own table, on a tmpfs over `/run/mount`, and the program as a helper in an
//! overlay of `/sbin`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::OFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Signal, kill_process, test_kill_process};

use crate::harness::{Site, mount_points_below, program};
use crate::options::{command, daemon, mount_line, run, succeeds, text, wait_for};
use crate::tools::*;

judged!(lamina:
    plain_umount_takes_bound_grafts_along,
    umount_is_refused_while_a_graft_is_in_use,
    row_goes_however_the_mount_ends,
    row_of_mount_is_kept_beside_ours,
    mount_without_bound_grafts_has_no_row,
    mount_of_a_killed_daemon_goes_with_its_grafts,
    mount_of_a_killed_daemon_stays_under_a_mount_of_others,
    row_that_was_left_is_swept,
    umount_reaches_other_mount_namespaces,
    table_that_cannot_be_written_is_no_failure,
);

const TABLE: &str = "/run/mount/utab";
/// A row of another program.
const OTHERS: &str = "SRC=/dev/x TARGET=/x ROOT=/ OPTS=_netdev\n";

/// Binds two directories of the host, and installs the program as the helper of umount(8).
fn prepare(s: &mut Site) -> PathBuf {
    let host = s.root().join("host");
    dir(&host);
    for place in ["d", "deep/e"] {
        s.words.extend(["--bind".to_owned(), format!("{}:/{place}", text(&host))]);
    }
    let helpers = s.root().join("sbin");
    dir(&helpers);
    for name in ["mount.fuse.lamina", "umount.fuse.lamina"] {
        symlink(program(), helpers.join(name)).unwrap();
    }
    let sbin = fs::canonicalize("/sbin").unwrap();
    let layers = format!("lowerdir={}:{}", text(&helpers), text(&sbin));
    let layers = std::ffi::CString::new(layers).unwrap();
    rustix::mount::mount("sbin", &sbin, "overlay", MountFlags::RDONLY, Some(&*layers)).unwrap();
    if !exists("/run/mount") {
        // libmount has not made one on this host yet.
        for place in ["/run", "/run/mount"] {
            dir(place);
            rustix::mount::mount("run", place, "tmpfs", MountFlags::empty(), None).unwrap();
        }
    }
    put(TABLE, OTHERS);
    host
}

/// Removes the mounts of [`prepare`].
fn leave() {
    let sbin = fs::canonicalize("/sbin").unwrap();
    rustix::mount::unmount(sbin, UnmountFlags::DETACH).unwrap();
}

fn table() -> String {
    fs::read_to_string(TABLE).unwrap()
}

/// The rows of Lamina.
fn rows() -> Vec<String> {
    let table = table();
    assert!(table.starts_with(OTHERS), "{table}");
    table.lines().skip(1).map(str::to_owned).collect()
}

/// umount(8) of util-linux.
fn umount8(s: &Site, words: &[&str]) -> Output {
    let mnt = text(s.mnt());
    let words = [words, &[&mnt[..]]].concat();
    command(Path::new("umount"), &words).output().expect("umount starts")
}

#[track_caller]
fn is_gone(s: &mut Site, done: &Output) {
    succeeds(done);
    assert_eq!(mount_points_below(&s.mnt()), Vec::<PathBuf>::new());
    s.unmounted();
}

fn kill(s: &Site) {
    let daemon = daemon(s);
    kill_process(daemon, Signal::KILL).unwrap();
    wait_for("the daemon to die", || test_kill_process(daemon).is_err());
}

fn plain_umount_takes_bound_grafts_along(s: &mut Site) {
    let host = prepare(s);
    for words in [&[][..], &["-n"], &["-v"], &["-r"], &["-f"], &["-l"], &["-c"]] {
        s.mount();
        put(s.at("d/f"), "by the mount");
        let rows = rows();
        let target = format!("TARGET={} ", text(s.mnt()));
        assert!(rows.len() == 1 && rows[0].starts_with(&target), "{rows:?}");
        let done = umount8(s, words);
        is_gone(s, &done);
        wait_for("the row to go", || table() == OTHERS);
    }
    assert_eq!(get(host.join("f")), b"by the mount");
    leave();
}

fn umount_is_refused_while_a_graft_is_in_use(s: &mut Site) {
    prepare(s);
    s.mount();
    let held = open(s.at("d"), OFlags::RDONLY).unwrap();
    let busy = umount8(s, &[]);
    assert_eq!(busy.status.code(), Some(32), "{busy:?}");
    assert!(String::from_utf8_lossy(&busy.stderr).contains("open file"), "{busy:?}");
    assert_eq!(mount_points_below(&s.mnt()).len(), 3, "all or nothing");
    assert_eq!(rows().len(), 1, "to be tried again");
    drop(held);
    let done = umount8(s, &[]);
    is_gone(s, &done);
    leave();
}

fn row_goes_however_the_mount_ends(s: &mut Site) {
    prepare(s);
    let lamina = |s: &Site, words: &[&str]| {
        succeeds(&run(&[&["umount"], words, &[&text(s.mnt())]].concat()));
    };
    let ends: [&dyn Fn(&Site); 4] = [
        &|s| lamina(s, &[]),
        &|s| lamina(s, &["--lazy"]),
        &|s| kill_process(daemon(s), Signal::TERM).unwrap(),
        &|s| rustix::mount::unmount(s.mnt(), UnmountFlags::DETACH).unwrap(),
    ];
    for end in ends {
        s.mount();
        assert_eq!(rows().len(), 1);
        end(s);
        wait_for("the row to go", || table() == OTHERS);
        wait_for("the unmount", || mount_line(&s.mnt()).is_none());
        s.unmounted();
    }
    leave();
}

fn row_of_mount_is_kept_beside_ours(s: &mut Site) {
    let host = prepare(s);
    let layers = crate::options::list(s);
    let options = format!("{layers},bind={}:/d,_netdev", text(&host));
    let words = ["-t", "fuse.lamina", "-o", &options, "layers-of-it", &text(s.mnt())];
    succeeds(&command(Path::new("mount"), &words).output().unwrap());
    s.mount_done();
    let found = rows();
    assert!(found.len() == 2 && found[1].contains("SRC=layers-of-it "), "{found:?}");
    assert!(found[1].contains("_netdev"), "{found:?}");
    let done = umount8(s, &[]);
    is_gone(s, &done);
    assert_eq!(rows(), Vec::<String>::new());
    leave();
}

fn mount_without_bound_grafts_has_no_row(s: &mut Site) {
    prepare(s);
    s.options = "graft=served".to_owned();
    s.mount();
    assert_eq!(table(), OTHERS);
    let done = umount8(s, &[]);
    is_gone(s, &done);
    leave();
}

fn mount_of_a_killed_daemon_goes_with_its_grafts(s: &mut Site) {
    let host = prepare(s);
    s.mount();
    put(s.at("d/f"), "x");
    let held = open(s.at("d/f"), OFlags::RDONLY).unwrap();
    kill(s);
    let busy = umount8(s, &[]);
    assert_eq!(busy.status.code(), Some(32), "{busy:?}");
    let said = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(said.contains("open file") && !said.contains("mount on"), "{said}");
    assert_eq!(mount_points_below(&s.mnt()).len(), 3);
    drop(held);
    let done = umount8(s, &[]);
    is_gone(s, &done);
    assert_eq!(table(), OTHERS);
    assert_eq!(get(host.join("f")), b"x");
    leave();
}

fn mount_of_a_killed_daemon_stays_under_a_mount_of_others(s: &mut Site) {
    prepare(s);
    dir(s.lower("other"));
    s.mount();
    rustix::mount::mount("x", s.at("other"), "tmpfs", MountFlags::empty(), None).unwrap();
    kill(s);
    let busy = umount8(s, &[]);
    assert_eq!(busy.status.code(), Some(32), "{busy:?}");
    assert_eq!(mount_points_below(&s.mnt()).len(), 4);
    let done = umount8(s, &["-l"]);
    is_gone(s, &done);
    assert_eq!(table(), OTHERS);
    leave();
}

fn row_that_was_left_is_swept(s: &mut Site) {
    prepare(s);
    s.mount();
    let left = rows();
    kill(s);
    assert_eq!(rows(), left);
    rustix::mount::unmount(s.mnt(), UnmountFlags::DETACH).unwrap();
    // A mount of another program on the mount point of the row is still unmounted.
    rustix::mount::mount("x", s.mnt(), "tmpfs", MountFlags::empty(), None).unwrap();
    succeeds(&umount8(s, &["-n"]));
    assert_eq!(rows(), left);
    s.mount();
    assert!(rows().len() == 1 && rows() != left, "{}", table());
    let done = umount8(s, &[]);
    is_gone(s, &done);
    assert_eq!(table(), OTHERS);
    leave();
}

/// A process with its own mount namespace.
struct Elsewhere(Child);

impl Elsewhere {
    fn start() -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(["-m", "--propagation", "private", "sleep", "600"]);
        let process = Self(unshare.stdin(Stdio::null()).spawn().expect("unshare starts"));
        let name = format!("/proc/{}/comm", process.0.id());
        wait_for("the namespace", || fs::read(&name).is_ok_and(|name| name == b"sleep\n"));
        process
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("sleep ends");
    }
}

fn umount_reaches_other_mount_namespaces(s: &mut Site) {
    prepare(s);
    let process = Elsewhere::start();
    let pid = process.0.id().to_string();
    let mnt = text(s.mnt());
    let layers = crate::options::list(s);
    let mut words = vec!["-t", &pid, "-m", text_of_program(), "mount", "-o", &layers];
    words.extend(s.words.iter().map(String::as_str));
    words.push(&mnt);
    succeeds(&command(Path::new("nsenter"), &words).output().unwrap());
    assert_eq!(mount_line(&s.mnt()), None);
    let table_of = || fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert_eq!(table_of().matches(&mnt).count(), 3, "{}", table_of());
    succeeds(&umount8(s, &["-N", &pid]));
    assert_eq!(table_of().matches(&mnt).count(), 0, "{}", table_of());
    assert_eq!(table(), OTHERS);
    drop(process);
    // A copy of the mount, in the namespace of the copy.
    s.mount();
    let process = Elsewhere::start();
    let pid = process.0.id().to_string();
    let words = ["-t", &pid, "-m", "umount", &mnt];
    succeeds(&command(Path::new("nsenter"), &words).output().unwrap());
    assert_eq!(mount_points_below(&s.mnt()).len(), 3);
    drop(process);
    succeeds(&run(&["umount", &mnt]));
    s.unmounted();
    assert_eq!(table(), OTHERS);
    leave();
}

fn text_of_program() -> &'static str {
    program().to_str().expect("a plain path")
}

fn table_that_cannot_be_written_is_no_failure(s: &mut Site) {
    prepare(s);
    fs::remove_file(TABLE).unwrap();
    let read_only = MountFlags::RDONLY;
    rustix::mount::mount_remount("/run/mount", read_only, "").unwrap();
    let ends = |s: &mut Site| {
        s.mount();
        assert_eq!(umount8(s, &[]).status.code(), Some(32), "no helper is called");
        succeeds(&run(&["umount", &text(s.mnt())]));
        s.unmounted();
    };
    ends(s);
    rustix::mount::mount_remount("/run/mount", MountFlags::empty(), "").unwrap();
    // A table in another place is not written.
    let elsewhere = s.root().join("elsewhere");
    put(&elsewhere, OTHERS);
    symlink(&elsewhere, TABLE).unwrap();
    ends(s);
    assert_eq!(get(&elsewhere), OTHERS.as_bytes());
    rustix::mount::mount("run", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
    s.mount();
    succeeds(&run(&["umount", &text(s.mnt())]));
    s.unmounted();
    assert!(!exists("/run/mount"));
    rustix::mount::unmount("/run", UnmountFlags::DETACH).unwrap();
    leave();
}

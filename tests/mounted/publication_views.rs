//! Publications with a group: one volume, several groups, at the same time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use laminafs::service::publication::{Publication, Publications};
use laminafs::service::volumes::{NewVolume, VolumeService, serve_by};
use laminafs::types::VolumeName;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Site, daemons_of, program};
use crate::publication::mounts_on;
use crate::tools::*;
use crate::volume_union::server;

judged!(host:
    two_groups_share_a_directory,
    two_groups_share_an_image,
    two_groups_share_a_union,
    what_one_group_writes_the_other_one_reads,
    changes_of_modes_leave_what_is_only_shown,
    targets_of_one_group_share_a_process,
    a_view_whose_process_died_is_made_again,
    a_view_of_a_volume_that_was_served_anew_shows_it,
    a_read_only_view_is_erofs,
);

/// Two groups, and a member of each.
const A: u32 = 5001;
const B: u32 = 5002;
const MEMBER: u32 = 1001;

struct Shared {
    volumes: VolumeService,
    publications: Publications,
    data: std::path::PathBuf,
    targets: std::path::PathBuf,
}

fn volume() -> VolumeName {
    "v".parse().unwrap()
}

fn shared(s: &Site, driver: &str) -> Shared {
    serve_by(program().to_owned());
    let root = s.root().join("store");
    let volumes = VolumeService::open(&root).unwrap();
    let mut options = BTreeMap::new();
    if driver == "image" {
        options.insert("size".to_owned(), "64m".to_owned());
    }
    let driver = Some(driver.to_owned());
    volumes.create(NewVolume { driver, options, ..NewVolume::new(volume()) }).unwrap();
    let data = volumes.publish(&volume(), "test").unwrap();
    let targets = s.root().join("pods");
    dir(&targets);
    Shared { volumes, publications: Publications::open(&root).unwrap(), data, targets }
}

impl Shared {
    fn wanted(&self, name: &str, group: Option<u32>) -> Publication {
        let (target, source) = (self.targets.join(name), self.data.clone());
        Publication { target, source, group, ..Publication::default() }
    }

    fn publish(&self, name: &str, group: Option<u32>) -> std::path::PathBuf {
        let wanted = self.wanted(name, group);
        assert!(self.publications.publish(&wanted).unwrap());
        wanted.target
    }

    fn end(self, names: &[&str]) {
        for name in names {
            let target = self.targets.join(name);
            self.publications.unpublish(&target, |_| Ok(()), |_| Ok(())).unwrap();
            assert!(!exists(target));
        }
        assert!(self.publications.list().unwrap().is_empty());
        // No process of a view holds the volume.
        self.volumes.unpublish(&volume(), "test").unwrap();
        self.volumes.erase(&volume()).unwrap();
    }
}

fn as_member<T: Send>(group: u32, work: impl FnOnce() -> T + Send) -> T {
    as_ids(MEMBER, MEMBER, &[group], work)
}

fn two_groups_share_a_directory(s: &mut Site) {
    two_groups_share(s, "local");
}

fn two_groups_share_an_image(s: &mut Site) {
    two_groups_share(s, "image");
}

fn two_groups_share_a_union(s: &mut Site) {
    two_groups_share(s, "union");
}

fn two_groups_share(s: &Site, driver: &str) {
    let shared = shared(s, driver);
    chmod(&shared.data, 0o700);
    put(shared.data.join("f"), "before");
    chmod(shared.data.join("f"), 0o600);
    dir(shared.data.join("d"));
    chmod(shared.data.join("d"), 0o750);
    std::os::unix::fs::symlink("f", shared.data.join("l")).unwrap();
    let (a, b) = (shared.publish("a", Some(A)), shared.publish("b", Some(B)));
    let plain = shared.publish("plain", None);
    for (at, group) in [(&a, A), (&b, B)] {
        let shown = |path: &str| (mode(at.join(path)), stat(at.join(path)).st_gid);
        assert_eq!(shown(""), (0o2770, group));
        assert_eq!(shown("f"), (0o660, group));
        assert_eq!(shown("d"), (0o2770, group));
        assert_eq!(fs::symlink_metadata(at.join("l")).unwrap().gid(), group);
        let listed = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        assert!(listed.into_iter().all(|meta| meta.gid() == group));
    }
    // Permission is that of what is shown.
    as_member(A, || {
        assert_eq!(get(a.join("f")), b"before");
        append(a.join("f"), b", A");
        put(a.join("d/made"), "by A");
        dir(a.join("d/dir"));
    });
    as_member(B, || {
        fails_io(fs::read_dir(&a), Errno::ACCESS);
        assert_eq!(get(b.join("f")), b"before, A");
        assert_eq!(get(b.join("d/made")), b"by A");
        put(b.join("d/dir/deep"), "by B");
    });
    as_member(A, || fails_io(fs::read(plain.join("f")), Errno::ACCESS));
    assert_eq!(get(plain.join("d/dir/deep")), b"by B");
    // Nothing is changed on the disk, and new objects belong to who made them.
    let own = |path: &str| {
        let found = stat(shared.data.join(path));
        (found.st_mode & 0o7777, found.st_uid, found.st_gid)
    };
    assert_eq!(own(""), (0o700, 0, 0));
    assert_eq!(own("f"), (0o600, 0, 0));
    assert_eq!(own("d"), (0o750, 0, 0));
    assert_eq!(own("d/made"), (0o644, MEMBER, MEMBER));
    assert_eq!(own("d/dir"), (0o755, MEMBER, MEMBER));
    assert_eq!((mode(b.join("d/made")), stat(b.join("d/made")).st_gid), (0o664, B));
    shared.end(&["a", "b", "plain"]);
}

fn what_one_group_writes_the_other_one_reads(s: &mut Site) {
    let shared = shared(s, "local");
    let (a, b) = (shared.publish("a", Some(A)), shared.publish("b", Some(B)));
    let plain = shared.publish("plain", None);
    let sides = [&a, &b, &plain];
    // In one open file, over and over: large ones are served by the kernel itself.
    for len in [64, 300 << 10] {
        put(a.join("f"), pattern(len));
        let open =
            |at: &Path| fs::OpenOptions::new().read(true).write(true).open(at.join("f")).unwrap();
        let files = sides.map(|at| open(at));
        for round in 0..60_u64 {
            let writer = &files[(round % 3) as usize];
            writer.write_all_at(&round.to_le_bytes(), len as u64 / 2).unwrap();
            for file in &files {
                let mut found = [0; 8];
                file.read_exact_at(&mut found, len as u64 / 2).unwrap();
                assert_eq!(u64::from_le_bytes(found), round);
            }
            writer.set_len(len as u64 + round).unwrap();
            assert!(files.iter().all(|file| file.metadata().unwrap().len() == len as u64 + round));
        }
    }
    // Names, with two writers at once: each name appears and goes once.
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (at, own) in [(&a, "of-a"), (&b, "of-b")] {
            let ends = &ends;
            scope.spawn(move || {
                for round in 0..150 {
                    let (new, old) = (at.join(format!("{own}-new")), at.join(own));
                    put(&new, format!("{own} {round}"));
                    rename(&new, &old).unwrap();
                }
                ends.store(true, Ordering::Relaxed);
            });
        }
        while !ends.load(Ordering::Relaxed) {
            for at in sides {
                for own in ["of-a", "of-b"] {
                    let found = fs::read_to_string(at.join(own)).unwrap_or_else(|_| own.to_owned());
                    assert!(found.starts_with(own), "{found}");
                }
            }
        }
    });
    for at in sides {
        assert_eq!(names(at), ["f", "of-a", "of-b"]);
        assert_eq!(get(at.join("of-a")), b"of-a 149");
    }
    // Appends of two writers lose nothing.
    put(a.join("log"), "");
    std::thread::scope(|scope| {
        for at in [&a, &b] {
            scope.spawn(|| {
                let file = fs::OpenOptions::new().append(true).open(at.join("log"));
                let mut file = file.unwrap();
                (0..200).for_each(|_| file.write_all(b"line\n").unwrap());
            });
        }
    });
    assert_eq!(get(plain.join("log")).len(), 400 * 5);
    fs::remove_file(b.join("log")).unwrap();
    assert!(!exists(a.join("log")));
    shared.end(&["a", "b", "plain"]);
}

fn changes_of_modes_leave_what_is_only_shown(s: &mut Site) {
    let shared = shared(s, "local");
    let f = shared.data.join("f");
    put(&f, "");
    chown(&f, MEMBER, 77);
    chmod(&f, 0o604);
    let a = shared.publish("a", Some(A));
    let at = a.join("f");
    let own = || (mode(&f), stat(&f).st_gid);
    assert_eq!(mode(&at), 0o664);
    as_member(A, || chmod(&at, 0o664));
    assert_eq!(own(), (0o604, 77), "what was shown is not stored");
    as_member(A, || chmod(&at, 0o775));
    assert_eq!((own(), mode(&at)), ((0o705, 77), 0o775));
    as_member(A, || chmod(&at, 0o640));
    assert_eq!((own(), mode(&at)), ((0o640, 77), 0o660), "another mode is");
    chown(&at, MEMBER, A);
    assert_eq!(own(), (0o640, 77));
    chown(&at, 0, 99);
    assert_eq!((own(), stat(&at).st_gid), ((0o640, 99), A));
    dir(a.join("d"));
    chmod(a.join("d"), 0o2770);
    assert_eq!(mode(shared.data.join("d")), 0o750 & 0o707 | mode(shared.data.join("d")) & 0o070);
    assert_eq!(mode(a.join("d")), 0o2770);
    shared.end(&["a"]);
}

fn views(s: &Site) -> Vec<i32> {
    daemons_of(&s.root().join("store/publications/views"))
}

fn targets_of_one_group_share_a_process(s: &mut Site) {
    let shared = shared(s, "local");
    shared.publish("one", Some(A));
    shared.publish("two", Some(A));
    shared.publish("other", Some(B));
    assert_eq!(views(s).len(), 2);
    let end = |name: &str| {
        let target = shared.targets.join(name);
        shared.publications.unpublish(&target, |_| Ok(()), |_| Ok(())).unwrap();
    };
    end("one");
    assert_eq!(views(s).len(), 2);
    put(shared.targets.join("two/f"), "goes on");
    end("two");
    eventually("one process", || views(s).len() == 1);
    end("other");
    eventually("no process", || views(s).is_empty());
    assert_eq!(names(s.root().join("store/publications/views")), Vec::<String>::new());
    assert_eq!(get(shared.data.join("f")), b"goes on");
    shared.end(&[]);
}

fn a_view_whose_process_died_is_made_again(s: &mut Site) {
    let shared = shared(s, "local");
    let (a, second) = (shared.publish("a", Some(A)), shared.publish("second", Some(A)));
    put(a.join("f"), "kept");
    let pid = views(s)[0];
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    eventually("it is dead", || fs::read(a.join("f")).is_err());
    fails_io(fs::metadata(&a), Errno::NOTCONN);
    let other = Publication { read_only: true, ..shared.wanted("a", Some(A)) };
    shared.publications.publish(&other).unwrap_err();
    assert!(shared.publications.publish(&shared.wanted("a", Some(A))).unwrap(), "made again");
    assert_eq!((get(a.join("f")), mounts_on(&a)), (b"kept".to_vec(), 1));
    // The other target is dead until it is published again, or ends as it is.
    fails_io(fs::metadata(&second), Errno::NOTCONN);
    assert!(shared.publications.publish(&shared.wanted("second", Some(A))).unwrap());
    assert_eq!((get(second.join("f")), views(s).len()), (b"kept".to_vec(), 1));
    let pid = views(s)[0];
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    eventually("it is dead", || fs::read(a.join("f")).is_err());
    shared.end(&["a", "second"]);
}

fn a_view_of_a_volume_that_was_served_anew_shows_it(s: &mut Site) {
    let shared = shared(s, "union");
    let (a, plain) = (shared.publish("a", Some(A)), shared.publish("plain", None));
    put(a.join("f"), "kept");
    let pid = Pid::from_raw(server(&shared.data).cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    eventually("it is dead", || rustix::fs::statfs(&plain).is_err());
    shared.volumes.publish(&volume(), "test").unwrap();
    assert_eq!(get(shared.data.join("f")), b"kept");
    for (name, group, at) in [("a", Some(A), &a), ("plain", None, &plain)] {
        assert!(shared.publications.publish(&shared.wanted(name, group)).unwrap(), "{name}");
        assert_eq!((get(at.join("f")), mounts_on(at)), (b"kept".to_vec(), 1));
    }
    put(plain.join("f"), "later");
    assert_eq!(get(a.join("f")), b"later");
    shared.end(&["a", "plain"]);
}

fn a_read_only_view_is_erofs(s: &mut Site) {
    let shared = shared(s, "local");
    put(shared.data.join("f"), "");
    let flags = ["nosuid", "noexec"].map(str::to_owned).to_vec();
    let wanted = Publication { read_only: true, flags, ..shared.wanted("a", Some(A)) };
    shared.publications.publish(&wanted).unwrap();
    let writable = shared.publish("b", Some(A));
    assert_eq!(views(s).len(), 1);
    fails_io(fs::write(wanted.target.join("f"), "x"), Errno::ROFS);
    fails_io(fs::set_permissions(&wanted.target, fs::Permissions::from_mode(0o700)), Errno::ROFS);
    put(writable.join("f"), "x");
    assert_eq!(get(wanted.target.join("f")), b"x");
    shared.end(&["a", "b"]);
}

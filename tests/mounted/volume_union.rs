//! Volumes of the driver `union`: snapshots while they are written, and processes that die.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use laminafs::error::Errno;
use laminafs::service::status;
use laminafs::service::volumes::{NewVolume, VolumeService, serve_by};
use laminafs::types::{Limits, VolumeName};
use rustix::fs::OFlags;

use crate::harness::{Site, program};
use crate::tools::*;
use crate::volume_plugin::until;

judged!(host:
    a_snapshot_is_one_moment_of_several_writers,
    what_is_open_stays_usable_over_snapshots,
    a_snapshot_never_changes,
    a_volume_has_its_snapshots_under_another_name,
    a_volume_is_served_again_after_its_process_died,
    verbs_act_on_a_volume_whose_process_died,
);

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn service(s: &Site) -> VolumeService {
    serve_by(program().to_owned());
    let volumes = VolumeService::open(&s.root().join("store")).unwrap();
    let union = Some("union".to_owned());
    volumes.create(NewVolume { driver: union, ..NewVolume::new(name("v")) }).unwrap();
    volumes
}

fn snapshot(volumes: &VolumeService, of: &str) {
    volumes.snapshot(&name("v"), Some(name(of))).unwrap();
}

/// Shows a snapshot, by a clone of it.
fn show(volumes: &VolumeService, of: &str, check: impl FnOnce(&Path)) {
    let clone = name(&format!("clone-{of}"));
    volumes.clone_volume(&format!("v@{of}"), clone.clone()).unwrap();
    check(&volumes.publish(&clone, "reader").unwrap());
    volumes.unpublish(&clone, "reader").unwrap();
    until(|| volumes.erase(&clone).is_ok());
}

fn number(path: &Path) -> u64 {
    let mut bytes = [0; 8];
    match fs::File::open(path) {
        Ok(file) => file.read_exact_at(&mut bytes, 0).map_or(0, |()| u64::from_le_bytes(bytes)),
        Err(_) => 0,
    }
}

/// Writers that always change `a` before `b`, by descriptor, by name, through a mapping, and by
/// rename.
fn write_on(data: &Path, ends: &AtomicBool, way: usize) {
    let (a, b) = (data.join(format!("a{way}")), data.join(format!("b{way}")));
    let mut open = None;
    for number in 1_u64.. {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        for path in [&a, &b] {
            match way {
                0 => {
                    let (first, second) = open.get_or_insert_with(|| {
                        (fs::File::create(&a).unwrap(), fs::File::create(&b).unwrap())
                    });
                    let file = if path == &a { first } else { second };
                    file.write_all_at(&number.to_le_bytes(), 0).unwrap();
                }
                1 => {
                    let mut options = fs::OpenOptions::new();
                    let file = options.write(true).create(true).truncate(false).open(path).unwrap();
                    file.write_all_at(&number.to_le_bytes(), 0).unwrap();
                }
                _ => {
                    let new = path.with_extension("new");
                    fs::write(&new, number.to_le_bytes()).unwrap();
                    fs::rename(&new, path).unwrap();
                }
            }
        }
    }
}

fn a_snapshot_is_one_moment_of_several_writers(s: &mut Site) {
    let volumes = service(s);
    let data = volumes.publish(&name("v"), "user").unwrap();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for way in 0..3 {
            let (data, ends) = (&data, &ends);
            scope.spawn(move || write_on(data, ends, way));
        }
        until(|| (0..3).all(|way| number(&data.join(format!("b{way}"))) > 0));
        for round in 0..10 {
            snapshot(&volumes, &format!("s{round}"));
        }
        ends.store(true, Ordering::Relaxed);
    });
    let mut before = [0; 3];
    for round in 0..10 {
        show(&volumes, &format!("s{round}"), |shown| {
            for (way, before) in before.iter_mut().enumerate() {
                let (a, b) = (shown.join(format!("a{way}")), shown.join(format!("b{way}")));
                let (a, b) = (number(&a), number(&b));
                assert!(b > 0 && (a == b || a == b + 1), "round {round}, way {way}: {a} {b}");
                assert!(b >= *before, "round {round}, way {way}: {b} after {before}");
                *before = b;
            }
        });
    }
    for (way, before) in before.iter().enumerate() {
        let (a, b) = (data.join(format!("a{way}")), data.join(format!("b{way}")));
        assert!(number(&a) == number(&b) && number(&a) >= *before);
    }
    volumes.unpublish(&name("v"), "user").unwrap();
}

fn what_is_open_stays_usable_over_snapshots(s: &mut Site) {
    let volumes = service(s);
    let data = volumes.publish(&name("v"), "user").unwrap();
    for dir in ["d", "d/e"] {
        fs::create_dir(data.join(dir)).unwrap();
    }
    put(data.join("d/kept"), "one,");
    fs::hard_link(data.join("d/kept"), data.join("d/e/linked")).unwrap();
    put(data.join("gone"), "gone");
    let mut kept = fs::OpenOptions::new().append(true).open(data.join("d/kept")).unwrap();
    let gone = fs::OpenOptions::new().read(true).write(true).open(data.join("gone")).unwrap();
    fs::remove_file(data.join("gone")).unwrap();
    let inside = open(data.join("d/e"), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    let ino = stat(data.join("d/kept")).st_ino;
    for (round, word) in ["two,", "three,", "four"].into_iter().enumerate() {
        snapshot(&volumes, &format!("s{round}"));
        kept.write_all(word.as_bytes()).unwrap();
        gone.write_all_at(word.as_bytes(), 0).unwrap();
        assert_eq!(stat(data.join("d/e/linked")).st_ino, ino);
        assert_eq!(stat(data.join("d/e/linked")).st_nlink, 2);
        let made = rustix::fs::openat(
            inside.as_fd(),
            format!("made{round}"),
            OFlags::CREATE | OFlags::WRONLY,
            rustix::fs::Mode::RUSR,
        );
        made.unwrap();
    }
    kept.sync_all().unwrap();
    assert_eq!(get(data.join("d/e/linked")), b"one,two,three,four");
    let mut bytes = [0; 4];
    gone.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"four");
    assert_eq!(names(data.join("d/e")), ["linked", "made0", "made1", "made2"]);
    show(&volumes, "s1", |shown| {
        assert_eq!(get(shown.join("d/kept")), b"one,two,");
        assert_eq!(names(shown.join("d/e")), ["linked", "made0"]);
        assert_eq!(stat(shown.join("d/kept")).st_nlink, 2);
        assert!(!shown.join("gone").exists());
    });
    drop((kept, gone, inside));
    volumes.unpublish(&name("v"), "user").unwrap();
}

fn a_snapshot_never_changes(s: &mut Site) {
    let volumes = service(s);
    let data = volumes.publish(&name("v"), "user").unwrap();
    for file in 0..50 {
        put(data.join(file.to_string()), pattern(5000 + file));
    }
    chmod(&data, 0o1777);
    chown(&data, USER, OTHER);
    snapshot(&volumes, "s");
    for file in 0..50 {
        match file % 4 {
            0 => put(data.join(file.to_string()), "changed"),
            1 => fs::remove_file(data.join(file.to_string())).unwrap(),
            2 => chmod(data.join(file.to_string()), 0o600),
            _ => fs::rename(data.join(file.to_string()), data.join(format!("x{file}"))).unwrap(),
        }
    }
    chmod(&data, 0o700);
    for _ in 0..2 {
        show(&volumes, "s", |shown| {
            assert_eq!(names(shown).len(), 50);
            for file in 0..50 {
                let path = shown.join(file.to_string());
                assert!(get(&path) == pattern(5000 + file), "{file}");
                assert_eq!(stat(&path).st_mode & 0o777, 0o644);
            }
            let root = stat(shown);
            assert_eq!((root.st_mode & 0o7777, root.st_uid, root.st_gid), (0o1777, USER, OTHER));
            put(shown.join("0"), "of the clone");
        });
    }
    assert_eq!(get(data.join("0")), b"changed");
    volumes.unpublish(&name("v"), "user").unwrap();
    until(|| {
        volumes.settle().unwrap();
        volumes.roll_back(&name("v"), &name("s")).is_ok()
    });
    let data = volumes.publish(&name("v"), "user").unwrap();
    assert_eq!(names(&data).len(), 50);
    assert!(get(data.join("1")) == pattern(5001));
    assert_eq!(stat(&data).st_mode & 0o7777, 0o1777);
    volumes.unpublish(&name("v"), "user").unwrap();
}

fn a_volume_has_its_snapshots_under_another_name(s: &mut Site) {
    let volumes = service(s);
    let data = volumes.publish(&name("v"), "user").unwrap();
    put(data.join("f"), "first");
    let held = open(data.join("f"), OFlags::RDONLY).unwrap();
    volumes.unpublish(&name("v"), "user").unwrap();
    volumes.rename(&name("v"), &name("w")).unwrap();
    volumes.snapshot(&name("w"), Some(name("s"))).unwrap();
    drop(held);
    let data = volumes.publish(&name("w"), "user").unwrap();
    put(data.join("f"), "second");
    volumes.snapshot(&name("w"), Some(name("t"))).unwrap();
    volumes.clone_volume("w@s", name("c")).unwrap();
    assert_eq!(get(volumes.publish(&name("c"), "user").unwrap().join("f")), b"first");
    for of in ["w", "c"] {
        volumes.unpublish(&name(of), "user").unwrap();
        until(|| volumes.erase(&name(of)).is_ok());
    }
}

/// The process that serves a directory, once it does.
pub fn server(data: &Path) -> u32 {
    let runtime = std::env::var_os("LAMINA_RUNTIME_DIR").unwrap_or_else(|| "/run/lamina".into());
    let all = status::list(Path::new(&runtime)).unwrap();
    all.iter().find(|mount| mount.target == data).expect("a mount of the volume").pid
}

fn a_volume_is_served_again_after_its_process_died(s: &mut Site) {
    let volumes = service(s);
    let data = volumes.publish(&name("v"), "user").unwrap();
    put(data.join("f"), "kept");
    snapshot(&volumes, "s");
    let mut file = fs::OpenOptions::new().append(true).open(data.join("f")).unwrap();
    file.write_all(b", and more").unwrap();
    file.sync_all().unwrap();
    let pid = rustix::process::Pid::from_raw(server(&data).cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(|| file.sync_all().is_err());
    let broken = fs::read(data.join("f")).unwrap_err().raw_os_error();
    assert_eq!(broken, Some(Errno::NOTCONN.0));
    drop(file);
    volumes.unpublish(&name("v"), "user").unwrap();
    let data = volumes.publish(&name("v"), "again").unwrap();
    assert_eq!(get(data.join("f")), b"kept, and more");
    snapshot(&volumes, "t");
    put(data.join("f"), "later");
    show(&volumes, "t", |shown| assert_eq!(get(shown.join("f")), b"kept, and more"));
    show(&volumes, "s", |shown| assert_eq!(get(shown.join("f")), b"kept"));
    volumes.unpublish(&name("v"), "again").unwrap();
}

fn verbs_act_on_a_volume_whose_process_died(s: &mut Site) {
    let volumes = service(s);
    let v = name("v");
    let resize = |size: u64| {
        volumes.resize(&v, Limits { size_bytes: Some(size), inodes: None }).map(drop).unwrap();
    };
    resize(16 << 20);
    put(volumes.publish(&v, "user").unwrap().join("f"), "kept");
    let verbs: [&dyn Fn(); 5] = [
        &|| snapshot(&volumes, "s"),
        &|| resize(32 << 20),
        &|| drop(volumes.throttle(&v, &[("iops".into(), Some("100000".into()))].into()).unwrap()),
        &|| assert!(volumes.usage(&v).unwrap().used_bytes > 0),
        &|| drop(volumes.publish(&v, "another").unwrap()),
    ];
    for verb in verbs {
        let data = volumes.publish(&v, "user").unwrap();
        // From now on the kernel opens directories without its process.
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
        let pid = rustix::process::Pid::from_raw(server(&data).cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        until(|| rustix::fs::statfs(&data).is_err());
        verb();
        assert_eq!(get(volumes.publish(&v, "user").unwrap().join("f")), b"kept");
    }
    ["user", "another"].iter().for_each(|user| volumes.unpublish(&v, user).unwrap());
}

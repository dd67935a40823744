//! Names that are exchanged all the time with links that lead out, against mounts, removals, clones
//! and adoptions: nothing outside is read, written, chowned, mounted over or removed.
//!
//! A second thread exchanges a directory and a link (`RENAME_EXCHANGE`), so that each name is there
//! at any time and leads inside or outside by chance. Each case takes 3 s, or as many as
//! `LAMINA_RACE_SECONDS` says, and prints how often each outcome was met.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use laminafs::service::volumes::{NewVolume, VolumeService, serve_by};
use laminafs::types::VolumeName;
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps, renameat_with, utimensat};
use rustix::mount::UnmountFlags;

use crate::harness::{Site, mount_points_below, program};
use crate::tools::*;

judged!(lamina:
    a_part_of_a_volume_is_mounted_from_inside_or_refused,
    an_empty_part_of_a_volume_is_filled_inside_or_refused,
    a_place_in_a_graft_is_found_inside_or_refused,
    a_mount_point_is_the_directory_or_refused,
);

judged!(host:
    a_removal_stays_inside_the_volume,
    a_clone_has_what_is_inside,
    an_adoption_takes_the_directory_or_nothing,
);

/// How long a case takes.
fn length() -> Duration {
    let seconds = std::env::var("LAMINA_RACE_SECONDS").ok();
    Duration::from_secs(seconds.map_or(3, |text| text.parse().expect("a number of seconds")))
}

/// What nobody may touch.
struct Outside {
    dir: PathBuf,
    before: BTreeMap<PathBuf, Vec<i64>>,
}

impl Outside {
    /// Makes the tree outside: each object in it has a counterpart inside.
    fn new(s: &Site) -> Self {
        let dir = s.root().join("outside");
        for path in ["in", "empty", "q", "mnt"] {
            self::dir(dir.join(path));
        }
        for path in ["f", "in/f"] {
            put(dir.join(path), "outside");
            // So old that any read changes it.
            let old = Timespec { tv_sec: 1_000_000, tv_nsec: 0 };
            let times = Timestamps { last_access: old, last_modification: old };
            utimensat(CWD, dir.join(path), &times, AtFlags::empty()).unwrap();
        }
        chmod(&dir, 0o700);
        let before = state(&dir);
        Self { dir, before }
    }

    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(state(&self.dir), self.before, "the tree outside");
        assert_eq!(mount_points_below(&self.dir), Vec::<PathBuf>::new());
    }
}

/// The attributes of all objects of a tree. Files are not opened.
fn state(dir: &Path) -> BTreeMap<PathBuf, Vec<i64>> {
    let mut all = BTreeMap::new();
    let mut rest = vec![dir.to_owned()];
    while let Some(path) = rest.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let ids = [found.mode(), found.uid(), found.gid()].map(i64::from);
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        let mut facts = [&ids[..], &times, &[found.ino().cast_signed()]].concat();
        if found.is_dir() {
            rest.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            facts.push(found.atime());
        }
        all.insert(path, facts);
    }
    all
}

/// Exchanges the names of each pair all the time, except while the lock is held. `round` gets the
/// lock and the number of the round, and returns its outcome. Prints how often each was met; each
/// of `expected` is met before the race ends.
fn race(
    name: &str,
    pairs: &[(PathBuf, PathBuf)],
    expected: &[&str],
    mut round: impl FnMut(&Mutex<()>, usize) -> String,
) {
    let (still, ends, exchanges) = (Mutex::new(()), AtomicBool::new(false), AtomicU64::new(0));
    let mut met = BTreeMap::<String, usize>::new();
    let exchange = || {
        while !ends.load(Ordering::Relaxed) {
            for (one, other) in pairs {
                let moving = still.lock().unwrap();
                // Absent between two rounds, or busy as a mount point.
                if renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok() {
                    exchanges.fetch_add(1, Ordering::Relaxed);
                }
                drop(moving);
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(exchange);
        let stop = Stop(&ends);
        let (start, all) = (Instant::now(), length());
        let is_met = |met: &BTreeMap<String, usize>| {
            expected.iter().all(|outcome| met.contains_key(*outcome))
        };
        for number in 0.. {
            if start.elapsed() > all && is_met(&met) {
                break;
            }
            assert!(start.elapsed() < all + Duration::from_secs(20), "{name}: only {met:?}");
            *met.entry(round(&still, number)).or_default() += 1;
        }
        drop(stop);
    });
    let exchanges = exchanges.into_inner();
    assert!(exchanges > 100, "{name}: {exchanges} exchanges");
    let rounds: usize = met.values().sum();
    eprintln!("RACE {name}: {rounds} rounds, {exchanges} exchanges, {met:?}");
}

/// Ends the second thread, also when a round panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("a plain path").to_owned()
}

fn root(s: &Site) -> PathBuf {
    s.root().join("data")
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

/// Makes the volume `v` of the driver `local`, and returns the directory of its content.
fn volume(s: &Site) -> PathBuf {
    let service = VolumeService::open(&root(s)).unwrap();
    service.create(NewVolume::new(name("v"))).unwrap().mountpoint
}

/// Makes a directory with a file.
fn inside(path: &Path) {
    dir(path);
    put(path.join("f"), "inside");
}

/// Mounts with a few more words, on a directory.
fn mount(s: &Site, words: &[&str], target: &Path) -> Output {
    let mut command = Command::new(program());
    command.args(["mount", "--root", &text(root(s)), "--lower", &text(s.lower(""))]);
    command.args(["--upper", &text(s.upper("")), "--work", &text(s.root().join("work"))]);
    command.args(words).arg(target).stdin(Stdio::null());
    command.output().expect("lamina starts")
}

/// Unmounts all that is mounted beneath the site, and waits until the daemon is gone. Nothing is
/// exchanged meanwhile.
fn unmount_all(s: &Site) {
    for place in mount_points_below(s.root()).iter().rev() {
        eventually("the unmount", || rustix::mount::unmount(place, UnmountFlags::NOFOLLOW).is_ok());
    }
    eventually("the end of the daemon", || crate::harness::daemons_of(s.root()).is_empty());
    fs::remove_dir_all(s.upper("")).unwrap();
    dir(s.upper(""));
}

/// The outcome of a mount that was refused. `reasons` are those that an exchange may cause.
fn refusal(s: &Site, output: &Output, reasons: &[&'static str]) -> String {
    assert_eq!(mount_points_below(s.root()), Vec::<PathBuf>::new());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let reason = reasons.iter().find(|reason| said.contains(**reason));
    reason.unwrap_or_else(|| panic!("an unexpected refusal: {said}")).to_string()
}

const OUT: &str = "leads out of the volume";

fn a_part_of_a_volume_is_mounted_from_inside_or_refused(s: &mut Site) {
    let (outside, data) = (Outside::new(s), volume(s));
    inside(&data.join("d/in"));
    inside(&data.join("e"));
    put(data.join("file"), "inside");
    symlink(&outside.dir, data.join("d-link")).unwrap();
    symlink("../../../../outside/in", data.join("e-link")).unwrap();
    symlink(outside.dir.join("f"), data.join("file-link")).unwrap();
    let pair = |one: &str| (data.join(one), data.join(format!("{one}-link")));
    let pairs = ["d", "e", "file"].map(pair);
    let expected = ["bind d/in", "served e", "bind file", "served file", OUT];
    race("mount of a part", &pairs, &expected, |still, number| {
        let part = ["d/in", "e", "file", "d/in/f"][number / 2 % 4];
        let form = ["bind", "served"][number % 2];
        let word = format!("v:/x:subpath={part}");
        let output = mount(s, &["--volume", &word, "-o", &format!("graft={form}")], &s.mnt());
        let shown = output.status.success().then(|| {
            // Also while names are exchanged: the object was found once.
            let file = if part.contains('f') { s.at("x") } else { s.at("x/f") };
            (get(file), stat(s.at("x")).st_ino)
        });
        let _still = still.lock().unwrap();
        let outcome = match shown {
            Some((content, _)) => {
                assert_eq!(content, b"inside", "{part} {form}");
                unmount_all(s);
                format!("{form} {part}")
            }
            None => refusal(s, &output, &[OUT, "does not exist", "changes all the time"]),
        };
        outside.is_untouched();
        outcome
    });
}

fn an_empty_part_of_a_volume_is_filled_inside_or_refused(s: &mut Site) {
    let (outside, data) = (Outside::new(s), volume(s));
    dir(s.lower("x/sub"));
    put(s.lower("x/sub/f"), "image");
    chown(s.lower("x"), USER, OTHER);
    dir(data.join("e"));
    symlink(outside.dir.join("empty"), data.join("e-link")).unwrap();
    let pairs = [(data.join("e"), data.join("e-link"))];
    race("fill of a part", &pairs, &["filled", OUT], |still, _| {
        let output = mount(s, &["--volume", "v:/x:subpath=e"], &s.mnt());
        let shown = output.status.success().then(|| names(s.at("x")));
        let _still = still.lock().unwrap();
        let outcome = match shown {
            Some(shown) => {
                assert_eq!(shown, ["sub"]);
                unmount_all(s);
                let of = ["e", "e-link"].map(|name| data.join(name));
                let filled = of.iter().find(|path| !path.is_symlink()).expect("the directory");
                assert_eq!(get(filled.join("sub/f")), b"image");
                fs::remove_dir_all(filled.join("sub")).unwrap();
                "filled".to_owned()
            }
            None => refusal(s, &output, &[OUT]),
        };
        outside.is_untouched();
        outcome
    });
}

fn a_place_in_a_graft_is_found_inside_or_refused(s: &mut Site) {
    let (outside, data) = (Outside::new(s), volume(s));
    put(data.join("f"), "inside");
    let host = s.root().join("host");
    dir(host.join("p/q"));
    symlink(&outside.dir, host.join("p-link")).unwrap();
    let bind = format!("{}:/a", text(&host));
    let pairs = [(host.join("p"), host.join("p-link"))];
    race("place of a graft", &pairs, &["mounted"], |still, number| {
        let form = format!("graft={}", ["bind", "served"][number % 2]);
        let words = ["--bind", &bind, "--volume", "v:/a/p/q", "-o", &form];
        let output = mount(s, &words, &s.mnt());
        let _still = still.lock().unwrap();
        let outcome = if output.status.success() {
            unmount_all(s);
            "mounted".to_owned()
        } else {
            refusal(s, &output, &["(ELOOP)", "(ENOENT)", "(ENOTDIR)", "/a/p/q in the mount"])
        };
        fs::remove_dir_all(s.upper("")).unwrap();
        dir(s.upper(""));
        outside.is_untouched();
        outcome
    });
}

fn a_mount_point_is_the_directory_or_refused(s: &mut Site) {
    let outside = Outside::new(s);
    put(s.lower("f"), "mounted");
    let theirs = s.root().join("theirs");
    let (target, link) = (theirs.join("target"), theirs.join("target-link"));
    dir(&target);
    symlink(outside.dir.join("mnt"), &link).unwrap();
    // Whoever owns the directory may exchange its names.
    chown(&theirs, USER, USER);
    let (pairs, moved) = ([(target.clone(), link.clone())], link);
    let link = "is a symbolic link";
    race("mount point", &pairs, &["mounted", link], |still, _| {
        let output = mount(s, &["--tmpfs", "/memory"], &target);
        let _still = still.lock().unwrap();
        let outcome = if output.status.success() {
            // The directory may have had either name when it was opened. From the mount on it is a
            // mount point, which keeps its name.
            let places = mount_points_below(s.root());
            assert_eq!(places.len(), 2, "the mount and its graft: {places:?}");
            assert!(places[0] == target || places[0] == moved, "{places:?}");
            assert_eq!(get(places[0].join("f")), b"mounted");
            let outcome = if places[0] == target { "mounted" } else { "mounted as it moved" };
            unmount_all(s);
            outcome.to_owned()
        } else {
            refusal(s, &output, &[link, "path changed meanwhile", "not a directory"])
        };
        outside.is_untouched();
        outcome
    });
}

fn a_removal_stays_inside_the_volume(s: &mut Site) {
    let outside = Outside::new(s);
    let service = VolumeService::open(&root(s)).unwrap();
    let data = volume(s);
    let pair = |name: &str| (data.join(name), data.join(format!("{name}-link")));
    let pairs = [pair("d"), pair("d/in"), pair("file")];
    race("removal", &pairs, &["removed at once"], |still, _| {
        {
            let _still = still.lock().unwrap();
            service.create(NewVolume::new(name("v"))).unwrap();
            for path in ["d/in", "d/in/in", "d/a", "d/b"] {
                inside(&data.join(path));
            }
            put(data.join("file"), "inside");
            symlink(&outside.dir, data.join("d-link")).unwrap();
            symlink(outside.dir.join("in"), data.join("d/in-link")).unwrap();
            symlink(outside.dir.join("f"), data.join("file-link")).unwrap();
        }
        let removed = service.erase(&name("v"));
        let _still = still.lock().unwrap();
        let outcome = match removed {
            Ok(()) => "removed at once".to_owned(),
            Err(error) => {
                service.sweep().unwrap();
                format!(
                    "removed by a sweep after: {}",
                    error.to_string().rsplit(':').next().unwrap()
                )
            }
        };
        assert!(!exists(&data), "{outcome}");
        outside.is_untouched();
        outcome
    });
}

fn a_clone_has_what_is_inside(s: &mut Site) {
    let outside = Outside::new(s);
    serve_by(program().to_owned());
    let service = VolumeService::open(&root(s)).unwrap();
    let driver = Some("union".to_owned());
    service.create(NewVolume { driver, ..NewVolume::new(name("u")) }).unwrap();
    let data = service.publish(&name("u"), "user").unwrap();
    inside(&data.join("d/in"));
    symlink(&outside.dir, data.join("d-link")).unwrap();
    let pairs = [(data.join("d"), data.join("d-link"))];
    race("clone", &pairs, &["the directory is d", "the directory is d-link"], |still, number| {
        let clone = name(&format!("c{number}"));
        service.clone_volume("u", clone.clone()).unwrap();
        let _still = still.lock().unwrap();
        let shown = service.publish(&clone, "reader").unwrap();
        let all = names(&shown);
        let (links, dirs): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|name| shown.join(name).is_symlink());
        assert_eq!((links.len(), dirs.len()), (1, 1), "one moment: {links:?} {dirs:?}");
        assert_eq!(fs::read_link(shown.join(&links[0])).unwrap(), outside.dir);
        assert_eq!(names(shown.join(&dirs[0])), ["in"]);
        assert_eq!(get(shown.join(&dirs[0]).join("in/f")), b"inside");
        service.unpublish(&clone, "reader").unwrap();
        eventually("the removal", || service.erase(&clone).is_ok());
        outside.is_untouched();
        format!("the directory is {}", dirs[0])
    });
    eventually("the end", || {
        service.unpublish(&name("u"), "user").unwrap();
        service.erase(&name("u")).is_ok()
    });
}

fn an_adoption_takes_the_directory_or_nothing(s: &mut Site) {
    let outside = Outside::new(s);
    let service = VolumeService::open(&root(s)).unwrap();
    let (source, link) = (s.root().join("source"), s.root().join("source-link"));
    inside(&source);
    symlink(&outside.dir, &link).unwrap();
    let pairs = [(source.clone(), link.clone())];
    let refused = "is a symbolic link";
    race("adoption", &pairs, &["adopted", refused], |still, number| {
        let new = name(&format!("a{number}"));
        let adopted = service.adopt(&new, &source);
        let _still = still.lock().unwrap();
        let outcome = match adopted {
            Ok(volume) => {
                assert!(!volume.mountpoint.is_symlink());
                assert_eq!(names(&volume.mountpoint), ["f"]);
                assert_eq!(get(volume.mountpoint.join("f")), b"inside");
                service.erase(&new).unwrap();
                // It may have had either name when it was taken.
                let gone = [&source, &link].into_iter().find(|path| !path.is_symlink());
                inside(gone.expect("one name is a link"));
                "adopted".to_owned()
            }
            Err(error) => {
                let said = error.to_string();
                let there = [&source, &link].into_iter().filter(|path| !path.is_symlink());
                let contents: Vec<_> = there.map(|path| get(path.join("f"))).collect();
                assert_eq!(contents, [b"inside"], "it stays: {said}");
                match said.contains(refused) {
                    true => refused.to_owned(),
                    false => said.rsplit(':').next().unwrap_or_default().trim().to_owned(),
                }
            }
        };
        assert!(service.list().unwrap().is_empty(), "no volume is left: {outcome}");
        outside.is_untouched();
        outcome
    });
    assert!(service.trashed().unwrap().is_empty());
}

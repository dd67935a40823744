//! Volumes without a file system: block devices, their holders and snapshots.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use laminafs::service::volumes::{Limits, NewVolume, Removal, VolumeService, is_device};
use laminafs::types::VolumeName;
use rustix::mount::UnmountFlags;

use crate::harness::{Site, program};
use crate::tools::*;
use crate::volume_image::noise;

judged!(host:
    holders_share_one_device_of_the_size,
    a_device_is_no_directory,
    a_device_grows_under_its_user,
    a_lost_device_is_attached_again,
    a_device_in_use_is_neither_removed_nor_rolled_back,
    a_snapshot_in_use_is_of_one_moment_on_xfs,
    a_snapshot_in_use_is_of_one_moment_on_btrfs,
    a_snapshot_in_use_is_refused_where_blocks_are_not_shared,
    a_killed_process_leaves_no_device,
);

pub const MIB: u64 = 1 << 20;
/// Names the data root for the process that is killed.
const CHILD: &str = "LAMINA_TEST_BLOCK_ROOT";

pub fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

/// A file system of its own for the data root, in a file of the site.
pub struct Host(PathBuf);

impl Host {
    pub fn new(s: &Site, kind: &str) -> Self {
        let (file, at) = (s.root().join(kind), s.root().join(format!("on-{kind}")));
        File::create(&file).unwrap().set_len(1 << 30).unwrap();
        let made = Command::new(format!("mkfs.{kind}")).arg("-q").arg(&file).status().unwrap();
        assert!(made.success());
        dir(&at);
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&at).status();
        assert!(mounted.unwrap().success());
        Self(at)
    }

    pub fn volumes(&self) -> VolumeService {
        VolumeService::open(&self.0.join("store")).unwrap()
    }

    pub fn end(self) {
        // A process that another case starts holds our descriptors until it runs its program.
        eventually("an unmount of the host", || {
            rustix::mount::unmount(&self.0, UnmountFlags::empty()).is_ok()
        });
    }
}

fn volumes(s: &Site) -> VolumeService {
    VolumeService::open(&s.root().join("store")).unwrap()
}

pub fn wish(of: &str, size: u64) -> NewVolume {
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let options = BTreeMap::from([own(("fs", "none")), own(("size", &size.to_string()))]);
    NewVolume { driver: Some("image".to_owned()), options, ..NewVolume::new(name(of)) }
}

fn limit(size: u64) -> Limits {
    Limits { size_bytes: Some(size), inodes: None }
}

/// The loop devices over images of volumes below a directory.
fn devices(root: &Path) -> Vec<String> {
    let entries = fs::read_dir("/sys/block").unwrap().flatten();
    let backing = entries.filter_map(|entry| {
        let path = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), path.trim().to_owned()))
    });
    let ours = |path: &str| Path::new(path).starts_with(root) && path.contains("/volumes/");
    backing.filter(|(_, path)| ours(path)).map(|(name, _)| format!("/dev/{name}")).collect()
}

#[track_caller]
pub fn leaves_no_device(root: &Path) {
    eventually("the detach of all devices", || devices(root).is_empty());
}

pub fn device(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn size_of(device: &File) -> u64 {
    rustix::fs::seek(device, rustix::fs::SeekFrom::End(0)).unwrap()
}

pub fn read(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn holders_share_one_device_of_the_size(s: &mut Site) {
    let volumes = volumes(s);
    let (v, other) = (name("v"), name("other"));
    let made = volumes.create(wish("v", 10 * MIB + 1)).unwrap();
    assert!(is_device(&made));
    assert_eq!(made.size_bytes, Some(10 * MIB + 4096));
    let image = made.directory().join("image");
    assert_eq!((stat(&image).st_size as u64, mode(&image)), (10 * MIB + 4096, 0o600));
    assert_eq!(volumes.device(&v).unwrap(), None);
    let path = volumes.publish_device(&v, "one").unwrap();
    for holder in ["two", "two", "one"] {
        assert_eq!(volumes.publish_device(&v, holder).unwrap(), path);
    }
    volumes.create(wish("other", MIB)).unwrap();
    let beside = volumes.publish_device(&other, "one").unwrap();
    assert_ne!(beside, path);
    assert_eq!(devices(s.root()).len(), 2);
    let (one, two) = (device(&path), device(&path));
    assert_eq!(size_of(&one), 10 * MIB + 4096);
    assert_eq!(rustix::fs::ioctl_blksszget(&one).unwrap(), 512);
    let data = noise(5 << 20, 1);
    one.write_all_at(&data, 4 * MIB + 512).unwrap();
    assert!(read(&two, 4 * MIB + 512, 5 << 20) == data);
    one.sync_all().unwrap();
    assert!(get(&image)[(4 << 20) + 512..][..5 << 20] == data[..]);
    let used = volumes.usage(&v).unwrap();
    assert!((5 * MIB..7 * MIB).contains(&used.used_bytes), "{used:?}");
    assert_eq!(volumes.usage(&other).unwrap().host_bytes, 0);
    drop((one, two));
    volumes.unpublish(&v, "one").unwrap();
    volumes.unpublish(&v, "never").unwrap();
    assert_eq!(volumes.device(&v).unwrap().unwrap(), path);
    volumes.settle().unwrap();
    assert_eq!(devices(s.root()).len(), 2, "a holder keeps a device that nobody has open");
    volumes.unpublish(&v, "two").unwrap();
    volumes.unpublish(&other, "one").unwrap();
    leaves_no_device(s.root());
    let again = device(&volumes.publish_device(&v, "three").unwrap());
    assert!(read(&again, 4 * MIB + 512, 5 << 20) == data);
    assert_eq!(read(&again, 0, 4 << 20), vec![0; 4 << 20]);
    // A process that outlives the last holder keeps it, and its end detaches it.
    volumes.unpublish(&v, "three").unwrap();
    assert_eq!(devices(s.root()).len(), 1);
    drop(again);
    leaves_no_device(s.root());
}

fn a_device_is_no_directory(s: &mut Site) {
    let volumes = volumes(s);
    volumes.create(wish("disk", 4 * MIB)).unwrap();
    volumes.snapshot(&name("disk"), Some(name("s"))).unwrap();
    let files = NewVolume { driver: Some("local".to_owned()), ..NewVolume::new(name("files")) };
    volumes.create(files).unwrap();
    let refused = [
        volumes.publish(&name("disk"), "one").unwrap_err(),
        volumes.export("disk", &mut Vec::new(), None).unwrap_err(),
        volumes.import(wish("new", MIB), &[][..]).unwrap_err(),
        volumes.changes("disk", "disk", &mut |_| Ok(())).unwrap_err(),
        volumes.open_filled(&name("disk"), |_| Ok(())).unwrap_err(),
    ];
    for error in refused.map(|error: laminafs::service::failure::Refusal| error.to_string()) {
        assert!(error.contains("is a block device") && error.contains('"'), "{error}");
    }
    let not = volumes.publish_device(&name("files"), "one").unwrap_err().to_string();
    assert!(not.contains("\"files\" is not a block device"), "{not}");
    for bad in [("o", "ro"), ("inodes", "5")] {
        let mut wish = wish("bad", MIB);
        wish.options.insert(bad.0.to_owned(), bad.1.to_owned());
        let refused = volumes.create(wish).unwrap_err().to_string();
        assert!(refused.contains("fs=none"), "{refused}");
    }
    assert_eq!(volumes.list().unwrap().len(), 2, "what was refused is not there");
    let root = s.root().join("store").into_os_string().into_string().unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(program());
        command.args(&words[..2]).args(["--root", &root]).args(&words[2..]);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let create = ["volume", "create", "--driver", "image", "--opt", "fs=none"];
    let made = run(&[&create[..], &["--opt", "size=3M", "cli"]].concat());
    assert!(made.status.success(), "{made:?}");
    for words in [&["volume", "inspect", "cli"][..], &["volume", "ls"], &["volume", "df"]] {
        let output = run(words);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("cli"), "{words:?}: {text}");
    }
    dir(s.mnt());
    s.words = ["--root", &root, "--volume", "cli:/x"].map(str::to_owned).to_vec();
    let mounted = s.try_lamina();
    let text = String::from_utf8(mounted.stderr).unwrap();
    assert!(!mounted.status.success() && text.contains("\"cli\" is a block device"), "{text}");
    leaves_no_device(s.root());
}

fn a_device_grows_under_its_user(s: &mut Site) {
    let volumes = volumes(s);
    let v = name("v");
    volumes.create(wish("v", 4 * MIB)).unwrap();
    let open = device(&volumes.publish_device(&v, "one").unwrap());
    open.write_all_at(b"kept", 4 * MIB - 4).unwrap();
    let grown = volumes.resize(&v, limit(8 * MIB - 1)).unwrap();
    assert_eq!(grown.size_bytes, Some(8 * MIB));
    assert_eq!(size_of(&open), 8 * MIB);
    open.write_all_at(b"new", 8 * MIB - 3).unwrap();
    assert_eq!(read(&open, 4 * MIB - 4, 6), b"kept\0\0");
    volumes.resize(&v, limit(8 * MIB)).unwrap();
    let smaller = volumes.resize(&v, limit(4 * MIB)).unwrap_err().to_string();
    assert!(smaller.contains("does not support shrink"), "{smaller}");
    let larger = volumes.resize(&v, limit(1 << 50)).unwrap_err().to_string();
    assert!(larger.contains("are needed"), "{larger}");
    assert_eq!(volumes.inspect(&v).unwrap().size_bytes, Some(8 * MIB));
    assert_eq!(size_of(&open), 8 * MIB);
    drop(open);
    volumes.unpublish(&v, "one").unwrap();
    leaves_no_device(s.root());
}

fn a_lost_device_is_attached_again(s: &mut Site) {
    let (v, taker) = (name("v"), name("taker"));
    let first = volumes(s);
    first.create(wish("v", 2 * MIB)).unwrap();
    first.create(wish("taker", 2 * MIB)).unwrap();
    let path = first.publish_device(&v, "one").unwrap();
    device(&path).write_all_at(b"mine", 0).unwrap();
    // The process of the holders ends, and another one begins.
    drop(first);
    let second = volumes(s);
    second.settle().unwrap();
    assert_eq!(second.device(&v).unwrap().unwrap(), path);
    second.resume().unwrap();
    assert_eq!(devices(s.root()).len(), 1);
    drop(second);
    // The host restarts, and another volume gets the number.
    eventually("a detach", || {
        Command::new("losetup").arg("-d").arg(&path).status().unwrap().success()
            && devices(s.root()).is_empty()
    });
    let third = volumes(s);
    let other = third.publish_device(&taker, "one").unwrap();
    device(&other).write_all_at(b"other", 0).unwrap();
    third.resume().unwrap();
    let now = third.device(&v).unwrap().unwrap();
    assert_ne!(now, other);
    assert_eq!(third.publish_device(&v, "one").unwrap(), now);
    assert_eq!(read(&device(&now), 0, 4), b"mine");
    assert_eq!(read(&device(&other), 0, 5), b"other");
    third.unpublish(&v, "one").unwrap();
    third.unpublish(&taker, "one").unwrap();
    leaves_no_device(s.root());
}

fn a_device_in_use_is_neither_removed_nor_rolled_back(s: &mut Site) {
    let volumes = volumes(s);
    let v = name("v");
    volumes.create(wish("v", 2 * MIB)).unwrap();
    let open = device(&volumes.publish_device(&v, "one").unwrap());
    open.write_all_at(b"first", 0).unwrap();
    volumes.unpublish(&v, "one").unwrap();
    // Nobody holds it, and a process has it open.
    for refused in [volumes.remove(&v, Removal::FORCED), volumes.erase(&v)] {
        assert!(refused.unwrap_err().is_in_use());
    }
    assert_eq!(read(&open, 0, 5), b"first");
    drop(open);
    leaves_no_device(s.root());
    volumes.snapshot(&v, Some(name("s"))).unwrap();
    let path = volumes.publish_device(&v, "one").unwrap();
    device(&path).write_all_at(b"later", 0).unwrap();
    assert!(volumes.roll_back(&v, &name("s")).unwrap_err().is_in_use());
    let both = [v.clone(), name("w")];
    volumes.create(wish("w", MIB)).unwrap();
    volumes.publish_device(&both[1], "one").unwrap();
    let refused = volumes.snapshot_together(&both, None).unwrap_err().to_string();
    assert!(refused.contains("cannot be in a snapshot with others"), "{refused}");
    volumes.unpublish(&both[1], "one").unwrap();
    // An engine that forgot its holder removes the volume all the same, while nobody has it open.
    let open = device(&path);
    assert!(volumes.remove(&v, Removal::FORCED).unwrap_err().is_in_use());
    drop(open);
    assert_eq!(volumes.device(&v).unwrap().unwrap(), path, "its holder keeps it");
    volumes.unpublish(&v, "one").unwrap();
    leaves_no_device(s.root());
    assert_eq!(volumes.snapshot_together(&both, Some(name("t"))).unwrap().len(), 2);
    volumes.roll_back(&v, &name("s")).unwrap();
    let path = volumes.publish_device(&v, "one").unwrap();
    assert_eq!(read(&device(&path), 0, 5), b"first");
    volumes.remove(&v, Removal::FORCED).unwrap();
    leaves_no_device(s.root());
    volumes.undelete("v", None).unwrap();
    let open = device(&volumes.publish_device(&v, "two").unwrap());
    assert_eq!(read(&open, 0, 5), b"first");
    drop(open);
    volumes.unpublish(&v, "two").unwrap();
    volumes.erase(&v).unwrap();
    volumes.erase(&name("w")).unwrap();
    for snapshot in volumes.snapshots(None).unwrap() {
        volumes.remove_snapshot(&snapshot.id).unwrap();
    }
    assert_eq!(volumes.sweep().unwrap(), 0);
    assert_eq!(names(s.root().join("store/volumes")), [".locks"]);
    leaves_no_device(s.root());
}

/// Where a writer puts a number first, and where it puts it then.
const PLACES: [u64; 2] = [0, 24 * MIB];

fn write_numbers(path: &Path, ends: &AtomicBool) {
    let device = device(path);
    for number in 1_u64.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        for place in PLACES {
            device.write_all_at(&number.to_le_bytes().repeat(512), place).unwrap();
            device.sync_data().unwrap();
        }
    }
}

fn is_of_one_moment(s: &Site, kind: &str) {
    let host = Host::new(s, kind);
    let volumes = host.volumes();
    let v = name("v");
    volumes.create(wish("v", 32 * MIB)).unwrap();
    let path = volumes.publish_device(&v, "one").unwrap();
    // What nobody synced belongs into a snapshot too.
    device(&path).write_all_at(b"cached", MIB).unwrap();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| write_numbers(&path, &ends));
        for round in 0..6 {
            let last = read(&device(&path), 0, 8);
            volumes.snapshot(&v, Some(name(&format!("s{round}")))).unwrap();
            // The writer goes on.
            eventually("a write", || read(&device(&path), 0, 8) != last);
        }
        ends.store(true, Ordering::Relaxed);
    });
    let mut before = 0;
    for round in 0..6 {
        let clone = name("clone");
        volumes.clone_volume(&format!("v@s{round}"), clone.clone()).unwrap();
        let shown = device(&volumes.publish_device(&clone, "reader").unwrap());
        assert_eq!(read(&shown, MIB, 6), b"cached");
        let found = PLACES.map(|place| {
            let bytes = read(&shown, place, 4096);
            assert!(bytes.chunks(8).all(|part| part == &bytes[..8]), "a torn write");
            u64::from_le_bytes(bytes[..8].try_into().unwrap())
        });
        assert!(found[0] == found[1] || found[0] == found[1] + 1, "{found:?}");
        assert!(found[0] >= before, "{found:?} after {before}");
        before = found[0];
        drop(shown);
        volumes.unpublish(&clone, "reader").unwrap();
        volumes.erase(&clone).unwrap();
    }
    assert!(before > 0);
    volumes.unpublish(&v, "one").unwrap();
    leaves_no_device(s.root());
    drop(volumes);
    host.end();
}

fn a_snapshot_in_use_is_of_one_moment_on_xfs(s: &mut Site) {
    is_of_one_moment(s, "xfs");
}

fn a_snapshot_in_use_is_of_one_moment_on_btrfs(s: &mut Site) {
    is_of_one_moment(s, "btrfs");
}

fn a_snapshot_in_use_is_refused_where_blocks_are_not_shared(s: &mut Site) {
    let host = Host::new(s, "ext4");
    let volumes = host.volumes();
    let v = name("v");
    volumes.create(wish("v", 8 * MIB)).unwrap();
    let path = volumes.publish_device(&v, "one").unwrap();
    device(&path).write_all_at(&noise(3 << 20, 4), 5 * MIB).unwrap();
    for refused in [
        volumes.snapshot(&v, Some(name("s"))).unwrap_err(),
        volumes.clone_volume("v", name("c")).unwrap_err(),
    ] {
        assert!(refused.is_in_use(), "{refused}");
        assert!(refused.to_string().contains("attached as a block device"), "{refused}");
    }
    assert!(volumes.snapshots(None).unwrap().is_empty() && volumes.list().unwrap().len() == 1);
    volumes.unpublish(&v, "one").unwrap();
    let made = volumes.snapshot(&v, Some(name("s"))).unwrap();
    let copy = made.directory().join("image");
    assert!(get(&copy) == get(volumes.inspect(&v).unwrap().directory().join("image")));
    assert!(stat(&copy).st_blocks * 512 < 4 << 20, "the holes are kept");
    leaves_no_device(s.root());
    drop(volumes);
    host.end();
}

#[test]
#[ignore = "the process that another case kills"]
fn works_until_it_is_killed() {
    let root = std::env::var_os(CHILD).expect("the case that kills it names a data root");
    let volumes = VolumeService::open(Path::new(&root)).unwrap();
    let v = name("v");
    for round in 0_u64.. {
        let path = volumes.publish_device(&v, "one").unwrap();
        assert_eq!(read(&device(&path), 4096, 4), b"kept");
        volumes.publish_device(&v, "two").unwrap();
        let size = volumes.inspect(&v).unwrap().size_bytes.unwrap();
        volumes.resize(&v, limit(size + 4096)).unwrap();
        volumes.unpublish(&v, "two").unwrap();
        volumes.unpublish(&v, "one").unwrap();
        if round % 4 == 3 {
            let passing = volumes.clone_volume("v", name("passing")).unwrap();
            volumes.publish_device(&passing.name, "one").unwrap();
            volumes.erase(&passing.name).unwrap();
        }
    }
}

fn a_killed_process_leaves_no_device(s: &mut Site) {
    let root = s.root().join("store");
    let v = name("v");
    let first = volumes(s);
    first.create(wish("v", MIB)).unwrap();
    device(&first.publish_device(&v, "zero").unwrap()).write_all_at(b"kept", 4096).unwrap();
    first.unpublish(&v, "zero").unwrap();
    drop(first);
    let (mut held, mut left) = (0, 0);
    for round in 0..40_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "volume_block::works_until_it_is_killed"])
            .env(CHILD, &root)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let wait = u64::from_le_bytes(noise(8, round).try_into().unwrap()) % 60_000;
        std::thread::sleep(Duration::from_millis(15) + Duration::from_micros(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = volumes(s);
        now.sweep().unwrap();
        now.settle().unwrap();
        now.resume().unwrap();
        let all = now.list().unwrap();
        for volume in &all {
            // A holder has its device after a restart, and nobody else has one.
            let is_held = now.is_held(volume).unwrap();
            held += u32::from(is_held);
            eventually("the devices of holders alone", || {
                now.device(&volume.name).unwrap().is_some() == is_held
            });
            left += u32::from(!is_held);
        }
        let of_holders = all.iter().filter(|one| now.is_held(one).unwrap()).count();
        eventually("one device for each held volume", || devices(s.root()).len() == of_holders);
        for volume in &all {
            ["one", "two"].iter().for_each(|one| now.unpublish(&volume.name, one).unwrap());
        }
        leaves_no_device(s.root());
        if now.inspect(&name("passing")).is_ok() {
            now.erase(&name("passing")).unwrap();
        }
        let path = now.publish_device(&v, "zero").unwrap();
        let shown = device(&path);
        assert_eq!(read(&shown, 4096, 4), b"kept");
        let size = size_of(&shown);
        let recorded = now.inspect(&v).unwrap().size_bytes.unwrap();
        assert!(size == recorded || size == recorded + 4096, "{size} {recorded}");
        drop(shown);
        now.resize(&v, limit(size)).unwrap();
        now.unpublish(&v, "zero").unwrap();
    }
    eprintln!("{held} volumes had a holder after a kill, {left} had none");
    assert!(held > 0 && left > 0);
    leaves_no_device(s.root());
}

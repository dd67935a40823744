//! A size that the daemon counts holds to the block, on every file system of the host.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use laminafs::service::volumes::{Limits, NewVolume, Removal, VolumeService, serve_by};
use laminafs::types::VolumeName;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use crate::calls;
use crate::harness::{Site, program};
use crate::tools::*;
use crate::volume_plugin::until;
use crate::volume_union::server;

judged!(host:
    a_size_holds_on_ext4,
    a_size_holds_on_xfs,
    a_size_holds_on_btrfs,
    a_size_changes_under_a_writer,
    a_size_survives_the_death_of_its_process,
    snapshots_count,
    a_container_has_a_size,
    a_size_that_cannot_be_kept_is_refused,
    what_volumes_were_promised_is_not_free,
);

judged!(lamina: a_mount_has_a_size);

pub const BLOCK: u64 = 4096;
/// Blocks of the volumes.
pub const SIZE: u64 = 4096;

pub fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

pub fn limits(blocks: u64) -> Limits {
    Limits { size_bytes: Some(blocks * BLOCK), inodes: None }
}

/// A volume with a size below a directory.
fn volume(root: &Path) -> (VolumeService, PathBuf) {
    volume_with(root, [("size".to_owned(), (SIZE * BLOCK).to_string())].into())
}

pub fn volume_with(root: &Path, options: BTreeMap<String, String>) -> (VolumeService, PathBuf) {
    volume_of("union", root, options)
}

pub fn volume_of(
    driver: &str,
    root: &Path,
    options: BTreeMap<String, String>,
) -> (VolumeService, PathBuf) {
    serve_by(program().to_owned());
    let volumes = VolumeService::open(&root.join("store")).unwrap();
    let driver = Some(driver.to_owned());
    volumes.create(NewVolume { driver, options, ..NewVolume::new(name("v")) }).unwrap();
    let data = volumes.publish(&name("v"), "test").unwrap();
    (volumes, data)
}

pub fn end(volumes: &VolumeService) {
    volumes.unpublish(&name("v"), "test").unwrap();
    until(|| volumes.erase(&name("v")).is_ok());
}

/// The blocks and the inodes in use, as df(1) shows them; the total is that of the volume.
pub fn used(data: &Path, total: u64) -> (u64, u64) {
    let shown = rustix::fs::statvfs(data).unwrap();
    assert_eq!((shown.f_frsize, shown.f_blocks, shown.f_files), (BLOCK, total, total));
    assert_eq!(shown.f_bfree, shown.f_bavail);
    (shown.f_blocks - shown.f_bfree, shown.f_files - shown.f_ffree)
}

/// The blocks of a file that hold data.
fn blocks(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let (mut at, mut count) = (0, 0);
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
        count += at.div_ceil(BLOCK) - start / BLOCK;
    }
    count
}

/// Writes numbered blocks until there is no space, and returns how many.
pub fn fill(file: &File, step: u64) -> u64 {
    let mut number = 0;
    loop {
        let block = [number as u8; BLOCK as usize];
        match file.write_at(&block, number * step * BLOCK) {
            Ok(len) => assert_eq!(len as u64, BLOCK),
            Err(error) => {
                assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC));
                return number;
            }
        }
        number += 1;
    }
}

/// Nothing that was accepted is lost.
fn check(path: &Path, count: u64, step: u64) {
    drop_caches();
    let file = File::open(path).unwrap();
    for number in 0..count {
        let mut block = [0; BLOCK as usize];
        file.read_exact_at(&mut block, number * step * BLOCK).unwrap();
        assert!(block.iter().all(|byte| *byte == number as u8), "block {number}");
    }
}

/// All ways to fill a volume end exactly at its size.
fn fills(data: &Path) {
    let path = data.join("f");
    let new = || File::create_new(&path).unwrap();
    let remove = || {
        fs::remove_file(&path).unwrap();
        eventually("the space is free", || used(data, SIZE) == (0, 0));
    };
    assert_eq!(used(data, SIZE), (0, 0));
    // Small writes, and with holes between them.
    for step in [1, 16] {
        let file = new();
        assert_eq!(fill(&file, step), SIZE);
        assert_eq!(used(data, SIZE), (SIZE, 1));
        file.sync_all().unwrap();
        assert_eq!(used(data, SIZE), (SIZE, 1));
        // What is there may be changed, and attributes too.
        file.write_all_at(&[0; 1], 0).unwrap();
        chmod(&path, 0o600);
        drop(file);
        check(&path, SIZE, step);
        remove();
    }
    // One large write.
    let mut file = new();
    let all = pattern((SIZE * BLOCK) as usize + 100_000);
    let error = file.write_all(&all).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC));
    drop(file);
    assert_eq!(stat(&path).st_size as u64, SIZE * BLOCK);
    drop_caches();
    assert!(get(&path) == all[..(SIZE * BLOCK) as usize]);
    assert_eq!(used(data, SIZE), (SIZE, 1));
    remove();
    // A file that is longer than the volume, filled later through a mapping.
    let file = new();
    file.set_len((SIZE + 64) * BLOCK).unwrap();
    assert_eq!(used(data, SIZE), (0, 1));
    let len = usize::try_from((SIZE + 64) * BLOCK).unwrap();
    let map = calls::Map::new(file.as_fd(), len, true, true).unwrap();
    (0..len).step_by(BLOCK as usize).for_each(|at| map.write(at, &[9]));
    assert!(map.sync().is_err(), "msync(2) says that not all is stored");
    drop(map);
    drop(file);
    assert_eq!((used(data, SIZE), blocks(&path)), ((SIZE, 1), SIZE));
    remove();
    // The limit within the last request of the kernel, which takes a short write for a whole one.
    put(data.join("other"), vec![1; 100 * BLOCK as usize]);
    let file = new();
    file.set_len((SIZE - 90) * BLOCK).unwrap();
    let len = usize::try_from((SIZE - 90) * BLOCK).unwrap();
    let map = calls::Map::new(file.as_fd(), len, true, true).unwrap();
    (0..len).step_by(BLOCK as usize).for_each(|at| map.write(at, &[9]));
    assert!(map.sync().is_err(), "msync(2) says that not all is stored");
    drop((map, file));
    assert_eq!((used(data, SIZE), blocks(&path)), ((SIZE, 2), SIZE - 100));
    fs::remove_file(data.join("other")).unwrap();
    remove();
    allocates(data, &path);
    remove();
}

fn allocates(data: &Path, path: &Path) {
    let file = File::create_new(path).unwrap();
    let (none, keep) = (FallocateFlags::empty(), FallocateFlags::KEEP_SIZE);
    let allocate = |mode, blocks: u64| rustix::fs::fallocate(&file, mode, 0, blocks * BLOCK);
    fails(allocate(none, SIZE + 1), Errno::NOSPC);
    assert_eq!((used(data, SIZE), stat(path).st_size), ((0, 1), 0));
    allocate(none, SIZE).unwrap();
    assert_eq!((used(data, SIZE), blocks(path)), ((SIZE, 1), SIZE));
    // What was allocated can be written.
    assert_eq!(file.write_at(&vec![7; 1 << 20], 12_345).unwrap(), 1 << 20);
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | keep, 0, 100 * BLOCK).unwrap();
    assert_eq!(used(data, SIZE), (SIZE - 100, 1));
    file.set_len(10 * BLOCK + 1).unwrap();
    assert_eq!(used(data, SIZE), (0, 1));
}

/// Empty files, links, directories and replaced names.
fn names_count(data: &Path) {
    for number in 0..SIZE - 1 {
        match number % 3 {
            0 => drop(File::create_new(data.join(format!("e{number}"))).unwrap()),
            1 => fs::create_dir(data.join(format!("e{number}"))).unwrap(),
            _ => std::os::unix::fs::symlink("x", data.join(format!("e{number}"))).unwrap(),
        }
    }
    assert_eq!(used(data, SIZE), (0, SIZE - 1));
    put(data.join("last"), [1; 5000]);
    fails_io(File::create_new(data.join("more")).map(drop), Errno::NOSPC);
    fails_io(fs::create_dir(data.join("more")), Errno::NOSPC);
    link(data.join("last"), data.join("again")).unwrap();
    rename(data.join("last"), data.join("e0")).unwrap();
    assert_eq!(used(data, SIZE), (2, SIZE - 1));
    fs::remove_file(data.join("e0")).unwrap();
    assert_eq!(used(data, SIZE), (2, SIZE - 1), "it has another name");
    fs::remove_file(data.join("again")).unwrap();
    assert_eq!(used(data, SIZE), (0, SIZE - 2));
    for number in 1..SIZE - 1 {
        let path = data.join(format!("e{number}"));
        if number % 3 == 1 { fs::remove_dir(path) } else { fs::remove_file(path) }.unwrap();
    }
    assert_eq!(used(data, SIZE), (0, 0));
}

/// Writers of one file and of several share what there is.
fn writers_share(data: &Path) {
    let shared = File::create_new(data.join("shared")).unwrap();
    let written: u64 = std::thread::scope(|scope| {
        let write = |number: u64| {
            let shared = &shared;
            let own = File::create_new(data.join(format!("own{number}"))).unwrap();
            scope.spawn(move || {
                let mut count = 0;
                for at in 0.. {
                    let block = [number as u8 + 1; BLOCK as usize];
                    let both =
                        [own.write_at(&block, at * BLOCK), shared.write_at(&block, at * 3 * BLOCK)];
                    count += u64::from(both[0].is_ok());
                    if both.iter().any(Result::is_err) {
                        return count;
                    }
                }
                count
            })
        };
        let all: Vec<_> = (0..3).map(write).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!(used(data, SIZE), (SIZE, 4));
    let sum: u64 = names(data).iter().map(|name| blocks(&data.join(name))).sum();
    assert_eq!(sum, SIZE);
    assert!(written >= SIZE / 2, "{written}");
    // An open file without a name keeps its space until it is closed.
    for name in names(data) {
        fs::remove_file(data.join(name)).unwrap();
    }
    let kept = used(data, SIZE).0;
    assert!(kept > 0, "the shared file is open");
    drop(shared);
    eventually("its space is free", || used(data, SIZE) == (0, 0));
}

/// Runs a case in a file system of its own.
fn on(s: &Site, kind: &str, case: impl FnOnce(&Path)) {
    let (image, place) = (s.root().join("image"), s.root().join("disk"));
    let steps = format!(
        "truncate -s 512M {0} && mkfs.{kind} -q {0} && mkdir {1} && mount -o loop {0} {1}",
        image.display(),
        place.display()
    );
    let made = Command::new("sh").args(["-c", &steps]).status().unwrap();
    assert!(made.success(), "a file system");
    case(&place);
    until(|| Command::new("umount").arg(&place).status().unwrap().success());
}

fn holds(root: &Path) {
    let (volumes, data) = volume(root);
    fills(&data);
    names_count(&data);
    writers_share(&data);
    // Another mount of the same content counts the same.
    let file = File::create_new(data.join("sparse")).unwrap();
    for number in 0..50 {
        file.write_all_at(&[1; 9000], number * 100_000).unwrap();
    }
    drop(file);
    // The error of the mapping is told once more.
    fails(rustix::fs::syncfs(File::open(&data).unwrap()), Errno::NOSPC);
    rustix::fs::syncfs(File::open(&data).unwrap()).unwrap();
    let before = used(&data, SIZE);
    assert_eq!(before, (blocks(&data.join("sparse")), 1));
    volumes.unpublish(&name("v"), "test").unwrap();
    until(|| volumes.settle().is_ok() && rustix::fs::statvfs(&data).unwrap().f_blocks != SIZE);
    volumes.publish(&name("v"), "test").unwrap();
    assert_eq!(used(&data, SIZE), before);
    end(&volumes);
}

fn a_size_holds_on_ext4(s: &mut Site) {
    on(s, "ext4", holds);
}

fn a_size_holds_on_xfs(s: &mut Site) {
    on(s, "xfs", holds);
}

fn a_size_holds_on_btrfs(s: &mut Site) {
    on(s, "btrfs", holds);
}

fn a_size_changes_under_a_writer(s: &mut Site) {
    let (volumes, data) = volume(s.root());
    let file = File::create_new(data.join("f")).unwrap();
    assert_eq!(fill(&file, 1), SIZE);
    let refused = volumes.resize(&name("v"), limits(SIZE / 2)).unwrap_err().to_string();
    assert!(refused.contains("16M and 1 inodes are in use"), "{refused}");
    assert_eq!(volumes.inspect(&name("v")).unwrap().size_bytes, Some(SIZE * BLOCK));
    volumes.resize(&name("v"), limits(2 * SIZE)).unwrap();
    assert_eq!(used(&data, 2 * SIZE), (SIZE, 1));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| fill(&file, 1));
        for blocks in [3 * SIZE, 2 * SIZE, 4 * SIZE] {
            // Smaller only while it still fits.
            drop(volumes.resize(&name("v"), limits(blocks)));
        }
        let written = writer.join().unwrap();
        assert!([3 * SIZE, 2 * SIZE, 4 * SIZE].contains(&written), "{written}");
    });
    let size = volumes.inspect(&name("v")).unwrap().size_bytes.unwrap() / BLOCK;
    assert_eq!(fill(&file, 1), size);
    assert_eq!(used(&data, size), (size, 1));
    file.set_len(0).unwrap();
    volumes.resize(&name("v"), limits(SIZE)).unwrap();
    assert_eq!(used(&data, SIZE), (0, 1));
    drop(file);
    // Not mounted: its process is started to count.
    put(data.join("f"), pattern(5 << 20));
    volumes.unpublish(&name("v"), "test").unwrap();
    until(|| volumes.settle().is_ok() && names(&data).is_empty());
    let refused = volumes.resize(&name("v"), limits(1 << 10)).unwrap_err().to_string();
    assert!(refused.contains("5M and 1 inodes are in use"), "{refused}");
    volumes.resize(&name("v"), limits(1300)).unwrap();
    volumes.publish(&name("v"), "test").unwrap();
    assert_eq!(used(&data, 1300), (1280, 1));
    assert_eq!(get(data.join("f")), pattern(5 << 20));
    end(&volumes);
}

fn a_size_survives_the_death_of_its_process(s: &mut Site) {
    let (volumes, data) = volume(s.root());
    let file = File::create_new(data.join("f")).unwrap();
    assert_eq!(fill(&file, 1), SIZE);
    drop(file);
    let pid = rustix::process::Pid::from_raw(server(&data).cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(|| fs::read_dir(&data).is_err());
    volumes.publish(&name("v"), "other").unwrap();
    assert_eq!(used(&data, SIZE), (SIZE, 1));
    fails_io(fs::write(data.join("g"), [1]), Errno::NOSPC);
    check(&data.join("f"), SIZE, 1);
    volumes.unpublish(&name("v"), "other").unwrap();
    end(&volumes);
}

/// What a snapshot keeps is in use, in the mount that made it and in the next.
fn snapshots_count(s: &mut Site) {
    let (volumes, data) = volume(s.root());
    put(data.join("f"), vec![1; (1000 * BLOCK) as usize]);
    volumes.snapshot(&name("v"), Some(name("one"))).unwrap();
    assert_eq!(used(&data, SIZE), (1000, 1));
    let file = File::options().write(true).open(data.join("f")).unwrap();
    file.write_all_at(&[2], 0).unwrap();
    drop(file);
    assert_eq!(used(&data, SIZE), (2000, 2), "a copy of the file");
    put(data.join("g"), [3; 10]);
    for _ in 0..2 {
        assert_eq!(used(&data, SIZE), (2001, 3));
        volumes.unpublish(&name("v"), "test").unwrap();
        until(|| volumes.settle().is_ok() && names(&data).is_empty());
        volumes.publish(&name("v"), "test").unwrap();
    }
    let file = File::create_new(data.join("rest")).unwrap();
    assert_eq!(fill(&file, 1), SIZE - 2001);
    drop(file);
    volumes.clone_volume("v@one", name("c")).unwrap();
    let clone = volumes.publish(&name("c"), "test").unwrap();
    assert_eq!(used(&clone, SIZE), (1000, 1));
    volumes.unpublish(&name("c"), "test").unwrap();
    until(|| volumes.erase(&name("c")).is_ok());
    volumes.remove_snapshot("v@one").unwrap();
    end(&volumes);
}

fn run(words: &[&str]) -> Result<String, String> {
    let ran = Command::new(program()).args(words).output().unwrap();
    match ran.status.success() {
        true => Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
    }
}

fn a_container_has_a_size(s: &mut Site) {
    let (tree, tar) = (s.root().join("tree"), s.root().join("tree.tar"));
    fs::create_dir(&tree).unwrap();
    put(tree.join("f"), pattern(100 * BLOCK as usize));
    let packed = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&tree).arg(".").status();
    assert!(packed.unwrap().success());
    let root = s.root().join("store").display().to_string();
    let root = ["--root", &root];
    let container = |words: &[&str]| run(&[&["container"], words, &root].concat());
    run(&[&["image", "import", "-t", "t", &tar.display().to_string()][..], &root].concat())
        .unwrap();
    let size = (SIZE * BLOCK).to_string();
    container(&["create", "--name", "c", "--size", &size, "t"]).unwrap();
    let shown = container(&["inspect", "c"]).unwrap();
    assert!(shown.contains(&format!("\"size_bytes\": {size}")), "{shown}");
    let data = PathBuf::from(container(&["start", "c"]).unwrap());
    assert_eq!(used(&data, SIZE), (0, 0), "the layers of the image are no part of it");
    append(data.join("f"), &[1]);
    assert_eq!(used(&data, SIZE), (101, 1), "a copy of the file");
    let file = File::create_new(data.join("g")).unwrap();
    assert_eq!(fill(&file, 1), SIZE - 101);
    drop(file);
    container(&["stop", "c"]).unwrap();
    let refused = container(&["resize", "c", "--size", "1M"]).unwrap_err();
    assert!(refused.contains("16M and 2 inodes are in use"), "{refused}");
    container(&["resize", "c", "--size", "17M"]).unwrap();
    container(&["start", "c"]).unwrap();
    assert_eq!(used(&data, 17 << 8), (SIZE, 2));
    fs::remove_file(data.join("g")).unwrap();
    fs::remove_file(data.join("f")).unwrap();
    assert_eq!(used(&data, 17 << 8), (0, 0), "a whiteout takes nothing");
    container(&["stop", "c"]).unwrap();
    container(&["rm", "c"]).unwrap();
}

fn a_mount_has_a_size(s: &mut Site) {
    s.options = format!("size={},nr_inodes=5", SIZE * BLOCK);
    put(s.lower("below"), [1; 10]);
    s.mount();
    let shown = rustix::fs::statvfs(s.mnt()).unwrap();
    assert_eq!((shown.f_blocks, shown.f_bfree, shown.f_files), (SIZE, SIZE, 5));
    let file = File::create_new(s.mnt().join("f")).unwrap();
    assert_eq!(fill(&file, 1), SIZE);
    let below = s.mnt().join("below");
    fails_io(File::options().append(true).open(&below).map(drop), Errno::NOSPC);
    assert_eq!(get(s.mnt().join("below")), [1; 10]);
    fs::remove_file(s.mnt().join("below")).unwrap();
    drop(file);
    fs::remove_file(s.mnt().join("f")).unwrap();
    eventually("the space is free", || rustix::fs::statvfs(s.mnt()).unwrap().f_bfree == SIZE);
}

fn a_size_that_cannot_be_kept_is_refused(s: &mut Site) {
    let volumes = VolumeService::open(&s.root().join("store")).unwrap();
    let create = |size: &str, more: &[(&str, &str)]| {
        let all = [&[("size", size)], more].concat();
        let options = all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let driver = Some("union".to_owned());
        let new = NewVolume { driver, options: options.collect(), ..NewVolume::new(name("w")) };
        volumes.create(new).map(drop).map_err(|error| error.to_string())
    };
    let refused = create("1000G", &[]).unwrap_err();
    assert!(refused.contains("are needed"), "{refused}");
    let refused = create("4K", &[]).unwrap_err();
    assert!(
        refused.contains("use 1.0M or more") || refused.contains("use 1M or more"),
        "{refused}"
    );
    create("1000G", &[("overcommit", "true")]).unwrap();
    volumes.erase(&name("w")).unwrap();
}

/// Makes a volume of a size in MiB.
fn make(volumes: &VolumeService, of: &str, driver: &str, mib: u64) -> Result<(), String> {
    let options = BTreeMap::from([("size".to_owned(), format!("{mib}M"))]);
    let new = NewVolume { driver: Some(driver.to_owned()), options, ..NewVolume::new(name(of)) };
    volumes.create(new).map(drop).map_err(|error| error.to_string())
}

fn what_volumes_were_promised_is_not_free(s: &mut Site) {
    serve_by(program().to_owned());
    let volumes = VolumeService::open(&s.root().join("store")).unwrap();
    let host = rustix::fs::statvfs(s.root()).unwrap();
    let half = ((host.f_bavail * host.f_frsize) >> 20) / 2 + 4096;
    let refused = |made: Result<(), String>| assert!(made.unwrap_err().contains("are needed"));
    // In use and at rest, whatever the driver; what is in the trash is not written any more.
    for driver in ["union", "image"] {
        make(&volumes, "a", driver, half).unwrap();
        refused(make(&volumes, "b", "image", half));
        volumes.publish(&name("a"), "test").unwrap();
        refused(make(&volumes, "b", "union", half));
        volumes.unpublish(&name("a"), "test").unwrap();
        refused(make(&volumes, "b", "union", half));
        until(|| volumes.remove(&name("a"), Removal::FORCED).is_ok());
        make(&volumes, "b", "union", 64).unwrap();
        make(&volumes, "a", driver, half).unwrap();
        let limits = Limits { size_bytes: Some(half << 20), inodes: None };
        let grown = volumes.resize(&name("b"), limits).unwrap_err().to_string();
        assert!(grown.contains("are needed"), "{grown}");
        for one in ["a", "b"] {
            until(|| volumes.erase(&name(one)).is_ok());
        }
    }
    // One that may be more than there is promises nothing, and one that is damaged stops no other.
    let mut over = NewVolume { driver: Some("union".to_owned()), ..NewVolume::new(name("over")) };
    over.options.extend(
        [("size", "900T"), ("overcommit", "true")]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    let over = volumes.create(over).unwrap();
    make(&volumes, "bad", "union", 64).unwrap();
    let record = over.directory().with_file_name("bad").join("stack.json");
    let kept = fs::read(&record).unwrap();
    fs::write(&record, "{").unwrap();
    make(&volumes, "b", "union", 64).unwrap();
    fs::write(&record, kept).unwrap();
    for one in ["over", "bad", "b"] {
        volumes.erase(&name(one)).unwrap();
    }
    // Of two that are made at once, one at most gets the space.
    for _ in 0..5 {
        let made = std::thread::scope(|scope| {
            let both =
                ["a", "b"].map(|of| scope.spawn(|| make(&volumes, of, "union", half).is_ok()));
            both.map(|one| one.join().unwrap()).into_iter().filter(|made| *made).count()
        });
        assert!(made <= 1);
        for one in ["a", "b"] {
            volumes.erase(&name(one)).unwrap_or_default();
        }
    }
}

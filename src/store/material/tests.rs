//! Materialised files: when they are made, their content, and which are removed.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::BlockCache;
use crate::error::Errno;
use crate::format::index::ROOT;
use crate::format::layout::Inode;
use crate::store::Store;
use crate::store::fetch::nowhere;
use crate::store::layer::Layer;
use crate::store::sink::{Body, Meta, Sink};
use crate::sys;
use crate::types::name;

const SIZE: usize = 200_000;

struct Place {
    dir: tempfile::TempDir,
    budget: Option<u64>,
}

/// Incompressible bytes, different for each number.
fn content(number: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut bytes);
    bytes
}

fn open(root: &Path, cache: usize, budget: Option<u64>) -> Store {
    Store::open_with(root, BlockCache::new(cache), budget, Box::new(nowhere)).unwrap()
}

impl Place {
    fn new(budget: Option<u64>) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), budget }
    }

    fn store(&self) -> Store {
        open(self.dir.path(), 1 << 20, self.budget)
    }

    /// Builds a layer with files of these sizes, named by their numbers.
    fn layer(&self, store: &Store, sizes: &[usize]) -> Arc<Layer> {
        let mut build = store.build().unwrap();
        for (number, size) in (0_u8..).zip(sizes) {
            let bytes = content(number, *size);
            let mut data = &bytes[..];
            let body = Body::File { size: *size as u64, data: &mut data };
            build.builder.put(&[name(&[b'a' + number])], Meta::default(), body).unwrap();
        }
        let id = store.publish(build).unwrap();
        store.layer(&id).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let boots = fs::read_dir(self.dir.path().join("materials"));
        let files = boots.into_iter().flatten().flat_map(|boot| {
            fs::read_dir(boot.unwrap().path()).unwrap().map(|entry| entry.unwrap().path())
        });
        files.collect()
    }
}

fn inode(layer: &Layer, number: u8) -> Inode {
    let ino = layer.index().find(ROOT, &[b'a' + number]).unwrap().object().unwrap();
    *layer.index().inode(ino).unwrap()
}

fn all(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn age(path: &PathBuf, secs: u64) {
    let time = std::time::SystemTime::now() - Duration::from_secs(secs);
    File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_large_file_is_there_at_once_and_a_small_one_never() {
    let place = Place::new(None);
    let store = place.store();
    let layer = place.layer(&store, &[SIZE, 100_000]);
    let file = layer.material(&inode(&layer, 0)).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.nlink()), (0o400, 1));
    assert!(all(file) == content(0, SIZE));
    assert!(layer.material(&inode(&layer, 1)).is_none());
    assert_eq!(place.files().len(), 1);
    let stats = store.counters()();
    assert_eq!((stats.materials.made, stats.cache.misses), (1, 0), "past the cache");
    assert!(layer.material_at_hand(&inode(&layer, 0)).is_some());
}

#[test]
fn a_very_large_file_comes_later() {
    let place = Place::new(None);
    let store = place.store();
    let layer = place.layer(&store, &[5 << 20]);
    assert!(layer.material(&inode(&layer, 0)).is_none());
    let deadline = Instant::now() + Duration::from_secs(20);
    let file = loop {
        if let Some(file) = layer.material(&inode(&layer, 0)) {
            break file;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(all(file) == content(0, 5 << 20));
    let synced = fs::metadata(&place.files()[0]).unwrap().mode() & 0o777;
    assert_eq!(synced, super::SYNCED, "the next process need not compare so much");
}

#[test]
fn a_very_large_file_waits_until_nobody_reads() {
    let place = Place::new(None);
    let store = place.store();
    let layer = place.layer(&store, &[5 << 20, 1000]);
    let (large, small) = (inode(&layer, 0), inode(&layer, 1));
    let mut byte = [0];
    assert_eq!(layer.read(&small, &mut byte, 0), Ok(1));
    assert!(layer.material(&large).is_none());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        assert_eq!(layer.read(&small, &mut byte, 0), Ok(1));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(place.files().is_empty());
    std::thread::sleep(Duration::from_millis(500));
    let deadline = Instant::now() + Duration::from_secs(20);
    while place.files().is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_walk_fetched_is_used_and_leaves_the_cache() {
    let place = Place::new(None);
    let store = open(place.dir.path(), 64 << 20, None);
    let layer = place.layer(&store, &[1 << 20; 6]);
    let make = |number| {
        let file = layer.material(&inode(&layer, number)).unwrap();
        assert!(all(file) == content(number, 1 << 20), "{number}");
    };
    make(0);
    make(1);
    // Two in a row make a walk: the read-ahead thread fetches the 32 frames after them as soon as
    // it has a processor.
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.counters()().cache.misses < 32 {
        assert!(Instant::now() < deadline, "fetched beside");
        std::thread::sleep(Duration::from_millis(5));
    }
    (2..6).for_each(make);
    assert_eq!(store.counters()().materials.made, 6);
    // Frames of the first two files that the thread held when it ran out of time may be left.
    let left = store.counters()().cache.bytes;
    assert!(left <= 8 * 131_072, "{left}");
}

#[test]
fn holes_stay_holes() {
    let place = Place::new(None);
    let store = place.store();
    let mut bytes = content(0, 100_000);
    bytes.resize(3 << 20, 0);
    bytes.extend(content(1, 4096));
    bytes.resize(4 << 20, 0);
    let mut build = store.build().unwrap();
    let mut data = &bytes[..];
    let body = Body::File { size: bytes.len() as u64, data: &mut data };
    build.builder.put(&[name(b"a")], Meta::default(), body).unwrap();
    let layer = store.layer(&store.publish(build).unwrap()).unwrap();
    let file = layer.material(&inode(&layer, 0)).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 < 300_000);
    assert!(all(file) == bytes);
}

#[test]
fn the_least_recently_used_goes_and_none_that_is_in_use() {
    let place = Place::new(Some(3 * SIZE as u64 + 50_000));
    let store = place.store();
    let layer = place.layer(&store, &[SIZE; 6]);
    let make = |number| {
        let file = layer.material(&inode(&layer, number)).unwrap();
        let digest =
            crate::types::hex::encode(layer.content_digest(&inode(&layer, number)).unwrap());
        (file, place.files().into_iter().find(|path| path.ends_with(&digest)).unwrap())
    };
    let (held, held_path) = make(0);
    age(&held_path, 3000);
    let (_, old) = make(1);
    age(&old, 1000);
    let (_, older) = make(2);
    age(&older, 2000);
    let (_, new) = make(3);
    let left = place.files();
    assert_eq!(left.len(), 3);
    assert!(left.contains(&held_path), "in use");
    assert!(!left.contains(&older) && left.contains(&old) && left.contains(&new));
    // The file in use leaves no room for another.
    let kept = [make(1), make(3)];
    assert!(layer.material(&inode(&layer, 4)).is_none());
    drop(kept);
    assert!(layer.material(&inode(&layer, 4)).is_some());
    assert!(all(held) == content(0, SIZE));
    assert!(store.counters()().materials.evicted >= 2);
}

#[test]
fn without_a_budget_there_is_none() {
    let place = Place::new(Some(0));
    let store = place.store();
    let layer = place.layer(&store, &[SIZE]);
    assert!(layer.material(&inode(&layer, 0)).is_none());
    assert!(!place.dir.path().join("materials").exists());
}

#[test]
fn an_earlier_boot_is_believed_after_a_look() {
    let place = Place::new(None);
    let store = place.store();
    let layer = place.layer(&store, &[SIZE, SIZE]);
    drop((layer.material(&inode(&layer, 0)).unwrap(), layer.material(&inode(&layer, 1)).unwrap()));
    let materials = place.dir.path().join("materials");
    let boot = sys::process::boot_id().unwrap();
    fs::rename(materials.join(&boot), materials.join("earlier")).unwrap();
    let digest = crate::types::hex::encode(layer.content_digest(&inode(&layer, 1)).unwrap());
    let torn = materials.join("earlier").join(digest);
    fs::set_permissions(&torn, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    File::options().write(true).open(&torn).unwrap().set_len(77).unwrap();
    drop(layer);
    let store = place.store();
    let layer = store.layer(&store.layers().unwrap()[0]).unwrap();
    for number in 0..2 {
        assert!(all(layer.material(&inode(&layer, number)).unwrap()) == content(number, SIZE));
    }
    assert_eq!(store.counters()().materials.made, 1, "one was taken over, one was torn");
    assert_eq!(fs::read_dir(materials.join("earlier")).map_or(0, Iterator::count), 0);
}

#[test]
fn what_was_not_synced_is_compared_by_the_next_process() {
    let place = Place::new(None);
    let store = place.store();
    let layer = place.layer(&store, &[SIZE]);
    drop(layer.material(&inode(&layer, 0)).unwrap());
    let path = place.files().remove(0);
    File::options().write(true).open(&path).unwrap().write_at(b"lost", 100_000).unwrap();
    let other = place.store();
    let again = other.layer(layer.id()).unwrap();
    assert!(all(again.material(&inode(&again, 0)).unwrap()) == content(0, SIZE));
    assert_eq!(other.counters()().materials.made, 1, "written anew");
    // A file that is on the disk is trusted.
    super::idle_queue::settle(&path);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, super::SYNCED);
    let third = place.store();
    let found = third.layer(layer.id()).unwrap();
    assert!(all(found.material(&inode(&found, 0)).unwrap()) == content(0, SIZE));
    assert_eq!(third.counters()().materials.made, 0);
}

#[test]
fn what_is_settled_is_believed_by_the_next_process() {
    let place = Place::new(None);
    let store = place.store();
    let layer = place.layer(&store, &[SIZE, SIZE + 1]);
    for number in 0..2 {
        drop(layer.material(&inode(&layer, number)).unwrap());
    }
    let modes = || {
        let modes = place.files().into_iter().map(|path| fs::metadata(path).unwrap().mode());
        modes.map(|mode| mode & 0o777).collect::<Vec<_>>()
    };
    assert_eq!(modes(), [super::NEW; 2]);
    store.settling()();
    assert_eq!(modes(), [super::SYNCED; 2]);
    // Nothing was begun.
    place.store().settling()();
}

#[test]
fn no_changed_byte_of_the_blob_reaches_a_file() {
    let place = Place::new(None);
    let store = place.store();
    let layer = place.layer(&store, &[SIZE]);
    let blob = place.dir.path().join("layers").join(layer.id().as_str()).join("data");
    let good = fs::read(&blob).unwrap();
    let file = File::options().write(true).open(&blob).unwrap();
    for at in (64..good.len()).step_by(997) {
        file.write_at(&[good[at] ^ 0x40], at as u64).unwrap();
        assert!(layer.material(&inode(&layer, 0)).is_none(), "{at}");
        file.write_at(&good[at..=at], at as u64).unwrap();
    }
    assert!(place.files().is_empty());
    let damaged = store.counters()().damaged;
    assert_eq!(damaged, (64..good.len()).step_by(997).count() as u64);
    assert!(layer.material(&inode(&layer, 0)).is_some());
}

#[test]
fn verification_removes_what_differs_and_collection_what_nobody_needs() {
    let place = Place::new(None);
    let store = place.store();
    let layer = place.layer(&store, &[SIZE, SIZE, SIZE]);
    for number in 0..3 {
        layer.material(&inode(&layer, number)).unwrap();
    }
    assert!(store.verify_materials().unwrap().is_empty());
    let path = place.files().remove(0);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    File::options().write(true).open(&path).unwrap().write_at(b"x", 5).unwrap();
    let damage = store.verify_materials().unwrap();
    assert!(damage.len() == 1 && damage[0].what.contains("differs"), "{damage:?}");
    assert_eq!(place.files().len(), 2);
    assert_eq!(store.collect_materials().unwrap(), 0);
    let id = layer.id().clone();
    let held =
        layer.material(&inode(&layer, 2)).into_iter().chain(layer.material(&inode(&layer, 1)));
    let held: Vec<_> = held.take(1).collect();
    drop(layer);
    store.remove_layer(&id).unwrap();
    store.collect_materials().unwrap();
    assert_eq!(place.files().len(), 1, "one is in use");
    drop(held);
    assert_eq!(store.collect_materials().unwrap(), 1);
}

#[test]
fn several_at_once_make_one_file() {
    let place = Place::new(None);
    let (one, two) = (place.store(), place.store());
    let first = place.layer(&one, &[3 << 20]);
    let second = two.layer(first.id()).unwrap();
    std::thread::scope(|scope| {
        for layer in [&first, &first, &second, &second] {
            scope.spawn(|| {
                for _ in 0..20 {
                    if let Some(file) = layer.material(&inode(layer, 0)) {
                        assert!(all(file) == content(0, 3 << 20));
                    }
                }
            });
        }
    });
    assert_eq!(place.files().len(), 1);
    let file = first.material(&inode(&first, 0)).unwrap();
    assert!(
        sys::file::try_flock(File::open(&place.files()[0]).unwrap().as_fd())
            .is_err_and(|error| error.is(Errno::AGAIN))
    );
    drop(file);
}

//! Layers in Lamina's own form from outside, whole and partial.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Origin;
use crate::cache::BlockCache;
use crate::error::Errno;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::id::LayerId;
use crate::store::layer::Layer;
use crate::store::native::{Data, Stream};
use crate::store::sink::Sink;
use crate::store::tests::{Place, content, noise, put};
use crate::transfer::registry::fetch::connect;
use crate::transfer::registry::testing::{response, serve};
use crate::types::Digest;

/// A layer as it is sent to a registry.
struct Sent {
    id: LayerId,
    index: Vec<u8>,
    data: Vec<u8>,
}

const FILES: usize = 40;

fn name_of(number: usize) -> String {
    format!("f{number:02}")
}

fn bytes_of(number: usize) -> Vec<u8> {
    noise(300_000, number as u64 + 1)
}

fn fill(sink: &mut dyn Sink) {
    (0..FILES).for_each(|number| put(sink, &name_of(number), &bytes_of(number)));
}

fn open(root: &Path) -> Store {
    Store::open_with(root, BlockCache::new(1 << 20), None, Box::new(connect)).unwrap()
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    Place { dir, store }
}

fn sent() -> Sent {
    let place = place();
    let id = place.build(fill);
    let read = |name| fs::read(place.file(&id, name)).unwrap();
    let index = zstd::bulk::compress(&read("index"), 3).unwrap();
    Sent { index, data: read("data"), id }
}

impl Sent {
    fn adopt(&self, place: &Place, data: Data<'_>) -> crate::store::Result<LayerId> {
        let digest = Digest::sha256(&self.index);
        let mut index = &self.index[..];
        place.store.adopt(Stream { from: &mut index, digest: &digest, size: 1 << 20 }, data)
    }

    fn adopt_whole(&self, place: &Place) -> crate::store::Result<LayerId> {
        let digest = Digest::sha256(&self.data);
        let mut open = || Ok(Box::new(&self.data[..]) as Box<dyn Read>);
        self.adopt(
            place,
            Data::Whole { open: &mut open, digest: &digest, size: self.data.len() as u64 },
        )
    }

    fn adopt_stated(&self, place: &Place, size: u64) -> crate::store::Result<LayerId> {
        let digest = Digest::sha256(&self.data);
        let mut open = || Ok(Box::new(&self.data[..]) as Box<dyn Read>);
        self.adopt(place, Data::Whole { open: &mut open, digest: &digest, size })
    }

    fn adopt_part(&self, place: &Place, host: &str) -> LayerId {
        let origin = Origin {
            reference: format!("{host}/x"),
            digest: Digest::sha256(&self.data),
            insecure: false,
            cert_dir: None,
            authfile: None,
            background: false,
        };
        self.adopt(place, Data::Remote(&origin, self.data.len() as u64)).unwrap()
    }
}

/// A registry with programmed failures, and the requests that it received.
#[derive(Default)]
struct Registry {
    asked: AtomicUsize,
    bytes: AtomicUsize,
    lies: AtomicBool,
    is_down: AtomicBool,
}

fn registry(data: &[u8]) -> (String, Arc<Registry>) {
    let (data, state) = (data.to_vec(), Arc::new(Registry::default()));
    let own = Arc::clone(&state);
    let host = serve(move |_, head| {
        let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="));
        let Some((from, to)) = range.and_then(|range| range.trim().split_once('-')) else {
            return response("404 Not Found", "", b"");
        };
        own.asked.fetch_add(1, Ordering::Relaxed);
        if own.is_down.load(Ordering::Relaxed) {
            return response("500 Internal Server Error", "", b"");
        }
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        let mut part = data[from..=to].to_vec();
        own.bytes.fetch_add(part.len(), Ordering::Relaxed);
        if own.lies.load(Ordering::Relaxed) {
            let middle = part.len() / 2;
            part[middle] ^= 1;
        }
        let range = format!("content-range: bytes {from}-{to}/{}\r\n", data.len());
        response("206 Partial Content", &range, &part)
    });
    (host, state)
}

#[test]
fn a_layer_comes_as_a_whole() {
    let (place, sent) = (place(), sent());
    assert_eq!(sent.adopt_whole(&place).unwrap(), sent.id);
    let layer = place.store.layer(&sent.id).unwrap();
    assert_eq!((layer.missing(), layer.verify()), (0, vec![]));
    assert_eq!(content(&layer, "f07").unwrap(), bytes_of(7));
    // Once more: it is already there.
    assert_eq!(sent.adopt_whole(&place).unwrap(), sent.id);
    assert_eq!(fs::read_dir(place.dir.path().join("layers")).unwrap().count(), 1);
}

#[test]
fn what_is_not_what_was_announced_is_refused() {
    let (place, good) = (place(), sent());
    let refused = |sent: &Sent, what: &str| {
        let error = sent.adopt_whole(&place).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    };
    // Other data under its own digest: it contradicts the index.
    let mut data = good.data.clone();
    data[100_000] ^= 1;
    refused(&Sent { data, index: good.index.clone(), id: good.id.clone() }, "its digest");
    let data = good.data[..good.data.len() - 1].to_vec();
    refused(&Sent { data, index: good.index.clone(), id: good.id.clone() }, "its data have");
    // An index with other sizes than the image states is not written at all.
    let error = good.adopt_stated(&place, good.data.len() as u64 + 1).unwrap_err();
    assert!(error.to_string().contains("its data have"), "{error}");
    let mut bomb = zstd::bulk::decompress(&good.index, 1 << 20).unwrap();
    bomb.resize(64 << 20, 0);
    let bomb = zstd::bulk::compress(&bomb, 3).unwrap();
    refused(&Sent { data: good.data.clone(), index: bomb, id: good.id.clone() }, "longer than");
    let mut long = zstd::bulk::decompress(&good.index, 1 << 20).unwrap();
    long[32..40].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let long = zstd::bulk::compress(&long, 3).unwrap();
    refused(&Sent { data: good.data.clone(), index: long, id: good.id.clone() }, "no section uses");
    for index in [&b"no zstd"[..], &zstd::bulk::compress(b"no index", 3).unwrap(), b""] {
        let sent = Sent { index: index.to_vec(), data: good.data.clone(), id: good.id.clone() };
        assert!(sent.adopt_whole(&place).is_err());
    }
    let mut index = &good.index[..];
    let (digest, of_data) = (Digest::sha256(b"another"), Digest::sha256(&good.data));
    let mut open = || Ok(Box::new(&good.data[..]) as Box<dyn Read>);
    let size = good.data.len() as u64;
    let data = Data::Whole { open: &mut open, digest: &of_data, size };
    let error = place
        .store
        .adopt(Stream { from: &mut index, digest: &digest, size: 1 << 20 }, data)
        .unwrap_err();
    assert!(matches!(error, StoreError::OtherBlob { .. }), "{error:?}");
    assert_eq!(fs::read_dir(place.dir.path().join("layers")).unwrap().count(), 0, "no rest");
}

#[test]
fn a_layer_in_part_of_a_wrong_length_is_told() {
    let (place, sent) = (place(), sent());
    let host = serve(|_, _| response("404 Not Found", "", b""));
    let id = sent.adopt_part(&place, &host);
    for (file, len) in [("data", 100), ("data", 1 << 30), ("present", 0), ("present", 100)] {
        let path = place.file(&id, file);
        let good = fs::read(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let error = place.store.layer_anew(&id).map(drop).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{file} {len}: {error}");
        fs::write(&path, good).unwrap();
        place.store.layer_anew(&id).unwrap();
    }
}

#[test]
fn what_is_read_comes_once() {
    let (place, sent) = (place(), sent());
    let (host, registry) = registry(&sent.data);
    let id = sent.adopt_part(&place, &host);
    assert_eq!(id, sent.id);
    let layer = place.store.layer(&id).unwrap();
    let all = layer.missing();
    assert!(all > 10_000_000 && registry.asked.load(Ordering::Relaxed) == 0);
    assert_eq!(layer.verify(), vec![], "missing data is not damage");
    let wrong = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                *wrong.lock() += usize::from(content(&layer, "f20").unwrap() != bytes_of(20));
            });
        }
    });
    assert_eq!(*wrong.lock(), 0);
    let came = registry.bytes.load(Ordering::Relaxed) as u64;
    assert_eq!(all - layer.missing(), came, "no byte came twice");
    assert!(came < 2 << 20, "{came}");
    drop(layer);
    // The bits are written at the end, and the next process fetches nothing.
    let layer = place.store.layer(&id).unwrap();
    let asked = registry.asked.load(Ordering::Relaxed);
    assert_eq!(all - layer.missing(), came);
    assert_eq!(content(&layer, "f20").unwrap(), bytes_of(20));
    assert_eq!(registry.asked.load(Ordering::Relaxed), asked);
    // After all frames are fetched it is like any other layer.
    layer.complete(&mut |_| true).unwrap();
    assert!(registry.bytes.load(Ordering::Relaxed) as u64 <= all + (1 << 20));
    for name in ["present", "origin"] {
        assert!(!place.file(&id, name).exists(), "{name}");
    }
    assert!(place.store.is_whole(&id));
    assert_eq!(fs::read(place.file(&id, "data")).unwrap(), sent.data);
}

#[test]
fn two_processes_fill_one_layer() {
    let (place, sent) = (place(), sent());
    let (host, registry) = registry(&sent.data);
    let id = sent.adopt_part(&place, &host);
    let other = open(place.dir.path());
    let (one, two) = (place.store.layer(&id).unwrap(), other.layer(&id).unwrap());
    assert_eq!(content(&one, "f00").unwrap(), bytes_of(0));
    assert_eq!(content(&two, "f39").unwrap(), bytes_of(39));
    Layer::write_down(&[Arc::downgrade(&one)]);
    let asked = registry.asked.load(Ordering::Relaxed);
    assert_eq!(content(&two, "f00").unwrap(), bytes_of(0));
    assert_eq!(registry.asked.load(Ordering::Relaxed), asked, "the other one brought it");
    one.complete(&mut |_| true).unwrap();
    registry.is_down.store(true, Ordering::Relaxed);
    for number in 0..FILES {
        assert_eq!(content(&two, &name_of(number)).unwrap(), bytes_of(number));
    }
    drop((one, two));
    assert!(place.store.is_whole(&id));
}

#[test]
fn a_registry_that_errs_is_an_error_and_no_data() {
    let (place, sent) = (place(), sent());
    let (host, registry) = registry(&sent.data);
    let id = sent.adopt_part(&place, &host);
    let layer = place.store.layer(&id).unwrap();
    let all = layer.missing();
    registry.lies.store(true, Ordering::Relaxed);
    assert!(content(&layer, "f03").unwrap_err().is(Errno::IO));
    registry.lies.store(false, Ordering::Relaxed);
    registry.is_down.store(true, Ordering::Relaxed);
    assert!(content(&layer, "f05").unwrap_err().is(Errno::IO));
    let asked = registry.asked.load(Ordering::Relaxed);
    assert!(content(&layer, "f06").unwrap_err().is(Errno::IO));
    assert_eq!(registry.asked.load(Ordering::Relaxed), asked, "it is left alone for a while");
    registry.is_down.store(false, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(3100));
    for number in [3, 5, 6] {
        assert_eq!(content(&layer, &name_of(number)).unwrap(), bytes_of(number));
    }
    assert!(layer.missing() < all);
    // The missing data comes from a file, also for readers that have the layer open.
    registry.is_down.store(true, Ordering::Relaxed);
    sent.adopt_whole(&place).unwrap();
    assert_eq!(content(&layer, "f30").unwrap(), bytes_of(30));
    // A thread that reads ahead has the layer open a little longer.
    let open = Arc::downgrade(&layer);
    drop(layer);
    let deadline = Instant::now() + Duration::from_secs(30);
    while open.strong_count() > 0 {
        assert!(Instant::now() < deadline, "the layer stays open");
        std::thread::sleep(Duration::from_millis(1));
    }
    let layer = place.store.layer(&id).unwrap();
    assert_eq!((layer.missing(), layer.verify()), (0, vec![]));
    assert_eq!(content(&layer, "f11").unwrap(), bytes_of(11));
}

#[test]
fn what_is_built_here_completes_what_is_there_in_part() {
    let (place, sent) = (place(), sent());
    let id = sent.adopt_part(&place, "127.0.0.1:1");
    let layer = place.store.layer(&id).unwrap();
    assert_eq!(place.build(fill), id);
    assert!(place.store.is_whole(&id));
    assert_eq!(content(&layer, "f12").unwrap(), bytes_of(12));
    assert_eq!(fs::read_dir(place.dir.path().join("layers")).unwrap().count(), 1);
}

#[test]
fn the_last_pull_says_where_a_layer_is() {
    let (place, sent) = (place(), sent());
    let id = sent.adopt_part(&place, "127.0.0.1:1");
    let (host, _registry) = registry(&sent.data);
    assert_eq!(sent.adopt_part(&place, &host), id);
    let layer = place.store.layer(&id).unwrap();
    assert_eq!(content(&layer, "f12").unwrap(), bytes_of(12));
}

#[test]
fn a_layer_without_data_lacks_nothing() {
    let place = place();
    let id = place.build(|sink| put(sink, "short", b"in the index"));
    let read = |name| fs::read(place.file(&id, name)).unwrap();
    let index = zstd::bulk::compress(&read("index"), 3).unwrap();
    let sent = Sent { index, data: read("data"), id: id.clone() };
    place.store.remove_layer(&id).unwrap();
    assert_eq!(sent.adopt_part(&place, "127.0.0.1:1"), id);
    assert!(place.store.is_whole(&id));
    assert_eq!(fs::read(place.file(&id, "data")).unwrap(), sent.data);
    assert_eq!(content(&place.store.layer(&id).unwrap(), "short").unwrap(), b"in the index");
}

#[test]
fn what_the_disk_lost_comes_again() {
    let (place, sent) = (place(), sent());
    let (host, registry) = registry(&sent.data);
    let id = sent.adopt_part(&place, &host);
    let layer = place.store.layer(&id).unwrap();
    let all = layer.missing();
    assert_eq!(content(&layer, "f00").unwrap(), bytes_of(0));
    let there = all - layer.missing();
    drop(layer);
    let file = File::options().write(true).open(place.file(&id, "data")).unwrap();
    file.write_all_at(&[0; 4096], 5000).unwrap();
    let layer = place.store.layer(&id).unwrap();
    assert_eq!((all - layer.missing(), layer.verify().len()), (there, 1));
    let asked = registry.asked.load(Ordering::Relaxed);
    assert_eq!(content(&layer, "f00").unwrap(), bytes_of(0));
    assert!(registry.asked.load(Ordering::Relaxed) > asked);
    assert_eq!(layer.verify(), vec![]);
}

#[test]
fn notes_of_another_length_are_told() {
    let (place, sent) = (place(), sent());
    let id = sent.adopt_part(&place, "127.0.0.1:1");
    for (name, what) in [("present", "frames"), ("origin", "record")] {
        let path = place.file(&id, name);
        let kept = fs::read(&path).unwrap();
        fs::write(&path, &kept[1..]).unwrap();
        let error = place.store.layer(&id).map(drop).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        fs::write(&path, kept).unwrap();
    }
    // A process that another test starts holds our descriptors until it executes its program.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = place.store.remove_layer(&id) {
        assert!(matches!(error, StoreError::InUse { .. }) && Instant::now() < deadline, "{error}");
    }
}

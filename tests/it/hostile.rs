//! Forged indexes: whatever they contain, they are refused or safe to read.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use laminafs::backing::blob;
use laminafs::cache::BlockCache;
use laminafs::format::index::Index;
use laminafs::format::layout::HEAD_LEN;
use laminafs::store::sink::{Body, Meta, Sink};
use laminafs::store::{Layer, LayerId, Store};
use laminafs::types::{Access, Kind, name};
use laminafs::union::DirRef;
use proptest::prelude::*;

/// The offset of the digest of the body in the head.
const DIGEST: std::ops::Range<usize> = 48..80;
/// A depth that no tree of this test has.
const DEPTH_MAX: usize = 64;

fn store(root: &Path) -> Store {
    Store::open(root, BlockCache::new(1 << 20)).unwrap()
}

/// A layer with objects of every kind.
fn layer(root: &Path) -> LayerId {
    let store = store(root);
    let mut build = store.build().unwrap();
    let sink = &mut build.builder;
    let at = |text: &str| text.split('/').map(|part| name(part.as_bytes())).collect::<Vec<_>>();
    let xattrs = [(b"user.x".to_vec(), b"value".to_vec())];
    let meta = || Meta { mode: 0o644, xattrs: xattrs.clone().into(), ..Meta::default() };
    for (path, size) in [("a/small", 10), ("a/middle", 5000), ("b/large", 300_000), ("z", 0)] {
        let content: Vec<u8> = (0..size).map(|at| (at * 7 / 3) as u8).collect();
        let mut data = &content[..];
        let body = Body::File { size: content.len() as u64, data: &mut data };
        sink.put(&at(path), meta(), body).unwrap();
    }
    sink.put(&at("a/link"), meta(), Body::Symlink { target: b"small".to_vec() }).unwrap();
    sink.put(&at("c"), meta(), Body::Char { major: 1, minor: 3 }).unwrap();
    sink.link(&at("b/again"), &at("a/middle")).unwrap();
    sink.whiteout(&at("gone")).unwrap();
    sink.opaque(&at("b")).unwrap();
    store.publish(build).unwrap()
}

/// Reads everything that a directory shows.
fn walk(dir: &DirRef, depth: usize) {
    assert!(depth < DEPTH_MAX, "a cycle");
    let mut names = Vec::new();
    let listed = dir.list(0, &mut |entry| {
        names.push(entry.name.to_vec());
        true
    });
    listed.unwrap();
    for name in names {
        let stat = dir.stat(Some(&name)).unwrap();
        dir.xattr_names(Some(&name)).unwrap();
        match stat.kind() {
            Kind::Dir => walk(&dir.dir(&name), depth + 1),
            Kind::Symlink => drop(dir.readlink(&name).unwrap()),
            Kind::File => {
                let file = dir.open(&name, Access::Read).unwrap();
                let mut bytes = vec![0; 4096];
                for offset in [0, stat.size / 2, stat.size.saturating_sub(1), u64::MAX - 1] {
                    // EIO is right: the blob does not match the index.
                    if let Ok(len) = file.read_at(&mut bytes, offset) {
                        assert!(len <= bytes.len());
                    }
                }
            }
            _ => {}
        }
    }
}

/// The layer with this index and the blob of another, in its own store.
fn replaced(root: &Path, id: &LayerId, index: &[u8]) -> Option<Arc<Layer>> {
    let other = tempfile::tempdir().unwrap();
    let new = LayerId::of(index);
    let dir = other.path().join("layers").join(new.as_str());
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("index"), index).unwrap();
    let data = root.join("layers").join(id.as_str()).join("data");
    fs::copy(data, dir.join("data")).unwrap();
    store(other.path()).layer(&new).ok()
}

fn index_of(root: &Path, id: &LayerId) -> Vec<u8> {
    fs::read(root.join("layers").join(id.as_str()).join("index")).unwrap()
}

fn sealed(mut index: Vec<u8>) -> Vec<u8> {
    let digest = blake3::hash(&index[HEAD_LEN..]);
    index[DIGEST].copy_from_slice(digest.as_bytes());
    index
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_made_up_index_is_refused_or_safe(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        words in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..300), 0..3),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let id = layer(dir.path());
        let mut index = index_of(dir.path(), &id);
        for (at, byte) in changes {
            let at = 176 + at.index(index.len() - 176);
            index[at] = byte;
        }
        for (at, word) in words {
            let at = HEAD_LEN + at.index((index.len() - HEAD_LEN) / 4 - 1) * 4;
            index[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        if let Some(layer) = replaced(dir.path(), &id, &sealed(index)) {
            let roots = blob::roots(vec![layer]);
            walk(&roots[0], 0);
        }
    }
}

#[test]
fn the_layer_of_this_test_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let id = layer(dir.path());
    let index = index_of(dir.path(), &id);
    walk(&blob::roots(vec![replaced(dir.path(), &id, &sealed(index)).unwrap()])[0], 0);
}

#[test]
fn every_cut_of_an_index_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let id = layer(dir.path());
    let index = index_of(dir.path(), &id);
    for len in 0..index.len() {
        assert!(Index::open(Box::new(index[..len].to_vec())).is_err(), "{len} bytes");
    }
}

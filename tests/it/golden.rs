//! Files of format version 1.0 that were written once: a reader must still read them unchanged.
//!
//! The compressed bytes of a frame are made by zstd and may change with its version. All other
//! bytes that the builder writes must be those of the files, so that equal layers have equal ids.
//! Files of a new version of the format get a directory of their own, made by `write_files` (which
//! is not run otherwise); those of an earlier version are never made again.

use std::fs;
use std::path::{Path, PathBuf};

use laminafs::backing::blob;
use laminafs::cache::BlockCache;
use laminafs::catalog::image::{Image, ImageLayer};
use laminafs::catalog::images::Images;
use laminafs::format::layout::HEAD_LEN;
use laminafs::store::sink::{Body, Meta, Sink};
use laminafs::store::{LayerId, Store};
use laminafs::types::{Time, name};

use crate::imports::listing;

/// Sections whose bytes depend on those of zstd: frames and their digests.
const OF_ZSTD: [usize; 2] = [2, 3];
const SECTIONS: usize = 9;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1.0")
}

fn store(root: &Path) -> Store {
    Store::open(root, BlockCache::new(1 << 20)).unwrap()
}

/// Text that can be compressed and differs between files.
fn content(len: usize, seed: usize) -> Vec<u8> {
    let line = |n: usize| format!("line {} of file {seed}, {}\n", n, n * n % 7919);
    (0..).flat_map(|n| line(n).into_bytes()).take(len).collect()
}

/// Adds one object of everything that the format supports.
fn fill(sink: &mut dyn Sink) {
    let at = |text: &str| -> Vec<_> {
        text.split('/').filter(|part| !part.is_empty()).map(|part| name(part.as_bytes())).collect()
    };
    let meta = |mode| {
        let mtime = Time { secs: 1_700_000_000, nanos: 123_456_789 };
        Meta { mode, uid: 1000, gid: 100, mtime, ..Meta::default() }
    };
    let mut put = |path: &str, meta: Meta, body: Body<'_>| sink.put(&at(path), meta, body).unwrap();
    let mut marked = meta(0o4755);
    marked.xattrs.insert(b"user.k".to_vec(), b"value".to_vec());
    marked.xattrs.insert(b"security.capability".to_vec(), vec![0, 1, 255]);
    let mut old = meta(0o600);
    old.mtime = Time { secs: -1, nanos: 999_999_999 };
    put("/", meta(0o755), Body::Dir);
    put("/dir", meta(0o1777), Body::Dir);
    let mut holes = content(70_000, 1);
    holes.resize(200 << 10, 0);
    holes.extend(content(70_000, 2));
    let files = [
        ("/dir/empty", meta(0o644), Vec::new()),
        ("/dir/inline", old, content(128, 3)),
        ("/dir/small", marked, content(129, 4)),
        ("/dir/frame", meta(0o644), content(128 << 10, 5)),
        ("/dir/large", meta(0o644), content((128 << 10) + 1, 6)),
        ("/dir/again", meta(0o640), content(129, 4)),
        ("/holes", meta(0o644), holes),
    ];
    for (path, meta, content) in files {
        let mut data = &content[..];
        put(path, meta, Body::File { size: content.len() as u64, data: &mut data });
    }
    put("/link", meta(0o777), Body::Symlink { target: b"dir/\xff".to_vec() });
    put("/null", meta(0o666), Body::Char { major: 1, minor: 3 });
    put("/disk", meta(0o660), Body::Block { major: 259, minor: 70_000 });
    put("/fifo", meta(0o600), Body::Fifo);
    put("/socket", meta(0o700), Body::Socket);
    put("/caf\u{e9}", meta(0o644), Body::Fifo);
    sink.link(&at("/hard"), &at("/dir/small")).unwrap();
    sink.whiteout(&at("/gone")).unwrap();
    sink.opaque(&at("/dir")).unwrap();
}

fn image(layer: &LayerId) -> Image {
    let made = ImageLayer {
        id: layer.clone(),
        diff_id: format!("sha256:{}", "1d".repeat(32)).parse().unwrap(),
        digest: format!("sha256:{}", "2e".repeat(32)).parse().ok(),
        size: 4711,
    };
    let bare = ImageLayer { digest: None, size: 1 << 40, ..made.clone() };
    Image {
        id: "3f".repeat(32),
        layers: vec![made, bare],
        config: br#"{"os":"linux","config":{"Env":["A=b"]}}"#.to_vec(),
        manifest: Some(b"{}".to_vec()),
    }
}

/// Copies the files, since a store locks and sweeps its directories.
fn copied(to: &Path) -> LayerId {
    for dir in ["layers", "images"] {
        fs::create_dir_all(to.join(dir)).unwrap();
    }
    let entry = |dir: &str| fs::read_dir(golden().join(dir)).unwrap().next().unwrap().unwrap();
    let layer = entry("layers");
    let target = to.join("layers").join(layer.file_name());
    fs::create_dir(&target).unwrap();
    for file in ["index", "data"] {
        fs::copy(layer.path().join(file), target.join(file)).unwrap();
    }
    let record = entry("images");
    fs::copy(record.path(), to.join("images").join(record.file_name())).unwrap();
    layer.file_name().to_str().unwrap().parse().unwrap()
}

fn shown(store: &Store, id: &LayerId) -> String {
    let layer = store.layer(id).unwrap();
    assert!(layer.verify().is_empty());
    listing(&blob::roots(vec![layer])[0]).join("\n") + "\n"
}

fn index(root: &Path, id: &LayerId) -> Vec<u8> {
    fs::read(root.join("layers").join(id.as_str()).join("index")).unwrap()
}

/// The bytes of each section, as docs/FORMAT.md places them.
fn sections(index: &[u8]) -> Vec<&[u8]> {
    let number = |at: usize| u64::from_le_bytes(index[at..at + 8].try_into().unwrap()) as usize;
    let section = |n: usize| {
        let head = 176 + 24 * n;
        let size = u32::from_le_bytes(index[head..head + 4].try_into().unwrap()) as usize;
        let (offset, count) = (number(head + 8), number(head + 16));
        assert!(offset >= HEAD_LEN);
        &index[offset..offset + size * count]
    };
    (0..SECTIONS).map(section).collect()
}

#[test]
fn layers_of_version_1_0_are_read_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let id = copied(dir.path());
    let expected = fs::read_to_string(golden().join("listing")).unwrap();
    assert_eq!(shown(&store(dir.path()), &id), expected);
}

#[test]
fn the_builder_writes_the_bytes_of_version_1_0() {
    let dir = tempfile::tempdir().unwrap();
    let id = copied(dir.path());
    let new = tempfile::tempdir().unwrap();
    let store = store(new.path());
    let mut build = store.build().unwrap();
    fill(&mut build.builder);
    let built = store.publish(build).unwrap();
    let (old, new) = (index(dir.path(), &id), index(new.path(), &built));
    // Magic, version, parameters, features; the lengths and the digest depend on zstd.
    assert_eq!(old[..32], new[..32]);
    assert_eq!(old[80..512], new[80..512]);
    for (n, (old, new)) in sections(&old).into_iter().zip(sections(&new)).enumerate() {
        assert_eq!(old.len(), new.len(), "section {n}");
        assert!(OF_ZSTD.contains(&n) || old == new, "section {n}");
    }
}

#[test]
fn records_of_version_1_are_read_and_written_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let id = copied(dir.path());
    let image = image(&id);
    assert_eq!(Images::open(dir.path()).unwrap().find(&image.id).unwrap(), image);
    let new = tempfile::tempdir().unwrap();
    Images::open(new.path()).unwrap().put(&image, &[]).unwrap();
    let record = |root: &Path| fs::read(root.join("images").join(&image.id)).unwrap();
    assert!(record(new.path()) == record(&golden()));
}

#[test]
#[ignore = "writes the files of a new version of the format"]
fn write_files() {
    let root = golden();
    assert!(!root.exists(), "what was written once stays");
    let store = store(&root);
    let mut build = store.build().unwrap();
    fill(&mut build.builder);
    let id = store.publish(build).unwrap();
    Images::open(&root).unwrap().put(&image(&id), &[]).unwrap();
    fs::remove_dir(root.join("names")).unwrap();
    fs::write(root.join("listing"), shown(&store, &id)).unwrap();
}

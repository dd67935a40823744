//! Layers from builder to reader: content is read back, and changes on disk are detected.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::Store;
use super::error::StoreError;
use super::id::LayerId;
use super::layer::Layer;
use super::sink::{Body, Meta, Sink};
use crate::cache::BlockCache;
use crate::error::Errno;
use crate::format::index::ROOT;
use crate::format::layout::{FRAME_LEN, Inode};
use crate::types::{Kind, Name, Seek, Time, name};

pub(super) struct Place {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Store,
}

pub(super) fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), BlockCache::new(1 << 20)).unwrap();
    Place { dir, store }
}

fn path(text: &str) -> Vec<Name> {
    text.split('/').filter(|part| !part.is_empty()).map(|part| name(part.as_bytes())).collect()
}

pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

pub(super) fn put(sink: &mut dyn Sink, at: &str, content: &[u8]) {
    let meta = Meta { mode: 0o644, ..Meta::default() };
    let mut data = content;
    let body = Body::File { size: content.len() as u64, data: &mut data };
    sink.put(&path(at), meta, body).unwrap();
}

impl Place {
    pub(super) fn build(&self, fill: impl FnOnce(&mut dyn Sink)) -> LayerId {
        let mut build = self.store.build().unwrap();
        fill(&mut build.builder);
        self.store.publish(build).unwrap()
    }

    pub(super) fn layer(&self, fill: impl FnOnce(&mut dyn Sink)) -> Arc<Layer> {
        self.store.layer(&self.build(fill)).unwrap()
    }

    pub(super) fn file(&self, id: &LayerId, file: &str) -> PathBuf {
        self.dir.path().join("layers").join(id.as_str()).join(file)
    }
}

fn find<'l>(layer: &'l Layer, at: &str) -> Option<&'l Inode> {
    let mut ino = ROOT;
    for part in path(at) {
        ino = layer.index().find(ino, &part)?.object()?;
    }
    layer.index().inode(ino)
}

pub(super) fn content(layer: &Layer, at: &str) -> crate::error::Result<Vec<u8>> {
    let inode = find(layer, at).unwrap();
    let mut bytes = vec![0xaa; inode.size.get() as usize + 10];
    let len = layer.read(inode, &mut bytes, 0)?;
    bytes.truncate(len);
    Ok(bytes)
}

#[test]
fn contents_of_every_size_come_back() {
    let place = place();
    let sizes = [0, 1, 128, 129, 4096, FRAME_LEN - 1, FRAME_LEN, FRAME_LEN + 1, 3 * FRAME_LEN + 77];
    let layer = place.layer(|sink| {
        for size in sizes {
            put(sink, &format!("d/f{size}"), &noise(size, size as u64));
            put(sink, &format!("d/same{size}"), &noise(size, size as u64));
        }
    });
    for size in sizes {
        for prefix in ["f", "same"] {
            assert!(
                content(&layer, &format!("d/{prefix}{size}")).unwrap() == noise(size, size as u64)
            );
        }
    }
    let inode = find(&layer, &format!("d/f{}", 3 * FRAME_LEN + 77)).unwrap();
    let expected = noise(3 * FRAME_LEN + 77, 3 * FRAME_LEN as u64 + 77);
    for (offset, len) in [(0, 10), (FRAME_LEN - 5, 10), (FRAME_LEN, FRAME_LEN + 1), (400_000, 99)] {
        let mut bytes = vec![0; len];
        let got = layer.read(inode, &mut bytes, offset as u64).unwrap();
        let end = (offset + len).min(expected.len());
        assert!(bytes[..got] == expected[offset.min(end)..end], "{offset} {len}");
    }
    let stored: u64 = layer.index().blob_len();
    let raw: usize = sizes.iter().sum();
    assert!(stored < raw as u64 + 4096, "equal contents are stored once: {stored}");
}

#[test]
fn blob_is_a_zstd_stream() {
    let place = place();
    let text = noise(300_000, 5);
    let id = place.build(|sink| put(sink, "f", &text));
    let blob = fs::read(place.file(&id, "data")).unwrap();
    assert!(zstd::decode_all(&blob[..]).unwrap() == text);
}

#[test]
fn holes_stay_holes() {
    let place = place();
    let mut bytes = vec![0; 1 << 20];
    bytes[300_000..300_010].copy_from_slice(b"0123456789");
    bytes[800_000..800_004].copy_from_slice(b"abcd");
    let layer = place.layer(|sink| {
        put(sink, "f", &bytes);
        put(sink, "zero", &vec![0; 500_000]);
    });
    assert!(content(&layer, "f").unwrap() == bytes);
    assert!(content(&layer, "zero").unwrap() == vec![0; 500_000]);
    let inode = find(&layer, "f").unwrap();
    let page = |offset: u64| offset / 4096 * 4096;
    assert_eq!(layer.seek(inode, 0, Seek::Hole), Ok(0));
    assert_eq!(layer.seek(inode, 0, Seek::Data), Ok(page(300_000)));
    assert_eq!(layer.seek(inode, 300_000, Seek::Data), Ok(300_000));
    assert_eq!(layer.seek(inode, 300_000, Seek::Hole), Ok(page(300_000) + 4096));
    assert_eq!(layer.seek(inode, 500_000, Seek::Data), Ok(page(800_000)));
    assert_eq!(layer.seek(inode, 1 << 20, Seek::Data).unwrap_err().errno(), Errno::NXIO);
    assert_eq!(layer.allocated(inode), 8192);
    assert_eq!(layer.allocated(find(&layer, "zero").unwrap()), 0);
}

#[test]
fn names_kinds_and_attributes_come_back() {
    let place = place();
    let xattrs = [(b"user.a".to_vec(), vec![0, 255]), (b"user.b".to_vec(), Vec::new())];
    let old = Time { secs: -77, nanos: 999_999_999 };
    let layer = place.layer(|sink| {
        let meta =
            Meta { mode: 0o4751, uid: 7, gid: 70_000, mtime: old, xattrs: xattrs.clone().into() };
        let link = Body::Symlink { target: b"../\xff".to_vec() };
        sink.put(&path("a/l"), meta.clone(), link).unwrap();
        sink.put(&path("a/c"), meta.clone(), Body::Char { major: 5, minor: 300_000 }).unwrap();
        sink.put(&path("a/p"), meta.clone(), Body::Fifo).unwrap();
        put(sink, "a/f", b"text");
        sink.link(&path("b/g"), &path("a/f")).unwrap();
        sink.link(&path("b/h"), &path("z/later")).unwrap();
        sink.put(&path("a"), meta, Body::Dir).unwrap();
        put(sink, "z/later", b"late");
        sink.whiteout(&path("gone")).unwrap();
        sink.whiteout(&path("a")).unwrap();
        sink.opaque(&path("o")).unwrap();
    });
    let a = find(&layer, "a").unwrap();
    assert_eq!((a.mode.get(), a.uid.get(), a.gid.get()), (0o044_751, 7, 70_000));
    assert_eq!((a.mtime.get(), a.mtime_nanos.get(), a.nlink.get()), (-77, 999_999_999, 2));
    assert!(a.is_opaque(), "a whiteout of what the layer has itself");
    let found: Vec<_> = layer.index().xattrs(a).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    assert_eq!(found, xattrs);
    assert_eq!(layer.index().target(find(&layer, "a/l").unwrap()), b"../\xff");
    let device = find(&layer, "a/c").unwrap();
    assert_eq!((device.kind(), device.a.get(), device.b.get()), (Kind::Char, 5, 300_000));
    assert_eq!(find(&layer, "a/p").unwrap().kind(), Kind::Fifo);
    assert_eq!(find(&layer, "a/f").unwrap().nlink.get(), 2);
    assert_eq!(content(&layer, "b/g").unwrap(), b"text");
    assert_eq!(content(&layer, "b/h").unwrap(), b"late");
    assert_eq!(layer.index().find(ROOT, b"gone").unwrap().object(), None);
    assert!(find(&layer, "o").unwrap().is_opaque());
    assert_eq!(layer.index().inode(ROOT).unwrap().nlink.get(), 6);
}

#[test]
fn a_root_of_which_nothing_is_said_shows_the_one_below() {
    use crate::backing::blob;
    let place = place();
    let root = |mode| Meta { mode, uid: 3, ..Meta::default() };
    let base = place.layer(|sink| sink.put(&[], root(0o711), Body::Dir).unwrap());
    let silent = place.layer(|sink| put(sink, "f", b"f"));
    let top = place.layer(|sink| sink.put(&[], root(0o700), Body::Dir).unwrap());
    let roots = blob::roots(vec![base, silent, top]);
    let modes: Vec<_> = roots.iter().map(|root| root.stat(None).unwrap().mode & 0o777).collect();
    assert_eq!(modes, [0o711, 0o711, 0o700]);
    assert_eq!(roots[1].stat(None).unwrap().uid, 3);
}

fn dir(sink: &mut dyn Sink, at: &str, mode: u32) {
    let xattrs = [(b"user.k".to_vec(), at.as_bytes().to_vec())].into();
    let meta = Meta { mode, uid: mode, xattrs, ..Meta::default() };
    sink.put(&path(at), meta, Body::Dir).unwrap();
}

// Mode and xattr of a directory of the topmost layer, as returned by lookup, listing and open
// directory.
fn shown(layers: Vec<Arc<Layer>>, at: &str) -> (u32, Option<Vec<u8>>) {
    let mut parts = path(at);
    let last = parts.pop().unwrap();
    let mut dir = crate::backing::blob::roots(layers).pop().unwrap();
    for part in parts {
        dir = dir.dir(&part);
    }
    let stat = dir.stat(Some(&last)).unwrap();
    let mut listed = None;
    dir.list_stat(0, &mut |entry, stat| {
        listed = (entry.name == last.as_slice()).then_some(*stat).or(listed);
        true
    })
    .unwrap();
    assert_eq!(listed, Some(stat));
    assert_eq!(dir.dir(&last).stat(None).unwrap(), stat);
    assert_eq!(dir.dir(&last).open_self().unwrap().stat().unwrap(), stat);
    assert!(stat.uid == 0 || stat.uid == stat.mode & 0o7777, "{stat:?}");
    (stat.mode & 0o7777, dir.xattr(Some(&last), b"user.k").unwrap())
}

#[test]
fn an_implied_directory_shows_the_attributes_of_the_one_below() {
    let place = place();
    let base = place.layer(|sink| {
        ["a", "a/b", "a/b/c", "x", "x/y"].iter().zip(0o700..).for_each(|(at, mode)| {
            dir(sink, at, mode);
        });
        put(sink, "f/g", b"a directory of which nothing is said");
    });
    let middle = place.layer(|sink| put(sink, "a/b/c/one", b"1"));
    let removes = place.layer(|sink| sink.whiteout(&path("a/b")).unwrap());
    let hides = place.layer(|sink| sink.opaque(&path("x")).unwrap());
    let replaces = place.layer(|sink| put(sink, "a", b"a file"));
    let top = place.layer(|sink| {
        put(sink, "a/b/c/two", b"2");
        put(sink, "x/y/z", b"3");
        put(sink, "f/h", b"4");
        put(sink, "new/n", b"5");
    });
    let on = |below: &[&Arc<Layer>]| -> Vec<_> {
        below.iter().map(|layer| Arc::clone(layer)).chain([Arc::clone(&top)]).collect()
    };
    let known = |mode, at: &str| (mode, Some(at.as_bytes().to_vec()));
    let plain = (0o755, None);
    for below in [&[&base, &middle][..], &[&base], &[&middle, &base]] {
        assert_eq!(shown(on(below), "a"), known(0o700, "a"));
        assert_eq!(shown(on(below), "a/b/c"), known(0o702, "a/b/c"));
        assert_eq!(shown(on(below), "x/y"), known(0o704, "x/y"));
        assert_eq!(shown(on(below), "f"), plain);
        assert_eq!(shown(on(below), "new"), plain);
    }
    assert_eq!(shown(on(&[&base, &removes]), "a"), known(0o700, "a"));
    assert_eq!(shown(on(&[&base, &removes]), "a/b"), plain);
    assert_eq!(shown(on(&[&base, &removes]), "a/b/c"), plain);
    assert_eq!(shown(on(&[&base, &hides]), "x"), known(0o703, "x"));
    assert_eq!(shown(on(&[&base, &hides]), "x/y"), plain);
    assert_eq!(shown(on(&[&base, &replaces]), "a"), plain);
    assert_eq!(shown(on(&[]), "a/b"), plain);
    assert!(!base.index().has_implied() || find(&base, "f").unwrap().is_implied());
    assert!(top.index().has_implied() && !hides.index().inode(ROOT).unwrap().is_opaque());
}

#[test]
fn what_lies_below_a_link_of_the_layer_goes_where_it_leads() {
    let place = place();
    let link = |sink: &mut dyn Sink, at: &str, target: &str| {
        let target = target.as_bytes().to_vec();
        sink.put(&path(at), Meta::default(), Body::Symlink { target }).unwrap();
    };
    let layer = place.layer(|sink| {
        link(sink, "lib", "usr/lib");
        put(sink, "lib/x", b"x");
        link(sink, "etc/alias", "/lib/./sub/");
        put(sink, "etc/alias/y", b"y");
        link(sink, "out", "../../../../up");
        put(sink, "out/z", b"z");
        sink.link(&path("lib/again"), &path("lib/x")).unwrap();
        sink.whiteout(&path("lib/gone")).unwrap();
        sink.opaque(&path("etc/alias")).unwrap();
        sink.link(&path("early"), &path("lib/later")).unwrap();
        put(sink, "usr/lib/later", b"later");
    });
    assert_eq!(find(&layer, "lib").unwrap().kind(), Kind::Symlink);
    let known = [("usr/lib/x", "x"), ("usr/lib/sub/y", "y"), ("up/z", "z"), ("early", "later")];
    for (at, text) in known {
        assert_eq!(content(&layer, at).unwrap(), text.as_bytes(), "{at}");
    }
    assert_eq!(find(&layer, "usr/lib/again").unwrap().nlink.get(), 2);
    assert!(find(&layer, "usr/lib/sub").unwrap().is_opaque());
    let lib = layer.index().find(ROOT, b"usr").unwrap().object().unwrap();
    let lib = layer.index().find(lib, b"lib").unwrap().object().unwrap();
    assert_eq!(layer.index().find(lib, b"gone").unwrap().object(), None);
    let mut build = place.store.build().unwrap();
    let sink = &mut build.builder;
    link(sink, "a", "b");
    link(sink, "b", "/a");
    link(sink, "self", "self");
    link(sink, "wh", ".wh.x/y");
    put(sink, "file", b"");
    link(sink, "to-file", "file");
    for at in ["a/x", "self/x", "wh/x", "to-file/x"] {
        let refused = sink.put(&path(at), Meta::default(), Body::Fifo);
        assert!(matches!(refused, Err(StoreError::Entry { .. })), "{at}");
        assert!(sink.whiteout(&path(at)).is_err() && sink.link(&path(at), &path("file")).is_err());
    }
}

#[test]
fn a_directory_that_only_whiteouts_imply_is_gone_where_one_names_it() {
    let place = place();
    let orders: [&[&str]; 4] =
        [&["t", "t/a"], &["t/a", "t"], &["t/d/a", "t"], &["t", "t/d/a", "t/a", "t/d"]];
    for order in orders {
        let layer = place.layer(|sink| {
            order.iter().for_each(|at| sink.whiteout(&path(at)).unwrap());
        });
        let entry = layer.index().find(ROOT, b"t").unwrap();
        assert_eq!(entry.object(), None, "{order:?}");
        assert_eq!(layer.index().inodes().len(), 1, "{order:?}");
    }
    // An entry for it or in it keeps the directory; what it hides is hidden in any case.
    let layer = place.layer(|sink| {
        ["t", "t/a", "t/d/a", "k", "k/x"].iter().for_each(|at| {
            sink.whiteout(&path(at)).unwrap();
        });
        put(sink, "t/new", b"n");
        dir(sink, "k", 0o700);
        sink.whiteout(&path("only/inside")).unwrap();
    });
    assert!(find(&layer, "t").unwrap().is_opaque() && find(&layer, "k").unwrap().is_opaque());
    assert_eq!(find(&layer, "k").unwrap().mode.get() & 0o777, 0o700);
    assert!(find(&layer, "t/d").is_none(), "an empty directory under an opaque one");
    assert!(find(&layer, "only").is_some());
}

#[test]
fn the_last_entry_of_a_name_counts() {
    let place = place();
    let layer = place.layer(|sink| {
        put(sink, "x", b"first");
        put(sink, "x", b"second");
        put(sink, "d/f", b"kept");
        sink.put(&path("d"), Meta { mode: 0o700, ..Meta::default() }, Body::Dir).unwrap();
        sink.whiteout(&path("w")).unwrap();
        put(sink, "w/new", b"n");
        put(sink, "y/f", b"");
        put(sink, "y", b"a file now");
    });
    assert_eq!(content(&layer, "x").unwrap(), b"second");
    assert_eq!(content(&layer, "d/f").unwrap(), b"kept");
    assert_eq!(find(&layer, "d").unwrap().mode.get(), 0o040_700);
    assert!(find(&layer, "w").unwrap().is_opaque(), "removed below, made again here");
    assert_eq!(content(&layer, "y").unwrap(), b"a file now");
}

#[test]
fn entries_that_cannot_be_are_refused() {
    let place = place();
    let mut build = place.store.build().unwrap();
    let sink = &mut build.builder;
    put(sink, "f", b"");
    let meta = Meta::default;
    assert!(matches!(sink.put(&path("f/x"), meta(), Body::Fifo), Err(StoreError::Entry { .. })));
    assert!(sink.put(&[], meta(), Body::Fifo).is_err());
    assert!(sink.whiteout(&[]).is_err());
    assert!(sink.link(&path("l"), &[]).is_err(), "to a directory");
    let mut short: &[u8] = b"abc";
    let body = Body::File { size: 10, data: &mut short };
    assert!(matches!(sink.put(&path("s"), meta(), body), Err(StoreError::Stream { .. })));
    sink.link(&path("l"), &path("nowhere")).unwrap();
    assert!(matches!(place.store.publish(build), Err(StoreError::Entry { .. })));
    assert_eq!(place.store.layers().unwrap(), []);
    assert_eq!(fs::read_dir(place.dir.path().join("layers")).unwrap().count(), 0);
}

#[test]
fn names_and_attributes_have_a_budget() {
    let place = place();
    type Fill = dyn Fn(&mut dyn Sink, u32) -> Result<(), StoreError>;
    fn long(number: u32) -> Vec<Name> {
        path(&format!("{number:0200}"))
    }
    let fills: [&Fill; 6] = [
        &|sink, n| sink.put(&long(n), Meta::default(), Body::Fifo),
        &|sink, n| sink.put(&long(n), Meta::default(), Body::Dir),
        &|sink, n| sink.whiteout(&long(n)),
        &|sink, n| sink.link(&long(n), &long(n + 1)),
        &|sink, n| {
            let target = vec![b't'; 4000];
            sink.put(
                &[name(&n.to_le_bytes().map(|b| b | 1))],
                Meta::default(),
                Body::Symlink { target },
            )
        },
        &|sink, _| {
            // The same directory again and again, each time with other attributes.
            let xattrs = (0..50).map(|key| (vec![b'k', key], vec![key; 1000])).collect();
            sink.put(&path("d"), Meta { xattrs, ..Meta::default() }, Body::Dir)
        },
    ];
    for fill in fills {
        let mut build = place.store.build().unwrap();
        build.builder.limit(1 << 20);
        let refused = (0..10_000).find_map(|number| fill(&mut build.builder, number).err());
        let text = refused.expect("a budget").to_string();
        assert!(text.contains("more than 1 MiB of memory"), "{text}");
        place.store.abandon(build);
    }
}

#[test]
fn equal_layers_have_one_id() {
    let place = place();
    let fill = |sink: &mut dyn Sink| {
        put(sink, "b", &noise(200_000, 1));
        put(sink, "a", b"a");
    };
    let id = place.build(fill);
    assert_eq!(place.build(fill), id);
    assert_eq!(place.store.layers().unwrap(), std::slice::from_ref(&id));
    place.store.remove_layer(&id).unwrap();
    assert!(matches!(place.store.layer(&id), Err(StoreError::Missing { .. })));
}

#[test]
fn what_a_crash_left_is_swept_and_work_under_way_is_not() {
    let place = place();
    let build = place.store.build().unwrap();
    let left = place.dir.path().join("layers/.new-1-0");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("data"), "half").unwrap();
    assert_eq!(place.store.sweep().unwrap(), 1);
    assert!(!left.exists());
    place.store.publish(build).unwrap();
}

// Changes every byte of a blob and of an index: a read fails or returns the same data.
#[test]
fn a_changed_byte_is_an_error_and_never_other_data() {
    let files = [("a", noise(700, 1)), ("d/b", noise(200_000, 2)), ("c", b"inline".to_vec())];
    change_bytes(&files, 37);
    // Every byte of a small blob with one file that is large enough to be materialised.
    let text: Vec<u8> = (0..60_000_u32).flat_map(|n| [b'a' + (n / 7000) as u8; 4]).collect();
    change_bytes(&[("a", noise(700, 1)), ("d/b", text), ("c", b"inline".to_vec())], 1);
}

fn change_bytes(files: &[(&str, Vec<u8>)], blob_step: usize) {
    let place = place();
    let id = place.build(|sink| files.iter().for_each(|(at, bytes)| put(sink, at, bytes)));
    // One index is enough.
    for file in ["data", "index"].into_iter().take(if blob_step == 1 { 1 } else { 2 }) {
        let path = place.file(&id, file);
        let good = fs::read(&path).unwrap();
        let step = if file == "index" { 1 } else { blob_step };
        for at in (0..64.min(good.len())).chain((64..good.len()).step_by(step)) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            let store = Store::open(place.dir.path(), BlockCache::new(1 << 20)).unwrap();
            let Ok(layer) = store.layer(&id) else {
                assert_eq!(file, "index");
                continue;
            };
            assert_eq!(file, "data", "byte {at} of an index went unseen");
            assert!(!layer.verify().is_empty(), "byte {at} of a blob went unseen");
            for (name, bytes) in files {
                if blob_step == 1
                    && let Some(mut material) = layer.material(find(&layer, name).unwrap())
                {
                    let mut read = Vec::new();
                    std::io::Read::read_to_end(&mut material, &mut read).unwrap();
                    assert!(read == *bytes, "byte {at}: other data in a file of the host");
                    drop(fs::remove_dir_all(place.dir.path().join("materials")));
                }
                match content(&layer, name) {
                    Ok(read) => assert!(read == *bytes, "byte {at}: other data"),
                    Err(error) => assert_eq!(error.errno(), Errno::IO),
                }
            }
        }
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(place.store.layer(&id).unwrap().verify(), []);
}

#[test]
fn damage_names_the_file() {
    let place = place();
    let id = place.build(|sink| {
        put(sink, "small", &noise(900, 3));
        put(sink, "d/large", &noise(400_000, 4));
    });
    let path = place.file(&id, "data");
    let mut bytes = fs::read(&path).unwrap();
    bytes[200_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let damage = place.store.layer(&id).unwrap().verify();
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].files, ["/d/large"]);
}

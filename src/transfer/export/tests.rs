//! Export and import again: the imported bytes come out, or another tar with equal meaning.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use ::tar::{Builder, EntryType, Header};

use super::write_layer;
use crate::cache::BlockCache;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::sink::{Body, Meta, Sink};
use crate::store::{DiffId, Layer, LayerId};
use crate::transfer::error::TransferError;
use crate::transfer::tar::layer_from_tar_recorded;
use crate::types::{Name, Time, name};

struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), BlockCache::new(1 << 20)).unwrap();
    Place { dir, store }
}

impl Place {
    /// Imports a tar. Returns the layer and the diff ID.
    fn import(&self, bytes: &[u8]) -> (Arc<Layer>, DiffId) {
        let mut build = self.store.build().unwrap();
        let mut recipe = self.store.recipes().begin().unwrap();
        let outcome =
            layer_from_tar_recorded(bytes, &mut build.builder, Some(&mut recipe)).unwrap();
        let recipe = recipe.finish().unwrap();
        let (id, written) = self.store.publish_written(build).unwrap();
        let layer = self.store.layer(&id).unwrap();
        let diff_id = DiffId::Tar(outcome.diff_id);
        self.store.recipes().keep(recipe, &diff_id, &layer, &written).unwrap();
        (layer, diff_id)
    }

    /// The path of a recipe.
    fn recipe(&self, diff_id: &DiffId) -> PathBuf {
        self.dir.path().join("recipes").join(diff_id.tar().unwrap().hex())
    }

    fn export(&self, layer: &Layer, diff_id: &DiffId) -> Result<Vec<u8>, TransferError> {
        let mut bytes = Vec::new();
        write_layer(self.store.recipes(), layer, diff_id, &mut bytes).map(|_| bytes)
    }

    fn build(&self, fill: impl FnOnce(&mut dyn Sink)) -> Arc<Layer> {
        let mut build = self.store.build().unwrap();
        fill(&mut build.builder);
        self.store.layer(&self.store.publish(build).unwrap()).unwrap()
    }
}

/// The diff ID of a layer that was made without a tar.
fn no_tar() -> DiffId {
    DiffId::Tree(LayerId::of(b"no tar"))
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn path(text: &str) -> Vec<Name> {
    text.split('/').filter(|part| !part.is_empty()).map(|part| name(part.as_bytes())).collect()
}

fn append(tar: &mut Builder<Vec<u8>>, kind: EntryType, at: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o640);
    header.set_size(data.len() as u64);
    header.set_mtime(77);
    tar.append_data(&mut header, at, data).unwrap();
}

/// A tar with many kinds of members, and more bytes after its end.
fn sample() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    append(&mut tar, EntryType::Directory, "d/", b"");
    append(&mut tar, EntryType::Regular, "d/short", b"short");
    append(&mut tar, EntryType::Regular, "d/empty", b"");
    append(&mut tar, EntryType::Regular, "d/middle", &noise(5000));
    append(&mut tar, EntryType::Regular, &format!("{}f", "long/".repeat(40)), &noise(129));
    append(&mut tar, EntryType::Regular, "large", &noise(700_001));
    append(&mut tar, EntryType::Regular, "zeroes", &[0; 300_000]);
    append(&mut tar, EntryType::Regular, "same", &noise(5000));
    tar.append_pax_extensions([("comment", &b"hello"[..])]).unwrap();
    append(&mut tar, EntryType::Regular, "d/.wh.gone", b"");
    let mut bytes = tar.into_inner().unwrap();
    bytes.extend(noise(3000));
    bytes
}

#[test]
fn what_was_imported_is_written_again_to_the_byte() {
    let place = place();
    let bytes = sample();
    let (layer, diff_id) = place.import(&bytes);
    assert!(place.export(&layer, &diff_id).unwrap() == bytes);
    let recipe = place.recipe(&diff_id);
    let len = fs::metadata(&recipe).unwrap().len();
    assert!(len < 8000, "contents are not kept twice: {len} bytes");
}

#[test]
fn a_name_that_is_given_twice_is_written_twice() {
    let mut holes = noise(900_000);
    holes[200_000..600_000].fill(0);
    holes[800_000..].fill(0);
    let contents = [noise(500), holes, noise(100_000), noise(300_000), noise(20), noise(501)];
    let place = place();
    let mut tar = Builder::new(Vec::new());
    for content in &contents {
        append(&mut tar, EntryType::Regular, "f", content);
    }
    append(&mut tar, EntryType::Regular, "g", &contents[2]);
    let tar = tar.into_inner().unwrap();
    let (layer, diff_id) = place.import(&tar);
    assert_eq!(place.store.recipes().all().unwrap(), std::slice::from_ref(&diff_id));
    assert!(place.export(&layer, &diff_id).unwrap() == tar);
    // The layer already exists when it is imported again.
    let (again, _) = place.import(&tar);
    assert_eq!(again.id(), layer.id());
    assert!(place.export(&again, &diff_id).unwrap() == tar);
    assert_eq!(fs::read_dir(place.dir.path().join("recipes")).unwrap().count(), 1);
}

#[test]
fn what_a_tar_has_beside_its_contents_may_be_long() {
    let place = place();
    let mut tar = Builder::new(Vec::new());
    append(&mut tar, EntryType::Regular, "f", &noise(500));
    append(&mut tar, EntryType::Regular, "f", &noise(501));
    let tar = tar.into_inner().unwrap();
    let mut recipe = place.store.recipes().begin().unwrap();
    let mut build = place.store.build().unwrap();
    // The bytes after the end of a tar are part of its digest.
    let long = tar.chain(io::repeat(0).take(600 << 20));
    let read = layer_from_tar_recorded(long, &mut build.builder, Some(&mut recipe)).unwrap();
    let diff_id = DiffId::Tar(read.diff_id);
    let (id, written) = place.store.publish_written(build).unwrap();
    let layer = place.store.layer(&id).unwrap();
    let recipes = place.store.recipes();
    recipes.keep(recipe.finish().unwrap(), &diff_id, &layer, &written).unwrap();
    let found = write_layer(recipes, &layer, &diff_id, &mut io::sink()).unwrap();
    assert_eq!(Some(&found), diff_id.tar());
    let kept = place.recipe(&diff_id);
    assert!(fs::metadata(kept).unwrap().len() < 1 << 20);
}

#[test]
fn a_changed_recipe_is_told() {
    let place = place();
    let (layer, diff_id) = place.import(&sample());
    let file = place.recipe(&diff_id);
    let good = fs::read(&file).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        fs::write(&file, &bad).unwrap();
        // A change of an unused byte of a zstd frame has no effect.
        match place.export(&layer, &diff_id) {
            Ok(bytes) => assert!(bytes == sample(), "{at}"),
            Err(
                TransferError::Store(StoreError::Damaged { .. }) | TransferError::Unwritable { .. },
            ) => {}
            Err(error) => panic!("{at}: {error}"),
        }
    }
    fs::write(&file, &good[..good.len() - 9]).unwrap();
    assert!(matches!(
        place.export(&layer, &diff_id),
        Err(TransferError::Store(StoreError::Damaged { .. }))
    ));
    // With another layer: the recipe needs a file that is not there.
    fs::write(&file, &good).unwrap();
    let other = place.build(|sink| sink.whiteout(&path("x")).unwrap());
    assert!(matches!(
        place.export(&other, &diff_id),
        Err(TransferError::Store(StoreError::Damaged { .. }))
    ));
}

fn meta(mode: u32) -> Meta {
    let mut meta = Meta { mode, uid: 3_000_000, gid: 4, ..Meta::default() };
    meta.mtime = Time { secs: -3, nanos: 250_000_000 };
    meta.xattrs.insert(b"user.a".to_vec(), b"x=\n\0y".to_vec());
    meta
}

#[test]
fn a_layer_survives_a_tar_of_our_own() {
    let place = place();
    let layer = place.build(|sink| {
        let mut put = |at: &str, body: Body<'_>| sink.put(&path(at), meta(0o4755), body).unwrap();
        put("", Body::Dir);
        put("d", Body::Dir);
        put(&format!("d/{}", "n".repeat(200)), Body::Fifo);
        put("char", Body::Char { major: 1, minor: 3 });
        put("block", Body::Block { major: 259, minor: 70_000 });
        put("soft", Body::Symlink { target: b"t".repeat(300) });
        put("name \u{1f332}", Body::Symlink { target: b"/\xff".to_vec() });
        let mut holes = noise(4096);
        holes.resize(1 << 20, 0);
        holes.extend(noise(100));
        holes.resize(2 << 20, 0);
        for (at, data) in [("file", &noise(200_000)[..]), ("holes", &holes), ("none", &[])] {
            put(at, Body::File { size: data.len() as u64, data: &mut &data[..] });
        }
        let mut nothing = io::repeat(0).take(5 << 20);
        put("all-hole", Body::File { size: 5 << 20, data: &mut nothing });
        sink.link(&path("d/hard"), &path("file")).unwrap();
        sink.link(&path("a-hard"), &path("holes")).unwrap();
        sink.whiteout(&path("d/gone")).unwrap();
        sink.opaque(&path("d")).unwrap();
    });
    let bytes = place.export(&layer, &no_tar()).unwrap();
    assert!(bytes.len() < 250_000, "holes stay holes: {}", bytes.len());
    assert_eq!(bytes, place.export(&layer, &no_tar()).unwrap(), "the same each time");
    // Names, attributes and contents are all in the tar; the order of the blob is that of the
    // stream.
    let (again, _) = place.import(&bytes);
    assert!(place.export(&again, &no_tar()).unwrap() == bytes);
    assert_eq!(again.index().inodes().len(), layer.index().inodes().len());
}

#[test]
fn an_implied_directory_stays_implied_in_a_tar() {
    let place = place();
    let layer = place.build(|sink| {
        sink.put(&path("tmp/x"), meta(0o644), Body::Fifo).unwrap();
        sink.whiteout(&path("a/b/gone")).unwrap();
        sink.opaque(&path("o")).unwrap();
    });
    let bytes = place.export(&layer, &no_tar()).unwrap();
    let mut names = Vec::new();
    for entry in ::tar::Archive::new(&bytes[..]).entries().unwrap() {
        names.push(String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned());
    }
    assert_eq!(names, ["a/b/.wh.gone", "o/.wh..wh..opq", "tmp/x"]);
    let (again, _) = place.import(&bytes);
    assert_eq!(again.id(), layer.id());
}

#[test]
fn what_no_tar_can_hold_is_refused_by_name() {
    let place = place();
    let layer = place.build(|sink| {
        sink.put(&path("d/.wh.x"), Meta::default(), Body::Fifo).unwrap();
    });
    let error = place.export(&layer, &no_tar()).unwrap_err();
    assert!(error.to_string().contains("d/.wh.x"), "{error}");
}

//! Detection of damaged layers, and their replacement as a whole.
//!
//! When a layer is built again whose stored copy is damaged, the new one takes its place in one
//! step. Mounts that have the old one open keep it, with its remaining intact frames.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use super::error::{Result, StoreError};
use super::files::{NEW, open_dir};
use super::id::LayerId;
use super::layer::Layer;
use super::{Store, remote};
use crate::error::FromHost;
use crate::sys;
use crate::types::RenameFlags;

impl Store {
    /// Whether a layer exists and its stored bytes are intact. All of it is read, and nothing is
    /// decompressed.
    #[must_use]
    pub fn is_sound(&self, id: &LayerId) -> bool {
        let dir = self.layers.join(id.as_str());
        let checked = self.opens(&dir, id).map(|layer| layer.first_difference());
        match checked {
            Ok(None) => true,
            Ok(Some(what)) => {
                tracing::warn!(layer = %id, what, "a layer is damaged");
                false
            }
            Err(StoreError::Missing { .. }) => false,
            Err(error) => {
                tracing::warn!(layer = %id, %error, "a layer is damaged");
                false
            }
        }
    }

    /// Opens a layer and reads it from the disk again, even while it is open elsewhere.
    ///
    /// # Errors
    /// As [`Store::layer`].
    pub fn layer_anew(&self, id: &LayerId) -> Result<std::sync::Arc<Layer>> {
        self.opens(&self.layers.join(id.as_str()), id)
    }

    fn opens(&self, dir: &Path, id: &LayerId) -> Result<std::sync::Arc<Layer>> {
        if !dir.exists() {
            return Err(StoreError::Missing { kind: "layer", name: id.to_string() });
        }
        let layer = Layer::open(dir, id.clone(), &self.reading)?;
        layer.confirm()?;
        Ok(layer)
    }

    /// Whether a new layer must replace the existing one with its id.
    pub(super) fn is_to_be_replaced(&self, id: &LayerId) -> bool {
        let target = self.layers.join(id.as_str());
        // Missing frames of a lazy layer, and those that the disk lost, are fetched anyway.
        match remote::is_partial(&target) {
            true => self.opens(&target, id).is_err(),
            false => !self.is_sound(id),
        }
    }

    /// Puts a new layer, all of it on the disk, in the place of a damaged one.
    pub(super) fn replace(&self, dir: &Path, id: &LayerId) -> Result<()> {
        let name = dir.file_name().unwrap_or_default().as_encoded_bytes();
        let parent = open_dir(&self.layers)?;
        let exchange = RenameFlags { exchange: true, ..RenameFlags::default() };
        let (from, to) = ((parent.as_fd(), name), (parent.as_fd(), id.as_str().as_bytes()));
        sys::dir::renameat2(from, to, exchange).map_err(StoreError::host(dir))?;
        sys::file::fsync(parent.as_fd()).map_err(StoreError::host(&self.layers))?;
        self.open.remove(id);
        tracing::warn!(layer = %id, "a damaged layer was replaced");
        fs::remove_dir_all(dir).map_err(StoreError::io(dir))
    }

    /// Returns a function that removes everything that this process is adding to the store. It is
    /// called when a signal ends the process.
    pub fn leaving(&self) -> impl FnOnce() + Send + use<> {
        let dirs = [self.layers.clone(), self.recipes.directory().to_owned()];
        move || dirs.iter().for_each(|dir| remove_own(dir))
    }
}

/// Attempts to remove a directory while another thread may still write to it.
const ATTEMPTS: u32 = 100;

fn remove_own(dir: &Path) {
    let own = format!("{NEW}{}-", std::process::id());
    for _ in 0..ATTEMPTS {
        let Ok(entries) = fs::read_dir(dir) else { return };
        let names = entries.flatten().map(|entry| entry.path());
        let is_own = |path: &std::path::PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&own))
        };
        let left: Vec<_> = names.filter(is_own).collect();
        let remove = |path: &std::path::PathBuf| match path.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
        if left.iter().filter(|path| remove(path).is_err()).count() == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    use crate::error::Errno;
    use crate::store::tests::{content, noise, place, put};

    #[test]
    fn a_damaged_layer_is_replaced_and_its_readers_go_on() {
        let place = place();
        let fill = |sink: &mut dyn crate::store::sink::Sink| {
            put(sink, "a", &noise(200_000, 1));
            put(sink, "b", &noise(200_000, 2));
        };
        let id = place.build(fill);
        let inode = |file| fs::metadata(place.file(&id, file)).unwrap().ino();
        let first = inode("data");
        place.build(fill);
        assert_eq!(inode("data"), first, "a sound one stays");
        type Change = dyn Fn(&mut Vec<u8>);
        let damages: [(&str, &Change); 4] = [
            ("data", &|bytes| bytes[100] ^= 1),
            ("data", &|bytes| bytes.truncate(250_000)),
            ("index", &|bytes| bytes[700] ^= 1),
            ("index", &|bytes| bytes.clear()),
        ];
        // Held to the end, since a free inode number may be given to another file.
        let mut held = Vec::new();
        for (file, damage) in damages {
            let open = place.store.layer(&id).unwrap();
            held.push(Arc::clone(&open));
            let path = place.file(&id, file);
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            // In place, like a fault of the disk: open files see the change.
            let was = inode(file);
            fs::write(&path, &bytes).unwrap();
            assert_eq!(inode(file), was);
            assert!(!place.store.is_sound(&id), "{file}");
            assert_eq!(place.build(fill), id);
            assert_ne!(inode("data"), first, "{file}");
            assert!(place.store.is_sound(&id), "{file}");
            let new = place.store.layer(&id).unwrap();
            assert!(!Arc::ptr_eq(&open, &new));
            assert!(content(&new, "a").unwrap() == noise(200_000, 1));
            if file == "data" {
                assert_eq!(content(&open, "a").or(content(&open, "b")).is_ok(), bytes.len() > 9);
                let lost = [content(&open, "a"), content(&open, "b")];
                assert!(lost.iter().any(|read| read.is_err()));
                for read in lost.into_iter().filter_map(Result::err) {
                    assert_eq!(read.errno(), Errno::IO);
                }
            }
        }
        assert_eq!(fs::read_dir(place.dir.path().join("layers")).unwrap().count(), 1);
    }

    #[test]
    fn what_a_process_was_at_goes_with_it() {
        let place = place();
        let leave = place.store.leaving();
        let kept = place.build(|sink| put(sink, "f", b"f"));
        let _build = place.store.build().unwrap();
        let _recipe = place.store.recipes().begin().unwrap();
        leave();
        let names = |dir: &str| {
            let entries = fs::read_dir(place.dir.path().join(dir)).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
        };
        assert_eq!(names("layers"), [kept.as_str()]);
        assert!(names("recipes").is_empty());
    }
}

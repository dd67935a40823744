//! Garbage collection of a data root: layers, recipes, downloads.

use std::collections::BTreeSet;

use super::failure::Refusal;
use super::images::Images;
use crate::store::LayerId;
use crate::store::error::StoreError;
use crate::volume::{self, union};

type Result<T> = std::result::Result<T, Refusal>;

impl Images {
    /// Removes all layers that no image, container or volume needs and no process reads, and the
    /// remains of crashes. Returns the ids of the layers, each of which `on_removed` gets before.
    /// Waits for an import that is running.
    ///
    /// # Errors
    /// Errors of reading the records: if a record cannot be read, nothing is removed.
    pub(super) fn collect_layers(
        &self,
        on_removed: &mut dyn FnMut(&LayerId),
    ) -> Result<Vec<LayerId>> {
        let Self { store, images, containers, .. } = self;
        let _alone = images.collecting()?;
        containers.sweep()?;
        if let Err(error) = volume::settle(&self.volumes) {
            tracing::warn!(%error, "layers without a container stay");
        }
        let (all, of_containers) = (images.all()?, containers.all()?);
        let (_stacks, of_volumes) = union::image_layers(&self.volumes)?;
        let needed: BTreeSet<&LayerId> = all
            .iter()
            .map(|(image, _)| image)
            .chain(of_containers.iter().map(|container| &container.image))
            .flat_map(|image| &image.layers)
            .map(|layer| &layer.id)
            .collect();
        let mut removed = Vec::new();
        for id in store.layers()? {
            if needed.contains(&id) || of_volumes.contains(&id.to_string()) {
                continue;
            }
            match store.remove_layer(&id) {
                Ok(()) => {
                    on_removed(&id);
                    removed.push(id);
                }
                Err(StoreError::InUse { .. } | StoreError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        store.sweep()?;
        let tars = all.iter().map(|(image, _)| image);
        let tars = tars.chain(of_containers.iter().map(|container| &container.image));
        let tars = tars.flat_map(|image| &image.layers).map(|layer| layer.diff_id.clone());
        store.recipes().collect(&tars.collect())?;
        let there = store.layers()?.iter().map(LayerId::to_string).collect();
        store.packed().collect(&there)?;
        crate::transfer::registry::download::sweep(&self.downloads)?;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::images::{Image, ImageLayer};
    use super::*;
    use crate::catalog::error::CatalogError;
    use crate::store::sink::Sink;
    use crate::store::{DiffId, Store};
    use crate::types::name;

    fn place() -> (tempfile::TempDir, Images) {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path()).unwrap();
        (dir, images)
    }

    fn layer(store: &Store, file: &str) -> ImageLayer {
        let mut build = store.build().unwrap();
        build.builder.opaque(&[name(file.as_bytes())]).unwrap();
        let id = store.publish(build).unwrap();
        ImageLayer { diff_id: DiffId::Tree(id.clone()), id, digest: None, size: 1 }
    }

    fn image(digit: char, layers: Vec<ImageLayer>) -> Image {
        let id = digit.to_string().repeat(64);
        Image { id, layers, config: b"{}".to_vec(), manifest: None }
    }

    #[test]
    fn collection_takes_what_nobody_needs_and_nothing_else() {
        let (dir, place) = place();
        let layers = ["base", "held", "loose"].map(|file| layer(&place.store, file));
        let kept = layer(&place.store, "of a container");
        let of_container = image('e', vec![kept.clone()]);
        let made = place.containers.create(None, ("e", of_container), Vec::new(), |_| Ok(()));
        place.images.put(&image('b', vec![layers[0].clone()]), &["b".to_owned()]).unwrap();
        let held = place.store.layer(&layers[1].id).unwrap();
        let other = Images::open(dir.path()).unwrap();
        let removed = other.collect_layers(&mut |_| {}).unwrap();
        assert_eq!(removed, [layers[2].id.clone()]);
        place.containers.remove(&made.unwrap()).unwrap();
        let removed = other.collect_layers(&mut |_| {}).unwrap();
        assert_eq!(removed, [kept.id]);
        drop(held);
        assert_eq!(other.collect_layers(&mut |_| {}).unwrap(), [layers[1].id.clone()]);
        place.images.remove("b").unwrap();
        assert_eq!(other.collect_layers(&mut |_| {}).unwrap(), [layers[0].id.clone()]);
    }

    #[test]
    fn collection_waits_for_an_import() {
        let (_dir, place) = place();
        let importing = place.images.importing().unwrap();
        let new = layer(&place.store, "new");
        std::thread::scope(|scope| {
            let collected = scope.spawn(|| place.collect_layers(&mut |_| {}).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!collected.is_finished());
            place.images.put(&image('c', vec![new]), &["c".to_owned()]).unwrap();
            drop(importing);
            assert_eq!(collected.join().unwrap(), []);
        });
    }

    #[test]
    fn a_damaged_record_is_named_and_stops_the_collection() {
        let (dir, place) = place();
        let one = image('d', vec![layer(&place.store, "l")]);
        place.images.put(&one, &["d".to_owned()]).unwrap();
        std::fs::write(dir.path().join("images").join(&one.id), "nonsense").unwrap();
        assert!(matches!(place.images.find("d"), Err(CatalogError::Damaged { .. })));
        assert!(place.collect_layers(&mut |_| {}).is_err());
        assert_eq!(place.store.layers().unwrap().len(), 1);
    }
}

//! Removing images that nothing uses, and the layers that are freed with them.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::Serialize;

use super::failure::Refusal;
use super::images::{Image, Images};
use super::volumes::OnProgress;
use crate::store::LayerId;
use crate::volume::union;

type Result<T> = std::result::Result<T, Refusal>;

/// Which images are removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct PruneImages {
    /// Those with a name too, and not only those without one.
    pub all: bool,
    /// Those that were made before a time. An image that does not tell its time stays then.
    pub until: Option<SystemTime>,
    /// Nothing is removed.
    pub dry_run: bool,
}

/// A layer that was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FreedLayer {
    /// The id.
    pub id: String,
    /// Bytes in the store.
    pub size: u64,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Freed {
    /// The images: their names, or their ids if they had none.
    pub images: Vec<String>,
    /// The layers.
    pub layers: Vec<FreedLayer>,
}

impl Freed {
    /// The bytes of the layers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

impl Images {
    /// Gives an image a further name.
    ///
    /// # Errors
    /// `Missing` and `BadName` of [`Refusal::Catalog`].
    pub fn tag(&self, source: &str, name: &str) -> Result<()> {
        let _kept = self.images.importing()?;
        let image = self.images.find(source)?;
        Ok(self.images.put(&image, &[name.to_owned()])?)
    }

    /// Removes images that no container uses, and then the layers that nothing needs.
    ///
    /// # Errors
    /// [`Refusal`] if a record cannot be read; then no layer is removed.
    pub fn prune(&self, which: &PruneImages) -> Result<Freed> {
        let (images, gone) = {
            // No container of an image is made meanwhile, and no image.
            let _alone = self.images.collecting()?;
            let found = self.prunable(which)?;
            if !which.dry_run {
                for (image, _) in &found {
                    self.images.remove(&image.id)?;
                }
            }
            let shown = |(image, names): &(Image, Vec<String>)| match &names[..] {
                [] => vec![image.id.clone()],
                names => names.to_vec(),
            };
            let gone: BTreeSet<String> = found.iter().map(|(image, _)| image.id.clone()).collect();
            (found.iter().flat_map(shown).collect(), gone)
        };
        let layers =
            if which.dry_run { self.unneeded(&gone)? } else { self.collect_freed(&mut |_, _| {})? };
        Ok(Freed { images, layers })
    }

    /// Removes the layers that nothing needs and no process reads, as [`Images::collect`] does.
    /// `progress` receives the bytes of the removed layers, and how many there are at most.
    ///
    /// # Errors
    /// As [`Images::collect`].
    pub fn collect_freed(&self, progress: &mut OnProgress<'_>) -> Result<Vec<FreedLayer>> {
        let mut sizes = self.unneeded(&BTreeSet::new())?;
        let (mut done, of) = (0, sizes.iter().map(|layer| layer.size).sum());
        if of > 0 {
            progress(0, of);
        }
        let removed = self.collect_reporting(&mut |id| {
            let size = sizes.iter().find(|layer| layer.id == id.to_string());
            done += size.map_or(0, |layer| layer.size);
            progress(done, of);
        })?;
        let removed: BTreeSet<String> = removed.into_iter().collect();
        sizes.retain(|layer| removed.contains(&layer.id));
        Ok(sizes)
    }

    /// The layers that no image, container or volume needs. A process may still read some of them.
    ///
    /// # Errors
    /// [`Refusal`] if a record cannot be read.
    pub fn collectable(&self) -> Result<Vec<FreedLayer>> {
        self.unneeded(&BTreeSet::new())
    }

    fn prunable(&self, which: &PruneImages) -> Result<Vec<(Image, Vec<String>)>> {
        let used: BTreeSet<String> =
            self.containers.all()?.into_iter().map(|container| container.image.id).collect();
        let is_old = |image: &Image| {
            let Some(until) = which.until else { return true };
            let config: serde_json::Value =
                serde_json::from_slice(&image.config).unwrap_or_default();
            let created = config.get("created").and_then(serde_json::Value::as_str);
            created
                .and_then(|text| humantime::parse_rfc3339(text).ok())
                .is_some_and(|created| created < until)
        };
        let mut all = self.images.all()?;
        all.retain(|(image, names)| {
            (which.all || names.is_empty()) && !used.contains(&image.id) && is_old(image)
        });
        Ok(all)
    }

    /// The layers that nothing needs but the images of these ids.
    pub(super) fn unneeded(&self, without: &BTreeSet<String>) -> Result<Vec<FreedLayer>> {
        let (_stacks, of_volumes) = union::image_layers(&self.volumes)?;
        let (images, containers) = (self.images.all()?, self.containers.all()?);
        let images = images.iter().map(|(image, _)| image).filter(|one| !without.contains(&one.id));
        let needed: BTreeSet<&LayerId> = images
            .chain(containers.iter().map(|container| &container.image))
            .flat_map(|image| &image.layers)
            .map(|layer| &layer.id)
            .collect();
        let mut found = Vec::new();
        for id in self.store.layers()? {
            if !needed.contains(&id) && !of_volumes.contains(&id.to_string()) {
                found.push(FreedLayer { size: self.store.size(&id)?, id: id.to_string() });
            }
        }
        Ok(found)
    }
}

//! Verification: reads everything in a data root again and compares it with its digests.

use std::sync::Arc;

use serde::Serialize;

use super::failure::Refusal;
use super::images::{Image, ImageLayer, Images};
use super::import::{OnProgress, Progress};
use crate::store::{Damage, DiffId, Layer, LayerId};
use crate::transfer::export::write_layer;

type Result<T> = std::result::Result<T, Refusal>;

/// A result of a verification.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The id of the layer; empty for a finding outside layers.
    pub layer: String,
    /// The difference.
    pub what: String,
    /// The affected files.
    pub files: Vec<String>,
}

impl Finding {
    fn of_none(what: String) -> Self {
        Self { layer: String::new(), what, files: Vec::new() }
    }
}

impl Images {
    /// Reads the layers and recipes of an image again, or of all images and then also records,
    /// names and materialised files. Returns the differences.
    ///
    /// # Errors
    /// `Missing` of [`Refusal::Catalog`] for the image; as readdir(3).
    pub fn verify(
        &self,
        name: Option<&str>,
        progress: &mut OnProgress<'_>,
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let images: Vec<Image> = match name {
            Some(name) => vec![self.images.find(name)?],
            None => {
                let (images, damaged) = self.images.verify()?;
                findings.extend(damaged.into_iter().map(Finding::of_none));
                let (containers, damaged) = self.containers.verify()?;
                findings.extend(damaged.into_iter().map(Finding::of_none));
                let damaged = self.store.verify_materials()?.into_iter();
                findings.extend(damaged.map(|Damage { what, files }| Finding {
                    layer: String::new(),
                    what,
                    files,
                }));
                let of_containers = containers.into_iter().map(|container| container.image);
                images.into_iter().chain(of_containers).collect()
            }
        };
        let mut needed: Vec<&ImageLayer> = images.iter().flat_map(|image| &image.layers).collect();
        needed.sort_by(|a, b| (&a.id, &a.diff_id).cmp(&(&b.id, &b.diff_id)));
        needed.dedup_by(|a, b| (&a.id, &a.diff_id) == (&b.id, &b.diff_id));
        let mut ids: Vec<LayerId> = needed.iter().map(|one| one.id.clone()).collect();
        if name.is_none() {
            ids.extend(self.store.layers()?);
        }
        ids.sort();
        ids.dedup();
        let of = ids.len();
        for (at, id) in ids.into_iter().enumerate() {
            let size = self.store.size(&id).unwrap_or(0);
            progress(&Progress::Layer { number: at + 1, of, layer: id.to_string(), size });
            let recipes = needed.iter().filter(|layer| layer.id == id);
            let recipes: Vec<&DiffId> = recipes.map(|layer| &layer.diff_id).collect();
            findings.extend(self.verify_layer(&id, &recipes, progress));
        }
        Ok(findings)
    }

    fn verify_layer(
        &self,
        id: &LayerId,
        diff_ids: &[&DiffId],
        progress: &mut OnProgress<'_>,
    ) -> Vec<Finding> {
        let finding = |what, files| Finding { layer: id.to_string(), what, files };
        let open = match self.store.layer_anew(id) {
            Ok(open) => open,
            Err(error) => return vec![finding(error.to_string(), Vec::new())],
        };
        let damage = open.verify_with(&mut |bytes| progress(&Progress::Read { bytes }));
        let damage = damage.into_iter();
        let damage: Vec<_> = damage.map(|Damage { what, files }| finding(what, files)).collect();
        // A recipe takes contents from the layer: all of them must be there and intact.
        if !damage.is_empty() || open.missing() > 0 {
            return damage;
        }
        let recipes = diff_ids.iter().filter_map(|diff_id| self.verify_recipe(diff_id, &open));
        recipes.map(|what| finding(what, Vec::new())).collect()
    }

    fn verify_recipe(&self, diff_id: &DiffId, layer: &Arc<Layer>) -> Option<String> {
        let recipes = self.store.recipes();
        if !recipes.has(diff_id) {
            return None;
        }
        let found = write_layer(recipes, layer, diff_id, &mut std::io::sink());
        let error = found.err()?;
        Some(format!("the recipe of its tar {diff_id}: {error}"))
    }

    /// Returns a function that removes everything that this process is adding to the store. It is
    /// called when a signal ends the process.
    pub fn leaving(&self) -> impl FnOnce() + Send + use<> {
        self.store.leaving()
    }
}

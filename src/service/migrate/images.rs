//! Images: which there are, and how each gets into the store.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Migration;
use super::engine::Client;
use super::error::{MigrateError, Reason, Result};
use super::report::{How, ImageItem, Names, OnStep, Outcome, Step};
use super::target::Target;
use crate::catalog::name::{candidates, full_name};
use crate::service::failure::Refusal;
use crate::service::images::Images;
use crate::service::import::{Progress, import_found, import_stream};
use crate::transfer::archive::{FoundImage, FoundLayer};
use crate::transfer::engine::{EngineImages, Listed};
use crate::transfer::error::TransferError;
use crate::types::Digest;

/// Where images are read.
pub(super) enum ImageAccess {
    /// In the storage.
    Storage(EngineImages),
    /// The engine makes archives, since its storage has another form or may not be read.
    Archives,
    /// Images are not wanted.
    Nowhere,
}

impl ImageAccess {
    pub(super) fn of(
        opened: std::result::Result<EngineImages, TransferError>,
        client: &Client,
    ) -> std::result::Result<Self, TransferError> {
        match opened {
            Ok(images) => Ok(Self::Storage(images)),
            Err(error) if matches!(client, Client::Nobody) => Err(error),
            Err(TransferError::Unsupported { .. }) => Ok(Self::Archives),
            Err(TransferError::Host(error))
                if error.source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Ok(Self::Archives)
            }
            Err(error) => Err(error),
        }
    }
}

/// An image that is wanted.
pub(super) struct PlannedImage {
    pub item: ImageItem,
    listed: Listed,
    found: Option<FoundImage>,
}

/// The images that are wanted.
#[derive(Default)]
pub(super) struct Planned {
    pub all: Vec<PlannedImage>,
    pub left_out: usize,
}

impl Planned {
    pub(super) fn needed_bytes(&self) -> u64 {
        let taken = self.all.iter().filter(|one| one.item.outcome == Outcome::Take);
        taken.map(|one| one.item.bytes).sum()
    }
}

/// What the store has.
#[derive(Default)]
struct There {
    /// The names of whole images, by id.
    images: HashMap<String, Vec<String>>,
    /// The ids of images by name.
    names: BTreeMap<String, String>,
    /// The diff IDs of layers, also of those that are planned.
    layers: HashSet<Digest>,
}

impl There {
    fn read(images: Option<&Images>) -> Result<Self> {
        let Some(images) = images else { return Ok(Self::default()) };
        let layers = images.known_layers()?;
        let mut there = Self::default();
        let is_here = |layer: &crate::service::images::ImageLayer| {
            layer.diff_id.tar().is_none_or(|id| layers.contains_key(id))
        };
        for (image, names) in images.images.all()? {
            there.names.extend(names.iter().map(|name| (name.clone(), image.id.clone())));
            if image.layers.iter().all(is_here) {
                there.images.insert(image.id, names);
            }
        }
        there.layers = layers.into_keys().collect();
        Ok(there)
    }
}

impl Migration {
    pub(super) fn plan_images(&self, target: &Target, names: &mut Names<'_>) -> Result<Planned> {
        let (listed, sizes) = match &self.images {
            ImageAccess::Nowhere => return Ok(Planned::default()),
            ImageAccess::Storage(images) => {
                let listed = images.list().map_err(|error| self.of_storage(error))?;
                (listed, HashMap::new())
            }
            ImageAccess::Archives => {
                let saved = self.client.images()?;
                let sizes = saved.iter().map(|one| (one.listed.id.clone(), one.size)).collect();
                (saved.into_iter().map(|one| one.listed).collect(), sizes)
            }
        };
        let mut planned = Planned::default();
        let mut there = There::read(target.images.as_ref())?;
        let wanted = match names.is_empty() {
            true => listed,
            false => selected(&listed, names),
        };
        for listed in wanted {
            let is_unnamed = listed.names.is_empty() && listed.digest_names.is_empty();
            if is_unnamed && names.is_empty() && !self.selection.all {
                planned.left_out += 1;
                continue;
            }
            let size = sizes.get(&listed.id).copied().unwrap_or(0);
            planned.all.push(self.plan_image(listed, size, &mut there));
        }
        Ok(planned)
    }

    fn of_storage(&self, error: TransferError) -> MigrateError {
        MigrateError::Storage { engine: self.kind, path: self.info.storage.clone(), error }
    }

    fn plan_image(&self, mut listed: Listed, size: u64, there: &mut There) -> PlannedImage {
        let mut notes = Vec::new();
        let id = listed.id.hex().to_owned();
        listed.names.retain(|name| match full_name(name) {
            Ok(full) => {
                if let Some(old) = there.names.get(&full).filter(|old| **old != id) {
                    let old = old.get(..12).unwrap_or(old);
                    notes.push(format!("{full} names another image here, {old}, until now"));
                }
                true
            }
            Err(error) => {
                notes.push(format!("without the name: {error}"));
                false
            }
        });
        let how = match self.images {
            ImageAccess::Storage(_) => How::Storage,
            ImageAccess::Archives | ImageAccess::Nowhere => How::Archive,
        };
        let (names, outcome) = (listed.names.clone(), Outcome::Take);
        let (layers, reason, hint) = (0, None, None);
        let mut item =
            ImageItem { id, names, outcome, how, layers, bytes: size, reason, hint, notes };
        let mut found = None;
        if is_present(&listed, there) {
            (item.outcome, item.bytes) = (Outcome::Present, 0);
        } else if let ImageAccess::Storage(images) = &self.images {
            match images.image(&listed) {
                Err(error) => item.refuse(self.unread(&listed, error.into())),
                Ok(image) => {
                    for layer in &image.layers {
                        if there.layers.insert(layer.diff_id.clone()) {
                            item.layers += 1;
                            item.bytes += layer.size;
                        }
                    }
                    found = Some(image);
                }
            }
        }
        PlannedImage { item, listed, found }
    }

    /// An error of one image, with the way that the engine itself has.
    fn unread(&self, listed: &Listed, error: Reason) -> Reason {
        let id = listed.id.hex();
        let name = listed.names.first().map_or(id.get(..12).unwrap_or(id), String::as_str);
        let program = self.kind.program();
        let hint = format!("{program} save {name} | lamina image import -");
        let is_of_host = error.hint.as_ref().is_some_and(|hint| hint.starts_with("free space"));
        if is_of_host { error } else { Reason::new(error.text, hint) }
    }

    pub(super) fn take_image(
        &self,
        target: &Target,
        planned: PlannedImage,
        step: &mut OnStep<'_>,
    ) -> ImageItem {
        let PlannedImage { mut item, listed, found } = planned;
        let Some(images) = target.images.as_ref().filter(|_| item.outcome == Outcome::Take) else {
            return item;
        };
        let name = item.names.first().unwrap_or(&item.id);
        step(&Step::Begins { what: format!("image {name}"), bytes: item.bytes });
        (item.layers, item.bytes) = (0, 0);
        let mut before = 0;
        let mut progress = |event: &Progress| match event {
            Progress::Layer { .. } => {
                item.layers += 1;
                before = item.bytes;
            }
            Progress::Read { bytes } => {
                item.bytes = before + bytes;
                step(&Step::Bytes(item.bytes));
            }
            _ => {}
        };
        let taken = match (&self.images, &found) {
            (ImageAccess::Storage(engine), Some(image)) => {
                let mut open = |layer: &FoundLayer| Ok(engine.layer(layer)?);
                import_found(images, &mut open, image, &listed.names, &mut progress)
                    .map_err(Reason::from)
            }
            _ => self.client.save(&listed.id).map_err(Reason::from).and_then(|from| {
                let from = (from, &listed.id);
                let done = import_stream(images, from, &listed.names, &mut progress);
                done.map_err(Reason::from)
            }),
        };
        let taken = taken.and_then(|id| Ok(digest_names(images, &id, &listed, found.as_ref())?));
        match taken {
            Ok(()) => item.outcome = Outcome::Taken,
            Err(error) => item.refuse(self.unread(&listed, error)),
        }
        item
    }
}

/// Whether the store has an image under all its names.
fn is_present(listed: &Listed, there: &There) -> bool {
    let Some(names) = there.images.get(listed.id.hex()) else { return false };
    let has = |name: &String| full_name(name).is_ok_and(|full| names.contains(&full));
    listed.names.iter().all(has)
}

/// Keeps the names with digests. An image with its manifest is found by it without them.
fn digest_names(
    images: &Images,
    id: &str,
    listed: &Listed,
    found: Option<&FoundImage>,
) -> std::result::Result<(), Refusal> {
    if found.is_some_and(|image| image.manifest.is_some()) {
        return Ok(());
    }
    for name in &listed.digest_names {
        if let Err(error) = images.images.put_digest_name(id, name) {
            tracing::debug!(%error, name, "a name with a digest is left out");
        }
    }
    Ok(())
}

/// The images that are named, each with the names by which it is wanted, or with all of them where
/// its id is named.
fn selected(listed: &[Listed], names: &mut Names<'_>) -> Vec<Listed> {
    let mut by_name: HashMap<String, &Listed> = HashMap::new();
    for image in listed {
        let full = image.names.iter().filter_map(|name| full_name(name).ok());
        by_name.extend(full.map(|name| (name, image)));
    }
    let mut wanted: BTreeMap<Digest, Listed> = BTreeMap::new();
    for text in names.iter() {
        let full = full_name(text).map(|full| candidates(&full)).unwrap_or_default();
        let named = full.into_iter().find_map(|name| Some((*by_name.get(&name)?, Some(name))));
        let digits = text.trim_start_matches("sha256:");
        let mut like = listed.iter().filter(|one| one.id.hex().starts_with(digits));
        let by_id = match (digits.len() >= 3, like.next(), like.next()) {
            (true, Some(image), None) => Some((image, None)),
            _ => None,
        };
        let Some((image, name)) = named.or(by_id) else { continue };
        names.found(text);
        let none = Listed { names: Vec::new(), ..image.clone() };
        let one = wanted.entry(image.id.clone()).or_insert(none);
        let is_wanted = |own: &&String| match &name {
            Some(name) => full_name(own).is_ok_and(|full| full == *name),
            None => true,
        };
        for own in image.names.iter().filter(is_wanted) {
            if !one.names.contains(own) {
                one.names.push(own.clone());
            }
        }
    }
    wanted.into_values().collect()
}

//! Images in the storage of container engines, read in place.
//!
//! Docker's graph drivers and containers/storage keep a layer as a tree, and beside it what a tar
//! has and a tree does not, in the form of tar-split: headers and padding, in order. Both together
//! give the bytes of the layer as it was pulled or built, which its diff ID proves. Nothing is
//! written, the engine is not asked, and it may run: layers of images do not change, and one that
//! is removed meanwhile is an error.
//!
//! The storage may belong to another user, who could write anything there. Names in it are checked
//! before they are part of a path, and such a storage is read beneath its root without following a
//! link.

mod docker;
mod podman;
mod split;
mod storage;

use std::io::Read;
use std::path::Path;

use super::archive::{FoundImage, FoundLayer};
use super::error::TransferError;
use crate::types::Digest;

use storage::Storage;

/// Which engine writes a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Docker's, below `/var/lib/docker`.
    Docker,
    /// That of podman, buildah and CRI-O, below `/var/lib/containers/storage`.
    Podman,
}

/// An image of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The digest of its configuration.
    pub id: Digest,
    /// The names with tags.
    pub names: Vec<String>,
    /// The names with digests, as `NAME@sha256:DIGITS`.
    pub digest_names: Vec<String>,
}

/// The images of an engine.
pub struct EngineImages {
    form: Form,
    storage: Storage,
    driver: String,
}

impl EngineImages {
    /// Opens the storage of an engine. Without a driver, it is the one that the storage shows.
    ///
    /// # Errors
    /// [`TransferError::Unsupported`] for a driver whose layers are not trees that can be read in
    /// place; [`TransferError::Host`].
    pub fn open(form: Form, root: &Path, driver: Option<&str>) -> Result<Self, TransferError> {
        let storage = Storage::open(root)?;
        let driver = match (form, driver) {
            (Form::Docker, driver) => docker::driver(&storage, driver)?,
            (Form::Podman, driver) => podman::driver(&storage, driver)?,
        };
        Ok(Self { form, storage, driver })
    }

    /// All images, those without a name at the end.
    ///
    /// # Errors
    /// [`TransferError`] for a list that cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, TransferError> {
        let mut images = match self.form {
            Form::Docker => docker::list(&self.storage, &self.driver)?,
            Form::Podman => podman::list(&self.storage, &self.driver)?,
        };
        let key = |image: &Listed| (image.names.is_empty(), image.names.first().cloned());
        images.sort_by_cached_key(|image| (key(image), image.id.clone()));
        Ok(images)
    }

    /// Reads an image: its configuration, and which layers it has. The size of a layer is that of
    /// its tar.
    ///
    /// # Errors
    /// [`TransferError`] if a part is missing, malformed, or does not have its digest.
    pub fn image(&self, listed: &Listed) -> Result<FoundImage, TransferError> {
        match self.form {
            Form::Docker => docker::image(&self.storage, &self.driver, listed),
            Form::Podman => podman::image(&self.storage, &self.driver, listed),
        }
    }

    /// The tar of a layer.
    ///
    /// # Errors
    /// [`TransferError`] if it is not there any more.
    pub fn layer(&self, layer: &FoundLayer) -> Result<Box<dyn Read>, TransferError> {
        let (split, files) = match self.form {
            Form::Docker => docker::places(&self.storage, &self.driver, layer.part())?,
            Form::Podman => podman::places(&self.driver, layer.part()),
        };
        let files = self.storage.directory(&files)?;
        Ok(Box::new(split::SplitReader::new(self.storage.file(&split)?, files)?))
    }
}

/// The layer with the tar-split of a path of the storage.
fn stored(
    storage: &Storage,
    split: &str,
    part: String,
    diff_id: Digest,
) -> Result<FoundLayer, TransferError> {
    let size = split::stream_bytes(storage.file(split)?)
        .map_err(|error| super::stream::failed(split, error))?;
    Ok(FoundLayer::stored(part, diff_id, size))
}

//! The creation of volumes.

use super::{Images, NewVolume, Result, Volume, VolumeService, parts, place, prepared};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::Begun;
use crate::volume::{self, Chosen, Spec, VolumeError};

/// The option of the driver `union` that names the image of the first content.
const FROM: &str = "from";

impl VolumeService {
    /// Makes a volume. One that exists is left as it is, unless another driver was named.
    ///
    /// # Errors
    /// [`CatalogError::Exists`] where one of another driver has the name; those of the driver.
    pub fn create(&self, new: NewVolume) -> Result<Volume> {
        self.ensure(new).map(|(volume, _)| volume)
    }

    /// As [`VolumeService::create`], with whether the volume was made.
    ///
    /// # Errors
    /// As [`VolumeService::create`].
    pub fn ensure(&self, mut new: NewVolume) -> Result<(Volume, bool)> {
        let is_union = |driver: &String| driver == volume::union::NAME;
        let is_named = new.driver.is_some();
        if new.driver.as_ref().is_none_or(is_union)
            && let Some(image) = new.options.remove(FROM)
        {
            new.driver.get_or_insert_with(|| volume::union::NAME.to_owned());
            return self.ensure_from(new, &image, is_named);
        }
        let (driver, spec, record) = prepared(new)?;
        match self.volumes.begin(&record)? {
            Begun::Exists(found) => same_driver(found, is_named.then(|| driver.name())),
            Begun::New(growing) => {
                let place = place(growing.volume());
                match self.make(&driver, growing.volume(), spec.clone()) {
                    Ok(()) => Ok((self.volumes.finish(growing)?, true)),
                    Err(error) => {
                        drop(driver.unmount(&place, &spec));
                        self.volumes.give_up(&growing);
                        Err(error)
                    }
                }
            }
        }
    }

    /// Makes the content of a volume that has a row already: of two that are made at once, each
    /// sees what the other one was promised.
    fn make(&self, driver: &Chosen, volume: &Volume, spec: Spec) -> Result<()> {
        let promised_bytes = match spec.limits.size_bytes {
            Some(_) => self.promised_but(&volume.id)?,
            None => 0,
        };
        Ok(driver.create(&place(volume), &Spec { promised_bytes, ..spec })?)
    }

    /// The free bytes of the host that all volumes but one were promised.
    pub(super) fn promised_but(&self, id: &str) -> Result<u64> {
        let mut bytes = 0_u64;
        for other in self.volumes.sized_but(id)? {
            let promised = parts(&other)
                .and_then(|(driver, spec)| Ok(driver.promised_bytes(&place(&other), &spec)?));
            bytes = bytes.saturating_add(promised.unwrap_or_else(|error| {
                tracing::warn!(%error, name = %other.name, "a volume counts with its whole size");
                other.size_bytes.unwrap_or(0)
            }));
        }
        Ok(bytes)
    }

    /// Makes a volume of the driver `union` whose first content is that of an image in the store.
    /// The layers are shared, and kept while the volume, a snapshot or a clone of it needs them.
    ///
    /// # Errors
    /// [`VolumeError::Option`] for another driver; [`CatalogError::Missing`] for the image;
    /// [`CatalogError::Exists`] for the volume.
    pub fn create_from(&self, new: NewVolume, image: &str) -> Result<Volume> {
        if new.driver.as_ref().is_none_or(|driver| driver != volume::union::NAME) {
            let (key, value) = (FROM.to_owned(), image.to_owned());
            let reason = "the driver union alone shows an image: use --driver union".to_owned();
            return Err(VolumeError::Option { driver: "lamina", key, value, reason }.into());
        }
        let (kind, name) = ("volume", new.name.to_string());
        match self.ensure_from(new, image, true)? {
            (made, true) => Ok(made),
            (_, false) => Err(CatalogError::Exists { kind, name }.into()),
        }
    }

    fn ensure_from(&self, new: NewVolume, image: &str, named: bool) -> Result<(Volume, bool)> {
        let (driver, spec, record) = prepared(new)?;
        let images = Images::open(&self.root)?;
        let _kept = images.images.importing()?;
        let layers = images.layer_ids(image)?;
        let growing = match self.volumes.begin(&record)? {
            Begun::New(growing) => growing,
            Begun::Exists(found) => return same_driver(found, named.then(|| driver.name())),
        };
        let place = place(growing.volume());
        let made = self.make(&driver, growing.volume(), spec);
        match made.and_then(|()| Ok(volume::union::set_image(&place, layers)?)) {
            Ok(()) => Ok((self.volumes.finish(growing)?, true)),
            Err(error) => {
                self.volumes.give_up(&growing);
                Err(error)
            }
        }
    }
}

/// A volume that exists, unless it has another driver than a request names.
fn same_driver(found: Volume, wanted: Option<&str>) -> Result<(Volume, bool)> {
    if wanted.is_none_or(|wanted| found.driver == wanted) {
        return Ok((found, false));
    }
    let name = format!("{} (driver {})", found.name, found.driver);
    Err(CatalogError::Exists { kind: "volume", name }.into())
}

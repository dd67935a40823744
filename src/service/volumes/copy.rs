//! Copies of volumes and snapshots that have options and limits of their own from the beginning.

use std::collections::BTreeMap;

use super::{Limits, Result, Volume, VolumeService, parts, place};
use crate::types::VolumeName;
use crate::volume::{Spec, VolumeError};

/// A copy to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCopy {
    /// The name.
    pub name: VolumeName,
    /// The options of the driver, without limits.
    pub options: BTreeMap<String, String>,
    /// The limits; those of the source where there is none. A copy is not smaller than its source.
    pub limits: Limits,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

impl VolumeService {
    /// Makes a volume of a volume or of a snapshot (`VOLUME@SNAPSHOT`, or the id of one), with
    /// other options and a larger size. Nobody sees it before it has them. The host needs the space
    /// that the copy may take, beside what other volumes were promised.
    ///
    /// # Errors
    /// [`CatalogError::Missing`](crate::catalog::error::CatalogError::Missing),
    /// [`CatalogError::Exists`](crate::catalog::error::CatalogError::Exists);
    /// [`VolumeError::NoSpace`]; those of the driver. An error or a crash leaves no volume.
    pub fn copy_as(&self, source: &str, new: NewCopy) -> Result<Volume> {
        let source = self.find_source(source)?;
        let (driver, has) = parts(&source)?;
        let mut wanted = Spec { options: new.options, limits: new.limits, promised_bytes: 0 };
        wanted.limits = driver.rounded(&wanted, wanted.limits.or(has.limits));
        driver.check(&wanted)?;
        let like = Volume {
            options: wanted.options.clone(),
            size_bytes: wanted.limits.size_bytes,
            inodes: wanted.limits.inodes,
            ..source.clone()
        };
        let growing = self.begin_copy(new.name, String::new(), &like, new.labels)?;
        let place = place(growing.volume());
        wanted.promised_bytes = self.promised_but(&growing.volume().id)?;
        let made = self.copy_to(&source, &place).and_then(|()| {
            if wanted.limits != has.limits {
                let before = Spec { limits: has.limits, ..wanted.clone() };
                driver.resize(&place, &before, wanted.limits)?;
            }
            self.require_room(driver.promised_bytes(&place, &wanted)?, wanted.promised_bytes)
        });
        match made {
            Ok(()) => Ok(self.volumes.finish(growing)?),
            Err(error) => {
                drop(driver.unmount(&place, &wanted));
                self.volumes.give_up(&growing);
                Err(error)
            }
        }
    }

    /// Refuses a volume that may take `needed_bytes` more, where others were promised `promised`.
    fn require_room(&self, needed_bytes: u64, promised: u64) -> Result<()> {
        let free_bytes = self.free()?.saturating_sub(promised);
        if needed_bytes <= free_bytes {
            return Ok(());
        }
        let path = self.root.clone();
        Err(VolumeError::NoSpace { path, needed_bytes, free_bytes }.into())
    }
}

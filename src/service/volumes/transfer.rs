//! Volumes as tars, and the changes between their snapshots.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{NewVolume, OnProgress, Volume, VolumeService};
use crate::error::FromHost;
use crate::service::failure::Refusal;
use crate::transfer::error::TransferError;
use crate::transfer::{export, tar};
use crate::tree::diff::{ChangeSource, Compared, Narrow};
use crate::types::Name;
use crate::volume::union::{self, delta::Delta};

pub use crate::transfer::export::{Compression, Exported, FileTarget};
pub use crate::transfer::tar::Unpacked;
pub use crate::tree::diff::{Change, ChangeKind};
pub use crate::tree::error::TreeError;

impl VolumeService {
    /// Writes the content of a volume or of a snapshot as a tar. A volume may change meanwhile; its
    /// snapshot does not.
    ///
    /// # Errors
    /// [`CatalogError::Missing`](crate::catalog::error::CatalogError::Missing); those of the
    /// driver, of the host and of `out`.
    pub fn export(
        &self,
        source: &str,
        out: &mut dyn Write,
        progress: Option<&mut OnProgress<'_>>,
    ) -> Result<Exported, Refusal> {
        let content = self.open_content(source)?;
        let mut on_bytes = content.on_bytes(progress);
        Ok(export::export_tree(content.data(), out, &mut on_bytes)?)
    }

    /// Makes a volume of a tar, plain or compressed with gzip or zstd. Nobody sees the volume
    /// before it is whole.
    ///
    /// # Errors
    /// [`CatalogError::Exists`](crate::catalog::error::CatalogError::Exists); [`TransferError`] for
    /// a bad archive. An error or a crash leaves no volume.
    pub fn import(
        &self,
        new: NewVolume,
        archive: impl Read,
    ) -> Result<(Volume, Unpacked), Refusal> {
        self.create_filled(new, |data| Ok(tar::unpack(archive, data)?))
    }

    /// Reports the changes between two contents, each a volume or a snapshot.
    ///
    /// # Errors
    /// As [`VolumeService::export`]; errors of `report`.
    pub fn changes(
        &self,
        old: &str,
        new: &str,
        report: &mut dyn FnMut(&Change<'_>) -> Result<(), TreeError>,
    ) -> Result<(), Refusal> {
        let (old, new) = (self.open_content(old)?, self.open_content(new)?);
        let layers = further_layers(&old.volume, &new.volume)?.map(FurtherLayers);
        let narrow = layers.as_ref().map(|layers| layers as &dyn Narrow);
        let (old, new) = (old.data().to_owned(), new.data().to_owned());
        let source = Compared { old, new, narrow };
        Ok(source.changes(report).map_err(TransferError::from)?)
    }
}

/// The layers that only one of two snapshots of the driver `union` has above those of the other.
fn further_layers(old: &Volume, new: &Volume) -> Result<Option<Delta>, Refusal> {
    let is_fixed = |one: &Volume| one.driver == union::NAME && !one.origin.is_empty();
    if !is_fixed(old) || !is_fixed(new) {
        return Ok(None);
    }
    Ok(Delta::between(old.directory(), new.directory())?)
}

/// Looks at the names in the further layers alone.
struct FurtherLayers(Delta);

impl Narrow for FurtherLayers {
    fn names(&self, path: &[u8]) -> Result<Option<Vec<Name>>, TreeError> {
        let shown = Path::new(std::ffi::OsStr::from_bytes(path));
        self.0.names(path).map_err(TreeError::host(shown))
    }
}

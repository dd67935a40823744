//! Backups of volumes to an object store or a directory, and what comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{NewVolume, OnProgress, Result, Volume, VolumeService};
use crate::backup::{self, write::Task};

use crate::types::Limits;
use crate::volume::{Spec, driver};

pub use crate::backup::error::BackupError;
pub use crate::backup::key::Key;
pub use crate::backup::prune::{Checked, Pruned, beyond_last, check, prune};
pub use crate::backup::read::Restored;
pub use crate::backup::write::Done;
pub use crate::backup::{Manifest, Repository, Site, Subject, Traffic};

impl VolumeService {
    /// Makes a backup of a volume or of a snapshot (`VOLUME@SNAPSHOT`, or the id of one). The
    /// content of a volume is that of one moment where the driver has snapshots; else it is read as
    /// it is ([`Manifest::still`]).
    ///
    /// # Errors
    /// [`CatalogError::Missing`](crate::catalog::error::CatalogError::Missing); those of the
    /// driver; [`BackupError`]. An error or a crash leaves no backup.
    pub fn backup(
        &self,
        source: &str,
        repository: &Arc<Repository>,
        labels: BTreeMap<String, String>,
        progress: Option<&mut OnProgress<'_>>,
    ) -> Result<Done> {
        let (content, still) = self.open_still(source)?;
        let subject = self.subject(&content.volume, source)?;
        let task = Task { volume: subject, labels, still };
        let mut on_bytes = content.on_bytes(progress);
        Ok(backup::write::backup(repository, content.data(), task, &mut on_bytes)?)
    }

    /// Describes the volume of a backup. A snapshot belongs to its volume, which may be gone.
    fn subject(&self, content: &Volume, source: &str) -> Result<Subject> {
        let volumes = self.volumes.list()?;
        let origin = volumes.iter().find(|volume| volume.id == content.origin);
        // A snapshot that was made for this backup alone has a name that means nothing.
        let is_named = source.contains('@') || source == content.id;
        let is_snapshot = !content.origin.is_empty() && is_named;
        let snapshot = is_snapshot.then(|| content.name.to_string());
        let id = if content.origin.is_empty() { &content.id } else { &content.origin };
        Ok(Subject {
            id: id.clone(),
            name: origin.unwrap_or(content).name.to_string(),
            snapshot,
            driver: content.driver.clone(),
            options: content.options.clone(),
            labels: content.labels.clone(),
            size_bytes: content.size_bytes,
            inodes: content.inodes,
        })
    }

    /// Makes a volume of a backup. Nobody sees it before it is whole. Without a driver in `new` it
    /// gets the driver, options and limits of the volume of the backup, and its labels in any case;
    /// a volume on a directory of the host or on a share becomes one of the driver `local`.
    ///
    /// # Errors
    /// [`CatalogError::Exists`](crate::catalog::error::CatalogError::Exists); [`BackupError`] with
    /// the name of a file whose data is damaged or missing. An error or a crash leaves no volume.
    pub fn restore(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        new: NewVolume,
        mut progress: Option<&mut OnProgress<'_>>,
    ) -> Result<(Volume, Restored)> {
        let new = resembling(&manifest.volume, new);
        let mut on_bytes = |bytes| {
            if let Some(progress) = &mut progress {
                progress(bytes, manifest.data_bytes);
            }
        };
        self.create_filled(new, |data| {
            Ok(backup::read::restore(repository, manifest, data, &mut on_bytes)?)
        })
    }
}

fn resembling(subject: &Subject, mut new: NewVolume) -> NewVolume {
    for (key, value) in &subject.labels {
        new.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let limits = Limits { size_bytes: subject.size_bytes, inodes: subject.inodes };
    let spec = Spec { options: subject.options.clone(), limits, ..Spec::default() };
    let is_known = driver(&subject.driver).is_ok_and(|driver| driver.is_private(&spec));
    if new.driver.is_some() || !is_known {
        return new;
    }
    new.driver = Some(subject.driver.clone());
    let limits = [("size", subject.size_bytes), ("inodes", subject.inodes)];
    let limits = limits.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let limits = limits.map(|(key, value)| (key, value.to_string()));
    for (key, value) in subject.options.clone().into_iter().chain(limits) {
        new.options.entry(key).or_insert(value);
    }
    new
}

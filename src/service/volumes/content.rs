//! The content of a volume or of a snapshot, as verbs that read it use it, and volumes that are
//! made with a content.

use std::path::Path;

use super::{
    NewVolume, OnProgress, Result, Volume, VolumeService, parts, place, prepared, require_files,
    settle,
};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::{Begun, Locked, OpenVolume};
use crate::service::failure::Refusal;
use crate::store::files::sync_file_system;
use crate::types::VolumeName;
use crate::volume::{Chosen, Spec, VolumeError};

/// The names of snapshots that a verb makes for its own time begin with it.
const PASSING: &str = "lamina-passing-";

/// Attempts to use a snapshot that another process takes for the rest of a crash.
const TRIES: usize = 4;

/// The content of a volume or of a snapshot. It is mounted and nobody removes it while this lives.
pub(super) struct Content<'a> {
    service: &'a VolumeService,
    /// The record of before: the name may be another one by now.
    pub(super) volume: Volume,
    open: Option<OpenVolume>,
    /// Whether the snapshot is removed at the end.
    passes: bool,
}

impl Content<'_> {
    /// The directory of the content.
    pub(super) fn data(&self) -> &Path {
        self.open.as_ref().map_or(&self.volume.mountpoint, OpenVolume::data)
    }

    /// Adds the space in use to each report, as an estimate of all. It is measured only where
    /// somebody waits for it.
    pub(super) fn on_bytes<'p>(
        &self,
        mut progress: Option<&'p mut OnProgress<'_>>,
    ) -> impl FnMut(u64) + 'p {
        let of = if progress.is_some() { self.used_bytes().unwrap_or(0) } else { 0 };
        move |bytes| {
            if let Some(progress) = &mut progress {
                progress(bytes, of);
            }
        }
    }

    fn used_bytes(&self) -> Result<u64> {
        let (driver, spec) = parts(&self.volume)?;
        Ok(driver.usage(&place(&self.volume), &spec)?.used_bytes)
    }
}

impl Drop for Content<'_> {
    fn drop(&mut self) {
        self.open = None;
        if let Err(error) = self.service.end_use(&self.volume, self.passes) {
            tracing::warn!(%error, name = %self.volume.name, "a volume stays mounted");
        }
    }
}

impl VolumeService {
    /// Opens the content of a volume, or of a snapshot (`VOLUME@SNAPSHOT`, or the id of one).
    ///
    /// # Errors
    /// [`CatalogError::Missing`]; [`VolumeError::IsDevice`]; those of the driver.
    pub(super) fn open_content(&self, source: &str) -> Result<Content<'_>> {
        if source.contains('@') {
            return self.open_locked(self.volumes.lock_snapshot(source)?, false);
        }
        let name: VolumeName = source.parse().map_err(CatalogError::from)?;
        match self.volumes.lock(&name) {
            Err(CatalogError::Missing { kind, name }) => match self.volumes.lock_snapshot(source) {
                Err(CatalogError::Missing { .. }) => {
                    Err(CatalogError::Missing { kind, name }.into())
                }
                locked => self.open_locked(locked?, false),
            },
            locked => self.open_locked(locked?, false),
        }
    }

    /// Opens the content of a volume as it is at one moment, where the driver has snapshots: the
    /// snapshot goes at the end. Else the content itself, which may change. A snapshot is opened as
    /// it is. Returns whether the content stays as it is.
    ///
    /// # Errors
    /// As [`VolumeService::open_content`].
    pub(super) fn open_still(&self, source: &str) -> Result<(Content<'_>, bool)> {
        let opened = self.open_content(source)?;
        if !opened.volume.origin.is_empty() {
            return Ok((opened, true));
        }
        self.remove_passed(&opened.volume)?;
        for _ in 0..TRIES {
            match self.open_passing(&opened.volume) {
                Err(Refusal::Volume(VolumeError::Unsupported { .. })) => {
                    return Ok((opened, false));
                }
                // Another process took it for the rest of a crash.
                Err(Refusal::Catalog(CatalogError::Missing { kind: "snapshot", .. })) => {}
                snapshot => return Ok((snapshot?, true)),
            }
        }
        let (kind, name) = ("volume", opened.volume.name.to_string());
        Err(CatalogError::Changed { kind, name }.into())
    }

    fn open_passing(&self, volume: &Volume) -> Result<Content<'_>> {
        let name = format!("{PASSING}{}", super::random_name()?);
        let name: String = name.chars().take(PASSING.len() + 16).collect();
        let name = VolumeName::try_from(name).map_err(CatalogError::from)?;
        let made = self.snapshot(&volume.name, Some(name))?;
        self.open_locked(self.volumes.lock_snapshot(&made.id)?, true)
    }

    /// Removes what crashes left, and the snapshots that were made for one command alone.
    ///
    /// # Errors
    /// [`Refusal::Catalog`]; those of a driver.
    pub fn tidy(&self) -> Result<()> {
        for volume in self.list()? {
            self.remove_passed(&volume)?;
        }
        self.sweep().map(drop)
    }

    /// Removes the snapshots of a volume that killed processes left.
    fn remove_passed(&self, volume: &Volume) -> Result<()> {
        for found in self.volumes.snapshots(Some(&volume.id))? {
            if !found.name.as_str().starts_with(PASSING) {
                continue;
            }
            match self.volumes.lock_snapshot(&found.id) {
                Err(CatalogError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(locked) if locked.is_idle()? => self.remove_for_good(locked)?,
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn open_locked(&self, locked: Locked, passes: bool) -> Result<Content<'_>> {
        let volume = locked.volume().clone();
        require_files(&volume)?;
        let (driver, spec) = parts(&volume)?;
        driver.mount(&place(&volume), &spec)?;
        match locked.open() {
            Ok(open) => Ok(Content { service: self, volume, open: Some(open), passes }),
            Err(error) => {
                settle(&locked)?;
                Err(error.into())
            }
        }
    }

    fn end_use(&self, volume: &Volume, passes: bool) -> Result<()> {
        let locked = match volume.origin.as_str() {
            "" => self.volumes.lock(&volume.name),
            _ => self.volumes.lock_snapshot(&volume.id),
        };
        match locked {
            // It has another name by now, or went: `prune` ends its mount.
            Err(CatalogError::Missing { .. }) => Ok(()),
            Ok(locked) if locked.volume().id != volume.id => Ok(()),
            Ok(locked) if passes && locked.is_idle()? => self.remove_for_good(locked),
            locked => {
                let locked = locked?;
                if self.volumes.is_held(locked.volume())? { Ok(()) } else { settle(&locked) }
            }
        }
    }

    /// Makes a volume whose content `fill` makes in a directory. Nobody sees the volume before it
    /// is whole and durable.
    ///
    /// # Errors
    /// [`CatalogError::Exists`]; those of the driver and of `fill`. An error or a crash leaves no
    /// volume.
    pub(in crate::service) fn create_filled<T, E: From<Refusal>>(
        &self,
        new: NewVolume,
        fill: impl FnOnce(&Path) -> std::result::Result<T, E>,
    ) -> std::result::Result<(Volume, T), E> {
        let (driver, spec, record) = prepared(new)?;
        require_private(&driver, &spec)?;
        if driver.is_device(&spec) {
            let name = record.name.to_string();
            return Err(Refusal::from(VolumeError::IsDevice { name }).into());
        }
        let growing = match self.volumes.begin(&record).map_err(Refusal::from)? {
            Begun::New(growing) => growing,
            Begun::Exists(found) => {
                let (kind, name) = ("volume", found.name.to_string());
                return Err(Refusal::from(CatalogError::Exists { kind, name }).into());
            }
        };
        let place = place(growing.volume());
        let made = driver.create(&place, &spec).and_then(|()| driver.mount(&place, &spec));
        let filled = made.map_err(|error| E::from(error.into())).and_then(|()| {
            let filled = fill(&place.data())?;
            // Its file system may not be that of the data root.
            let synced = sync_file_system(&place.data()).map_err(CatalogError::from);
            synced.map_err(Refusal::from)?;
            driver.unmount(&place, &spec).map_err(Refusal::from)?;
            Ok(filled)
        });
        match filled {
            Ok(filled) => {
                let volume = self.volumes.finish(growing).map_err(Refusal::from)?;
                Ok((volume, filled))
            }
            Err(error) => {
                if let Err(error) = driver.unmount(&place, &spec) {
                    let name = growing.volume().name.as_str();
                    tracing::warn!("volume {name:?} was not made, and stays mounted: {error}");
                }
                self.volumes.give_up(&growing);
                Err(error)
            }
        }
    }
}

/// Refuses a volume whose content would be where others see a part of it.
fn require_private(driver: &Chosen, spec: &Spec) -> Result<()> {
    let is_plain = driver.name() == super::DEFAULT_DRIVER && spec.options.is_empty();
    if !driver.is_private(spec) && !is_plain {
        let reason = "an error would leave a part of the content there; make the volume with \
                      --driver local and without --opt, or with --driver image"
            .to_owned();
        let (driver, verb) = ("lamina", "filling a directory of the host or a share");
        return Err(VolumeError::Unsupported { driver, verb, reason }.into());
    }
    Ok(())
}

//! Snapshots of volumes, and what is made of them: rollbacks and clones.

use std::time::SystemTime;

use super::{Result, Volume, VolumeService, parts, place};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::{Begun, NewVolume as NewRecord};
use crate::types::VolumeName;
use crate::volume::Place;

impl VolumeService {
    /// Makes a snapshot of a volume, which may be in use: its content as it is at one moment.
    /// Without a name it is called after the time.
    ///
    /// # Errors
    /// [`CatalogError::Exists`]; [`Unsupported`](crate::volume::VolumeError::Unsupported). A crash
    /// leaves no snapshot, or the whole one.
    pub fn snapshot(&self, name: &VolumeName, snapshot: Option<VolumeName>) -> Result<Volume> {
        let volume = self.volumes.find(name)?;
        let name = snapshot.map_or_else(now, Ok)?;
        self.copy(name, volume.id.clone(), &volume)
    }

    /// Makes a volume of a volume or of a snapshot (`VOLUME@SNAPSHOT`, or the id of one).
    ///
    /// # Errors
    /// As [`VolumeService::snapshot`].
    pub fn clone_volume(&self, source: &str, name: VolumeName) -> Result<Volume> {
        let found = match self.volumes.find_snapshot(source) {
            Err(CatalogError::Missing { .. }) if !source.contains('@') => {
                self.volumes.find(&source.parse().map_err(CatalogError::from)?)?
            }
            found => found?,
        };
        self.copy(name, String::new(), &found)
    }

    /// The snapshots of a volume, by name; those of all volumes without one.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn snapshots(&self, name: Option<&VolumeName>) -> Result<Vec<Volume>> {
        let origin = name.map(|name| self.volumes.find(name)).transpose()?;
        Ok(self.volumes.snapshots(origin.as_ref().map(|volume| volume.id.as_str()))?)
    }

    /// Removes a snapshot for good.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn remove_snapshot(&self, text: &str) -> Result<()> {
        let locked = self.volumes.lock_snapshot(text)?;
        let (driver, spec) = parts(locked.volume())?;
        locked.require_idle()?;
        driver.unmount(&place(locked.volume()), &spec)?;
        self.volumes.remove(locked)?;
        self.settle_shared();
        Ok(())
    }

    /// Gives a volume that nobody uses the content, and the limits, of one of its snapshots. What
    /// was written since is lost.
    ///
    /// # Errors
    /// [`CatalogError::InUse`], [`CatalogError::Missing`]. A crash leaves the old content or the
    /// new one.
    pub fn roll_back(&self, name: &VolumeName, snapshot: &VolumeName) -> Result<()> {
        let mut locked = self.volumes.lock(name)?;
        locked.require_idle()?;
        let from = self.volumes.lock_snapshot(&format!("{name}@{snapshot}"))?;
        let (driver, spec) = parts(locked.volume())?;
        let to = place(locked.volume());
        driver.unmount(&to, &spec)?;
        driver.replace(&to, &spec, &place(from.volume()))?;
        let limits = (from.volume().size_bytes, from.volume().inodes);
        Ok(self.volumes.set_limits(&mut locked, limits.0, limits.1)?)
    }

    /// Copies the content of `source` to a new volume, or to a new snapshot of `origin`.
    fn copy(&self, name: VolumeName, origin: String, source: &Volume) -> Result<Volume> {
        let kind = if origin.is_empty() { "volume" } else { "snapshot" };
        let record = NewRecord {
            name,
            driver: source.driver.clone(),
            options: source.options.clone(),
            labels: source.labels.clone(),
            size_bytes: source.size_bytes,
            inodes: source.inodes,
            origin,
        };
        let growing = match self.volumes.begin(&record)? {
            Begun::Exists(found) => {
                let name = found.name.to_string();
                return Err(CatalogError::Exists { kind, name }.into());
            }
            Begun::New(growing) => growing,
        };
        match self.copy_to(source, &place(growing.volume())) {
            Ok(()) => Ok(self.volumes.finish(growing)?),
            Err(error) => {
                self.volumes.give_up(&growing);
                Err(error)
            }
        }
    }

    /// Copies under the state lock of the source: it is neither removed nor resized meanwhile.
    fn copy_to(&self, source: &Volume, to: &Place) -> Result<()> {
        let locked = match source.origin.as_str() {
            "" => self.volumes.lock(&source.name)?,
            _ => self.volumes.lock_snapshot(&source.id)?,
        };
        let (now, seen) = (locked.volume(), source);
        if (&now.id, now.size_bytes, now.inodes) != (&seen.id, seen.size_bytes, seen.inodes) {
            let (kind, name) = ("volume", source.name.to_string());
            return Err(CatalogError::Changed { kind, name }.into());
        }
        let (driver, spec) = parts(now)?;
        Ok(driver.copy(&place(now), &spec, to)?)
    }
}

/// A name for a snapshot: the time to the second, as `20261128T233000Z`.
fn now() -> Result<VolumeName> {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let name: String = time.chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
    Ok(VolumeName::try_from(name).map_err(CatalogError::from)?)
}

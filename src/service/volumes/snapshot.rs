//! Snapshots of volumes, and what is made of them: rollbacks and clones.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::group::Taking;
use super::{CONTENT_LABEL, Result, Volume, VolumeService, parts, place};
use crate::catalog::error::{CatalogError, User};
use crate::catalog::volumes::{Begun, Growing, Locked, NewVolume as NewRecord, Volumes};
use crate::types::VolumeName;
use crate::volume::{Place, VolumeError, union};

type Labels = BTreeMap<String, String>;

/// What the labels of an object of Kubernetes begin with.
const OWNER: &str = "lamina.dev/";

/// The labels for a copy of a volume or a snapshot. A copy belongs to no object of Kubernetes.
pub(super) fn unowned(source: &Volume) -> Labels {
    let labels = source.labels.iter().filter(|(key, _)| !key.starts_with(OWNER));
    labels.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Refuses a snapshot that was made for a VolumeSnapshotContent of Kubernetes.
fn refuse_shown(snapshot: &Volume, text: &str) -> Result<()> {
    let Some(content) = snapshot.labels.get(CONTENT_LABEL) else { return Ok(()) };
    let (kind, name, by) = ("snapshot", text.to_owned(), User::Content(content.clone()));
    Err(CatalogError::InUse { kind, name, by }.into())
}

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
        self.copy(name, volume.id.clone(), &volume, unowned(&volume))
    }

    /// As [`VolumeService::snapshot`], with these labels instead of those of the volume.
    ///
    /// # Errors
    /// As [`VolumeService::snapshot`].
    pub fn snapshot_labelled(
        &self,
        name: &VolumeName,
        snapshot: VolumeName,
        labels: Labels,
    ) -> Result<Volume> {
        let volume = self.volumes.find(name)?;
        self.copy(snapshot, volume.id.clone(), &volume, labels)
    }

    /// Makes a volume of a volume or of a snapshot (`VOLUME@SNAPSHOT`, or the id of one).
    ///
    /// # Errors
    /// As [`VolumeService::snapshot`].
    pub fn clone_volume(&self, source: &str, name: VolumeName) -> Result<Volume> {
        let found = self.find_source(source)?;
        self.copy(name, String::new(), &found, unowned(&found))
    }

    /// As [`VolumeService::clone_volume`], with these labels instead of those of the source.
    ///
    /// # Errors
    /// As [`VolumeService::snapshot`].
    pub fn clone_labelled(&self, source: &str, name: VolumeName, labels: Labels) -> Result<Volume> {
        self.copy(name, String::new(), &self.find_source(source)?, labels)
    }

    /// Finds a snapshot of a volume (`VOLUME@SNAPSHOT`, or its id), whose volume may be gone.
    ///
    /// # Errors
    /// [`CatalogError::Missing`], also for a snapshot of the root of a container.
    pub fn inspect_snapshot(&self, text: &str) -> Result<Volume> {
        let found = self.volumes.find_snapshot(text)?;
        if found.origin.len() == found.id.len() {
            return Ok(found);
        }
        Err(CatalogError::Missing { kind: "snapshot", name: text.to_owned() }.into())
    }

    /// A volume, or a snapshot.
    pub(super) fn find_source(&self, source: &str) -> Result<Volume> {
        match self.volumes.find_snapshot(source) {
            Err(CatalogError::Missing { .. }) if !source.contains('@') => {
                Ok(self.volumes.find(&source.parse().map_err(CatalogError::from)?)?)
            }
            found => Ok(found?),
        }
    }

    /// The snapshots of a volume, by name; those of all volumes without one. Those of the roots of
    /// containers, whose ids are longer, are left out.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn snapshots(&self, name: Option<&VolumeName>) -> Result<Vec<Volume>> {
        let origin = name.map(|name| self.volumes.find(name)).transpose()?;
        let mut all = self.volumes.snapshots(origin.as_ref().map(|volume| volume.id.as_str()))?;
        all.retain(|snapshot| snapshot.origin.len() == snapshot.id.len());
        Ok(all)
    }

    /// Refuses a snapshot that was made for a VolumeSnapshot of Kubernetes, which removes it by
    /// itself.
    ///
    /// # Errors
    /// [`CatalogError::InUse`], [`CatalogError::Missing`].
    pub fn require_unshown(&self, text: &str) -> Result<()> {
        refuse_shown(&self.inspect_snapshot(text)?, text)
    }

    /// As [`VolumeService::remove_snapshot`], but not a snapshot that
    /// [`VolumeService::require_unshown`] refuses.
    ///
    /// # Errors
    /// [`CatalogError::InUse`], [`CatalogError::Missing`].
    pub fn remove_unshown_snapshot(&self, text: &str) -> Result<()> {
        let locked = self.lock_unused_snapshot(text)?;
        refuse_shown(locked.volume(), text)?;
        self.remove_for_good(locked)
    }

    /// Removes a snapshot for good.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn remove_snapshot(&self, text: &str) -> Result<()> {
        self.remove_for_good(self.lock_unused_snapshot(text)?)
    }

    /// Removes snapshots for good, by their ids: a crash leaves all of them, or none. One that is
    /// gone is not an error.
    ///
    /// # Errors
    /// [`CatalogError::InUse`].
    pub fn remove_snapshots(&self, mut ids: Vec<&str>) -> Result<()> {
        // In this order, so that two removals do not wait for each other.
        ids.sort_unstable();
        let mut all = Vec::new();
        for id in ids {
            match self.lock_unused_snapshot(id) {
                Err(error) if error.is_missing() => {}
                locked => all.push(locked?),
            }
        }
        self.volumes.remove_all(all)?;
        self.settle_shared();
        Ok(())
    }

    /// The content of a volume of the driver `union` as it is, or of one of its snapshots, which
    /// stays while the value lives.
    ///
    /// # Errors
    /// As [`VolumeService::snapshot`].
    pub(in crate::service) fn frozen(&self, text: &str) -> Result<Frozen<'_>> {
        let refuse = |volume: &Volume| match volume.driver == union::NAME {
            true => Ok(()),
            false => {
                let reason = "the driver union alone has layers".to_owned();
                let verb = "a commit to an image";
                Err(VolumeError::Unsupported { driver: "lamina", verb, reason })
            }
        };
        if text.contains('@') {
            let locked = self.volumes.lock_snapshot(text)?;
            refuse(locked.volume())?;
            return Ok(Frozen { volumes: &self.volumes, of: Held::Snapshot(locked) });
        }
        let volume = self.volumes.find(&text.parse().map_err(CatalogError::from)?)?;
        refuse(&volume)?;
        let passing = format!("lamina-commit-{}", volume.id).parse().map_err(CatalogError::from)?;
        let taken = self.take_all(vec![volume], Taking::named(&passing))?.into_iter().next();
        let missing = || CatalogError::Missing { kind: "volume", name: text.to_owned() };
        let of = Held::Passing(taken.ok_or_else(missing)?);
        Ok(Frozen { volumes: &self.volumes, of })
    }

    /// Takes the state lock of a snapshot that nobody uses, and ends its mount.
    fn lock_unused_snapshot(&self, text: &str) -> Result<Locked> {
        let locked = self.volumes.lock_snapshot(text)?;
        let (driver, spec) = parts(locked.volume())?;
        locked.require_idle()?;
        driver.unmount(&place(locked.volume()), &spec)?;
        Ok(locked)
    }

    /// Gives a volume that nobody uses the content, and the limits, of one of its snapshots. What
    /// was written since is lost.
    ///
    /// # Errors
    /// [`CatalogError::InUse`], [`CatalogError::Missing`]. A crash leaves the old content or the
    /// new one.
    pub fn roll_back(&self, name: &VolumeName, snapshot: &VolumeName) -> Result<()> {
        let mut locked = self.volumes.lock(name)?;
        self.require_unheld(&locked)?;
        locked.require_idle()?;
        let from = self.volumes.lock_snapshot(&format!("{name}@{snapshot}"))?;
        let (driver, spec) = parts(locked.volume())?;
        let to = place(locked.volume());
        self.end_unheld_device(&locked)?;
        driver.unmount(&to, &spec)?;
        driver.replace(&to, &spec, &place(from.volume()), &*self.on_copied)?;
        let limits = (from.volume().size_bytes, from.volume().inodes);
        self.volumes.set_limits(&mut locked, limits.0, limits.1)?;
        self.settle_shared();
        Ok(())
    }

    /// Copies the content of `source` to a new volume, or to a new snapshot of `origin`.
    fn copy(
        &self,
        name: VolumeName,
        origin: String,
        source: &Volume,
        labels: Labels,
    ) -> Result<Volume> {
        let growing = self.begin_copy(name, origin, source, labels)?;
        match self.copy_to(source, &place(growing.volume())) {
            Ok(()) => Ok(self.volumes.finish(growing)?),
            Err(error) => {
                self.volumes.give_up(&growing);
                Err(error)
            }
        }
    }

    /// Begins to make a volume like `source`, or a snapshot of `origin`.
    pub(super) fn begin_copy(
        &self,
        name: VolumeName,
        origin: String,
        source: &Volume,
        labels: Labels,
    ) -> Result<Growing> {
        let kind = if origin.is_empty() { "volume" } else { "snapshot" };
        let record = NewRecord {
            name,
            driver: source.driver.clone(),
            options: source.options.clone(),
            labels,
            size_bytes: source.size_bytes,
            inodes: source.inodes,
            origin,
        };
        match self.volumes.begin(&record)? {
            Begun::Exists(found) => {
                let name = match kind {
                    "snapshot" => format!("{}@{}", source.name, found.name),
                    _ => found.name.to_string(),
                };
                Err(CatalogError::Exists { kind, name }.into())
            }
            Begun::New(growing) => Ok(growing),
        }
    }

    /// Copies under the state lock of the source.
    pub(super) fn copy_to(&self, source: &Volume, to: &Place) -> Result<()> {
        let locked = self.lock_source(source)?;
        self.end_unheld_device(&locked)?;
        let (driver, spec) = parts(locked.volume())?;
        Ok(driver.copy(&place(locked.volume()), &spec, to, &*self.on_copied)?)
    }

    /// Takes the state lock of a volume that is copied: it is neither removed nor resized
    /// meanwhile.
    pub(super) fn lock_source(&self, source: &Volume) -> Result<Locked> {
        let locked = match source.origin.as_str() {
            "" => self.volumes.lock(&source.name)?,
            _ => self.volumes.lock_snapshot(&source.id)?,
        };
        let (now, seen) = (locked.volume(), source);
        if (&now.id, now.size_bytes, now.inodes) != (&seen.id, seen.size_bytes, seen.inodes) {
            let (kind, name) = ("volume", source.name.to_string());
            return Err(CatalogError::Changed { kind, name }.into());
        }
        Ok(locked)
    }
}

/// A content that does not change.
pub(in crate::service) struct Frozen<'a> {
    volumes: &'a Volumes,
    of: Held,
}

enum Held {
    Snapshot(Locked),
    /// A snapshot that nobody ever sees.
    Passing(Growing),
}

impl Frozen<'_> {
    /// The snapshot.
    pub(in crate::service) fn volume(&self) -> &Volume {
        match &self.of {
            Held::Snapshot(locked) => locked.volume(),
            Held::Passing(growing) => growing.volume(),
        }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Held::Passing(growing) = &self.of {
            self.volumes.give_up(growing);
        }
    }
}

/// A name for a snapshot: the time to the second, as `20261128T233000Z`.
pub(in crate::service) fn now() -> Result<VolumeName> {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let name: String = time.chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
    Ok(VolumeName::try_from(name).map_err(CatalogError::from)?)
}

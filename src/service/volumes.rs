//! Volumes, as front ends use them: the catalogue and the drivers together.
//!
//! Each verb takes the state lock of its volume and reads the record under it. A driver that hangs
//! holds the lock of its own volume alone.

mod adopt;
pub mod backup;
mod content;
pub mod copy;
mod device;
mod fill;
pub(in crate::service) mod group;
mod grow;
mod held;
mod make;
mod removal;
mod room;
pub(in crate::service) mod snapshot;
pub mod transfer;
mod trash;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::failure::Refusal;
use super::images::Images;
use crate::catalog::containers::Containers;
use crate::catalog::error::{CatalogError, User};
use crate::catalog::volumes::{Locked, NewVolume as NewRecord, OpenVolume, Volumes};
use crate::error::FromHost;
use crate::sys;
use crate::types::{Graft, VolumeName, hex, size};
use crate::volume::{self, Chosen, Place, Spec, VolumeError};

pub use crate::catalog::volumes::{Recovered, Trashed, Volume};
pub use crate::volume::{Limits, OnCopied, Usage};
pub(in crate::service) use fill::fill_in_place;
pub use trash::TrashPolicy;

type Result<T> = std::result::Result<T, Refusal>;

/// Receives the bytes of data that a transfer is done with, and about how many there are in all; 0
/// where that is not known.
pub type OnProgress<'a> = dyn FnMut(u64, u64) + 'a;

/// The label of a volume with the claim of Kubernetes (`NAMESPACE/NAME`) that it was made for.
pub const CLAIM_LABEL: &str = "lamina.dev/claim";

/// The label of a snapshot with the VolumeSnapshotContent of Kubernetes that it was made for.
pub const CONTENT_LABEL: &str = "lamina.dev/snapshot-content";

/// The driver of a volume for which none was named.
pub const DEFAULT_DRIVER: &str = "local";

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// The name.
    pub name: VolumeName,
    /// The driver; `None` for `local`.
    pub driver: Option<String>,
    /// Options of the driver, and `size` and `inodes`.
    pub options: BTreeMap<String, String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

impl NewVolume {
    /// A volume without options.
    #[must_use]
    pub const fn new(name: VolumeName) -> Self {
        Self { name, driver: None, options: BTreeMap::new(), labels: BTreeMap::new() }
    }
}

/// What a removal takes besides volumes without an owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removal {
    /// Volumes with recorded holders: engines forget theirs.
    pub takes_held: bool,
    /// Volumes that were made for a claim of Kubernetes, which removes them by itself.
    pub takes_claimed: bool,
    /// The content, which goes to the trash otherwise.
    pub takes_content: bool,
}

impl Removal {
    /// A volume of any owner goes to the trash.
    pub const FORCED: Self = Self { takes_held: true, takes_claimed: true, takes_content: false };
}

/// The volumes of a data root.
pub struct VolumeService {
    root: PathBuf,
    pub(super) volumes: Volumes,
    /// The volumes that holders of this process use, by id.
    held: Mutex<HashMap<String, OpenVolume>>,
    on_copied: Arc<OnCopied>,
}

impl VolumeService {
    /// Opens the volumes of a data root, which is made if it is missing.
    ///
    /// # Errors
    /// [`Refusal::Catalog`].
    pub fn open(root: &Path) -> Result<Self> {
        let volumes = Volumes::open(root)?.ended_by(end_content);
        let (root, held) = (root.to_owned(), Mutex::default());
        Ok(Self { root, volumes, held, on_copied: Arc::new(|_, _| {}) })
    }

    /// Reports the copies of images that snapshots, clones and rollbacks take.
    #[must_use]
    pub fn reporting(self, on_copied: Arc<OnCopied>) -> Self {
        Self { on_copied, ..self }
    }

    /// Finds a volume.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn inspect(&self, name: &VolumeName) -> Result<Volume> {
        Ok(self.volumes.find(name)?)
    }

    /// Finds a volume by its id, whatever its name is by now.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn find_id(&self, id: &str) -> Result<Volume> {
        Ok(self.volumes.find_id(id)?)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// [`Refusal::Catalog`].
    pub fn list(&self) -> Result<Vec<Volume>> {
        Ok(self.volumes.list()?)
    }

    /// The space that a volume uses.
    ///
    /// # Errors
    /// [`CatalogError::Missing`]; those of the driver.
    pub fn usage(&self, name: &VolumeName) -> Result<Usage> {
        let found = self.volumes.find(name)?;
        let (driver, spec) = parts(&found)?;
        Ok(driver.usage(&place(&found), &spec)?)
    }

    /// The data root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a mount, a container or a holder uses a volume.
    ///
    /// # Errors
    /// [`Refusal::Catalog`].
    pub fn is_used(&self, volume: &Volume) -> Result<bool> {
        if self.volumes.is_held(volume)? || self.container_of(&volume.name)?.is_some() {
            return Ok(true);
        }
        // A volume that another process works on is in use.
        match self.volumes.try_lock(&volume.name) {
            Ok(Some(locked)) => Ok(!locked.is_idle()?),
            Ok(None) => Ok(true),
            Err(CatalogError::Missing { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn require_no_container(&self, name: &VolumeName) -> Result<()> {
        let Some(container) = self.container_of(name)? else { return Ok(()) };
        Err(in_use(name, User::Container(container)))
    }

    /// The container that uses a volume, if there is one.
    fn container_of(&self, name: &VolumeName) -> Result<Option<String>> {
        if !self.root.join("containers").is_dir() {
            return Ok(None);
        }
        let all = Containers::open(&self.root)?.all()?;
        let uses = |graft: &Graft| graft.source.volume() == Some(name);
        let user = all.into_iter().find(|container| container.grafts.iter().any(uses));
        Ok(user.map(|container| container.name.into()))
    }

    /// Gives a volume another name. It may be in use by mounts.
    ///
    /// # Errors
    /// [`CatalogError::InUse`] by a container, an engine or a claim, which know it by its name;
    /// [`CatalogError::Missing`], [`CatalogError::Exists`].
    pub fn rename(&self, name: &VolumeName, to: &VolumeName) -> Result<()> {
        let locked = self.volumes.lock(name)?;
        self.require_unheld(&locked)?;
        require_unclaimed(&locked)?;
        self.require_no_container(name)?;
        Ok(self.volumes.rename(locked, to)?)
    }

    /// Sets labels, and removes those without a value. The volume may be in use.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn label(
        &self,
        name: &VolumeName,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Volume> {
        Ok(self.volumes.label(name, changes)?)
    }

    /// Changes the limits of a volume, which may be in use.
    ///
    /// # Errors
    /// [`CatalogError::Missing`]; those of the driver.
    pub fn resize(&self, name: &VolumeName, limits: Limits) -> Result<Volume> {
        let mut locked = self.volumes.lock(name)?;
        self.resize_locked(&mut locked, limits)?;
        Ok(locked.volume().clone())
    }

    /// Changes the limits on the speed of a volume, which may be in use: options of its driver; one
    /// without a value is removed.
    ///
    /// # Errors
    /// [`CatalogError::Missing`]; those of the driver.
    pub fn throttle(
        &self,
        name: &VolumeName,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Volume> {
        let mut locked = self.volumes.lock(name)?;
        let (driver, mut spec) = parts(locked.volume())?;
        for (key, value) in changes {
            match value {
                Some(value) => spec.options.insert(key.clone(), value.clone()),
                None => spec.options.remove(key),
            };
        }
        driver.throttle(&place(locked.volume()), &spec)?;
        self.volumes.set_options(&mut locked, spec.options)?;
        Ok(locked.volume().clone())
    }

    /// The volumes in the trash, the oldest removal first.
    ///
    /// # Errors
    /// [`Refusal::Catalog`].
    pub fn trashed(&self) -> Result<Vec<Trashed>> {
        Ok(self.volumes.trashed()?)
    }

    /// Brings a volume back from the trash, by its former name or its id.
    ///
    /// # Errors
    /// [`CatalogError::Missing`], [`CatalogError::Exists`].
    pub fn undelete(&self, text: &str, to: Option<&VolumeName>) -> Result<Volume> {
        Ok(self.volumes.undelete(text, to)?)
    }

    /// Removes a volume in the trash for good, and returns whether it was still there.
    ///
    /// # Errors
    /// [`Refusal::Catalog`].
    pub fn purge(&self, trashed: &Trashed) -> Result<bool> {
        let purged = self.volumes.purge(trashed)?;
        self.settle_shared();
        Ok(purged)
    }

    /// Enters the volumes whose directories the catalogue does not have.
    ///
    /// # Errors
    /// [`Refusal::Catalog`].
    pub fn recover(&self) -> Result<Recovered> {
        Ok(self.volumes.recover()?)
    }

    /// Removes what crashes left, and returns how many rests there were.
    ///
    /// # Errors
    /// [`Refusal::Catalog`].
    pub fn sweep(&self) -> Result<usize> {
        let swept = self.volumes.sweep()?;
        Ok(swept + volume::settle(&self.root.join("volumes"))?)
    }

    /// Removes what the volumes that are left do not share any more. What stays is found by the
    /// next sweep.
    fn settle_shared(&self) {
        if let Err(error) = volume::settle(&self.root.join("volumes")) {
            tracing::warn!(%error, "layers without a volume stay");
        }
    }
}

/// Names the program whose command `volume serve` serves volumes; the first call counts.
pub fn serve_by(program: PathBuf) {
    volume::union::set_program(program);
}

/// Lets only the holder of the data root start processes that serve volumes.
pub fn require_holder() {
    volume::union::require_holder();
}

/// A name of 64 random digits, for a volume that is created without one.
///
/// # Errors
/// As getrandom(2).
pub fn random_name() -> Result<VolumeName> {
    let random = sys::process::random().map_err(CatalogError::host(Path::new("getrandom")))?;
    Ok(VolumeName::try_from(hex::encode(&random)).map_err(CatalogError::from)?)
}

/// Ends the mount of an unused volume.
fn settle(locked: &Locked) -> Result<()> {
    if !locked.is_idle()? {
        return Ok(());
    }
    match unmount(locked) {
        // A process of the host uses it by its path; it is unmounted later.
        Err(Refusal::Volume(VolumeError::Busy { path })) => {
            tracing::debug!(path = %path.display(), "busy");
            Ok(())
        }
        done => done,
    }
}

/// Ends the mount or the device of a volume whose directory is there.
fn unmount(locked: &Locked) -> Result<()> {
    if !locked.volume().mountpoint.exists() {
        return Ok(());
    }
    let (driver, spec) = parts(locked.volume())?;
    driver.detach(&place(locked.volume()), &spec)?;
    Ok(driver.unmount(&place(locked.volume()), &spec)?)
}

/// Ends what the driver of a volume keeps outside its directory.
fn end_content(volume: &Volume) -> std::result::Result<(), String> {
    let end = || -> Result<()> {
        let (driver, spec) = parts(volume)?;
        Ok(driver.remove(&place(volume), &spec)?)
    };
    end().map_err(|error| error.to_string())
}

fn in_use(name: &VolumeName, by: User) -> Refusal {
    CatalogError::InUse { kind: "volume", name: name.to_string(), by }.into()
}

/// Refuses a volume that was made for a claim of Kubernetes, which removes it by itself.
fn require_unclaimed(locked: &Locked) -> Result<()> {
    match locked.volume().labels.get(CLAIM_LABEL) {
        Some(claim) => Err(in_use(&locked.volume().name, User::Claim(claim.clone()))),
        None => Ok(()),
    }
}

/// Whether a volume, or a snapshot, is a block device, which has no files.
#[must_use]
pub fn is_device(volume: &Volume) -> bool {
    parts(volume).is_ok_and(|(driver, spec)| driver.is_device(&spec))
}

/// Refuses a volume without files.
fn require_files(volume: &Volume) -> Result<()> {
    if is_device(volume) {
        return Err(VolumeError::IsDevice { name: volume.name.to_string() }.into());
    }
    Ok(())
}

fn place(volume: &Volume) -> Place {
    let directory = volume.directory().to_owned();
    if volume.origin.is_empty() { Place::new(directory) } else { Place::of_snapshot(directory) }
}

/// The driver of a volume, and what the volume was made with.
fn parts(volume: &Volume) -> Result<(Chosen, Spec)> {
    let limits = Limits { size_bytes: volume.size_bytes, inodes: volume.inodes };
    let spec = Spec { options: volume.options.clone(), limits, promised_bytes: 0 };
    Ok((volume::driver(&volume.driver)?, spec))
}

/// The driver of a volume to be made, what it is made with, and its record. The driver accepts it.
fn prepared(new: NewVolume) -> Result<(Chosen, Spec, NewRecord)> {
    let driver = volume::driver(new.driver.as_deref().unwrap_or(DEFAULT_DRIVER))?;
    let (options, limits) = split(new.options)?;
    let mut spec = Spec { options, limits, promised_bytes: 0 };
    driver.check(&spec)?;
    spec.limits = driver.rounded(&spec, limits);
    let record = NewRecord {
        name: new.name,
        driver: driver.name().to_owned(),
        options: spec.options.clone(),
        labels: new.labels,
        size_bytes: spec.limits.size_bytes,
        inodes: spec.limits.inodes,
        origin: String::new(),
    };
    Ok((driver, spec, record))
}

/// Takes the limits out of options.
fn split(mut options: BTreeMap<String, String>) -> Result<(BTreeMap<String, String>, Limits)> {
    let mut limit = |key: &str| -> Result<Option<u64>> {
        let Some(value) = options.remove(key).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let wrap = |error: size::BadSize| {
            let (key, reason) = (key.to_owned(), error.to_string());
            VolumeError::Option { driver: "lamina", key, value: value.clone(), reason }
        };
        Ok(Some(size::parse(&value).map_err(wrap)?))
    };
    let limits = Limits { size_bytes: limit("size")?, inodes: limit("inodes")? };
    Ok((options, limits))
}

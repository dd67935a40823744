//! The trait of volume drivers, and the values that they take and return.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::error::{Result, VolumeError};
use crate::error::FromHost;
use crate::sys::loops;
pub use crate::types::Limits;

/// The directory of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    directory: PathBuf,
    snapshot: bool,
}

impl Place {
    /// The volume in a directory.
    #[must_use]
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory, snapshot: false }
    }

    /// The snapshot in a directory: its content never changes.
    #[must_use]
    pub const fn of_snapshot(directory: PathBuf) -> Self {
        Self { directory, snapshot: true }
    }

    /// Whether this is a snapshot.
    #[must_use]
    pub const fn is_snapshot(&self) -> bool {
        self.snapshot
    }

    /// The directory, in which the driver keeps its files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory at which the content appears.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("_data")
    }
}

/// What a volume is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    /// The options of the driver, those of the limits left out.
    pub options: BTreeMap<String, String>,
    /// The limits.
    pub limits: Limits,
    /// The free bytes of the host that other volumes were promised, for a new size.
    pub promised_bytes: u64,
}

/// Why a driver does not limit the speed, and what does.
pub(super) const SPEED_ELSEWHERE: &str =
    "its reads and writes do not pass through Lamina; use --driver union";

/// The space that a volume uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use, as `df` or `du` counts them.
    pub used_bytes: u64,
    /// Bytes that the volume takes on the host.
    pub host_bytes: u64,
    /// Inodes in use, where they are known.
    pub used_inodes: Option<u64>,
}

/// A volume that is attached as a block device, at least as long as this lives.
#[derive(Debug)]
pub struct Attached {
    path: PathBuf,
    device: OwnedFd,
}

impl Attached {
    pub(super) const fn new(path: PathBuf, device: OwnedFd) -> Self {
        Self { path, device }
    }

    /// The node of the device, as `/dev/loop7`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the volume attached after the end of this value and of the process, until
    /// [`Driver::detach`] or the end of the host.
    ///
    /// # Errors
    /// [`VolumeError::Host`].
    pub fn keep(&self) -> Result<()> {
        let kept = loops::set_autoclear(self.device.as_fd(), false);
        kept.map_err(VolumeError::host(&self.path))
    }
}

/// How long the users of a volume can be made to wait between [`Freezing::hold`] and
/// [`Freezing::freeze`], in the order in which the members of a group are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Not at all: its content is that of the moment of the freeze, so that a group has at most one
    /// such member.
    Never,
    /// For at most 10 s
    Short,
    /// As long as a freeze of others takes
    Long,
}

/// Receives the bytes that a copy of an image is done with, and about how many there are in all. It
/// is not called where the host shares blocks between files, which takes milliseconds.
pub type OnCopied = dyn Fn(u64, u64) + Send + Sync;

/// The steps of a snapshot of a volume together with others. Dropped after any step, it lets the
/// users of the volume go on.
pub trait Freezing {
    /// How long users can be made to wait.
    fn wait(&self) -> Wait {
        Wait::Short
    }

    /// Does what takes long. Users do not wait.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn prepare(&mut self) -> Result<()>;

    /// Lets no request of users pass from now on until [`Freezing::freeze`], until the value is
    /// dropped, or as long as [`Freezing::wait`] says. The caller does not use the content
    /// meanwhile.
    ///
    /// # Errors
    /// [`VolumeError`], also if requests under way do not end.
    fn hold(&mut self) -> Result<()>;

    /// Freezes the content as it was since [`Freezing::hold`], and lets the users go on. What must
    /// be copied meanwhile goes to an empty place.
    ///
    /// # Errors
    /// [`VolumeError`], also if the volume was not held any more.
    fn freeze(&mut self, to: &Place, on_copied: &OnCopied) -> Result<()>;

    /// Gives the place the rest of the content that was frozen.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn give(&self, to: &Place) -> Result<()>;
}

/// A volume driver.
pub trait Driver: Send + Sync {
    /// The name in options, records and messages.
    fn name(&self) -> &str;

    /// Refuses options and limits that the driver cannot serve, before anything is created.
    ///
    /// # Errors
    /// `Option`, `Unsupported`, `TooSmall`.
    fn check(&self, spec: &Spec) -> Result<()>;

    /// Creates the content of a volume. The directory and an empty `_data` (mode 0755, root) exist
    /// and nobody else sees them. A crash or an error leaves files that the caller removes.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn create(&self, place: &Place, spec: &Spec) -> Result<()>;

    /// Makes the content visible at `_data`, and does nothing if it is visible already.
    ///
    /// # Errors
    /// [`VolumeError`]. An error leaves nothing mounted.
    fn mount(&self, place: &Place, spec: &Spec) -> Result<()>;

    /// Ends what [`Driver::mount`] did, and does nothing if it is not mounted.
    ///
    /// # Errors
    /// `Busy` if a process uses the mount.
    fn unmount(&self, place: &Place, spec: &Spec) -> Result<()>;

    /// The limits that a volume with these gets.
    fn rounded(&self, _spec: &Spec, limits: Limits) -> Limits {
        limits
    }

    /// Whether the content of such a volume is a block device, which has no files:
    /// [`Driver::attach`] takes the place of [`Driver::mount`].
    fn is_device(&self, _spec: &Spec) -> bool {
        false
    }

    /// Attaches the content as a block device, or finds the device that it is attached to. It is
    /// detached with its last user, unless [`Attached::keep`] is called.
    ///
    /// # Errors
    /// `Unsupported` for a volume with files; `Busy` if somebody attached a part of the content.
    fn attach(&self, _place: &Place, _spec: &Spec) -> Result<Attached> {
        let reason = "its volumes have files; use --driver image --opt fs=none".to_owned();
        Err(VolumeError::Unsupported { driver: "lamina", verb: "block devices", reason })
    }

    /// Detaches the content, and does nothing if it is not attached.
    ///
    /// # Errors
    /// `Busy` if a process has the device open: it is detached when that ends.
    fn detach(&self, _place: &Place, _spec: &Spec) -> Result<()> {
        Ok(())
    }

    /// The node of the block device that the content is attached to.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn attached(&self, _place: &Place, _spec: &Spec) -> Result<Option<PathBuf>> {
        Ok(None)
    }

    /// Ends what [`Driver::create`] made outside the directory, which the caller removes. Nobody
    /// uses the volume. It may be called again, also where a creation was killed.
    ///
    /// # Errors
    /// [`VolumeError`]. The volume stays in the trash.
    fn remove(&self, _place: &Place, _spec: &Spec) -> Result<()> {
        Ok(())
    }

    /// Whether only this driver and its volume can write to the content: a file system of its own,
    /// not a directory of the host or a share.
    fn is_private(&self, spec: &Spec) -> bool;

    /// The space in use, whether the volume is mounted or not.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn usage(&self, place: &Place, spec: &Spec) -> Result<Usage>;

    /// The bytes that the volume may still take of the host, within its size. One that is being
    /// made may have no files yet.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn promised_bytes(&self, _place: &Place, _spec: &Spec) -> Result<u64> {
        Ok(0)
    }

    /// Changes the limits. `spec` has those of before. The volume may be mounted and in use.
    ///
    /// # Errors
    /// `Unsupported`, `TooSmall`. An error leaves the old limits and
    /// the content.
    fn resize(&self, place: &Place, spec: &Spec, limits: Limits) -> Result<()>;

    /// Changes the limits on speed to those of `spec`. The volume may be mounted and in use.
    ///
    /// # Errors
    /// `Unsupported`, `Option`. An error leaves the old limits.
    fn throttle(&self, place: &Place, spec: &Spec) -> Result<()>;

    /// Copies the content of a volume, as it is at one moment, to an empty place. The volume may be
    /// mounted and in use. The copy has the limits of the volume.
    ///
    /// # Errors
    /// `Unsupported`. A crash or an error leaves files at `to` that the caller removes.
    fn copy(&self, place: &Place, spec: &Spec, to: &Place, on_copied: &OnCopied) -> Result<()>;

    /// The steps of a snapshot together with other volumes, also while the volume is in use. `None`
    /// if the volume is not in use, or the driver can copy no other one.
    ///
    /// # Errors
    /// [`VolumeError::Host`].
    fn freezing(&self, _place: &Place, _spec: &Spec) -> Result<Option<Box<dyn Freezing>>> {
        Ok(None)
    }

    /// Replaces the content of a volume that is not mounted by a copy of another place.
    ///
    /// # Errors
    /// `Unsupported`. A crash or an error leaves the old content or the new one.
    fn replace(&self, place: &Place, spec: &Spec, from: &Place, on_copied: &OnCopied)
    -> Result<()>;

    /// Removes what the volumes of a directory shared and none of them needs any more, and returns
    /// how many rests there were.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn settle(&self, _volumes: &Path) -> Result<usize> {
        Ok(0)
    }
}

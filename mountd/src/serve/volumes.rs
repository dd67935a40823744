//! The volumes, as front ends use them. The calls block.

use std::path::PathBuf;

use laminafs::service::Refusal;
use laminafs::service::volumes::{NewVolume, Removal, Usage, VolumeService};
use laminafs::types::VolumeName;

pub use laminafs::service::volumes::Volume;

/// What front ends ask of the volumes; tests put volumes that hang in the place of the service.
pub trait Volumes: Send + Sync + 'static {
    /// Creates a volume, or returns the existing one.
    fn create(&self, new: NewVolume) -> Result<Volume, Refusal>;
    /// The record of a volume.
    fn inspect(&self, name: &VolumeName) -> Result<Volume, Refusal>;
    /// The records of all volumes.
    fn list(&self) -> Result<Vec<Volume>, Refusal>;
    /// Removes a volume and its content.
    fn remove(&self, name: &VolumeName) -> Result<(), Refusal>;
    /// Mounts a volume for a holder.
    fn publish(&self, name: &VolumeName, holder: &str) -> Result<PathBuf, Refusal>;
    /// Ends the use of a volume by a holder.
    fn unpublish(&self, name: &VolumeName, holder: &str) -> Result<(), Refusal>;
    /// The space that a volume uses.
    fn usage(&self, name: &VolumeName) -> Result<Usage, Refusal>;
}

impl Volumes for VolumeService {
    fn create(&self, new: NewVolume) -> Result<Volume, Refusal> {
        self.create(new)
    }

    fn inspect(&self, name: &VolumeName) -> Result<Volume, Refusal> {
        self.inspect(name)
    }

    fn list(&self) -> Result<Vec<Volume>, Refusal> {
        self.list()
    }

    fn remove(&self, name: &VolumeName) -> Result<(), Refusal> {
        self.remove(name, Removal { takes_held: true, ..Removal::default() })
    }

    fn publish(&self, name: &VolumeName, holder: &str) -> Result<PathBuf, Refusal> {
        self.publish(name, holder)
    }

    fn unpublish(&self, name: &VolumeName, holder: &str) -> Result<(), Refusal> {
        self.unpublish(name, holder)
    }

    fn usage(&self, name: &VolumeName) -> Result<Usage, Refusal> {
        self.usage(name)
    }
}

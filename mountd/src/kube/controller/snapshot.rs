//! What an order about a snapshot is to the volumes of this host.
//!
//! A VolumeSnapshotContent is a snapshot of the volume, with its id as the handle. Such a snapshot
//! stays when its volume goes. Its name has the uid of the VolumeSnapshot: an order that comes
//! again after a crash finds it.

use std::time::UNIX_EPOCH;

use laminafs::claim::Action;
use laminafs::claim::object::Key;
use laminafs::claim::snapshot::ContentStatus;
use laminafs::service::volumes::{CONTENT_LABEL, Volume};
use laminafs::types::VolumeName;

use super::carry::options;
use super::driver::{Done, Drivers, failure, is_missing, refused, volume_name};
use super::mirror;
use crate::csi;
use crate::kube::convert;
use crate::kube::objects::Part;
use crate::kube::status::Failure;

impl Drivers {
    /// Takes a snapshot of a volume, and shows it in the content.
    pub(super) fn take(&self, content: &str, name: &str, volume: &str) -> Done<()> {
        if let Some(taken) = self.take_csi((content, name), volume)? {
            return self.show(content, &taken);
        }
        let (name, of) = (volume_name(name)?, volume_name(volume)?);
        let taken = match self.taken_of(&of, &name)? {
            Some(found) => found,
            None => {
                let labels = [(CONTENT_LABEL.to_owned(), content.to_owned())].into();
                self.volumes.snapshot_labelled(&of, name, labels).map_err(refused)?
            }
        };
        self.show(content, &taken)
    }

    /// Shows a snapshot that exists in the content.
    pub(super) fn find(&self, content: &str, handle: &str) -> Done<()> {
        let found = self.volumes.inspect_snapshot(handle).map_err(refused)?;
        self.show(content, &found)
    }

    /// Deletes a snapshot that was made for a content. One that is gone already is not a failure.
    pub(super) fn delete_snapshot(&self, content: &str, handle: &str, name: &str) -> Done<()> {
        let found = match handle {
            // The order to take it may have been cut short.
            "" => match self.taken(&volume_name(name)?)? {
                None => self.taken_csi(name)?,
                found => found,
            },
            handle => match self.volumes.inspect_snapshot(handle) {
                Err(refusal) if is_missing(&refusal) => None,
                found => Some(found.map_err(refused)?),
            },
        };
        let Some(found) = found else { return Ok(()) };
        // A content that was deleted may have kept it for this one.
        let of = found.labels.get(CONTENT_LABEL);
        if of.map_or(Ok(true), |of| if of == content { Ok(false) } else { self.is_there(of) })? {
            let id = &found.id;
            return Err(failure(format!(
                "snapshot {id} belongs to another object: use deletionPolicy Retain here"
            )));
        }
        if csi::is_requested(&found) {
            return self.delete_snapshot_csi(&found);
        }
        match self.volumes.remove_snapshot(&found.id) {
            Err(refusal) if is_missing(&refusal) => Ok(()),
            done => done.map_err(refused),
        }
    }

    /// The snapshot of a name that was made for a content, of a volume that may be gone by now.
    fn taken_of(&self, volume: &VolumeName, name: &VolumeName) -> Done<Option<Volume>> {
        match self.volumes.inspect(volume) {
            Err(refusal) if is_missing(&refusal) => self.taken(name),
            found => {
                let text = format!("{}@{name}", found.map_err(refused)?.name);
                match self.volumes.inspect_snapshot(&text) {
                    Err(refusal) if is_missing(&refusal) => Ok(None),
                    found => found.map(Some).map_err(refused),
                }
            }
        }
    }

    /// The snapshot of a name that was made for a content, of whatever volume.
    fn taken(&self, name: &VolumeName) -> Done<Option<Volume>> {
        let all = self.volumes.snapshots(None).map_err(refused)?;
        let is_it = |one: &Volume| one.name == *name && one.labels.contains_key(CONTENT_LABEL);
        Ok(all.into_iter().find(is_it))
    }

    /// Whether a content exists.
    fn is_there(&self, content: &str) -> Done<bool> {
        match mirror::with_target(&Key::Content(content.to_owned()), |of| self.store.get(of)) {
            Err(error) if error.code == 404 => Ok(false),
            found => found.map(|_| true).map_err(|error| failure(error.message)),
        }
    }

    /// Sets the status of a content.
    fn show(&self, content: &str, snapshot: &Volume) -> Done<()> {
        let created = humantime::parse_rfc3339_weak(&snapshot.created_at).ok();
        let created = created.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let size = snapshot.size_bytes.and_then(|bytes| i64::try_from(bytes).ok());
        let status = ContentStatus {
            handle: snapshot.id.clone(),
            created_nanos: created.and_then(|since| i64::try_from(since.as_nanos()).ok()),
            restore_bytes: Some(size.unwrap_or(0)),
            ready: Some(true),
            error: None,
        };
        let action = Action::ContentStatus { content: content.to_owned(), status };
        let key = Key::Content(content.to_owned());
        let done = mirror::with_target(&key, |target| {
            self.store.change(target, Part::Status, &options(), &|current| {
                let missing = || Failure::not_found(target.kind, target.name);
                let mut object = current.cloned().ok_or_else(missing)?;
                convert::change(&action, &mut object);
                Ok(object)
            })
        });
        done.map(drop).map_err(|error| failure(error.message))
    }
}

//! The objects of `snapshot.storage.k8s.io`, with the fields on which decisions depend.
//!
//! As in [`object`](super::object), an empty text is an unset field. Times of errors are not here:
//! the caller notes when a message changed.

use super::object::{Id, Labels, Meta, VolumeMode};
use crate::types::quantity::Quantity;

/// What happens to the data of a snapshot when its object goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The data stays.
    #[default]
    Retain,
    /// The data is deleted.
    Delete,
}

/// A VolumeSnapshotClass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotClass {
    /// Metadata.
    pub meta: Meta,
    /// The driver that makes the snapshots.
    pub driver: String,
    /// The policy of contents made for it.
    pub policy: DeletionPolicy,
    /// Parameters of the driver.
    pub parameters: Labels,
}

/// What a VolumeSnapshot is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotSource {
    /// A claim of the namespace, of whose volume the snapshot is taken.
    Claim(String),
    /// A content that somebody prepared.
    Content(String),
}

impl Default for SnapshotSource {
    fn default() -> Self {
        Self::Claim(String::new())
    }
}

/// A VolumeSnapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Metadata.
    pub meta: Meta,
    /// `spec.source`.
    pub source: SnapshotSource,
    /// `spec.volumeSnapshotClassName`, empty if unset.
    pub class_name: String,
    /// `status`.
    pub status: SnapshotStatus,
}

/// The status of a VolumeSnapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// `boundVolumeSnapshotContentName`, empty if unset.
    pub content: String,
    /// `creationTime`, in seconds since 1970.
    pub created: Option<i64>,
    /// `readyToUse`.
    pub ready: Option<bool>,
    /// `restoreSize`.
    pub restore_size: Option<Quantity>,
    /// `error.message`.
    pub error: Option<String>,
}

/// What holds the data of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentSource {
    /// The handle of the volume whose snapshot the driver takes.
    Volume(String),
    /// The handle of a snapshot that exists.
    Snapshot(String),
}

impl Default for ContentSource {
    fn default() -> Self {
        Self::Volume(String::new())
    }
}

/// The snapshot that a content belongs to, or is reserved for if the uid is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRef {
    /// Namespace and name.
    pub id: Id,
    /// The uid.
    pub uid: String,
}

/// A VolumeSnapshotContent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Metadata.
    pub meta: Meta,
    /// `spec.driver`.
    pub driver: String,
    /// `spec.deletionPolicy`.
    pub policy: DeletionPolicy,
    /// `spec.source`.
    pub source: ContentSource,
    /// `spec.volumeSnapshotRef`.
    pub to: SnapshotRef,
    /// `spec.volumeSnapshotClassName`, empty if unset.
    pub class_name: String,
    /// `spec.sourceVolumeMode`.
    pub mode: Option<VolumeMode>,
    /// `status`.
    pub status: ContentStatus,
}

/// The status of a VolumeSnapshotContent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentStatus {
    /// `snapshotHandle`, empty if unset.
    pub handle: String,
    /// `creationTime`, in nanoseconds since 1970.
    pub created_nanos: Option<i64>,
    /// `restoreSize`, in bytes.
    pub restore_bytes: Option<i64>,
    /// `readyToUse`.
    pub ready: Option<bool>,
    /// `error.message`.
    pub error: Option<String>,
}

impl Snapshot {
    /// Whether the moment of the snapshot is past: what is written to the claim from then on is not
    /// in it.
    #[must_use]
    pub const fn is_created(&self) -> bool {
        self.status.created.is_some()
    }

    /// Whether claims can be made of the snapshot.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status.ready == Some(true)
    }

    /// The name of the content: that which the source names, or that which is made.
    #[must_use]
    pub fn content_name(&self) -> String {
        match &self.source {
            SnapshotSource::Content(name) => name.clone(),
            SnapshotSource::Claim(_) => format!("snapcontent-{}", self.meta.uid),
        }
    }

    /// Whether the snapshot is taken of the claim.
    #[must_use]
    pub fn is_of(&self, claim: &Meta) -> bool {
        let is_it = matches!(&self.source, SnapshotSource::Claim(name) if *name == claim.name);
        is_it && self.meta.namespace == claim.namespace
    }
}

impl Content {
    /// Whether the content names the snapshot, with its uid.
    #[must_use]
    pub fn belongs_to(&self, snapshot: &Meta) -> bool {
        self.is_for(snapshot) && self.to.uid == snapshot.uid
    }

    /// Whether the content names the snapshot, or is reserved for it.
    #[must_use]
    pub fn is_for(&self, snapshot: &Meta) -> bool {
        let is_it = self.to.id == snapshot.id();
        is_it && (self.to.uid.is_empty() || self.to.uid == snapshot.uid)
    }

    /// The handle of the snapshot, empty while there is none.
    #[must_use]
    pub fn handle(&self) -> &str {
        match &self.source {
            ContentSource::Snapshot(handle) if self.status.handle.is_empty() => handle,
            _ => &self.status.handle,
        }
    }
}

//! What a decision consists of: writes of one object each, and orders to the host's drivers.
//!
//! An action names only the fields that it sets. All are idempotent: carried out twice in a row
//! they leave what once leaves. The caller carries them out in order and stops at the first that
//! fails; the next decision starts from what is there.

use super::object::{Claim, ClaimRef, ClaimStatus, Id, Key, Labels, Volume, VolumeStatus};
use super::snapshot::{Content, ContentStatus, SnapshotStatus};
use crate::types::quantity::Quantity;

/// One write, one event, or one order to a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sets the volume's `spec.claimRef`.
    BindVolume {
        /// The volume.
        volume: String,
        /// The claim.
        to: ClaimRef,
        /// Whether the annotation that the controller chose is added in the same write. If not, it
        /// stays as it is.
        by_controller: bool,
    },
    /// Sets or removes the volume's `spec.claimRef`, and removes the annotation that the controller
    /// chose.
    UnbindVolume {
        /// The volume.
        volume: String,
        /// The reservation that stays.
        keep: Option<ClaimRef>,
    },
    /// Sets the volume's status.
    VolumeStatus {
        /// The volume.
        volume: String,
        /// The status.
        status: VolumeStatus,
    },
    /// Sets the claim's `spec.volumeName` and the annotation that the binding is complete.
    BindClaim {
        /// The claim.
        claim: Id,
        /// The volume.
        volume: String,
        /// Whether the annotation that the controller chose is added in the same write.
        by_controller: bool,
    },
    /// Sets the claim's status.
    ClaimStatus {
        /// The claim.
        claim: Id,
        /// The status.
        status: ClaimStatus,
    },
    /// Sets the claim's `spec.storageClassName`.
    SetClass {
        /// The claim.
        claim: Id,
        /// The class.
        class: String,
    },
    /// Sets annotations, or removes those without a value, in one write.
    Annotate {
        /// The object.
        object: Key,
        /// Keys and values.
        annotations: Vec<(&'static str, Option<String>)>,
    },
    /// Adds a finalizer.
    AddFinalizer {
        /// The object.
        object: Key,
        /// The finalizer.
        finalizer: &'static str,
    },
    /// Removes a finalizer. An object that is being deleted is gone with its last one.
    RemoveFinalizer {
        /// The object.
        object: Key,
        /// The finalizer.
        finalizer: &'static str,
    },
    /// Creates a claim, unless one of its name exists.
    CreateClaim(Box<Claim>),
    /// Sets a pod's `spec.nodeName`.
    PlacePod {
        /// The pod.
        pod: Id,
        /// The node.
        node: String,
    },
    /// Records an event. It changes no object.
    Event(Event),
    /// Makes content, and creates the volume's object once the content exists.
    Provision(Box<Provision>),
    /// Deletes the content of a volume. Content that is gone already is not a failure.
    DeleteBacking {
        /// The volume.
        volume: String,
    },
    /// Deletes the object of a volume, as a client would: finalizers hold it.
    DeleteVolume {
        /// The volume.
        volume: String,
    },
    /// Deletes all that is in the volume's directory, and keeps the directory.
    Recycle {
        /// The volume.
        volume: String,
    },
    /// Enlarges the content of a volume.
    Expand {
        /// The volume.
        volume: String,
        /// The size that it has at least afterwards.
        size: Quantity,
    },
    /// Sets the volume's `spec.capacity.storage`.
    VolumeCapacity {
        /// The volume.
        volume: String,
        /// The size.
        size: Quantity,
    },
    /// Gives the content of a volume other attributes.
    Modify {
        /// The volume.
        volume: String,
        /// The parameters of the attributes class.
        parameters: Labels,
    },
    /// Makes the content of a volume whose source another driver stands in for, and records the
    /// name of that content in an annotation of the volume, [`STAND_IN`](super::names::STAND_IN).
    StandIn {
        /// The volume.
        volume: String,
    },
    /// Sets the volume's `spec.volumeAttributesClassName`.
    VolumeAttributesClass {
        /// The volume.
        volume: String,
        /// The class.
        class: String,
    },
    /// Sets the snapshot's `spec.volumeSnapshotClassName`.
    SetSnapshotClass {
        /// The snapshot.
        snapshot: Id,
        /// The class.
        class: String,
    },
    /// Sets the snapshot's status.
    SnapshotStatus {
        /// The snapshot.
        snapshot: Id,
        /// The status.
        status: SnapshotStatus,
    },
    /// Creates a content, unless one of its name exists.
    CreateContent(Box<Content>),
    /// Sets the uid in the content's `spec.volumeSnapshotRef`, and its class.
    BindContent {
        /// The content.
        content: String,
        /// The uid of the snapshot.
        uid: String,
        /// The class; an empty text leaves that of the content.
        class: String,
    },
    /// Sets the content's status.
    ContentStatus {
        /// The content.
        content: String,
        /// The status.
        status: ContentStatus,
    },
    /// Deletes the object of a content, as a client would: finalizers hold it.
    DeleteContent {
        /// The content.
        content: String,
    },
    /// Takes a snapshot of a volume, and sets the content's status once it exists. A driver that is
    /// asked again for a name that it has returns what it has.
    TakeSnapshot {
        /// The content.
        content: String,
        /// The name of the snapshot.
        name: String,
        /// The handle of the volume.
        volume: String,
    },
    /// Looks for a snapshot that exists, and sets the content's status.
    FindSnapshot {
        /// The content.
        content: String,
        /// The handle of the snapshot.
        handle: String,
    },
    /// Deletes the data of a content. Data that is gone already is not a failure.
    DeleteSnapshot {
        /// The content.
        content: String,
        /// The handle of the snapshot, empty if the order to take it never returned.
        handle: String,
        /// The name that the order to take it had.
        name: String,
    },
}

/// What the first content of a volume is copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The volume of this name.
    Volume(String),
    /// The snapshot of this handle.
    Snapshot(String),
}

/// Something that `kubectl describe` shows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The object.
    pub object: Key,
    /// Whether the event's type is Warning; otherwise it is Normal.
    pub is_warning: bool,
    /// The reason, in one word.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

/// What a driver needs to know to make a volume.
///
/// The content's name is that of the volume: a driver that is asked again for a name that it has
/// returns what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// The claim.
    pub claim: Id,
    /// The provisioner.
    pub provisioner: String,
    /// The parameters of the class.
    pub parameters: Labels,
    /// The parameters of the volume attributes class.
    pub attributes: Labels,
    /// What the first content is copied from.
    pub origin: Option<Origin>,
    /// The node that was chosen for the first pod, if the class waits for one.
    pub node: Option<String>,
    /// The object to create. The driver adds the source, and may enlarge the capacity.
    pub volume: Volume,
}

impl Action {
    /// An event of type Normal.
    #[must_use]
    pub fn normal(object: Key, reason: &'static str, message: impl Into<String>) -> Self {
        Self::Event(Event { object, is_warning: false, reason, message: message.into() })
    }

    /// An event of type Warning.
    #[must_use]
    pub fn warning(object: Key, reason: &'static str, message: impl Into<String>) -> Self {
        Self::Event(Event { object, is_warning: true, reason, message: message.into() })
    }

    /// Whether the action is an event, which changes no object.
    #[must_use]
    pub fn is_event(&self) -> bool {
        matches!(self, Self::Event(_))
    }
}

//! The objects on which decisions depend, with the fields that matter for them and no others.
//!
//! They are plain values without versions: the caller converts what its store holds. Names of
//! fields are those of Kubernetes where they are short. An empty text stands for a field that is
//! unset wherever Kubernetes treats both alike; where it does not (`storageClassName`), the field
//! is an `Option`.

use std::fmt;

pub use super::selector::{LabelSelector, Labels, NodeSelector};
use crate::types::quantity::Quantity;

/// An object that decisions are made for, or that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A PersistentVolume.
    Volume(String),
    /// A PersistentVolumeClaim.
    Claim(Id),
    /// A Pod.
    Pod(Id),
    /// A VolumeSnapshot.
    Snapshot(Id),
    /// A VolumeSnapshotContent.
    Content(String),
}

/// Namespace and name of a claim or pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl Id {
    /// The id of an object in a namespace.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What every object has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// The name.
    pub name: String,
    /// The namespace, empty for objects without one.
    pub namespace: String,
    /// The identity of this object among all of that name.
    pub uid: String,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// What must be done before the object may go.
    pub finalizers: Vec<String>,
    /// Whether `deletionTimestamp` is set.
    pub deleting: bool,
    /// The time of creation, in seconds since 1970.
    pub created: i64,
    /// The uids of the objects that control this one (`ownerReferences` with `controller: true`).
    pub controllers: Vec<String>,
}

impl Meta {
    /// Namespace and name.
    #[must_use]
    pub fn id(&self) -> Id {
        Id::new(&self.namespace, &self.name)
    }

    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Whether the annotation exists.
    #[must_use]
    pub fn has_annotation(&self, key: &str) -> bool {
        self.annotations.contains_key(key)
    }

    /// Whether the finalizer is there.
    #[must_use]
    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|one| one == name)
    }
}

/// How a volume may be mounted, in the order in which Kubernetes prints the short names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessMode {
    /// `ReadWriteOnce`: by one node.
    ReadWriteOnce,
    /// `ReadOnlyMany`: by many nodes, for reading.
    ReadOnlyMany,
    /// `ReadWriteMany`: by many nodes.
    ReadWriteMany,
    /// `ReadWriteOncePod`: by one pod.
    ReadWriteOncePod,
}

/// A set of access modes. Sets with fewer modes come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModeSet {
    count: u32,
    // A bit for each mode that is not in the set.
    missing: u8,
}

impl ModeSet {
    /// The set of the modes of a list.
    #[must_use]
    pub fn of(modes: &[AccessMode]) -> Self {
        let missing = modes.iter().fold(u8::MAX, |bits, mode| {
            let bit = match mode {
                AccessMode::ReadWriteOnce => 8,
                AccessMode::ReadOnlyMany => 4,
                AccessMode::ReadWriteMany => 2,
                AccessMode::ReadWriteOncePod => 1,
            };
            bits & !bit
        });
        Self { count: missing.count_zeros(), missing }
    }

    /// Whether all modes of the other set are in this one.
    #[must_use]
    pub fn holds(self, other: Self) -> bool {
        self.missing & !other.missing == 0
    }
}

/// Whether a volume is a file system or a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VolumeMode {
    /// A directory in the pod.
    #[default]
    Filesystem,
    /// A device in the pod.
    Block,
}

/// What happens to a volume when its claim is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReclaimPolicy {
    /// The volume stays as it is.
    #[default]
    Retain,
    /// Content and object are deleted.
    Delete,
    /// The content is deleted and the volume becomes available again.
    Recycle,
}

/// The place of a volume in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VolumePhase {
    /// No decision was made yet.
    #[default]
    Pending,
    /// The volume can be bound.
    Available,
    /// The volume belongs to a claim.
    Bound,
    /// The claim is gone and the volume was not reclaimed.
    Released,
    /// The reclaim failed.
    Failed,
}

/// The place of a claim in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClaimPhase {
    /// The claim has no volume yet.
    #[default]
    Pending,
    /// The claim has a volume.
    Bound,
    /// The claim lost its volume for ever.
    Lost,
}

/// The claim to which a volume belongs, or for which it is reserved if the uid is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRef {
    /// Namespace and name of the claim.
    pub id: Id,
    /// The claim's uid, empty for a reservation.
    pub uid: String,
}

/// What holds the content of a volume, as far as decisions depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory of the host.
    HostPath(String),
    /// A CSI driver.
    Csi(String),
    /// An NFS export.
    Nfs,
    /// Anything else, by the name of its field in the specification: `gcePersistentDisk`.
    Other(String),
}

impl Default for Source {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl Source {
    /// The kind of the source: the name of its field in the specification, and for CSI `csi:` with
    /// the name of the driver.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::HostPath(_) => "hostPath".to_owned(),
            Self::Csi(driver) => format!("csi:{driver}"),
            Self::Nfs => "nfs".to_owned(),
            Self::Other(kind) => kind.clone(),
        }
    }
}

/// A PersistentVolume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// Metadata.
    pub meta: Meta,
    /// `spec.capacity.storage`.
    pub capacity: Quantity,
    /// `spec.accessModes`.
    pub modes: Vec<AccessMode>,
    /// `spec.volumeMode`.
    pub volume_mode: VolumeMode,
    /// `spec.storageClassName`, empty if unset. [`Volume::class`] is the one that counts.
    pub class_name: String,
    /// `spec.persistentVolumeReclaimPolicy`.
    pub reclaim: ReclaimPolicy,
    /// `spec.claimRef`.
    pub claim_ref: Option<ClaimRef>,
    /// `spec.nodeAffinity.required`.
    pub affinity: Option<NodeSelector>,
    /// `spec.volumeAttributesClassName`, empty if unset.
    pub attributes_class: String,
    /// `spec.mountOptions`.
    pub mount_options: Vec<String>,
    /// The source.
    pub source: Source,
    /// `spec.csi.volumeHandle`, empty for another source.
    pub handle: String,
    /// `status`.
    pub status: VolumeStatus,
}

/// The status of a PersistentVolume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeStatus {
    /// The phase.
    pub phase: VolumePhase,
    /// Why the phase is Failed, in one word.
    pub reason: String,
    /// Why the phase is Failed, in a sentence.
    pub message: String,
}

/// Where the first content of a claim comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSource {
    /// The API group, empty for the core group.
    pub group: String,
    /// The kind: `VolumeSnapshot`, `PersistentVolumeClaim`, or that of a populator.
    pub kind: String,
    /// The name, in the claim's namespace.
    pub name: String,
}

/// A PersistentVolumeClaim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Metadata.
    pub meta: Meta,
    /// `spec.accessModes`.
    pub modes: Vec<AccessMode>,
    /// `spec.resources.requests.storage`.
    pub request: Quantity,
    /// `spec.storageClassName`: unset takes the default class, the empty text never does.
    pub class_name: Option<String>,
    /// `spec.selector`.
    pub selector: Option<LabelSelector>,
    /// `spec.volumeMode`.
    pub volume_mode: VolumeMode,
    /// `spec.volumeName`, empty if unset.
    pub volume_name: String,
    /// `spec.volumeAttributesClassName`, empty if unset.
    pub attributes_class: String,
    /// `spec.dataSource` or `spec.dataSourceRef`.
    pub data_source: Option<DataSource>,
    /// `status`.
    pub status: ClaimStatus,
}

/// The status of a PersistentVolumeClaim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimStatus {
    /// The phase.
    pub phase: ClaimPhase,
    /// `capacity.storage`, unset while the claim has no volume.
    pub capacity: Option<Quantity>,
    /// `accessModes`: those of the volume.
    pub modes: Vec<AccessMode>,
    /// `currentVolumeAttributesClassName`, empty if unset.
    pub attributes_class: String,
    /// `modifyVolumeStatus.targetVolumeAttributesClassName`, empty if nothing is being modified.
    pub modifying: String,
}

/// When the volume of a claim is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BindingMode {
    /// As soon as the claim exists.
    #[default]
    Immediate,
    /// When a pod with the claim is placed.
    WaitForFirstConsumer,
}

/// A StorageClass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Class {
    /// Metadata.
    pub meta: Meta,
    /// The provisioner.
    pub provisioner: String,
    /// Parameters of the provisioner.
    pub parameters: Labels,
    /// The policy of volumes made for it.
    pub reclaim: ReclaimPolicy,
    /// Mount options of volumes made for it.
    pub mount_options: Vec<String>,
    /// `allowVolumeExpansion`.
    pub may_expand: bool,
    /// When volumes are chosen.
    pub binding: BindingMode,
    /// `allowedTopologies` as a node selector: unset allows every node.
    pub topologies: Option<NodeSelector>,
}

/// A VolumeAttributesClass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttributesClass {
    /// Metadata.
    pub meta: Meta,
    /// The driver that understands the parameters.
    pub driver: String,
    /// The parameters.
    pub parameters: Labels,
}

/// The place of a pod in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all containers run yet.
    #[default]
    Pending,
    /// A container runs.
    Running,
    /// All containers ended well.
    Succeeded,
    /// A container failed.
    Failed,
}

/// A volume of a pod that needs a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodVolume {
    /// `persistentVolumeClaim`: a claim of that name.
    Claim(String),
    /// `ephemeral`: a claim made for the pod.
    Ephemeral {
        /// The name of the volume in the pod.
        volume: String,
        /// Labels, annotations and specification of the claim.
        template: Box<Claim>,
    },
}

/// A Pod, as far as claims are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Metadata.
    pub meta: Meta,
    /// `spec.nodeName`, empty until the pod is placed.
    pub node: String,
    /// `spec.nodeSelector`.
    pub node_selector: Labels,
    /// `spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution`.
    pub affinity: Option<NodeSelector>,
    /// Whether `spec.schedulingGates` holds the pod back.
    pub is_gated: bool,
    /// The volumes that need a claim.
    pub volumes: Vec<PodVolume>,
    /// `status.phase`.
    pub phase: PodPhase,
}

impl Pod {
    /// The name of the claim behind a volume.
    #[must_use]
    pub fn claim_name(&self, volume: &PodVolume) -> String {
        match volume {
            PodVolume::Claim(name) => name.clone(),
            PodVolume::Ephemeral { volume, .. } => format!("{}-{volume}", self.meta.name),
        }
    }

    /// Whether all containers have ended for good.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    /// Whether the pod uses the claim: by name, or as the owner of an ephemeral claim.
    #[must_use]
    pub fn uses(&self, claim: &Meta) -> bool {
        self.meta.namespace == claim.namespace
            && self.volumes.iter().any(|volume| {
                self.claim_name(volume) == claim.name
                    && (matches!(volume, PodVolume::Claim(_)) || self.owns(claim))
            })
    }

    /// Whether the pod controls the claim.
    #[must_use]
    pub fn owns(&self, claim: &Meta) -> bool {
        claim.controllers.contains(&self.meta.uid)
    }
}

/// A Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Metadata.
    pub meta: Meta,
    /// Whether `spec.unschedulable` is set.
    pub is_cordoned: bool,
    /// Whether the condition `Ready` is true.
    pub is_ready: bool,
}

impl Volume {
    /// The class that counts: that of the old annotation before that of the field.
    #[must_use]
    pub fn class(&self) -> &str {
        self.meta.annotation(super::names::OLD_CLASS).unwrap_or(&self.class_name)
    }

    /// Whether `claimRef` is set and may mean this claim: an empty uid means every claim of the
    /// name.
    #[must_use]
    pub fn is_for(&self, claim: &Meta) -> bool {
        self.claim_ref.as_ref().is_some_and(|to| {
            to.id.name == claim.name
                && to.id.namespace == claim.namespace
                && (to.uid.is_empty() || to.uid == claim.uid)
        })
    }
}

impl Claim {
    /// The class that counts, empty if there is none.
    #[must_use]
    pub fn class(&self) -> &str {
        let old = self.meta.annotation(super::names::OLD_CLASS);
        old.or(self.class_name.as_deref()).unwrap_or_default()
    }

    /// Whether the claim names a class, be it the empty one.
    #[must_use]
    pub fn has_class(&self) -> bool {
        self.class_name.is_some() || self.meta.has_annotation(super::names::OLD_CLASS)
    }
}

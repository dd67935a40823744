//! The kinds of volumes, and the requests for them as an orchestrator sends them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::client::{Answer, Client};
use crate::host::{Host, MIB};
use crate::wire::volume_capability::access_mode::Mode;
use crate::wire::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use crate::wire::volume_content_source::{self, SnapshotSource, VolumeSource};
use crate::wire::*;

/// A driver of volumes, and how it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Local,
    Ext4,
    Xfs,
    Union,
    Block,
}

pub const ALL: [Kind; 5] = [Kind::Local, Kind::Ext4, Kind::Xfs, Kind::Union, Kind::Block];

/// Makes a test for each kind.
macro_rules! for_each_kind {
    ($($test:ident => $check:ident: $($kind:ident)*;)*) => {
        $(mod $test {
            $(#[test]
            #[allow(non_snake_case, reason = "the name of the kind")]
            fn $kind() {
                super::$check(crate::kinds::Kind::$kind);
            })*
        })*
    };
}
pub(crate) use for_each_kind;

pub fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A size that is required, without a limit.
pub fn at_least(bytes: u64) -> Option<CapacityRange> {
    Some(CapacityRange { required_bytes: i64::try_from(bytes).unwrap(), limit_bytes: 0 })
}

pub fn from_snapshot(id: &str) -> Option<VolumeContentSource> {
    let source = SnapshotSource { snapshot_id: id.to_owned() };
    Some(VolumeContentSource { r#type: Some(volume_content_source::Type::Snapshot(source)) })
}

pub fn from_volume(id: &str) -> Option<VolumeContentSource> {
    let source = VolumeSource { volume_id: id.to_owned() };
    Some(VolumeContentSource { r#type: Some(volume_content_source::Type::Volume(source)) })
}

impl Kind {
    pub const fn is_block(self) -> bool {
        matches!(self, Self::Block)
    }

    /// A small size for it.
    pub const fn size(self) -> u64 {
        match self {
            Self::Xfs => 320 * MIB,
            Self::Block => 16 * MIB,
            _ => 32 * MIB,
        }
    }

    /// The parameters of its class.
    pub fn parameters(self) -> HashMap<String, String> {
        match self {
            Self::Local => map(&[("driver", "local")]),
            Self::Union => map(&[("driver", "union")]),
            Self::Ext4 | Self::Xfs | Self::Block => map(&[("driver", "image")]),
        }
    }

    pub fn capability(self, mode: Mode) -> VolumeCapability {
        let fs_type = match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            _ => "",
        };
        let mount = MountVolume { fs_type: fs_type.to_owned(), ..MountVolume::default() };
        let access_type = match self {
            Self::Block => AccessType::Block(BlockVolume {}),
            _ => AccessType::Mount(mount),
        };
        let access_mode = Some(AccessMode { mode: mode.into() });
        VolumeCapability { access_type: Some(access_type), access_mode }
    }

    /// The request for a volume, as the provisioner sends it.
    pub fn request(self, name: &str) -> CreateVolumeRequest {
        CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: at_least(self.size()),
            volume_capabilities: vec![self.capability(Mode::SingleNodeMultiWriter)],
            parameters: self.parameters(),
            ..CreateVolumeRequest::default()
        }
    }
}

/// A volume, and how its users use it.
#[derive(Debug, Clone)]
pub struct Disk {
    pub kind: Kind,
    pub id: String,
    pub capability: VolumeCapability,
    pub context: HashMap<String, String>,
}

impl Disk {
    pub fn new(kind: Kind, volume: Volume) -> Self {
        let capability = kind.capability(Mode::SingleNodeMultiWriter);
        Self { kind, id: volume.volume_id, capability, context: volume.volume_context }
    }

    #[track_caller]
    pub fn created(client: &Client, kind: Kind, name: &str) -> Self {
        let answer = client.create_volume(kind.request(name));
        Self::new(kind, answer.unwrap().volume.unwrap())
    }

    /// A volume that was made by hand: its name is its id.
    #[track_caller]
    pub fn by_hand(host: &Host, kind: Kind, name: &str) -> Self {
        let driver: &[&str] = match kind {
            Kind::Local => &["--driver", "local"],
            Kind::Union => &["--driver", "union"],
            Kind::Ext4 => &["--driver", "image", "--opt", "fs=ext4"],
            Kind::Xfs => &["--driver", "image", "--opt", "fs=xfs"],
            Kind::Block => &["--driver", "image", "--opt", "fs=none"],
        };
        let size = kind.size().to_string();
        let words = [&["volume", "create", name, "--size", &size], driver].concat();
        let done = host.lamina(&words).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        Self::new(kind, Volume { volume_id: name.to_owned(), ..Volume::default() })
    }

    /// The disk in another mode.
    pub fn in_mode(&self, mode: Mode) -> Self {
        Self { capability: self.kind.capability(mode), ..self.clone() }
    }

    /// The disk with the group of a pod.
    pub fn for_group(&self, group: u32) -> Self {
        let mut disk = self.clone();
        if let Some(AccessType::Mount(mount)) = &mut disk.capability.access_type {
            mount.volume_mount_group = group.to_string();
        }
        disk
    }

    /// The directory where it is staged.
    pub fn staging(&self, host: &Host) -> PathBuf {
        let name: String = self.id.chars().map(|one| if one == '/' { '_' } else { one }).collect();
        host.directory(Path::new("kubelet/staging").join(name))
    }

    pub fn stage_request(&self, host: &Host) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.staging(host).to_str().unwrap().to_owned(),
            volume_capability: Some(self.capability.clone()),
            volume_context: self.context.clone(),
            ..NodeStageVolumeRequest::default()
        }
    }

    pub fn unstage_request(&self, host: &Host) -> NodeUnstageVolumeRequest {
        NodeUnstageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.staging(host).to_str().unwrap().to_owned(),
        }
    }

    pub fn publish_request(&self, host: &Host, target: &Path) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.staging(host).to_str().unwrap().to_owned(),
            target_path: target.to_str().unwrap().to_owned(),
            volume_capability: Some(self.capability.clone()),
            volume_context: self.context.clone(),
            ..NodePublishVolumeRequest::default()
        }
    }

    pub fn unpublish_request(&self, target: &Path) -> NodeUnpublishVolumeRequest {
        NodeUnpublishVolumeRequest {
            volume_id: self.id.clone(),
            target_path: target.to_str().unwrap().to_owned(),
        }
    }

    #[track_caller]
    pub fn stage(&self, host: &Host, client: &Client) {
        client.node_stage_volume(self.stage_request(host)).unwrap();
    }

    #[track_caller]
    pub fn unstage(&self, host: &Host, client: &Client) {
        client.node_unstage_volume(self.unstage_request(host)).unwrap();
    }

    /// Publishes it for a pod and returns the path.
    #[track_caller]
    pub fn publish(&self, host: &Host, client: &Client, pod: &str) -> PathBuf {
        let target = target(host, pod);
        client.node_publish_volume(self.publish_request(host, &target)).unwrap();
        target
    }

    #[track_caller]
    pub fn unpublish(&self, client: &Client, target: &Path) {
        client.node_unpublish_volume(self.unpublish_request(target)).unwrap();
        assert!(!target.exists(), "{} stays", target.display());
    }

    pub fn delete(&self, client: &Client) -> Answer<DeleteVolumeResponse> {
        let volume_id = self.id.clone();
        client.delete_volume(DeleteVolumeRequest { volume_id, ..DeleteVolumeRequest::default() })
    }

    #[track_caller]
    pub fn snapshot(&self, client: &Client, name: &str) -> Snapshot {
        let request = CreateSnapshotRequest {
            source_volume_id: self.id.clone(),
            name: name.to_owned(),
            ..CreateSnapshotRequest::default()
        };
        client.create_snapshot(request).unwrap().snapshot.unwrap()
    }

    /// A volume of a source.
    #[track_caller]
    pub fn of(&self, client: &Client, name: &str, source: Option<VolumeContentSource>) -> Self {
        let request =
            CreateVolumeRequest { volume_content_source: source, ..self.kind.request(name) };
        Self::new(self.kind, client.create_volume(request).unwrap().volume.unwrap())
    }
}

/// The path of a volume for a pod, whose parent the orchestrator makes.
pub fn target(host: &Host, pod: &str) -> PathBuf {
    host.directory(Path::new("kubelet/pods").join(pod)).join("mount")
}

pub fn delete_snapshot(client: &Client, id: &str) -> Answer<DeleteSnapshotResponse> {
    let request = DeleteSnapshotRequest { snapshot_id: id.to_owned(), ..Default::default() };
    client.delete_snapshot(request)
}

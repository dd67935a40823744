//! Orders for the driver `csi.lamina.dev`, by the calls of a cluster's sidecars.
//!
//! A class with that provisioner gets its volumes by CreateVolume, as from the external
//! provisioner: the handle is the id that the driver gives. Such a volume is deleted, grown and
//! changed by calls too, and so is a snapshot of it. A volume that the controller makes is marked
//! until it has its object, which a cluster cannot do: there a crash in between leaves it behind.

use std::path::PathBuf;
use std::sync::Arc;

use laminafs::claim::failure::Failure;
use laminafs::claim::object::{AccessMode, VolumeMode};
use laminafs::claim::{Origin, Provision, names, quantity::Quantity};
use laminafs::service::volumes::{Volume, VolumeService};
use serde_json::{Value, json};
use tonic::Status;

use super::driver::{Done, Drivers, failure, refused};
use crate::csi::client::{Client, Place};
use crate::csi::wire::controller_client::ControllerClient;
use crate::csi::wire::volume_capability::access_mode::Mode;
use crate::csi::wire::volume_capability::{AccessMode as Access, AccessType, MountVolume};
use crate::csi::wire::volume_content_source::{SnapshotSource, Type, VolumeSource};
use crate::csi::wire::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerModifyVolumeRequest,
    CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest,
    VolumeCapability, VolumeContentSource, volume_capability::BlockVolume,
};
use crate::csi::{self, Driver, KUBERNETES, Role};
use crate::kube::convert::{self, CSI};
use crate::kube::meta::{meta, text};
use crate::kube::status::{self as kube, Answer};

/// Calls of the driver in this process at the same time: as many as orders run.
const CALLS: usize = super::orders::RUNNING_MAX;

/// A client of the driver, through a socket if there is one.
pub(super) fn client(
    socket: Option<PathBuf>,
    volumes: &Arc<VolumeService>,
    node: &str,
) -> Answer<Client> {
    let here = || {
        let (volumes, node) = (Arc::clone(volumes), node.to_owned());
        Place::Here(Arc::new(Driver::new(volumes, node, Role::Controller, CALLS)))
    };
    let place = socket.map_or_else(here, Place::Socket);
    let failed = |error| kube::Failure::internal(&format!("the client of the CSI driver: {error}"));
    Client::new(place).map_err(failed)
}

fn failed(status: &Status) -> Failure {
    let (code, message) = (status.code(), status.message());
    failure(format!("rpc error: code = {code:?} desc = {message}"))
}

const fn mode(mode: AccessMode) -> Mode {
    match mode {
        AccessMode::ReadWriteOnce => Mode::SingleNodeMultiWriter,
        AccessMode::ReadWriteOncePod => Mode::SingleNodeSingleWriter,
        AccessMode::ReadOnlyMany => Mode::MultiNodeReaderOnly,
        AccessMode::ReadWriteMany => Mode::MultiNodeMultiWriter,
    }
}

/// What the class and the claim ask for, one capability for each access mode.
fn capabilities(order: &Provision, fs_type: &str) -> Vec<VolumeCapability> {
    let access = || match order.volume.volume_mode {
        VolumeMode::Block => AccessType::Block(BlockVolume {}),
        VolumeMode::Filesystem => AccessType::Mount(MountVolume {
            fs_type: fs_type.to_owned(),
            mount_flags: order.volume.mount_options.clone(),
            volume_mount_group: String::new(),
        }),
    };
    let of = |one: AccessMode| VolumeCapability {
        access_mode: Some(Access { mode: mode(one).into() }),
        access_type: Some(access()),
    };
    order.volume.modes.iter().map(|one| of(*one)).collect()
}

fn range(size: Quantity) -> CapacityRange {
    CapacityRange { required_bytes: size.bytes(), limit_bytes: 0 }
}

impl Drivers {
    /// Whether an order is one for the driver.
    pub(super) fn is_for_csi(&self, order: &Provision) -> bool {
        order.provisioner == CSI && !self.map.has(CSI)
    }

    /// Whether a name is the id of a volume that the driver made.
    fn requested(&self, id: &str) -> Done<Option<Volume>> {
        match self.volumes.find_id(id) {
            Err(refusal) if refusal.is_missing() => Ok(None),
            Err(refusal) => Err(refused(refusal)),
            Ok(found) => Ok(Some(found).filter(csi::is_requested)),
        }
    }

    /// The volume of the driver behind an object that its provisioner made.
    pub(super) fn csi_volume(&self, object: &Value) -> Done<Option<Volume>> {
        let by = meta(object, "annotations").and_then(|all| all.get(names::PROVISIONED_BY));
        if by.and_then(Value::as_str) != Some(CSI) || text(object, "/spec/csi/driver") != CSI {
            return Ok(None);
        }
        self.requested(text(object, "/spec/csi/volumeHandle"))
    }

    /// Makes a volume, and returns its object.
    pub(super) fn provision_csi(&self, order: &Provision) -> Done<Value> {
        let of = |key: &str| order.parameters.get(&format!("{KUBERNETES}{key}"));
        let fs_type = of("fstype").cloned().unwrap_or_default();
        let mut parameters = order.parameters.clone();
        parameters.retain(|key, _| !key.starts_with(KUBERNETES));
        let name = &order.volume.meta.name;
        for (key, value) in [
            ("pvc/name", &order.claim.name),
            ("pvc/namespace", &order.claim.namespace),
            ("pv/name", name),
        ] {
            parameters.insert(format!("{KUBERNETES}{key}"), value.clone());
        }
        let source = order.origin.as_ref().map(|origin| self.content_source(origin));
        let request = CreateVolumeRequest {
            name: name.clone(),
            capacity_range: Some(range(order.volume.capacity)),
            volume_capabilities: capabilities(order, &fs_type),
            parameters: parameters.into_iter().collect(),
            volume_content_source: source.transpose()?,
            mutable_parameters: order.attributes.clone().into_iter().collect(),
            ..CreateVolumeRequest::default()
        };
        let call =
            async |mut client: ControllerClient<_>, request| client.create_volume(request).await;
        let made = self.csi.call(request, call).map_err(|status| failed(&status))?.volume;
        let made = made.ok_or_else(|| failure("the driver made no volume"))?;
        let mut volume = order.volume.clone();
        volume.capacity = volume.capacity.max(Quantity::of_bytes(made.capacity_bytes));
        let mut source = json!({"driver": CSI, "volumeHandle": made.volume_id});
        if let Some(source) = source.as_object_mut() {
            if !fs_type.is_empty() {
                source.insert("fsType".to_owned(), fs_type.into());
            }
            if !made.volume_context.is_empty() {
                source.insert("volumeAttributes".to_owned(), json!(made.volume_context));
            }
        }
        Ok(convert::new_volume(&volume, ("csi", source), &self.node))
    }

    /// The source of a copy: an id where it is known, since a name may lead to another volume soon.
    fn content_source(&self, origin: &Origin) -> Done<VolumeContentSource> {
        let of = match origin {
            Origin::Volume(name) => {
                let found = self.volumes.inspect(&self.backing(name)?).map_err(refused)?;
                Type::Volume(VolumeSource { volume_id: found.id })
            }
            Origin::Snapshot(handle) => {
                Type::Snapshot(SnapshotSource { snapshot_id: handle.clone() })
            }
        };
        Ok(VolumeContentSource { r#type: Some(of) })
    }

    /// Removes a volume.
    pub(super) fn delete_csi(&self, volume: &Volume) -> Done<()> {
        let request =
            DeleteVolumeRequest { volume_id: volume.id.clone(), ..DeleteVolumeRequest::default() };
        let call =
            async |mut client: ControllerClient<_>, request| client.delete_volume(request).await;
        self.csi.call(request, call).map(drop).map_err(|status| failed(&status))
    }

    /// Lets a volume grow.
    pub(super) fn expand_csi(&self, volume: &Volume, size: Quantity) -> Done<()> {
        let request = ControllerExpandVolumeRequest {
            volume_id: volume.id.clone(),
            capacity_range: Some(range(size)),
            ..ControllerExpandVolumeRequest::default()
        };
        let call = async |mut client: ControllerClient<_>, request| {
            client.controller_expand_volume(request).await
        };
        self.csi.call(request, call).map(drop).map_err(|status| failed(&status))
    }

    /// Changes the parameters of a volume that can change.
    pub(super) fn modify_csi(
        &self,
        volume: &Volume,
        parameters: impl IntoIterator<Item = (String, String)>,
    ) -> Done<()> {
        let request = ControllerModifyVolumeRequest {
            volume_id: volume.id.clone(),
            mutable_parameters: parameters.into_iter().collect(),
            ..ControllerModifyVolumeRequest::default()
        };
        let call = async |mut client: ControllerClient<_>, request| {
            client.controller_modify_volume(request).await
        };
        self.csi.call(request, call).map(drop).map_err(|status| failed(&status))
    }

    /// Takes a snapshot of a volume that the driver made, and returns it. `None` if the driver
    /// made no volume of that id, and took no such snapshot of one that is gone.
    pub(super) fn take_csi(
        &self,
        (content, name): (&str, &str),
        volume: &str,
    ) -> Done<Option<Volume>> {
        if self.requested(volume)?.is_none() && self.taken_csi(name)?.is_none() {
            return Ok(None);
        }
        let key = format!("{KUBERNETES}volumesnapshotcontent/name");
        let request = CreateSnapshotRequest {
            source_volume_id: volume.to_owned(),
            name: name.to_owned(),
            parameters: [(key, content.to_owned())].into(),
            ..CreateSnapshotRequest::default()
        };
        let call =
            async |mut client: ControllerClient<_>, request| client.create_snapshot(request).await;
        let made = self.csi.call(request, call).map_err(|status| failed(&status))?.snapshot;
        let id = made.ok_or_else(|| failure("the driver took no snapshot"))?.snapshot_id;
        self.volumes.inspect_snapshot(&id).map(Some).map_err(refused)
    }

    /// The snapshot that the driver took for a name.
    pub(super) fn taken_csi(&self, name: &str) -> Done<Option<Volume>> {
        let all = self.volumes.snapshots(None).map_err(refused)?;
        Ok(all.into_iter().find(|one| csi::request_of(one) == Some(name)))
    }

    /// Removes a snapshot that the driver took.
    pub(super) fn delete_snapshot_csi(&self, snapshot: &Volume) -> Done<()> {
        let request = DeleteSnapshotRequest {
            snapshot_id: snapshot.id.clone(),
            ..DeleteSnapshotRequest::default()
        };
        let call =
            async |mut client: ControllerClient<_>, request| client.delete_snapshot(request).await;
        self.csi.call(request, call).map(drop).map_err(|status| failed(&status))
    }
}

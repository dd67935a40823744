//! The service Controller.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::driver::Driver;
use super::fault::Fault;
use super::wire::controller_server::Controller;
use super::wire::controller_service_capability::{Rpc, Type, rpc};
use super::wire::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse,
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ControllerModifyVolumeRequest,
    ControllerModifyVolumeResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerServiceCapability, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse, CreateSnapshotRequest, CreateSnapshotResponse,
    CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest, DeleteSnapshotResponse,
    DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest, GetCapacityResponse,
    GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse,
};
use super::{check, create, snapshots};

/// The service.
pub struct Service(pub Arc<Driver>);

type Answer<T> = Result<Response<T>, Status>;

/// What is offered. There is nothing to attach: volumes are on their node.
const OFFERED: [rpc::Type; 11] = [
    rpc::Type::CreateDeleteVolume,
    rpc::Type::ListVolumes,
    rpc::Type::GetCapacity,
    rpc::Type::CreateDeleteSnapshot,
    rpc::Type::ListSnapshots,
    rpc::Type::CloneVolume,
    rpc::Type::VolumeCondition,
    rpc::Type::GetVolume,
    rpc::Type::SingleNodeMultiWriter,
    rpc::Type::ModifyVolume,
    rpc::Type::GetSnapshot,
];

fn no_attach() -> Status {
    Fault::unimplemented("volumes are on their node: there is nothing to attach").into()
}

#[tonic::async_trait]
impl Controller for Service {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Answer<CreateVolumeResponse> {
        let request = request.into_inner();
        self.0.run(create::objects(&request), |driver| driver.create(request)).await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Answer<DeleteVolumeResponse> {
        let id = request.into_inner().volume_id;
        check::required("volume_id", &id)?;
        self.0
            .run([id.clone()], move |driver| driver.delete(&id).map(|()| DeleteVolumeResponse {}))
            .await
    }

    async fn controller_publish_volume(
        &self,
        _: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<ControllerPublishVolumeResponse> {
        Err(no_attach())
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<ControllerUnpublishVolumeResponse> {
        Err(no_attach())
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<ValidateVolumeCapabilitiesResponse> {
        let request = request.into_inner();
        self.0.run([], |driver| driver.validate(request)).await
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Answer<ListVolumesResponse> {
        let ListVolumesRequest { max_entries, starting_token } = request.into_inner();
        self.0.run([], move |driver| driver.list((max_entries, &starting_token))).await
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Answer<GetCapacityResponse> {
        let request = request.into_inner();
        self.0.run([], move |driver| driver.capacity(request)).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        let grows = self.0.grows_in_controller.then_some(rpc::Type::ExpandVolume);
        let offer = |kind: rpc::Type| ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })),
        };
        let capabilities = OFFERED.into_iter().chain(grows).map(offer).collect();
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Answer<CreateSnapshotResponse> {
        let CreateSnapshotRequest { source_volume_id, name, parameters, .. } = request.into_inner();
        snapshots::check(&name, &parameters)?;
        check::required("source_volume_id", &source_volume_id)?;
        let objects = [source_volume_id.clone(), format!("the snapshot named {name:?}")];
        let work = move |driver: &Driver| driver.take(&source_volume_id, &name);
        self.0.run(objects, work).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Answer<DeleteSnapshotResponse> {
        let id = request.into_inner().snapshot_id;
        check::required("snapshot_id", &id)?;
        let objects = [id.clone()];
        let work =
            move |driver: &Driver| driver.delete_snapshot(&id).map(|()| DeleteSnapshotResponse {});
        self.0.run(objects, work).await
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Answer<ListSnapshotsResponse> {
        let request = request.into_inner();
        self.0.run([], move |driver| driver.list_snapshots(&request)).await
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Answer<GetSnapshotResponse> {
        let id = request.into_inner().snapshot_id;
        check::required("snapshot_id", &id)?;
        self.0.run([], move |driver| driver.get_snapshot(&id)).await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<ControllerExpandVolumeResponse> {
        let ControllerExpandVolumeRequest { volume_id: id, capacity_range, .. } =
            request.into_inner();
        check::required("volume_id", &id)?;
        let objects = [id.clone()];
        let work = move |driver: &Driver| driver.expand(&id, capacity_range.as_ref());
        self.0.run(objects, work).await
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Answer<ControllerGetVolumeResponse> {
        let id = request.into_inner().volume_id;
        self.0.run([], move |driver| driver.get(&id)).await
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Answer<ControllerModifyVolumeResponse> {
        let ControllerModifyVolumeRequest { volume_id: id, mutable_parameters, .. } =
            request.into_inner();
        check::required("volume_id", &id)?;
        let objects = [id.clone()];
        let work = move |driver: &Driver| {
            driver.modify(&id, mutable_parameters).map(|()| ControllerModifyVolumeResponse {})
        };
        self.0.run(objects, work).await
    }
}

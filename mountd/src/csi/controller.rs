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
    ControllerGetVolumeHealthRequest, ControllerGetVolumeHealthResponse,
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ControllerListVolumeHealthRequest,
    ControllerListVolumeHealthResponse, ControllerModifyVolumeRequest,
    ControllerModifyVolumeResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerServiceCapability, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse, CreateSnapshotRequest, CreateSnapshotResponse,
    CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest, DeleteSnapshotResponse,
    DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest, GetCapacityResponse,
    GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse,
};
use super::{MARK, check, create, health, snapshots};

/// The service.
pub struct Service(pub Arc<Driver>);

type Answer<T> = Result<Response<T>, Status>;

/// What is offered. There is nothing to attach: volumes are on their node.
const OFFERED: [rpc::Type; 10] = [
    rpc::Type::CreateDeleteVolume,
    rpc::Type::ListVolumes,
    rpc::Type::GetCapacity,
    rpc::Type::CreateDeleteSnapshot,
    rpc::Type::ListSnapshots,
    rpc::Type::CloneVolume,
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
        let is_marked = request.metadata().contains_key(MARK);
        let request = request.into_inner();
        let objects = create::objects(&request);
        let work = move |driver: &Driver| driver.create(request, is_marked);
        self.0.run(objects, work).await
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

    async fn controller_list_volume_health(
        &self,
        request: Request<ControllerListVolumeHealthRequest>,
    ) -> Answer<ControllerListVolumeHealthResponse> {
        health::require(&self.0)?;
        let ControllerListVolumeHealthRequest { max_entries, starting_token, .. } =
            request.into_inner();
        self.0.run([], move |driver| driver.list_health((max_entries, &starting_token))).await
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<ControllerGetVolumeHealthRequest>,
    ) -> Answer<ControllerGetVolumeHealthResponse> {
        health::require(&self.0)?;
        let id = request.into_inner().volume_id;
        let work = move |driver: &Driver| {
            let volume_health = Some(driver.health(&id)?);
            Ok(ControllerGetVolumeHealthResponse { volume_health })
        };
        self.0.run([], work).await
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
        let health: &[rpc::Type] = match self.0.has_alpha {
            true => &[rpc::Type::ListVolumeHealth, rpc::Type::GetVolumeHealth],
            false => &[rpc::Type::VolumeCondition],
        };
        let health = health.iter().copied();
        let capabilities = OFFERED.into_iter().chain(health).chain(grows).map(offer).collect();
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Answer<CreateSnapshotResponse> {
        let CreateSnapshotRequest {
            source_volume_id,
            name,
            parameters,
            accessibility_requirements: place,
            ..
        } = request.into_inner();
        create::require_here(place.as_ref(), &self.0.node)?;
        snapshots::check(&name, &parameters)?;
        check::required("source_volume_id", &source_volume_id)?;
        let objects = [source_volume_id.clone(), format!("the snapshot named {name:?}")];
        let content = snapshots::content(&name, &parameters);
        let work = move |driver: &Driver| driver.take(&source_volume_id, &name, content);
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

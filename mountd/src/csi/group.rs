//! The service GroupController.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::check;
use super::driver::Driver;
use super::fault::Fault;
use super::snapshots;
use super::wire::group_controller_server::GroupController;
use super::wire::group_controller_service_capability::{Rpc, Type, rpc};
use super::wire::{
    CreateVolumeGroupSnapshotRequest, CreateVolumeGroupSnapshotResponse,
    DeleteVolumeGroupSnapshotRequest, DeleteVolumeGroupSnapshotResponse,
    GetVolumeGroupSnapshotRequest, GetVolumeGroupSnapshotResponse,
    GroupControllerGetCapabilitiesRequest, GroupControllerGetCapabilitiesResponse,
    GroupControllerServiceCapability,
};

/// The service.
pub struct Service(pub Arc<Driver>);

type Answer<T> = Result<Response<T>, Status>;

fn key(id: &str) -> [String; 1] {
    [format!("the group snapshot {id:?}")]
}

#[tonic::async_trait]
impl GroupController for Service {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<GroupControllerGetCapabilitiesRequest>,
    ) -> Answer<GroupControllerGetCapabilitiesResponse> {
        let kind = rpc::Type::CreateDeleteGetVolumeGroupSnapshot.into();
        let offer =
            GroupControllerServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: kind })) };
        Ok(Response::new(GroupControllerGetCapabilitiesResponse { capabilities: vec![offer] }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<CreateVolumeGroupSnapshotRequest>,
    ) -> Answer<CreateVolumeGroupSnapshotResponse> {
        let CreateVolumeGroupSnapshotRequest { name, source_volume_ids: of, parameters, .. } =
            request.into_inner();
        snapshots::check(&name, &parameters)?;
        if of.is_empty() || of.iter().any(String::is_empty) {
            return Err(Fault::invalid("source_volume_ids is missing").into());
        }
        let objects: Vec<String> = of.iter().cloned().chain(key(&name)).collect();
        let work = move |driver: &Driver| {
            let taken = driver.take_group(&name, &of)?;
            Ok(CreateVolumeGroupSnapshotResponse { group_snapshot: Some(taken) })
        };
        self.0.run(objects, work).await
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<DeleteVolumeGroupSnapshotRequest>,
    ) -> Answer<DeleteVolumeGroupSnapshotResponse> {
        let DeleteVolumeGroupSnapshotRequest { group_snapshot_id: id, snapshot_ids, .. } =
            request.into_inner();
        check::required("group_snapshot_id", &id)?;
        let objects = [id.clone()];
        let work = move |driver: &Driver| {
            driver.delete_group(&id, &snapshot_ids)?;
            Ok(DeleteVolumeGroupSnapshotResponse {})
        };
        self.0.run(objects, work).await
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<GetVolumeGroupSnapshotRequest>,
    ) -> Answer<GetVolumeGroupSnapshotResponse> {
        let GetVolumeGroupSnapshotRequest { group_snapshot_id: id, snapshot_ids, .. } =
            request.into_inner();
        check::required("group_snapshot_id", &id)?;
        let work = move |driver: &Driver| {
            let found = driver.get_group(&id, &snapshot_ids)?;
            Ok(GetVolumeGroupSnapshotResponse { group_snapshot: Some(found) })
        };
        self.0.run([], work).await
    }
}

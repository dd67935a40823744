//! A client of all services, which waits for each answer.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use crate::wire::controller_client::ControllerClient;
use crate::wire::group_controller_client::GroupControllerClient;
use crate::wire::identity_client::IdentityClient;
use crate::wire::node_client::NodeClient;
use crate::wire::snapshot_metadata_client::SnapshotMetadataClient;
use crate::wire::*;

/// How long a call may take, if nothing else is asked for.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a call is repeated.
const PATIENCE: Duration = Duration::from_secs(60);

pub type Answer<T> = Result<T, Status>;

/// A client with a connection of its own.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    runtime: Handle,
    limit: Duration,
}

impl Client {
    pub fn new(runtime: &Handle, socket: &Path) -> Self {
        let _inside = runtime.enter();
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
        Self { channel: endpoint.connect_lazy(), runtime: runtime.clone(), limit: LIMIT }
    }

    /// The client, whose calls are given up after a time.
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    fn wait<T>(&self, call: impl Future<Output = Answer<Response<T>>>) -> Answer<T> {
        self.runtime.block_on(async {
            match tokio::time::timeout(self.limit, call).await {
                Ok(answer) => answer.map(Response::into_inner),
                Err(_) => Err(Status::deadline_exceeded("given up by the client")),
            }
        })
    }

    fn gather<T>(
        &self,
        call: impl Future<Output = Answer<Response<Streaming<T>>>>,
    ) -> Answer<Vec<T>> {
        self.wait(async {
            let mut parts = call.await?.into_inner();
            let mut all = Vec::new();
            while let Some(part) = parts.message().await? {
                all.push(part);
            }
            Ok(Response::new(all))
        })
    }

    /// The allocated ranges of a snapshot, by answers.
    pub fn get_metadata_allocated(
        &self,
        request: GetMetadataAllocatedRequest,
    ) -> Answer<Vec<GetMetadataAllocatedResponse>> {
        let mut client = SnapshotMetadataClient::new(self.channel.clone());
        self.gather(async move { client.get_metadata_allocated(request).await })
    }

    /// The ranges that differ between two snapshots, by answers.
    pub fn get_metadata_delta(
        &self,
        request: GetMetadataDeltaRequest,
    ) -> Answer<Vec<GetMetadataDeltaResponse>> {
        let mut client = SnapshotMetadataClient::new(self.channel.clone());
        self.gather(async move { client.get_metadata_delta(request).await })
    }

    /// Repeats a call as an orchestrator does, until it is done or refused for good.
    #[track_caller]
    pub fn insist<T>(&self, call: impl Fn(&Self) -> Answer<T>) -> Answer<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match call(self) {
                Err(status) if may_repeat(&status) => {
                    assert!(Instant::now() < deadline, "no end of it: {status}");
                    std::thread::sleep(Duration::from_millis(5));
                }
                answer => return answer,
            }
        }
    }
}

/// Whether a call may be repeated after this: the connection broke, or another call was at work.
pub fn may_repeat(status: &Status) -> bool {
    let codes = [Code::Aborted, Code::DeadlineExceeded, Code::Unavailable, Code::Cancelled];
    codes.contains(&status.code()) || status.source().is_some()
}

/// Checks that a call is refused with a code, and with a message and nothing more.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(code: Code, answer: Answer<T>) -> String {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(!status.message().is_empty(), "an error without a message: {status:?}");
    assert!(status.details().is_empty(), "an error with details: {status:?}");
    status.message().to_owned()
}

macro_rules! calls {
    ($($client:ident: $($call:ident($request:ident) -> $response:ident)*;)*) => {
        impl Client {
            $($(pub fn $call(&self, request: $request) -> Answer<$response> {
                let mut client = $client::new(self.channel.clone());
                self.wait(async move { client.$call(request).await })
            })*)*
        }
    };
}

calls! {
    IdentityClient:
        get_plugin_info(GetPluginInfoRequest) -> GetPluginInfoResponse
        get_plugin_capabilities(GetPluginCapabilitiesRequest) -> GetPluginCapabilitiesResponse
        probe(ProbeRequest) -> ProbeResponse;
    ControllerClient:
        create_volume(CreateVolumeRequest) -> CreateVolumeResponse
        delete_volume(DeleteVolumeRequest) -> DeleteVolumeResponse
        controller_publish_volume(ControllerPublishVolumeRequest)
            -> ControllerPublishVolumeResponse
        controller_unpublish_volume(ControllerUnpublishVolumeRequest)
            -> ControllerUnpublishVolumeResponse
        validate_volume_capabilities(ValidateVolumeCapabilitiesRequest)
            -> ValidateVolumeCapabilitiesResponse
        list_volumes(ListVolumesRequest) -> ListVolumesResponse
        controller_list_volume_health(ControllerListVolumeHealthRequest)
            -> ControllerListVolumeHealthResponse
        controller_get_volume_health(ControllerGetVolumeHealthRequest)
            -> ControllerGetVolumeHealthResponse
        get_capacity(GetCapacityRequest) -> GetCapacityResponse
        controller_get_capabilities(ControllerGetCapabilitiesRequest)
            -> ControllerGetCapabilitiesResponse
        create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse
        delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse
        list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse
        get_snapshot(GetSnapshotRequest) -> GetSnapshotResponse
        controller_expand_volume(ControllerExpandVolumeRequest) -> ControllerExpandVolumeResponse
        controller_get_volume(ControllerGetVolumeRequest) -> ControllerGetVolumeResponse
        controller_modify_volume(ControllerModifyVolumeRequest) -> ControllerModifyVolumeResponse;
    GroupControllerClient:
        group_controller_get_capabilities(GroupControllerGetCapabilitiesRequest)
            -> GroupControllerGetCapabilitiesResponse
        create_volume_group_snapshot(CreateVolumeGroupSnapshotRequest)
            -> CreateVolumeGroupSnapshotResponse
        delete_volume_group_snapshot(DeleteVolumeGroupSnapshotRequest)
            -> DeleteVolumeGroupSnapshotResponse
        get_volume_group_snapshot(GetVolumeGroupSnapshotRequest)
            -> GetVolumeGroupSnapshotResponse;
    NodeClient:
        node_stage_volume(NodeStageVolumeRequest) -> NodeStageVolumeResponse
        node_unstage_volume(NodeUnstageVolumeRequest) -> NodeUnstageVolumeResponse
        node_publish_volume(NodePublishVolumeRequest) -> NodePublishVolumeResponse
        node_unpublish_volume(NodeUnpublishVolumeRequest) -> NodeUnpublishVolumeResponse
        node_get_volume_stats(NodeGetVolumeStatsRequest) -> NodeGetVolumeStatsResponse
        node_expand_volume(NodeExpandVolumeRequest) -> NodeExpandVolumeResponse
        node_get_volume_health(NodeGetVolumeHealthRequest) -> NodeGetVolumeHealthResponse
        node_get_storage_health(NodeGetStorageHealthRequest) -> NodeGetStorageHealthResponse
        node_get_capabilities(NodeGetCapabilitiesRequest) -> NodeGetCapabilitiesResponse
        node_get_info(NodeGetInfoRequest) -> NodeGetInfoResponse;
}

//! The service Node: volumes at paths of this host.
//!
//! | file | its part |
//! | --- | --- |
//! | `stage` | a volume in use on this node: a holder of the volume, whose text has the arguments |
//! | `publish` | the content at a target path: a holder, and a publication |
//! | `inline` | ephemeral volumes of pods, which live as long as their publication |
//! | `stats` | what a published volume uses, and how it is |
//! | `expand` | the growth of a volume in use |
//!
//! Nothing is mounted on a staging path: its holder is the record. Holders and records of
//! publications are durable, so a repeated call finishes what one that was killed began.

mod expand;
mod inline;
mod publish;
mod stage;
mod stats;

pub(super) use self::stats::{Place, place, volume};

use std::collections::HashMap;
use std::sync::Arc;

use laminafs::service::publication::Publications;
use laminafs::service::volumes::{Volume, is_device};
use laminafs::types::Digest;
use tonic::{Request, Response, Status};

use super::check::Access;
use super::fault::{Fault, Outcome};
use super::wire::node_server::Node;
use super::wire::node_service_capability::{Rpc, Type, rpc};
use super::wire::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetStorageHealthRequest, NodeGetStorageHealthResponse, NodeGetVolumeHealthRequest,
    NodeGetVolumeHealthResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, Topology,
};
use super::{Driver, NODE_KEY, health};

/// The service.
pub struct Service(pub Arc<Driver>);

const OFFERS: [rpc::Type; 5] = [
    rpc::Type::StageUnstageVolume,
    rpc::Type::GetVolumeStats,
    rpc::Type::ExpandVolume,
    rpc::Type::SingleNodeMultiWriter,
    rpc::Type::VolumeMountGroup,
];

#[tonic::async_trait]
impl Node for Service {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.0.run([volume], move |driver| stage::stage(driver, &request)).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.0.run([volume], move |driver| stage::unstage(driver, &request)).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.0.run([volume], move |driver| publish::publish(driver, &request)).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.0.run([volume], move |driver| publish::unpublish(driver, &request)).await
    }

    /// Other calls go on meanwhile: it only reads. A path that hangs takes one thread.
    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let path = format!("the statistics of {:?}", request.volume_path);
        self.0.run([path], move |driver| stats::stats(driver, &request)).await
    }

    async fn node_get_volume_health(
        &self,
        request: Request<NodeGetVolumeHealthRequest>,
    ) -> Result<Response<NodeGetVolumeHealthResponse>, Status> {
        health::require(&self.0)?;
        let request = request.into_inner();
        let work = move |driver: &Driver| {
            let volume_health = Some(driver.node_health(&request)?);
            Ok(NodeGetVolumeHealthResponse { volume_health })
        };
        self.0.run([], work).await
    }

    async fn node_get_storage_health(
        &self,
        _request: Request<NodeGetStorageHealthRequest>,
    ) -> Result<Response<NodeGetStorageHealthResponse>, Status> {
        health::require(&self.0)?;
        let work = |driver: &Driver| {
            Ok(NodeGetStorageHealthResponse { backend_health: driver.storage_health() })
        };
        self.0.probe(work).await
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.0.run([volume], move |driver| expand::expand(driver, &request)).await
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let offer = |kind: rpc::Type| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })),
        };
        let health: &[rpc::Type] = match self.0.has_alpha {
            true => &[rpc::Type::GetVolumeHealth, rpc::Type::StorageHealth],
            false => &[rpc::Type::VolumeCondition],
        };
        let capabilities = OFFERS.iter().chain(health).copied().map(offer).collect();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _request: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        let node = self.0.node.clone();
        let segments = HashMap::from([(NODE_KEY.to_owned(), node.clone())]);
        Ok(Response::new(NodeGetInfoResponse {
            node_id: node,
            max_volumes_per_node: i64::from(self.0.max_volumes),
            accessible_topology: Some(Topology { segments }),
        }))
    }
}

/// The publications of this host.
fn publications(driver: &Driver) -> Outcome<Publications> {
    Ok(Publications::open(driver.volumes.root())?)
}

/// The volume of an id, if it is there.
fn find(driver: &Driver, id: &str) -> Outcome<Option<Volume>> {
    match driver.volume(id) {
        Err(fault) if fault.code() == tonic::Code::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Refuses an access that a volume does not have.
///
/// # Errors
/// `FAILED_PRECONDITION`.
fn require_fit(volume: &Volume, access: &Access) -> Outcome<()> {
    let name = &volume.name;
    match (access.is_block(), is_device(volume)) {
        (true, false) => {
            let text = format!("volume {name} has files: use the access type mount");
            return Err(Fault::not_now(text));
        }
        (false, true) => {
            let text = format!("volume {name} is a block device: use the access type block");
            return Err(Fault::not_now(text));
        }
        _ => {}
    }
    let wanted = access.mount.as_ref().map(|mount| mount.fs_type.as_str()).unwrap_or_default();
    match volume.options.get("fs") {
        Some(fs) if !wanted.is_empty() && wanted != fs => {
            let text = format!("volume {name} has the file system {fs}, not {wanted}");
            Err(Fault::not_now(text))
        }
        _ => Ok(()),
    }
}

/// The group that all files show, if there is one.
///
/// # Errors
/// `INVALID_ARGUMENT`.
fn group(access: &Access) -> Outcome<Option<u32>> {
    let text = access.mount.as_ref().map(|mount| mount.volume_mount_group.as_str());
    match text.unwrap_or_default() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Fault::invalid(format!("volume_mount_group {text:?} is not the number of a group"))
        }),
    }
}

/// A digest of texts, which cannot be told from another number of texts.
fn digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend_from_slice(&text.len().to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    Digest::sha256(&bytes).hex().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::wire::volume_capability::MountVolume;
    use super::super::wire::volume_capability::access_mode::Mode;
    use super::*;

    fn with_group(text: &str) -> Access {
        let mount = MountVolume { volume_mount_group: text.to_owned(), ..MountVolume::default() };
        Access { mount: Some(mount), mode: Mode::SingleNodeWriter }
    }

    #[test]
    fn a_group_is_a_number() {
        assert_eq!(group(&with_group("")).unwrap(), None);
        assert_eq!(group(&with_group("4000")).unwrap(), Some(4000));
        for bad in ["staff", "-1", "4294967296", " 1"] {
            let fault = group(&with_group(bad)).unwrap_err();
            assert_eq!(fault.code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn a_digest_knows_where_texts_end() {
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
        assert_ne!(digest(["a", ""]), digest(["a"]));
        assert_eq!(digest(["a", "b"]), digest(["a", "b"]));
    }
}

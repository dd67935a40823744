//! The service Identity.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::wire::identity_server::Identity;
use super::wire::plugin_capability::{
    Service as Offer, Type, VolumeExpansion, service, volume_expansion,
};
use super::wire::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use super::{Driver, NAME};

/// The service.
pub struct Service(pub Arc<Driver>);

fn offer(kind: service::Type) -> PluginCapability {
    PluginCapability { r#type: Some(Type::Service(Offer { r#type: kind.into() })) }
}

#[tonic::async_trait]
impl Identity for Service {
    async fn get_plugin_info(
        &self,
        _request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: NAME.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: std::collections::HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        use service::Type as Kind;
        let mut capabilities = vec![offer(Kind::VolumeAccessibilityConstraints)];
        if self.0.role.has_controller() {
            capabilities.extend([
                offer(Kind::ControllerService),
                offer(Kind::GroupControllerService),
                offer(Kind::SnapshotMetadataService),
            ]);
        }
        if self.0.has_alpha {
            capabilities.push(offer(Kind::SnapshotAccessibilityConstraints));
        }
        let online = VolumeExpansion { r#type: volume_expansion::Type::Online.into() };
        capabilities.push(PluginCapability { r#type: Some(Type::VolumeExpansion(online)) });
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    /// The driver is ready when it can read the catalogue: it needs nothing else at all times.
    async fn probe(
        &self,
        _request: Request<ProbeRequest>,
    ) -> Result<Response<ProbeResponse>, Status> {
        self.0
            .probe(|driver| {
                let read = driver.volumes.find_id("");
                match read {
                    Err(refusal) if refusal.is_missing() => Ok(ProbeResponse { ready: Some(true) }),
                    Err(refusal) => Err(super::fault::Fault::not_now(refusal.to_string())),
                    Ok(_) => Ok(ProbeResponse { ready: Some(true) }),
                }
            })
            .await
    }
}

//! The driver of the Container Storage Interface: the volumes of this host for an orchestrator.
//!
//! | file | its part |
//! | --- | --- |
//! | `wire` | the messages and services, from `proto/csi.proto` |
//! | `driver` | what all services share, and how calls run |
//! | `busy` | objects that a call works on |
//! | `fault` | errors as codes of gRPC |
//! | `check` | what every request is checked for |
//! | `identity` | the service Identity |
//! | `controller`, `create`, `volumes` | the service Controller |
//! | `client` | calls of the controller of this host |
//! | `record`, `shown`, `page` | requests in labels; volumes as messages; lists in pages |
//! | `snapshots`, `group` | snapshots, and the service GroupController |
//! | `metadata` | the service SnapshotMetadata |
//! | `health` | the alpha calls of version 1.13 |
//! | `node` | the service Node |
//!
//! A call that its client gives up goes on, and its repetition finds what it did. An object that a
//! call works on gives `ABORTED` to others. All state is in the catalogue and in records, so that a
//! driver that was killed goes on with its next process.

pub mod busy;
pub mod check;
pub mod client;
mod controller;
mod create;
pub mod driver;
pub mod fault;
mod group;
mod health;
mod identity;
mod metadata;
mod node;
mod page;
mod record;
mod shown;
mod snapshots;
mod volumes;
pub mod wire;

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::middleware::map_response;
use axum::response::Response;
use tonic::service::Routes;

pub use driver::{Driver, Role};
pub use record::{is_requested, request_of};

/// The name of the driver. Orchestrators store it in each volume.
pub const NAME: &str = "csi.lamina.dev";
/// What the keys begin with that Kubernetes and its sidecars add to parameters and contexts.
pub const KUBERNETES: &str = "csi.storage.k8s.io/";
/// The key of the topology: a volume is on one node.
pub const NODE_KEY: &str = "csi.lamina.dev/node";

/// The header of a call of the controller of this host: it marks what it makes with
/// [`UNFINISHED_LABEL`], until that has an object.
pub const MARK: &str = "lamina-unfinished";
/// The label of a volume that was made for an object which does not exist yet.
pub const UNFINISHED_LABEL: &str = "lamina.dev/unfinished";

/// The services that a driver offers in its role.
#[must_use]
pub fn routes(driver: &Arc<Driver>) -> Routes {
    use wire::controller_server::ControllerServer;
    use wire::group_controller_server::GroupControllerServer;
    use wire::identity_server::IdentityServer;
    use wire::snapshot_metadata_server::SnapshotMetadataServer;
    let mut routes = Routes::builder();
    routes.add_service(IdentityServer::new(identity::Service(Arc::clone(driver))));
    if driver.role.has_controller() {
        routes.add_service(ControllerServer::new(controller::Service(Arc::clone(driver))));
        routes.add_service(GroupControllerServer::new(group::Service(Arc::clone(driver))));
        routes.add_service(SnapshotMetadataServer::new(metadata::Service::new(Arc::clone(driver))));
    }
    if driver.role.has_node() {
        let node = node::Service(Arc::clone(driver));
        routes.add_service(wire::node_server::NodeServer::new(node));
    }
    routes.routes().into_axum_router().layer(map_response(explained)).into()
}

/// The answer to a call that the role does not offer, with a message: the specification wants one
/// for each error.
async fn explained(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let is_unknown = headers.get("grpc-status").is_some_and(|code| code == "12");
    if is_unknown && !headers.contains_key("grpc-message") {
        let text = "the%20role%20of%20this%20driver%20does%20not%20offer%20the%20call";
        headers.insert("grpc-message", HeaderValue::from_static(text));
    }
    response
}

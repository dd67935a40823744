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
//!
//! A call that its client gives up goes on, and its repetition finds what it did. An object that a
//! call works on gives `ABORTED` to others. All state is in the catalogue, so that a driver that was
//! killed goes on with its next process.

#![allow(dead_code, reason = "the services that use it follow")]

pub mod busy;
pub mod check;
pub mod driver;
pub mod fault;
mod identity;
pub mod wire;

use std::sync::Arc;

use tonic::service::Routes;

pub use driver::{Driver, Role};

/// The name of the driver. Orchestrators store it in each volume.
pub const NAME: &str = "csi.lamina.dev";
/// The key of the topology: a volume is on one node.
pub const NODE_KEY: &str = "csi.lamina.dev/node";

/// The services that a driver offers in its role.
#[must_use]
pub fn routes(driver: &Arc<Driver>) -> Routes {
    use wire::identity_server::IdentityServer;
    let mut routes = Routes::builder();
    routes.add_service(IdentityServer::new(identity::Service(Arc::clone(driver))));
    routes.routes()
}

//! A client of a driver, for the controller of this host. It calls as the sidecars of a cluster do.
//!
//! A daemon that serves a socket is called through it. Else the services are called in this
//! process, by the same messages: a command without a daemon has no socket.

use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tower::Service;

use super::wire::controller_client::ControllerClient;
use super::{Driver, MARK, routes};

/// How long a call may take. Its repetition finds what it did.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long a socket may take to accept.
const CONNECT: Duration = Duration::from_secs(5);

/// Where a driver is.
pub enum Place {
    /// Behind a socket.
    Socket(PathBuf),
    /// In this process.
    Here(Arc<Driver>),
}

/// What carries requests.
#[derive(Clone)]
pub enum Carrier {
    /// A connection.
    Channel(Channel),
    /// The services of this process.
    Routes(Routes),
}

/// A client whose calls block.
pub struct Client {
    /// It is taken by the end, which waits for no call.
    runtime: Option<Runtime>,
    carrier: Carrier,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Service<http::Request<Body>> for Carrier {
    type Response = http::Response<Body>;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failed>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let never = |never: Infallible| match never {};
        match self {
            Self::Channel(channel) => channel.poll_ready(context).map_err(Into::into),
            Self::Routes(routes) => {
                Service::<http::Request<Body>>::poll_ready(routes, context).map_err(never)
            }
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Self::Channel(channel) => {
                let answer = channel.call(request);
                Box::pin(async { Ok(answer.await?) })
            }
            Self::Routes(routes) => {
                let answer = routes.call(request);
                Box::pin(async { Ok(answer.await?) })
            }
        }
    }
}

/// A connection that is made by the first call, and made again after an error.
fn channel(path: &Path) -> std::io::Result<Channel> {
    let text = path.to_str().ok_or_else(|| std::io::Error::other("its path is not UTF-8"))?;
    let endpoint =
        Endpoint::from_shared(format!("unix://{text}")).map_err(std::io::Error::other)?;
    Ok(endpoint.connect_timeout(CONNECT).connect_lazy())
}

impl Client {
    /// A client of a driver.
    ///
    /// # Errors
    /// As starting threads.
    pub fn new(place: Place) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kube-csi")
            .enable_all()
            .build()?;
        let carrier = match place {
            Place::Here(driver) => Carrier::Routes(routes(&driver)),
            Place::Socket(path) => {
                let _entered = runtime.enter();
                Carrier::Channel(channel(&path)?)
            }
        };
        Ok(Self { runtime: Some(runtime), carrier })
    }

    /// Makes a call, and waits for its answer.
    ///
    /// # Errors
    /// The status that the driver gives; `DEADLINE_EXCEEDED` if it gives none in time.
    pub fn call<Q, A, F>(
        &self,
        message: Q,
        call: impl FnOnce(ControllerClient<Carrier>, Request<Q>) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let client = ControllerClient::new(self.carrier.clone());
        let mut request = Request::new(message);
        request.metadata_mut().insert(MARK, tonic::metadata::MetadataValue::from_static("yes"));
        let ended = || Status::cancelled("the client has ended");
        let answer = self
            .runtime
            .as_ref()
            .ok_or_else(ended)?
            .block_on(async { tokio::time::timeout(TIMEOUT, call(client, request)).await });
        let late = |_| Status::deadline_exceeded("the driver does not answer");
        answer.map_err(late)?.map(Response::into_inner)
    }
}

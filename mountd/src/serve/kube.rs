//! The API of Kubernetes over HTTPS, as far as its storage objects go.
//!
//! | file | its part |
//! | --- | --- |
//! | `identity` | the certificate authority, certificates, kubeconfig |
//! | `listen`, `guarded` | connections: TLS, client certificates, limits |
//! | `route`, `negotiate` | paths, parameters, media types |
//! | `wire` | bodies in protobuf |
//! | `discovery` | which groups, kinds and verbs there are |
//! | `verbs` | requests for objects |
//! | `watch` | streams of changes |
//! | `log` | the output of containers |
//! | `answer` | responses |
//! | `node` | the object of this host |
//!
//! The rules of the objects are those of [`crate::kube`]. Nothing is served to a client without a
//! certificate of this authority: a client with one may do everything.

mod answer;
mod discovery;
mod guarded;
pub mod identity;
mod listen;
mod log;
mod negotiate;
pub mod node;
mod route;
mod verbs;
mod watch;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use laminafs::service::volumes::VolumeService;
use tokio::sync::{Semaphore, watch as signal};

use self::identity::Identity;
use super::metrics::Metrics;
use crate::kube::controller::{self, Controller, Map};
use crate::kube::objects::Store;
use crate::kube::pods::manage::{self, Manager};
use crate::kube::status::{Answer, Failure};
use crate::report::CliError;

/// Requests that use the catalogue at the same time; each has a thread.
pub const THREADS: usize = 24;
/// Watches at the same time.
const WATCHES_MAX: usize = 512;
/// Watches of one client certificate.
const CLIENT_WATCHES_MAX: usize = 256;

/// Which client certificate a request came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(u64);

/// Where a request comes from.
struct Caller {
    client: Client,
    /// Held by an answer that goes on.
    serving: guarded::Serving,
}

/// What requests share.
pub struct Api {
    store: Arc<Store>,
    threads: Semaphore,
    watches: Mutex<HashMap<Client, usize>>,
    ending: signal::Receiver<bool>,
    metrics: Arc<Metrics>,
    address: SocketAddr,
    root: PathBuf,
    runtime_dir: Option<PathBuf>,
}

/// The right to watch, which is given back when it is dropped.
struct WatchPermit {
    api: Arc<Api>,
    client: Client,
}

impl Drop for WatchPermit {
    fn drop(&mut self) {
        let mut watches = self.api.watches();
        if let Some(count) = watches.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                watches.remove(&self.client);
            }
        }
    }
}

impl Api {
    /// Runs a call that blocks, on a thread.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Store) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let permit = self.threads.acquire().await;
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || call(&store)).await;
        drop(permit);
        done.unwrap_or_else(|_| Err(Failure::internal("the request was interrupted")))
    }

    fn watches(&self) -> std::sync::MutexGuard<'_, HashMap<Client, usize>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch_permit(self: &Arc<Self>, client: Client) -> Answer<WatchPermit> {
        let mut watches = self.watches();
        if watches.values().sum::<usize>() >= WATCHES_MAX {
            return Err(Failure::too_many(format!("{WATCHES_MAX} watches are open already")));
        }
        let count = watches.entry(client).or_default();
        if *count >= CLIENT_WATCHES_MAX {
            let text = format!("this client has {CLIENT_WATCHES_MAX} open watches already");
            return Err(Failure::too_many(text));
        }
        *count += 1;
        drop(watches);
        Ok(WatchPermit { api: Arc::clone(self), client })
    }
}

/// A front end that is ready to be served.
pub struct Front {
    api: Arc<Api>,
    tls: tokio_rustls::TlsAcceptor,
    connections: usize,
    controller: Controller,
}

/// What a front end needs.
pub struct Setup<'a> {
    /// The data root.
    pub root: &'a Path,
    /// Where it listens.
    pub address: SocketAddr,
    /// The name of the node; the name of the host if it is empty.
    pub node: &'a str,
    /// The volumes.
    pub volumes: Arc<VolumeService>,
    /// Provisioners that drivers of this host stand in for.
    pub map: Map,
    /// Whether pods are run as soon as they are placed on this node.
    pub run_pods: bool,
    /// Connections at the same time.
    pub connections: usize,
    /// The socket of the CSI driver, if it is served for controllers.
    pub csi: Option<PathBuf>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Whether the daemon ends.
    pub ending: signal::Receiver<bool>,
}

impl Front {
    /// Opens the objects, makes certificates, and creates the objects that exist from the start.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn new(setup: Setup<'_>) -> Result<Self, CliError> {
        let Setup { root, address, node, volumes, map, connections, metrics, ending, .. } = setup;
        let runtime_dir = crate::run::runtime_dir();
        let store = Arc::new(Store::open(root)?);
        let identity = Identity::open(root)?;
        identity.write_address(address)?;
        let node = if node.is_empty() { node::host_name() } else { node.to_owned() };
        let tls = identity.server(address, &node)?;
        let begun = store.create_namespaces().and_then(|()| node::announce(&store, &node));
        begun.map_err(|failure| CliError::Usage(format!("creating node {node:?}: {failure}")))?;
        let failed = |failure| CliError::Usage(format!("reading the objects: {failure}"));
        let lock = root.join("kube/controller");
        let objects = Arc::clone(&store);
        let pods = Manager {
            store: Arc::clone(&store),
            volumes: Arc::clone(&volumes),
            runtime_dir: runtime_dir.clone(),
            node: node.clone(),
            runs: setup.run_pods,
            held: manage::held(root, runtime_dir.as_deref()),
        };
        let controller = controller::Setup {
            lock,
            store: objects,
            volumes,
            node,
            map,
            pods: Some(pods),
            csi: setup.csi,
        };
        let controller = Controller::new(controller).map_err(failed)?;
        let threads = Semaphore::new(THREADS);
        let watches = Mutex::default();
        let root = root.to_owned();
        let api = Api { store, threads, watches, ending, metrics, address, root, runtime_dir };
        let api = Arc::new(api);
        Ok(Self { api, tls: tls.into(), connections, controller })
    }
}

//! What the services share, and how their calls run.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::Arc;

use laminafs::service::volumes::{Volume, VolumeService};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tonic::{Response, Status};

use super::busy::{Busy, Held};
use super::check;
use super::fault::{Fault, Outcome};

/// Threads of [`Driver::probe`].
const PROBES: usize = 2;

/// What a driver serves beside Identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Controller, GroupController and SnapshotMetadata.
    Controller,
    /// Node.
    Node,
    /// All services.
    #[default]
    All,
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "controller" => Ok(Self::Controller),
            "node" => Ok(Self::Node),
            "all" => Ok(Self::All),
            _ => Err(format!("unknown role {text:?}: use controller, node or all")),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Controller => "controller",
            Self::Node => "node",
            Self::All => "all",
        })
    }
}

impl Role {
    /// Whether the services of the controller are offered.
    #[must_use]
    pub const fn has_controller(self) -> bool {
        matches!(self, Self::Controller | Self::All)
    }

    /// Whether the service of the node is offered.
    #[must_use]
    pub const fn has_node(self) -> bool {
        matches!(self, Self::Node | Self::All)
    }
}

/// The driver.
pub struct Driver {
    /// The volumes of this host.
    pub volumes: Arc<VolumeService>,
    /// The id of this node.
    pub node: String,
    /// What is served.
    pub role: Role,
    /// The volumes that this node takes at most; 0 for no limit.
    pub max_volumes: u32,
    /// Whether the controller grows volumes. Else the node does: where each node has a controller
    /// of its own, one that is chosen for all of them does not know the volumes of the others.
    pub grows_in_controller: bool,
    /// Whether the alpha calls of CSI 1.13 are offered, in place of the conditions of 1.12.
    pub has_alpha: bool,
    busy: Arc<Busy>,
    threads: Arc<Semaphore>,
    /// Of calls that must be answered though all threads wait for volumes.
    probes: Arc<Semaphore>,
    calls: usize,
}

impl Driver {
    /// A driver whose calls have a number of threads.
    #[must_use]
    pub fn new(volumes: Arc<VolumeService>, node: String, role: Role, calls: usize) -> Self {
        let (busy, threads) = (Arc::default(), Arc::new(Semaphore::new(calls)));
        Self {
            volumes,
            node,
            role,
            max_volumes: 0,
            grows_in_controller: true,
            has_alpha: false,
            busy,
            threads,
            probes: Arc::new(Semaphore::new(PROBES)),
            calls,
        }
    }

    /// Runs a call on a thread, while no other call works on one of its objects. A call whose
    /// client is gone goes on.
    ///
    /// # Errors
    /// `ABORTED` while another call works on one of them; those of the call.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        objects: impl IntoIterator<Item = String>,
        work: impl FnOnce(&Self) -> Outcome<T> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let held = self.busy.hold(objects.into_iter().collect())?;
        self.run_on(&self.threads, held, work).await
    }

    /// Runs a call that looks at no volume, on a thread that no volume can hold.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn probe<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Outcome<T> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let held = self.busy.hold(Vec::new())?;
        self.run_on(&self.probes, held, work).await
    }

    /// Holds an object for a part of a call, beside those of the call.
    ///
    /// # Errors
    /// `ABORTED` while another call works on it.
    pub fn hold(&self, object: String) -> Outcome<Held> {
        self.busy.hold(vec![object])
    }

    async fn run_on<T: Send + 'static>(
        self: &Arc<Self>,
        threads: &Arc<Semaphore>,
        held: Held,
        work: impl FnOnce(&Self) -> Outcome<T> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let interrupted = || Fault::internal("the call was interrupted: see the log of lamina");
        let thread = Arc::clone(threads).acquire_owned().await.map_err(|_| interrupted())?;
        let driver = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let (_held, _thread) = (held, thread);
            let done = catch_unwind(AssertUnwindSafe(|| work(&driver)));
            done.unwrap_or_else(|_| Err(interrupted()))
        });
        let done = done.await.map_err(|_| interrupted())??;
        Ok(Response::new(done))
    }

    /// Waits until no call runs, also none whose client is gone.
    pub async fn idle(&self) {
        let all = u32::try_from(self.calls).unwrap_or(u32::MAX);
        // It is never closed.
        drop(self.threads.acquire_many(all).await);
    }

    /// The volume of an id that this driver gave out, or of the name of a volume that was made by
    /// hand. An id is never a path.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an empty id, `NOT_FOUND`.
    pub fn volume(&self, id: &str) -> Outcome<Volume> {
        check::required("volume_id", id)?;
        let missing = || Fault::missing(format!("volume {id:?} does not exist"));
        match self.volumes.find_id(id) {
            Err(refusal) if refusal.is_missing() => {}
            found => return Ok(found?),
        }
        let name = id.parse().map_err(|_| missing())?;
        match self.volumes.inspect(&name) {
            Err(refusal) if refusal.is_missing() => Err(missing()),
            found => Ok(found?),
        }
    }
}

//! Taking a pod: its lock, then its object, then what an earlier process of it left.

use std::io;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use laminafs::service::volumes::VolumeService;
use serde_json::Value;

use super::{Cause, PAUSE, Setup, Slot, Supervisor};
use crate::kube::meta::{is_ending, now, text};
use crate::kube::objects::Store;
use crate::kube::pods::ends::conclude;
use crate::kube::pods::events::Events;
use crate::kube::pods::fault::Fault;
use crate::kube::pods::home::{Held, Home};
use crate::kube::pods::plan::{Plan, Role};
use crate::kube::pods::runtime::{Engine, Runtime};
use crate::kube::pods::source::{node_address, pod};
use crate::kube::pods::state::{Ended, Standing, State};

/// A pod whose lock is held.
struct Taken {
    store: Store,
    volumes: VolumeService,
    home: Home,
    held: Held,
    pod: Value,
    /// The version of the catalogue from before the pod was read.
    seen: u64,
}

fn failed(error: io::Error) -> Fault {
    Fault::new(error.to_string())
}

fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Why a pod that another process holds cannot be taken.
fn held_already(pod: &Value) -> Fault {
    let name = text(pod, "/metadata/name");
    let text = match text(pod, "/status/phase") {
        "Pending" => format!(
            "the process of pod {name:?} is running already, and keeps trying to begin it: lamina \
             pod stop ends that"
        ),
        _ => format!("pod {name:?} is running already"),
    };
    Fault::new(text)
}

impl Taken {
    /// `None` if there is nothing to do, or if it is done.
    fn of(setup: &Setup) -> Result<Option<Self>, Fault> {
        let store = Store::open(&setup.root).map_err(|error| Fault::new(error.to_string()))?;
        let name = (&setup.namespace[..], &setup.name[..]);
        let found = pod(&store, name)?;
        let uid = text(&found, "/metadata/uid").to_owned();
        let home = Home::new(&setup.root, setup.runtime_dir.as_deref(), &uid).map_err(failed)?;
        let Some(held) = home.lock().map_err(failed)? else { return Err(held_already(&found)) };
        if setup.again {
            // Those from before were for another run. Who asks from now on means this one.
            home.forget_stop().map_err(failed)?;
        }
        // Only now: what another process wrote until then is seen.
        let seen = store.version()?;
        let pod = match pod(&store, name) {
            Ok(pod) if text(&pod, "/metadata/uid") == uid => pod,
            _ => return home.remove(held).map(|()| None).map_err(failed),
        };
        let volumes = VolumeService::open(&setup.root);
        let volumes = volumes.map_err(|refusal| Fault::new(refusal.to_string()))?;
        if setup.stops && is_over(&pod) {
            conclude(&store, &volumes, (&home, held), &pod)?;
            return Ok(None);
        }
        // A deleted pod that was started has lost its process, and is ended by this one.
        let is_lost = home.was_started() && !setup.again;
        let is_done = (is_ending(&pod) && !is_lost) || (is_over(&pod) && !setup.again);
        if is_done && !setup.stops {
            return Ok(None);
        }
        if text(&pod, "/spec/nodeName").is_empty() {
            let text = format!("pod {:?} has no node yet: kubectl describe pod says why", name.1);
            home.remove(held).map_err(failed)?;
            return Err(Fault::new(text));
        }
        Ok(Some(Self { store, volumes, home, held, pod, seen }))
    }
}

impl Supervisor {
    /// Takes a pod. `None` if there is nothing to do: it has ended, or it is gone.
    ///
    /// # Errors
    /// Another process holds it; it is on no node yet; the catalogue cannot be read.
    pub fn take(setup: &Setup) -> Result<Option<Self>, Fault> {
        let Some(taken) = Taken::of(setup)? else { return Ok(None) };
        let is_over = is_over(&taken.pod);
        let mut taken = Self::new(setup, taken);
        taken.recover(is_over)?;
        if is_ending(&taken.plan.object) {
            taken.end(Cause::Deleted, Duration::ZERO);
        } else if setup.stops {
            taken.stop(Duration::ZERO);
        }
        Ok(Some(taken))
    }

    fn new(setup: &Setup, taken: Taken) -> Self {
        let Taken { store, volumes, home, held, pod, seen } = taken;
        let plan = Plan::of(pod);
        // One that goes on has the runtime that it began with.
        let began_with = Runtime::of(&home.started_by()).filter(|_| !setup.again);
        let engine = Engine::new(began_with.unwrap_or(setup.runtime), &home, &plan.uid);
        let (sender, signals) = channel();
        let now = Instant::now();
        Self {
            events: Events::new(text(&plan.object, "/spec/nodeName")),
            address: node_address(&store, text(&plan.object, "/spec/nodeName")),
            began: text(&plan.object, "/status/startTime").to_owned(),
            slots: Vec::new(),
            store,
            volumes,
            home,
            held,
            plan,
            engine,
            verdict: None,
            ending: None,
            ready: None,
            next_mount: now,
            pause: PAUSE,
            seen,
            refreshed: now,
            is_dirty: false,
            written: Value::Null,
            signals,
            sender,
        }
    }

    /// Removes what an earlier process of the pod left, and takes over how far it came. A request
    /// to stop the pod stays: it may be one that came meanwhile.
    fn recover(&mut self, is_over: bool) -> Result<(), Fault> {
        let failed = |what: &'static str| move |error| Fault::new(format!("{what}: {error}"));
        self.engine.remove_all().map_err(failed("ending containers that were left"))?;
        self.home.unmount(true).map_err(failed("ending mounts that were left"))?;
        self.home.note_start(self.engine.name()).map_err(failed("noting the start"))?;
        self.engine.note().map_err(failed("noting the runtime"))?;
        let is_fresh = is_over || self.began.is_empty();
        if is_fresh {
            self.began = now();
        }
        let has_init = self.plan.containers.iter().any(|one| one.role != Role::Main);
        for container in &self.plan.containers {
            let is_late = has_init && container.role == Role::Main;
            let reason = if is_late { "PodInitializing" } else { "ContainerCreating" };
            let mut standing = match is_fresh {
                true => Standing::waiting(reason),
                false => self.read(&container.name, reason),
            };
            if let State::Running { since } = &standing.state {
                standing.state = State::Ended(Ended {
                    code: 137,
                    reason: "ContainerStatusUnknown".to_owned(),
                    message: "the process that held the pod was killed".to_owned(),
                    began: since.clone(),
                    at: now(),
                    id: standing.id.clone(),
                });
            }
            self.slots.push(Slot { standing, run: None, next: Instant::now(), failures: 0 });
        }
        Ok(())
    }

    fn read(&self, name: &str, reason: &'static str) -> Standing {
        let lists = ["/status/containerStatuses", "/status/initContainerStatuses"];
        let lists = lists.iter().filter_map(|at| self.plan.object.pointer(at)?.as_array());
        let found = lists.flatten().find(|one| text(one, "/name") == name);
        found.map_or_else(|| Standing::waiting(reason), Standing::read)
    }
}

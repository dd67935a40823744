//! The part of the daemon: it starts the processes that hold pods, and cleans up after those that
//! were killed.
//!
//! It knows a pod by its object and by its lock alone, so that it finds all in order after a start,
//! whoever started the pod. What takes long is done on a thread for each pod.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use laminafs::service::volumes::VolumeService;
use laminafs::types::VolumeName;
use serde_json::Value;

use super::claims;
use super::ends::{conclude, sweep};
use super::fault::Fault;
use super::home::Home;
use super::plan::number;
use super::source::{kind, pod as pod_of};
use crate::kube::meta::{finalizers, is_ending, text};
use crate::kube::objects::{ListOptions, Store};
use crate::kube::status::Answer;

/// Between two looks at changes.
const TICK: Duration = Duration::from_millis(200);
/// Between two looks at pods whose processes may have been killed.
const LOOK: Duration = Duration::from_secs(3);
/// Threads at the same time.
const BUSY_MAX: usize = 16;
/// The first pause after a failure; each further one doubles it.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What the manager needs.
pub struct Manager {
    /// The objects.
    pub store: Arc<Store>,
    /// The volumes.
    pub volumes: Arc<VolumeService>,
    /// The runtime directory.
    pub runtime_dir: Option<PathBuf>,
    /// The name of this node.
    pub node: String,
    /// Whether pods are started as soon as they have this node.
    pub runs: bool,
    /// The volumes that pods held when the daemon started, which takes them into use as well.
    pub held: HashMap<String, Vec<VolumeName>>,
}

/// The volumes that pods hold, by the ids of the pods.
pub fn held(root: &Path, runtime_dir: Option<&Path>) -> HashMap<String, Vec<VolumeName>> {
    let homes = Home::all(root, runtime_dir).unwrap_or_default();
    homes.into_iter().map(|(uid, home)| (uid, claims::held(&home))).collect()
}

/// A pod of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    namespace: String,
    name: String,
    is_over: bool,
    is_ending: bool,
    /// Whether finalizers alone hold the object of a deleted pod.
    is_held_back: bool,
}

/// What is to be done for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Start,
    Finish,
    Delete,
}

/// Failures in a row, and when the pod is looked at again.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    count: u32,
    until: Instant,
}

#[derive(Default)]
struct Work {
    known: BTreeMap<String, Known>,
    busy: HashMap<String, JoinHandle<Result<(), Fault>>>,
    /// The volumes that pods hold.
    held: HashMap<String, Vec<VolumeName>>,
    waiting: HashMap<String, Waiting>,
}

fn known(pod: &Value) -> Known {
    Known {
        namespace: text(pod, "/metadata/namespace").to_owned(),
        name: text(pod, "/metadata/name").to_owned(),
        is_over: matches!(text(pod, "/status/phase"), "Succeeded" | "Failed"),
        is_ending: is_ending(pod),
        is_held_back: is_ending(pod)
            && number(pod, "/metadata/deletionGracePeriodSeconds") == Some(0)
            && !finalizers(pod).is_empty(),
    }
}

impl Manager {
    /// Watches the pods of this node until the other end of `ends` is dropped.
    pub fn run(self, ends: &Receiver<()>) {
        let manager = Arc::new(self);
        let mut work = Work { held: manager.held.clone(), ..Work::default() };
        let mut seen = 0;
        let mut looked: Option<Instant> = None;
        while ends.recv_timeout(TICK) != Err(RecvTimeoutError::Disconnected) {
            let version = manager.store.version().unwrap_or(seen);
            let is_late = looked.is_none_or(|looked| looked.elapsed() >= LOOK);
            work.reap();
            if version == seen && !is_late {
                continue;
            }
            if version != seen {
                if let Err(failure) = manager.look(&mut work) {
                    tracing::warn!("looking at pods: {failure}");
                    continue;
                }
                seen = version;
            }
            if is_late || work.is_gone(&manager) {
                looked = Some(Instant::now());
                let dir = manager.runtime_dir.as_deref();
                if let Err(fault) = sweep(&manager.store, &manager.volumes, dir) {
                    tracing::warn!("what pods left: {fault}");
                }
            }
            manager.act(&mut work);
            manager.let_go(&mut work);
        }
        // The processes of pods go on; what is under way is found again after the next start.
    }

    fn look(&self, work: &mut Work) -> Answer<()> {
        let all = self.store.list(kind("pods")?, &ListOptions::default())?.items;
        let has_home = |pod: &Value| {
            let home = self.home(text(pod, "/metadata/uid"));
            home.is_some_and(|home| home.exists())
        };
        // One of another node ran here when this host had that name.
        let is_here = |pod: &&Value| match text(pod, "/spec/nodeName") {
            "" => false,
            node => node == self.node || has_home(pod),
        };
        let here = all.iter().filter(is_here);
        work.known = here.map(|pod| (text(pod, "/metadata/uid").to_owned(), known(pod))).collect();
        work.waiting.retain(|uid, _| work.known.contains_key(uid));
        Ok(())
    }

    /// Gives up volumes that pods have given back: this process took them into use too, at its
    /// start, and would keep them mounted.
    fn let_go(&self, work: &mut Work) {
        let mut held = HashMap::new();
        for uid in work.known.keys().chain(work.held.keys()) {
            let names = self.home(uid).map(|home| claims::held(&home)).unwrap_or_default();
            if !names.is_empty() {
                held.insert(uid.clone(), names);
            }
        }
        for (uid, before) in std::mem::replace(&mut work.held, held) {
            let now = work.held.get(&uid);
            let given =
                before.into_iter().filter(|name| !now.is_some_and(|all| all.contains(name)));
            for name in given {
                if let Err(error) = self.volumes.unpublish(&name, &claims::holder(&uid)) {
                    tracing::debug!(%error, "volume {name} of a pod that has ended");
                }
            }
        }
    }

    fn home(&self, uid: &str) -> Option<Home> {
        Home::new(self.volumes.root(), self.runtime_dir.as_deref(), uid).ok()
    }

    /// What is to be done for a pod that no process holds.
    fn task(&self, uid: &str, pod: &Known) -> Option<Task> {
        let home = self.home(uid)?;
        if home.is_held() {
            return None;
        }
        match (pod.is_ending, pod.is_over) {
            // Also one without directories: what had some may have been asked about before.
            (true, _) => (!pod.is_held_back || home.is_used()).then_some(Task::Delete),
            (false, true) => home.was_started().then_some(Task::Finish),
            (false, false) => (self.runs || home.was_started()).then_some(Task::Start),
        }
    }

    fn act(self: &Arc<Self>, work: &mut Work) {
        let now = Instant::now();
        for (uid, pod) in &work.known {
            let is_waiting = work.waiting.get(uid).is_some_and(|one| one.until > now);
            if is_waiting || work.busy.contains_key(uid) || work.busy.len() >= BUSY_MAX {
                continue;
            }
            let Some(task) = self.task(uid, pod) else { continue };
            let (manager, own, pod) = (Arc::clone(self), uid.clone(), pod.clone());
            let thread = std::thread::Builder::new().name("pod".to_owned());
            match thread.spawn(move || manager.carry_out(task, &own, &pod)) {
                Ok(thread) => drop(work.busy.insert(uid.clone(), thread)),
                Err(error) => tracing::error!("starting a thread: {error}"),
            }
        }
    }

    fn carry_out(&self, task: Task, uid: &str, pod: &Known) -> Result<(), Fault> {
        let Some(home) = self.home(uid) else { return Ok(()) };
        // One that is being deleted and whose process was killed gets another process, which notes
        // in the status how its containers ended.
        let has_run = task == Task::Delete && home.was_started() && !pod.is_over;
        if task != Task::Start && !has_run {
            return self.clean_up((uid, pod), &home);
        }
        let dir = self.runtime_dir.as_deref();
        supervised(self.volumes.root(), dir, (&pod.namespace, &pod.name), &[])
    }

    /// Ends what is left of a pod that has ended or is being deleted.
    fn clean_up(&self, (uid, pod): (&str, &Known), home: &Home) -> Result<(), Fault> {
        let failed = |error: std::io::Error| Fault::new(error.to_string());
        let Some(held) = home.lock().map_err(failed)? else { return Ok(()) };
        // It may have been started since it was looked at.
        match pod_of(&self.store, (&pod.namespace, &pod.name)) {
            Ok(now) if text(&now, "/metadata/uid") == uid => {
                let known = known(&now);
                if known.is_over || known.is_ending {
                    return conclude(&self.store, &self.volumes, (home, held), &now);
                }
                Ok(())
            }
            Err(failure) if failure.code != 404 => Err(failure.into()),
            // The next sweep removes its directory, which the lock made if it had none.
            _ => Ok(()),
        }
    }
}

/// Runs `lamina pod supervise` for a pod, which goes to the background when it holds the pod.
///
/// # Errors
/// What it says.
pub fn supervised(
    root: &Path,
    runtime_dir: Option<&Path>,
    (namespace, name): (&str, &str),
    words: &[&str],
) -> Result<(), Fault> {
    let failed = |error: std::io::Error| Fault::new(format!("starting a process: {error}"));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["pod", "supervise", name, "--namespace", namespace]).args(words);
    command.arg("--root").arg(root);
    if let Some(dir) = runtime_dir {
        command.env("LAMINA_RUNTIME_DIR", dir);
    }
    let output = command.stdin(std::process::Stdio::null()).output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Fault::new(said.trim().trim_start_matches("lamina: ")))
}

impl Work {
    /// Takes the results of threads that have ended.
    fn reap(&mut self) {
        let done: Vec<String> = self
            .busy
            .iter()
            .filter(|(_, thread)| thread.is_finished())
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in done {
            let Some(thread) = self.busy.remove(&uid) else { continue };
            match thread.join() {
                Ok(Ok(())) => drop(self.waiting.remove(&uid)),
                Ok(Err(fault)) => self.wait(&uid, &fault.to_string()),
                Err(_) => self.wait(&uid, "a thread panicked: see the log"),
            }
        }
    }

    fn wait(&mut self, uid: &str, why: &str) {
        let name = self.known.get(uid).map_or(uid, |pod| &pod.name);
        tracing::warn!("pod {name}: {why}");
        let count = self.waiting.get(uid).map_or(0, |waiting| waiting.count);
        let pause = PAUSE.saturating_mul(1 << count.min(16)).min(PAUSE_MAX);
        let until = Instant::now() + pause;
        self.waiting.insert(uid.to_owned(), Waiting { count: count + 1, until });
    }

    /// Whether a pod that had directories has no object any more.
    fn is_gone(&self, manager: &Manager) -> bool {
        let homes = Home::all(manager.volumes.root(), manager.runtime_dir.as_deref());
        homes.is_ok_and(|all| all.iter().any(|(uid, _)| !self.known.contains_key(uid)))
    }
}

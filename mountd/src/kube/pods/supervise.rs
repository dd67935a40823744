//! The process that holds a pod: it mounts, starts, watches and ends its containers.
//!
//! It is a process of its own, so that a pod goes on when the daemon is killed. It takes the lock
//! of the pod first and reads the pod then; it sees what clients change by the version of the
//! catalogue, and writes the status as any client does. What an earlier process of the pod left is
//! removed at the start.
//!
//! | file | its part |
//! | --- | --- |
//! | `take` | the lock, and what an earlier process left |
//! | `begin` | starts a container |
//! | `remover` | removes what a runtime that was killed left |
//! | `finish` | the end of a container, and of the pod |

mod begin;
mod finish;
mod remover;
mod take;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use laminafs::service::volumes::VolumeService;
use serde_json::Value;

use self::remover::Remover;
use super::events::{Events, Happening};
use super::home::{Held, Home};
use super::plan::{Plan, Restart, Role};
use super::runtime::{Engine, Runtime};
use super::source::kind;
use super::state::{self, Standing, State, Verdict, View};
use super::volumes::{Ready, Site};
use crate::container::crun;
use crate::kube::meta::{is_ending, now, set, text};
use crate::kube::objects::{Part, Store, Target, WriteOptions};
use crate::kube::status::{Answer, Failure};

/// Between two looks at the pod.
const TICK: Duration = Duration::from_millis(200);
/// The first pause after volumes that could not be mounted; each further one doubles it.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest such pause, as kubelet's.
const PAUSE_MAX: Duration = Duration::from_secs(122);
/// Between two looks at ConfigMaps and Secrets that changed.
const REFRESH: Duration = Duration::from_secs(10);
/// The grace of a pod whose object was removed without waiting for it.
const FORCED: Duration = Duration::from_secs(2);
/// Between two signals to containers that do not end.
const KILL: Duration = Duration::from_secs(1);
/// The longest grace: that of a pod may be any number, which no clock reaches.
const GRACE_MAX: Duration = Duration::from_secs(1 << 32);
/// A container that ran for so long begins anew with the shortest pause.
const STEADY: Duration = Duration::from_secs(600);

/// What is run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The data root.
    pub root: PathBuf,
    /// The runtime directory.
    pub runtime_dir: Option<PathBuf>,
    /// The OCI runtime.
    pub runtime: Runtime,
    /// The namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether a pod that has ended is run again.
    pub again: bool,
    /// Whether nothing is run, and what an earlier process left is ended.
    pub stops: bool,
}

/// What the process waits for.
#[derive(Debug)]
enum Signal {
    /// A container ended with an exit code.
    Exited(usize, i64),
    /// The process is to end.
    End,
}

/// A run of a container.
struct Run {
    id: String,
    began: String,
    at: Instant,
    bundle: PathBuf,
    pumps: Vec<JoinHandle<()>>,
    has_begun: bool,
    /// The signal that asks it to end.
    signal: String,
    remover: Remover,
    /// How often it could not be removed after its runtime had ended.
    failures: u32,
    /// The exit code of that runtime, and when the removal is tried again.
    left: Option<(i64, Instant)>,
}

/// A container.
struct Slot {
    standing: Standing,
    run: Option<Run>,
    /// When it is started, if it does not run.
    next: Instant,
    /// Failures in a row.
    failures: u32,
}

/// Why the pod ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Its object is being deleted.
    Deleted,
    /// Its object is gone.
    Gone,
    /// A user stops it, or its time is over, or nothing of it is left to do.
    Over,
    /// The process is to end: the pod is run again later.
    Leave,
}

/// The end of a pod that has begun.
#[derive(Debug, Clone, Copy)]
struct Ending {
    cause: Cause,
    deadline: Instant,
    /// When what is left is killed again: a container may have begun meanwhile.
    next_kill: Instant,
}

/// A pod that is held.
pub struct Supervisor {
    store: Store,
    volumes: VolumeService,
    home: Home,
    held: Held,
    plan: Plan,
    engine: Engine,
    events: Events,
    slots: Vec<Slot>,
    began: String,
    address: String,
    verdict: Option<Verdict>,
    ending: Option<Ending>,
    ready: Option<BTreeMap<String, Ready>>,
    next_mount: Instant,
    pause: Duration,
    seen: u64,
    refreshed: Instant,
    is_dirty: bool,
    written: Value,
    signals: Receiver<Signal>,
    sender: Sender<Signal>,
}

impl Supervisor {
    /// What ends the process: a signal of its own sends it.
    pub fn ender(&self) -> impl Fn() + Send + use<> {
        let sender = self.sender.clone();
        move || drop(sender.send(Signal::End))
    }

    /// Runs the pod until it has ended.
    pub fn run(mut self) {
        loop {
            match self.signals.recv_timeout(TICK) {
                Ok(Signal::Exited(index, code)) => self.exited(index, code),
                Ok(Signal::End) => self.end(Cause::Leave, self.plan.grace()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if let Err(failure) = self.look() {
                tracing::warn!("reading pod {}: {failure}", self.plan.name);
            }
            self.advance();
            let written = self.write();
            if let Err(failure) = &written {
                tracing::warn!("the status of pod {}: {failure}", self.plan.name);
            }
            // Nobody would write the last status later.
            let may_end = written.is_ok() || self.leaves();
            if self.is_done() && may_end {
                return self.finish();
            }
        }
    }

    fn leaves(&self) -> bool {
        self.ending.is_some_and(|ending| ending.cause == Cause::Leave)
    }

    /// Whether the pod has ended. Who leaves it does not wait for what cannot be removed: the next
    /// process of the pod removes it first.
    fn is_done(&self) -> bool {
        let leaves = self.leaves();
        let is_over = |run: &Run| leaves && run.left.is_some();
        self.ending.is_some() && self.slots.iter().all(|slot| slot.run.as_ref().is_none_or(is_over))
    }

    fn target(&self) -> Answer<Target<'_>> {
        let kind = kind("pods")?;
        Ok(Target { kind, namespace: &self.plan.namespace, name: &self.plan.name })
    }

    /// Ends the pod for a user.
    fn stop(&mut self, grace: Duration) {
        let message = "Pod was stopped with lamina pod stop".to_owned();
        self.verdict.get_or_insert(Verdict { reason: "Stopped", message });
        self.end(Cause::Over, grace);
    }

    /// Takes over what clients changed.
    fn look(&mut self) -> Answer<()> {
        if let Some(grace) = self.home.stop_grace() {
            self.stop(grace.unwrap_or_else(|| self.plan.grace()));
        }
        let version = self.store.version()?;
        if version != self.seen {
            self.seen = version;
            self.is_dirty = true;
            match self.store.get(&self.target()?) {
                Ok(pod) if text(&pod, "/metadata/uid") == self.plan.uid => {
                    self.plan.object = pod;
                    if is_ending(&self.plan.object) {
                        self.end(Cause::Deleted, self.plan.grace());
                    }
                }
                Err(failure) if failure.code != 404 => return Err(failure),
                _ => self.end(Cause::Gone, FORCED),
            }
        }
        if self.is_dirty && self.ready.is_some() && self.refreshed.elapsed() >= REFRESH {
            self.is_dirty = false;
            self.refreshed = Instant::now();
            self.site().refresh();
        }
        Ok(())
    }

    /// Begins to end the pod, or ends it sooner than was said before.
    fn end(&mut self, cause: Cause, grace: Duration) {
        let deadline = Instant::now() + grace.min(GRACE_MAX);
        let ending = match self.ending {
            None => {
                self.ask_to_end();
                Ending { cause, deadline, next_kill: deadline }
            }
            Some(before) => {
                // A deletion decides what becomes of the object.
                let is_stronger = matches!(cause, Cause::Deleted | Cause::Gone);
                let cause = if is_stronger { cause } else { before.cause };
                let deadline = deadline.min(before.deadline);
                Ending { cause, deadline, next_kill: before.next_kill.min(deadline) }
            }
        };
        self.ending = Some(ending);
    }

    fn site(&self) -> Site<'_> {
        let (store, volumes) = (&self.store, &self.volumes);
        Site { store, volumes, home: &self.home, plan: &self.plan }
    }

    fn say(&mut self, field: &str, is_warning: bool, (reason, message): (&'static str, String)) {
        let what = Happening { field, is_warning, reason, message };
        self.events.record(&self.store, &self.plan, what);
    }

    /// Does what is due.
    fn advance(&mut self) {
        self.note_begun();
        self.remove_left();
        if self.kill_late() {
            return;
        }
        let view = self.view_over();
        if view {
            // Only sidecars are left.
            return self.end(Cause::Over, self.plan.grace());
        }
        let ran = || {
            let began = humantime::parse_rfc3339_weak(&self.began).ok()?;
            SystemTime::now().duration_since(began).ok()
        };
        if let Some(most) = self.plan.deadline()
            && ran().is_some_and(|ran| ran >= most)
        {
            let message = "Pod was active on the node longer than the specified deadline";
            let (reason, message) = ("DeadlineExceeded", message.to_owned());
            self.say("", false, (reason, message.clone()));
            self.verdict = Some(Verdict { reason, message });
            return self.end(Cause::Over, self.plan.grace());
        }
        if !self.mount() {
            return;
        }
        for index in 0..self.slots.len() {
            if !self.settle(index) {
                return;
            }
        }
    }

    /// Kills what has not ended in time. Whether the pod ends.
    fn kill_late(&mut self) -> bool {
        let Some(ending) = &mut self.ending else { return false };
        let now = Instant::now();
        if now >= ending.next_kill {
            ending.next_kill = now + KILL;
            for slot in &self.slots {
                if let Some(run) = &slot.run {
                    self.engine.kill(&run.id, "KILL");
                }
            }
        }
        true
    }

    fn view<T>(
        &self,
        (plan, verdict): (&Plan, Option<&Verdict>),
        call: impl FnOnce(&View<'_>) -> T,
    ) -> T {
        let all: Vec<Standing> = self.slots.iter().map(|slot| slot.standing.clone()).collect();
        call(&View { plan, all: &all, began: &self.began, address: &self.address, verdict })
    }

    fn view_over(&self) -> bool {
        self.view((&self.plan, self.verdict.as_ref()), |view| view.is_over())
    }

    /// The status.
    fn status(&self) -> Value {
        let verdict = self.verdict.as_ref();
        let is_deleted = self.ending.is_some_and(|ending| ending.cause == Cause::Deleted);
        if !is_deleted || !self.is_done() {
            return self.view((&self.plan, verdict), |view| view.status());
        }
        // Nothing of it is started again, whatever its policy says.
        let plan = Plan { policy: Restart::Never, ..self.plan.clone() };
        if verdict.is_some() || self.view((&plan, None), |view| view.is_over()) {
            return self.view((&plan, verdict), |view| view.status());
        }
        // One that never ran to its end has failed, without a reason of its own.
        let unsaid = Verdict { reason: "", message: String::new() };
        let mut status = self.view((&plan, Some(&unsaid)), |view| view.status());
        for name in ["reason", "message"] {
            set(&mut status, name, None);
        }
        status
    }

    /// Notes the containers that their runtime has started by now.
    fn note_begun(&mut self) {
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let Some(run) = slot.run.as_mut().filter(|run| !run.has_begun) else { continue };
            if !crun::has_begun(&run.bundle) {
                continue;
            }
            run.has_begun = true;
            slot.standing.state = State::Running { since: run.began.clone() };
            let Some(container) = self.plan.containers.get(index) else { continue };
            let message = format!("Started container {}", container.name);
            let (field, id) = (container.field.clone(), run.id.clone());
            let signal = run.signal.clone();
            self.say(&field, false, ("Started", message));
            if self.ending.is_some() {
                // It began after the others were asked to end.
                self.engine.kill(&id, &signal);
            }
        }
    }

    /// Makes the volumes ready. Whether they are.
    fn mount(&mut self) -> bool {
        if self.ready.is_some() {
            return true;
        }
        if Instant::now() < self.next_mount {
            return false;
        }
        match self.site().volumes() {
            Ok(ready) => {
                self.ready = Some(ready);
                true
            }
            Err((volume, fault)) => {
                let text = format!("MountVolume.SetUp failed for volume {volume:?} : {fault}");
                self.say("", true, ("FailedMount", text));
                self.next_mount = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                false
            }
        }
    }

    /// Starts a container that is due. Whether those behind it may begin.
    fn settle(&mut self, index: usize) -> bool {
        let Some(container) = self.plan.containers.get(index).cloned() else { return false };
        let Some(slot) = self.slots.get(index) else { return false };
        let is_ended = matches!(&slot.standing.state, State::Ended(_));
        let code = match &slot.standing.state {
            State::Ended(ended) => ended.code,
            _ => 0,
        };
        let is_final = is_ended && !self.plan.restarts(container.role, code);
        let is_due = slot.run.is_none() && !is_final && Instant::now() >= slot.next;
        if container.role == Role::Init && is_ended && code == 0 {
            return true;
        }
        if is_due {
            self.begin(index, &container);
        }
        match container.role {
            Role::Init => false,
            Role::Sidecar => {
                let slot = self.slots.get(index);
                slot.is_some_and(|slot| {
                    slot.standing.is_running() || slot.standing.ended().is_some()
                })
            }
            Role::Main => true,
        }
    }

    /// Writes the status, if it is another one.
    fn write(&mut self) -> Answer<()> {
        if matches!(self.ending, Some(Ending { cause: Cause::Gone, .. })) {
            return Ok(());
        }
        let status = self.status();
        if status == self.written {
            return Ok(());
        }
        let uid = self.plan.uid.clone();
        let target = self.target()?;
        let options = WriteOptions { manager: "kubelet".to_owned(), ..WriteOptions::default() };
        let done = self.store.change(&target, Part::Status, &options, &|current| {
            let object = current.filter(|object| text(object, "/metadata/uid") == uid);
            let gone = || Failure::not_found(target.kind, target.name);
            let mut object = object.cloned().ok_or_else(gone)?;
            let mut new = status.clone();
            let old = object.get("status").cloned().unwrap_or_default();
            state::keep_times(&old, &mut new, &now());
            set(&mut object, "status", Some(new));
            Ok(object)
        });
        match done {
            Ok(written) => {
                self.written = status;
                self.plan.object = written.object;
                Ok(())
            }
            Err(failure) if failure.code == 404 => {
                self.end(Cause::Gone, FORCED);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Waits for a runtime's process on a thread, and reports its exit code.
fn watch(mut child: Child, index: usize, sender: Sender<Signal>) {
    let code = match child.wait() {
        Ok(status) => {
            use std::os::unix::process::ExitStatusExt;
            let of_signal = || status.signal().map_or(255, |signal| 128 + signal);
            i64::from(status.code().unwrap_or_else(of_signal))
        }
        Err(error) => {
            tracing::error!(%error, "waiting for a container");
            255
        }
    };
    drop(sender.send(Signal::Exited(index, code)));
}

/// The last message of a container.
fn last_message(files: &Path) -> String {
    use std::io::Read;
    const MOST: u64 = 4096;
    let file = std::fs::File::open(files.join("termination-log"));
    let mut bytes = Vec::new();
    match file.and_then(|file| file.take(MOST).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

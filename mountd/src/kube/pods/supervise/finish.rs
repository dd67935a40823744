//! The end of a container, and that of the pod.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Cause, KILL, STEADY, Supervisor, last_message};
use crate::container::crun;
use crate::container::logs::last_lines;
use crate::kube::meta::{now, text};
use crate::kube::pods::ends::{end, remove_object};
use crate::kube::pods::mounts;
use crate::kube::pods::plan::Container;
use crate::kube::pods::state::{Ended, State, back_off, back_off_text};

/// How long the output of a container is waited for after its end: a process that it left in
/// another process namespace may hold it open.
const OUTPUT: Duration = Duration::from_secs(2);
/// What of its output stands for the last message of a container, as with kubelet.
const FALLBACK_LINES: u64 = 80;
const FALLBACK_BYTES: usize = 2048;
/// The exit code of a container that could not be started.
const NOT_STARTED: i64 = 128;

impl Supervisor {
    /// Asks all containers to end.
    pub(super) fn ask_to_end(&mut self) {
        for index in 0..self.slots.len() {
            let Some(container) = self.plan.containers.get(index).cloned() else { continue };
            let Some(run) = self.slots.get_mut(index).and_then(|slot| slot.run.as_mut()) else {
                continue;
            };
            let (id, signal) = (run.id.clone(), run.signal.clone());
            if let Some((_, next)) = &mut run.left {
                *next = Instant::now();
            }
            let message = format!("Stopping container {}", container.name);
            self.say(&container.field, false, ("Killing", message));
            self.engine.kill(&id, &signal);
        }
    }

    /// Tries again to remove containers that could not be removed.
    pub(super) fn remove_left(&mut self) {
        let now = Instant::now();
        for index in 0..self.slots.len() {
            let run = self.slots.get(index).and_then(|slot| slot.run.as_ref());
            if let Some((code, _)) = run.and_then(|run| run.left).filter(|(_, next)| now >= *next) {
                self.exited(index, code);
            }
        }
    }

    /// Removes a container whose runtime has ended. Whether it is gone: that of a runtime which was
    /// killed goes on, and none may begin beside it.
    fn is_removed(&mut self, index: usize, container: &Container, code: i64) -> bool {
        let is_ending = self.ending.is_some();
        let Some(run) = self.slots.get_mut(index).and_then(|slot| slot.run.as_mut()) else {
            return false;
        };
        let Err(error) = run.remover.remove() else { return true };
        run.failures += 1;
        let pause = if is_ending { KILL } else { back_off(run.failures) };
        run.left = Some((code, Instant::now() + pause));
        let text = format!("error killing container {}: {error}", container.name);
        self.say(&container.field, true, ("FailedKillPod", text));
        false
    }

    /// Notes the end of a container, and when it is started again.
    pub(super) fn exited(&mut self, index: usize, code: i64) {
        self.note_begun();
        let Some(container) = self.plan.containers.get(index).cloned() else { return };
        if !self.is_removed(index, &container, code) {
            return;
        }
        let Some(run) = self.slots.get_mut(index).and_then(|slot| slot.run.take()) else { return };
        let deadline = Instant::now() + OUTPUT;
        while run.pumps.iter().any(|pump| !pump.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let said = crun::said(&run.bundle);
        let files = self.home.files(&container.name);
        let is_started = run.has_begun;
        let (code, reason, message) = match (is_started, code) {
            (true, 0) => (0, "Completed", last_message(&files)),
            (true, code) => (code, "Error", self.last_words(&container, &files)),
            (false, code) => {
                let exit = || {
                    let last = last_lines(&self.home.logs(&container.name), 1, FALLBACK_BYTES);
                    format!("the runtime failed with exit code {code}: {last}")
                };
                let why = if said.is_empty() { exit() } else { said };
                (NOT_STARTED, "StartError", format!("failed to start container: {why}"))
            }
        };
        let Some(slot) = self.slots.get_mut(index) else { return };
        let ended = Ended {
            code,
            reason: reason.to_owned(),
            message,
            began: run.began,
            at: now(),
            id: slot.standing.id.clone(),
        };
        let error = (!is_started).then(|| format!("Error: {}", ended.message));
        let ran = run.at.elapsed();
        slot.failures = if ran >= STEADY { 1 } else { slot.failures + 1 };
        slot.standing.state = State::Ended(ended);
        if let Some(error) = error {
            self.say(&container.field, true, ("Failed", error));
        }
        let root = self.home.container(&container.name);
        if let Err(error) = mounts::unmount_below(&root) {
            tracing::warn!(%error, "the root of container {}", container.name);
        }
        if self.ending.is_none() {
            self.plan_restart(index, &container, code);
        }
    }

    /// The last message of a container that failed, or what it wrote last, if its pod wants that.
    fn last_words(&self, container: &Container, files: &Path) -> String {
        let message = last_message(files);
        let policy = text(&container.spec, "/terminationMessagePolicy");
        if !message.is_empty() || policy != "FallbackToLogsOnError" {
            return message;
        }
        last_lines(&self.home.logs(&container.name), FALLBACK_LINES, FALLBACK_BYTES)
    }

    /// Decides when a container that ended is started again: at once after its first failure, and
    /// later each time after that.
    fn plan_restart(&mut self, index: usize, container: &Container, code: i64) {
        if !self.plan.restarts(container.role, code) {
            return;
        }
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.failures < 2 {
            slot.next = Instant::now();
            return;
        }
        let pause = back_off(slot.failures - 1);
        slot.next = Instant::now() + pause;
        if let State::Ended(ended) = &slot.standing.state {
            slot.standing.last = Some(ended.clone());
        }
        let message = back_off_text(pause, &container.name, &self.plan);
        slot.standing.state = State::Waiting { reason: "CrashLoopBackOff", message };
        let name = &container.name;
        let (pod, namespace) = (&self.plan.name, &self.plan.namespace);
        let uid = &self.plan.uid;
        let text =
            format!("Back-off restarting failed container {name} in pod {pod}_{namespace}({uid})");
        self.say(&container.field, true, ("BackOff", text));
    }

    /// Ends the pod: mounts, volumes, and, if it is being deleted, the object. What fails is tried
    /// again by the daemon, which finds that nobody holds the pod.
    pub(super) fn finish(self) {
        let name = self.plan.name.clone();
        let warn = |what: &str, error: &dyn std::fmt::Display| {
            tracing::warn!("{what} of pod {name}: {error}");
        };
        if let Err(error) = self.engine.remove_all() {
            return warn("containers", &error);
        }
        let cause = self.ending.map_or(Cause::Over, |ending| ending.cause);
        if cause == Cause::Leave {
            // The pod goes on with its volumes after the next start of the host.
            if let Err(error) = self.home.unmount(true) {
                warn("mounts", &error);
            }
            return;
        }
        if let Err(fault) = end(&self.home, &self.held, &self.volumes, &self.plan.uid) {
            return warn("files", &fault);
        }
        if cause == Cause::Deleted {
            let name = (&self.plan.namespace[..], &self.plan.name[..]);
            match remove_object(&self.store, name, &self.plan.uid) {
                Ok(true) => {}
                // A finalizer holds it: its logs stay until it is gone.
                Ok(false) => return,
                Err(failure) => return warn("object", &failure),
            }
        }
        if matches!(cause, Cause::Deleted | Cause::Gone)
            && let Err(error) = self.home.remove(self.held)
        {
            warn("directory", &error);
        }
    }
}

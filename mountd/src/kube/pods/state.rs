//! The status of a pod that runs: the states of its containers, and what follows from them.
//!
//! All here is a function of these states, without a clock and without I/O.

use serde_json::{Value, json};

use super::plan::{Container, Plan, Role};
use crate::kube::meta::{set, text};

/// How a run of a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The exit code; 128 and the signal for one that was killed.
    pub code: i64,
    /// `Completed`, `Error`, or what else went wrong.
    pub reason: String,
    /// Its last message.
    pub message: String,
    /// When it began.
    pub began: String,
    /// When it ended.
    pub at: String,
    /// Its id.
    pub id: String,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does not run yet, or not again yet.
    Waiting {
        /// Why.
        reason: &'static str,
        /// Why, in a sentence.
        message: String,
    },
    /// It runs.
    Running {
        /// Since when.
        since: String,
    },
    /// It has ended.
    Ended(Ended),
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it does.
    pub state: State,
    /// How it ended before.
    pub last: Option<Ended>,
    /// How often it was started again.
    pub restarts: u64,
    /// The id of its image.
    pub image: String,
    /// Its id, or the last one.
    pub id: String,
}

impl Standing {
    /// One that has not begun.
    #[must_use]
    pub fn waiting(reason: &'static str) -> Self {
        let state = State::Waiting { reason, message: String::new() };
        Self { state, last: None, restarts: 0, image: String::new(), id: String::new() }
    }

    /// Whether it runs.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// How it ended, if it does not run.
    #[must_use]
    pub const fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            State::Waiting { .. } => self.last.as_ref(),
            State::Running { .. } => None,
        }
    }

    /// Reads a container from a status that an earlier process wrote.
    #[must_use]
    pub fn read(status: &Value) -> Self {
        let state = match (status.pointer("/state/running"), ended(status, "/state/terminated")) {
            (Some(running), _) => State::Running { since: text(running, "/startedAt").to_owned() },
            (None, Some(ended)) => State::Ended(ended),
            (None, None) => State::Waiting { reason: "ContainerCreating", message: String::new() },
        };
        Self {
            state,
            last: ended(status, "/lastState/terminated"),
            restarts: status.get("restartCount").and_then(Value::as_u64).unwrap_or(0),
            image: text(status, "/imageID").to_owned(),
            id: text(status, "/containerID").to_owned(),
        }
    }

    fn shown(&self, container: &Container) -> Value {
        let state = match &self.state {
            State::Waiting { reason, message } => {
                let mut waiting = json!({"reason": reason});
                if !message.is_empty() {
                    set(&mut waiting, "message", Some(json!(message)));
                }
                json!({"waiting": waiting})
            }
            State::Running { since } => json!({"running": {"startedAt": since}}),
            State::Ended(ended) => json!({"terminated": ended.shown()}),
        };
        let last = self.last.as_ref().map(|last| json!({"terminated": last.shown()}));
        let is_over = self.ended().is_some_and(|ended| ended.code == 0);
        let is_ready = match container.role {
            Role::Init => is_over && matches!(self.state, State::Ended(_)),
            Role::Main | Role::Sidecar => self.is_running(),
        };
        let mut status = json!({
            "name": container.name,
            "image": container.image,
            "imageID": self.image,
            "state": state,
            "lastState": last.unwrap_or_else(|| json!({})),
            "restartCount": self.restarts,
            "ready": is_ready,
            "started": self.is_running(),
        });
        if !self.id.is_empty() {
            set(&mut status, "containerID", Some(json!(self.id)));
        }
        status
    }
}

impl Ended {
    fn shown(&self) -> Value {
        let mut shown = json!({
            "exitCode": self.code,
            "reason": self.reason,
            "startedAt": self.began,
            "finishedAt": self.at,
            "containerID": self.id,
        });
        if !self.message.is_empty() {
            set(&mut shown, "message", Some(json!(self.message)));
        }
        shown
    }
}

fn ended(status: &Value, pointer: &str) -> Option<Ended> {
    let found = status.pointer(pointer)?;
    let owned = |pointer| text(found, pointer).to_owned();
    Some(Ended {
        code: found.get("exitCode").and_then(Value::as_i64).unwrap_or(0),
        reason: owned("/reason"),
        message: owned("/message"),
        began: owned("/startedAt"),
        at: owned("/finishedAt"),
        id: owned("/containerID"),
    })
}

/// Why a pod ended before its containers did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The reason in its status.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// A pod.
pub struct View<'a> {
    /// The pod.
    pub plan: &'a Plan,
    /// Its containers, in the order of the plan.
    pub all: &'a [Standing],
    /// When it began.
    pub began: &'a str,
    /// The address of the host.
    pub address: &'a str,
    /// Why it ends, if something ends it.
    pub verdict: Option<&'a Verdict>,
}

impl View<'_> {
    fn of(&self, wanted: &[Role]) -> Vec<(&Container, &Standing)> {
        let all = self.plan.containers.iter().zip(self.all);
        all.filter(|(container, _)| wanted.contains(&container.role)).collect()
    }

    /// Whether all containers that come before the main ones have done so.
    fn is_initialized(&self) -> bool {
        self.of(&[Role::Init, Role::Sidecar]).into_iter().all(|(container, one)| {
            match container.role {
                Role::Init => matches!(&one.state, State::Ended(ended) if ended.code == 0),
                _ => one.is_running() || one.ended().is_some(),
            }
        })
    }

    /// The phase.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        let main = self.of(&[Role::Main]);
        let is_any_running = self.all.iter().any(Standing::is_running);
        if self.verdict.is_some() && !is_any_running {
            return "Failed";
        }
        let is_failed = |(container, one): &(&Container, &Standing)| match &one.state {
            State::Ended(ended) => {
                ended.code != 0 && !self.plan.restarts(container.role, ended.code)
            }
            _ => false,
        };
        if !self.is_initialized() {
            let is_over = self.of(&[Role::Init]).iter().any(is_failed);
            return if is_over { "Failed" } else { "Pending" };
        }
        let has_begun = |one: &Standing| one.is_running() || one.ended().is_some();
        if !main.iter().all(|(_, one)| has_begun(one)) {
            return if main.iter().any(|(_, one)| one.is_running()) {
                "Running"
            } else {
                "Pending"
            };
        }
        let is_over = |(container, one): &(&Container, &Standing)| match &one.state {
            State::Ended(ended) => !self.plan.restarts(container.role, ended.code),
            _ => false,
        };
        if !main.iter().all(is_over) {
            return "Running";
        }
        if main.iter().any(is_failed) { "Failed" } else { "Succeeded" }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> Value {
        let phase = self.phase();
        let shown = |roles: &[Role]| -> Vec<Value> {
            self.of(roles).into_iter().map(|(container, one)| one.shown(container)).collect()
        };
        let mut status = json!({
            "phase": phase,
            "qosClass": self.plan.object.pointer("/status/qosClass"),
            "hostIP": self.address,
            "hostIPs": [{"ip": self.address}],
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self.began,
            "conditions": self.conditions(phase),
            "containerStatuses": shown(&[Role::Main]),
        });
        let init = shown(&[Role::Init, Role::Sidecar]);
        if !init.is_empty() {
            set(&mut status, "initContainerStatuses", Some(init.into()));
        }
        if let Some(verdict) = self.verdict {
            set(&mut status, "reason", Some(json!(verdict.reason)));
            set(&mut status, "message", Some(json!(verdict.message)));
        }
        status
    }

    fn conditions(&self, phase: &str) -> Value {
        let is_over = matches!(phase, "Succeeded" | "Failed");
        let unready: Vec<&str> = self
            .of(&[Role::Main, Role::Sidecar])
            .into_iter()
            .filter(|(_, one)| !one.is_running())
            .map(|(container, _)| &container.name[..])
            .collect();
        let unready_text = format!("containers with unready status: [{}]", unready.join(" "));
        let ended = match phase {
            "Succeeded" => Some(("PodCompleted", String::new())),
            "Failed" => Some(("PodFailed", String::new())),
            _ => None,
        };
        let unready = (!unready.is_empty()).then_some(("ContainersNotReady", unready_text));
        let unready = ended.clone().or(unready);
        let missing: Vec<&str> = self
            .of(&[Role::Init])
            .into_iter()
            .filter(|(_, one)| !matches!(&one.state, State::Ended(ended) if ended.code == 0))
            .map(|(container, _)| &container.name[..])
            .collect();
        let missing_text = format!("containers with incomplete status: [{}]", missing.join(" "));
        let initialized = match self.is_initialized() {
            true => ended.filter(|_| phase == "Succeeded").map(|(why, text)| (true, why, text)),
            false => Some((false, "ContainersNotInitialized", missing_text)),
        };
        let (is_initialized, why, text) = initialized.unwrap_or((true, "", String::new()));
        let one = |kind: &str, holds: bool, (why, text): (&str, &str)| {
            let mut one = json!({
                "type": kind,
                "status": if holds { "True" } else { "False" },
                "lastProbeTime": null,
            });
            if !why.is_empty() {
                set(&mut one, "reason", Some(json!(why)));
            }
            if !text.is_empty() {
                set(&mut one, "message", Some(json!(text)));
            }
            one
        };
        let because = unready.as_ref().map_or(("", ""), |(why, text)| (*why, &text[..]));
        let is_ready = unready.is_none() && is_initialized;
        json!([
            one("PodReadyToStartContainers", !is_over, ("", "")),
            one("Initialized", is_initialized, (why, &text)),
            one("Ready", is_ready, because),
            one("ContainersReady", is_ready, because),
            one("PodScheduled", true, ("", "")),
        ])
    }

    /// Whether nothing of the pod will run again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
            && !self.of(&[Role::Main, Role::Init]).iter().any(|(_, one)| one.is_running())
    }
}

/// Gives new conditions the times of the old ones that have not changed.
pub fn keep_times(old: &Value, new: &mut Value, now: &str) {
    let before = old.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let list = new.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in list.into_iter().flatten() {
        let is_same = |one: &&Value| {
            one.get("type") == condition.get("type") && one.get("status") == condition.get("status")
        };
        let same = before.iter().find(is_same).and_then(|one| one.get("lastTransitionTime"));
        let time = same.cloned().unwrap_or_else(|| json!(now));
        set(condition, "lastTransitionTime", Some(time));
    }
}

/// The time of kubelet until a container is started again: it doubles with each failure.
#[must_use]
pub fn back_off(failures: u32) -> std::time::Duration {
    const FIRST: u64 = 10;
    const LAST: u64 = 300;
    let seconds = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST);
    std::time::Duration::from_secs(seconds)
}

/// What kubelet says of a container that waits to be started again.
#[must_use]
pub fn back_off_text(pause: std::time::Duration, container: &str, plan: &Plan) -> String {
    let seconds = pause.as_secs();
    let shown = match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    };
    let Plan { namespace, name, uid, .. } = plan;
    format!(
        "back-off {shown} restarting failed container={container} pod={name}_{namespace}({uid})"
    )
}

//! Events of a pod that runs, in the words of kubelet.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::plan::Plan;
use crate::kube::kinds::Kind;
use crate::kube::meta::{new_uid, now, set};
use crate::kube::objects::{Part, Store, Target, WriteOptions};
use crate::kube::status::{Answer, Failure};

/// An event that repeats within this time is not counted.
const PACE: Duration = Duration::from_secs(10);

/// What an event is about: the path of a container, its reason and its message.
type Same = (String, &'static str, String);

/// The events of a pod.
pub struct Events {
    node: String,
    known: HashMap<Same, (String, Instant)>,
}

/// An event.
pub struct Happening<'a> {
    /// The path of the container in the pod; empty for the pod.
    pub field: &'a str,
    /// Whether something is wrong.
    pub is_warning: bool,
    /// The reason.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

impl Events {
    /// The events of a node.
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), known: HashMap::new() }
    }

    /// Records an event. What cannot be recorded is logged: a pod runs without its events too.
    pub fn record(&mut self, store: &Store, plan: &Plan, what: Happening<'_>) {
        let same = (what.field.to_owned(), what.reason, what.message.clone());
        let known = self.known.get(&same).cloned();
        let done = match known {
            Some((_, at)) if at.elapsed() < PACE => return,
            Some((name, _)) => count(store, &plan.namespace, &name).map(|there| (name, there)),
            None => Ok((String::new(), false)),
        };
        let done = match done {
            Ok((name, true)) => Ok(name),
            Ok((_, false)) => self.create(store, plan, what),
            Err(failure) => Err(failure),
        };
        match done {
            Ok(name) => drop(self.known.insert(same, (name, Instant::now()))),
            Err(failure) => tracing::debug!("an event of pod {}: {failure}", plan.name),
        }
    }

    fn create(&self, store: &Store, plan: &Plan, what: Happening<'_>) -> Answer<String> {
        let name = format!("{}.{}", plan.name, new_uid().replace('-', "").split_at(16).0);
        let mut involved = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": plan.namespace,
            "name": plan.name,
            "uid": plan.uid,
        });
        if !what.field.is_empty() {
            set(&mut involved, "fieldPath", Some(what.field.into()));
        }
        let now = now();
        let event = json!({
            "metadata": {"name": name, "namespace": plan.namespace},
            "involvedObject": involved,
            "reason": what.reason,
            "message": what.message,
            "type": if what.is_warning { "Warning" } else { "Normal" },
            "source": {"component": "kubelet", "host": self.node},
            "reportingComponent": "kubelet",
            "reportingInstance": self.node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let target = Target { kind: kind()?, namespace: &plan.namespace, name: "" };
        store.create(&target, event, &WriteOptions::default())?;
        Ok(name)
    }
}

fn kind() -> Answer<&'static Kind> {
    Kind::of_record("events").ok_or_else(|| Failure::internal("no kind events"))
}

/// Counts an event once more. Whether it is still there.
fn count(store: &Store, namespace: &str, name: &str) -> Answer<bool> {
    let kind = kind()?;
    let target = Target { kind, namespace, name };
    let counted = store.change(&target, Part::Whole, &WriteOptions::default(), &|current| {
        let mut event = current.cloned().ok_or_else(|| Failure::not_found(kind, name))?;
        let count = event.get("count").and_then(Value::as_u64).unwrap_or(1);
        set(&mut event, "count", Some((count + 1).into()));
        set(&mut event, "lastTimestamp", Some(now().into()));
        Ok(event)
    });
    match counted {
        Err(failure) if failure.code == 404 => Ok(false),
        counted => counted.map(|_| true),
    }
}

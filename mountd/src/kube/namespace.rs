//! Namespaces: those that exist from the start, and the end of one with its content.
//!
//! A namespace that is deleted is marked, and then all that is in it is deleted, in several
//! transactions, so that others write in between. It goes with the last object in it. What a crash
//! leaves of it is deleted at the next start.

use std::collections::VecDeque;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::kinds::Kind;
use super::meta::{is_ending, map_in, set, text, texts};
use super::objects::{Act, DeleteOptions, ListOptions, Store, Stored, Target, WriteOptions};
use super::status::{Answer, Failure};

/// Those that exist from the start and always.
pub const LASTING: [&str; 2] = ["default", "kube-system"];
/// Holds a namespace until it is empty.
const FINALIZER: &str = "kubernetes";
/// The label with the name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Objects of a namespace that are deleted in one transaction.
const BATCH: usize = 200;
/// Between two such transactions: another process waits for the lock by trying again.
const PAUSE: Duration = Duration::from_millis(50);

fn kind() -> Answer<&'static Kind> {
    let kind = Kind::of_path("", "v1", "namespaces");
    kind.ok_or_else(|| Failure::internal("the kind Namespace is unknown"))
}

impl Store {
    /// Creates the namespaces that exist from the start, and goes on with those that end.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub fn create_namespaces(&self) -> Answer<()> {
        for name in LASTING {
            self.create_if_missing(kind()?, json!({"metadata": {"name": name}}))?;
        }
        let all = self.list(kind()?, &ListOptions::default())?.items;
        for namespace in all.iter().filter(|namespace| is_ending(namespace)) {
            let name = text(namespace, "/metadata/name");
            if let Err(failure) = self.empty_all(vec![name.to_owned()]) {
                tracing::error!("emptying namespace {name:?}, which ends: {failure}");
            }
        }
        Ok(())
    }

    /// Deletes the content of namespaces that end, and that of those that end with it.
    ///
    /// # Errors
    /// Those of the catalogue. What is deleted stays so.
    pub(super) fn empty_all(&self, names: Vec<String>) -> Answer<()> {
        let mut left = VecDeque::from(names);
        while let Some(name) = left.pop_front() {
            let mut after = Some(0);
            while let Some(place) = after {
                let batch = |act: &Act<'_>| empty_some(act, &name, place);
                let (next, ended) = self.transact(false, Some(&name), batch)?;
                left.extend(ended);
                after = next;
                if after.is_some() {
                    sleep(PAUSE);
                }
            }
        }
        Ok(())
    }

    /// Creates an object without a namespace, unless it exists.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub fn create_if_missing(&self, kind: &'static Kind, object: Value) -> Answer<()> {
        let target = Target { kind, namespace: "", name: "" };
        match self.create(&target, object, &WriteOptions::default()) {
            Err(failure) if failure.reason == "AlreadyExists" => Ok(()),
            done => done.map(drop),
        }
    }
}

/// Checks that something may be created in a namespace.
pub(super) fn check_open(act: &Act<'_>, target: &Target<'_>, name: &str) -> Answer<()> {
    if !target.kind.is_namespaced {
        return Ok(());
    }
    let within = Target { kind: kind()?, namespace: "", name: target.namespace };
    let Some(found) = act.find(&within)? else {
        return Err(Failure::not_found(within.kind, within.name));
    };
    if !is_ending(&found.object) {
        return Ok(());
    }
    let namespace = within.name;
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let mut failure = Failure::forbidden(target.kind, name, &why);
    if let Some(details) = failure.details.as_mut().and_then(Value::as_object_mut) {
        let message = format!("namespace {namespace} is being terminated");
        let reason = "NamespaceTerminating";
        let cause = json!({"reason": reason, "message": message, "field": "metadata.namespace"});
        details.insert("causes".to_owned(), json!([cause]));
    }
    Err(failure)
}

/// Gives a new namespace what all have.
pub(super) fn begin(kind: &'static Kind, object: &mut Value) {
    if kind.kind != "Namespace" {
        return;
    }
    let name = text(object, "/metadata/name").to_owned();
    if let Some(labels) = map_in(object, "metadata").and_then(|meta| map_in(meta, "labels")) {
        set(labels, NAME_LABEL, Some(name.into()));
    }
    set(object, "spec", Some(json!({"finalizers": [FINALIZER]})));
}

/// Marks a namespace that ends.
pub(super) fn end(kind: &'static Kind, object: &mut Value) {
    if kind.kind == "Namespace" {
        set(object, "status", Some(json!({"phase": "Terminating"})));
    }
}

/// Whether an object is a namespace that is not known to be empty.
pub(super) fn is_held(object: &Value) -> bool {
    text(object, "/kind") == "Namespace" && !texts(object, "/spec/finalizers").is_empty()
}

/// Refuses the deletion of a namespace that always exists.
pub(super) fn check_delete(object: &Value, kind: &'static Kind) -> Answer<()> {
    let name = text(object, "/metadata/name");
    if kind.kind == "Namespace" && LASTING.contains(&name) {
        return Err(Failure::forbidden(kind, name, "this namespace may not be deleted"));
    }
    Ok(())
}

/// Deletes some of the content of a namespace that ends, after a place. Returns the place after
/// which more follows; after the last, the namespace goes if nothing is held in it.
fn empty_some(act: &Act<'_>, name: &str, after: i64) -> Answer<Option<i64>> {
    // It may be gone meanwhile, and another one of its name there.
    let target = Target { kind: kind()?, namespace: "", name };
    if !act.find(&target)?.is_some_and(|found| is_ending(&found.object)) {
        return Ok(None);
    }
    let keys = act.names_within(name, after, BATCH)?;
    let next = keys.last().filter(|_| keys.len() == BATCH).map(|(place, _)| *place);
    for (_, key) in keys {
        // The end of one can be that of another, so that each is looked for anew.
        if let Some(content) = act.find_key(key)? {
            act.delete(content, &DeleteOptions { grace: Some(0), ..DeleteOptions::default() })?;
        }
    }
    if next.is_none()
        && let Some(empty) = finish(act, name)?
    {
        act.erase(&empty)?;
    }
    Ok(next)
}

/// A namespace that ends, if it is empty and nothing else holds it: it is to be removed.
pub(super) fn finish(act: &Act<'_>, name: &str) -> Answer<Option<Stored>> {
    let target = Target { kind: kind()?, namespace: "", name };
    let Some(stored) = act.find(&target)? else { return Ok(None) };
    if !is_ending(&stored.object) || act.has_within(name)? {
        return Ok(None);
    }
    let mut object = stored.object.clone();
    let kept: Vec<String> =
        texts(&object, "/spec/finalizers").into_iter().filter(|one| one != FINALIZER).collect();
    if kept.is_empty() && super::meta::finalizers(&object).is_empty() {
        return Ok(Some(stored));
    }
    set(&mut object, "spec", Some(json!({"finalizers": kept})));
    act.save(&stored, &object)?;
    Ok(None)
}

//! Deleting objects: grace, finalizers, owners.
//!
//! What an object owns goes with its last owner, in the transaction that removes the owner; after
//! a deletion in the foreground, the owner goes last; an orphaned object loses the reference.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use laminafs::service::objects::Key;
use serde_json::Value;

use super::write::is_over;
use super::{Act, ListOptions, Store, Stored, Target, with_version};
use crate::kube::kinds::Kind;
use crate::kube::meta::{
    self, add_finalizer, after_seconds, is_ending, remove_finalizer, set_meta, text,
};
use crate::kube::namespace;
use crate::kube::status::{Answer, Failure, deleted};

/// Holds an owner until what it owns is gone.
const FOREGROUND: &str = "foregroundDeletion";
/// The seconds that a pod has to end, where it does not say how many.
const POD_GRACE: u64 = 30;

/// What happens to what an object owns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// It goes after the owner.
    #[default]
    Background,
    /// It goes before the owner.
    Foreground,
    /// It stays.
    Orphan,
}

/// How an object is deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Nothing is deleted.
    pub is_dry_run: bool,
    /// The id that it must have.
    pub uid: Option<String>,
    /// The version that it must have.
    pub version: Option<String>,
    /// What happens to what it owns.
    pub propagation: Propagation,
    /// The seconds that it has to end.
    pub grace: Option<u64>,
}

impl DeleteOptions {
    /// Reads the body of a request; one of `null` leaves all open.
    ///
    /// # Errors
    /// A bad request.
    pub fn parse(body: &Value) -> Answer<Self> {
        let string = |pointer| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let is_orphan = body.get("orphanDependents").and_then(Value::as_bool);
        let propagation = match (text(body, "/propagationPolicy"), is_orphan) {
            ("Foreground", None) => Propagation::Foreground,
            ("Orphan", None) | ("", Some(true)) => Propagation::Orphan,
            ("" | "Background", None) | ("", Some(false)) => Propagation::Background,
            (other, _) => {
                let text = format!(
                    "invalid propagationPolicy {other:?}: use Background, Foreground or Orphan"
                );
                return Err(Failure::bad_request(text));
            }
        };
        let grace = body.get("gracePeriodSeconds").filter(|grace| !grace.is_null());
        let grace = match grace.map(Value::as_i64) {
            None => None,
            // A negative number is that of the object.
            Some(Some(grace)) => u64::try_from(grace).ok(),
            Some(None) => return Err(Failure::bad_request("gracePeriodSeconds is not a number")),
        };
        Ok(Self {
            is_dry_run: body
                .get("dryRun")
                .and_then(Value::as_array)
                .is_some_and(|on| !on.is_empty()),
            uid: string("/preconditions/uid"),
            version: string("/preconditions/resourceVersion"),
            propagation,
            grace,
        })
    }
}

impl Store {
    /// Deletes an object, or begins to. Returns the object, or a status.
    ///
    /// # Errors
    /// Not found, a precondition that does not hold, a namespace that stays.
    pub fn delete(&self, target: &Target<'_>, options: &DeleteOptions) -> Answer<Value> {
        let (done, ended) = self.transact(options.is_dry_run, None, |act| {
            let stored = act.get(target)?;
            let uid = stored.uid.clone();
            let (object, is_gone) = act.delete(stored, options)?;
            Ok((object, uid, is_gone))
        })?;
        let (mut object, uid, mut is_gone) = done;
        self.empty_all(ended)?;
        if target.kind.kind == "Namespace" && !is_gone && !options.is_dry_run {
            match self.get(target) {
                Ok(now) if text(&now, "/metadata/uid") == uid => object = now,
                Err(failure) if failure.code != 404 => return Err(failure),
                _ => is_gone = true,
            }
        }
        let answers_object = !is_gone || target.kind.answers_deleted;
        Ok(if answers_object { object } else { deleted(target.kind, target.name, &uid) })
    }

    /// Deletes events that were last seen some time ago, and returns how many these were.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub fn delete_events(&self, age: Duration) -> Answer<usize> {
        let Some(kind) = Kind::of_path("", "v1", "events") else { return Ok(0) };
        let mut count = 0;
        for event in self.list(kind, &ListOptions::default())?.items {
            let seen = last_seen(&event).and_then(|seen| seen.elapsed().ok());
            if seen.is_none_or(|seen| seen < age) {
                continue;
            }
            let version = Some(text(&event, "/metadata/resourceVersion").to_owned());
            let (namespace, name) =
                (text(&event, "/metadata/namespace"), text(&event, "/metadata/name"));
            let options = DeleteOptions { version, ..DeleteOptions::default() };
            match self.delete(&Target { kind, namespace, name }, &options) {
                Ok(_) => count += 1,
                // It happened again, or is gone.
                Err(failure) if matches!(failure.code, 404 | 409) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(count)
    }

    /// Deletes all objects of a list, each in its transaction, and returns them.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn delete_all(
        &self,
        kind: &'static Kind,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Answer<Vec<Value>> {
        let mut gone = Vec::new();
        for object in self.list(kind, list)?.items {
            let (namespace, name) =
                (text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
            match self.delete(&Target { kind, namespace, name }, options) {
                Err(failure) if failure.code == 404 => {}
                done => {
                    done?;
                    gone.push(object);
                }
            }
        }
        Ok(gone)
    }
}

/// The time of the last occurrence of an event.
fn last_seen(event: &Value) -> Option<SystemTime> {
    let places = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime"];
    let times = places.iter().map(|place| text(event, place));
    let mut times = times.chain([text(event, "/metadata/creationTimestamp")]);
    humantime::parse_rfc3339_weak(times.find(|time| !time.is_empty())?).ok()
}

fn check(stored: &Stored, options: &DeleteOptions) -> Answer<()> {
    let found = text(&stored.object, "/metadata/resourceVersion");
    let pairs =
        [("UID", &options.uid, &stored.uid[..]), ("ResourceVersion", &options.version, found)];
    for (what, wanted, found) in pairs {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            let text = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: \
                 {found}"
            );
            return Err(Failure::conflict(stored.kind, &stored.key.name, &text));
        }
    }
    Ok(())
}

/// The seconds that an object has to end: only a pod on a node has any.
fn grace(stored: &Stored, options: &DeleteOptions) -> u64 {
    let object = &stored.object;
    let has_ended = matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
    if stored.kind.kind != "Pod" || text(object, "/spec/nodeName").is_empty() || has_ended {
        return 0;
    }
    let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
    options.grace.or(own).unwrap_or(POD_GRACE)
}

/// What is left to do of a deletion.
enum Step {
    /// Deletes an object, if it is still there.
    Delete(Key),
    /// Removes an object that nothing holds any more.
    Erase(Stored),
    /// Ends the wait of an owner in the foreground, if it owns nothing any more.
    Release(Key),
}

/// The steps of a deletion: a list and no recursion, however long a chain of owners is.
#[derive(Default)]
struct Work {
    /// The last one is next.
    steps: Vec<Step>,
    /// Namespaces that may be empty now. They are looked at after the steps.
    namespaces: BTreeSet<String>,
}

/// The owners of an object as it names them.
fn owner_keys(object: &Stored) -> Vec<Key> {
    let list = meta::meta(&object.object, "ownerReferences").and_then(Value::as_array);
    let owners = list.into_iter().flatten().filter_map(|owner| {
        let kind = Kind::of_manifest(text(owner, "/apiVersion"), text(owner, "/kind"))?;
        let namespace = if kind.is_namespaced { &object.key.namespace[..] } else { "" };
        Some(Target { kind, namespace, name: text(owner, "/name") }.key())
    });
    owners.collect()
}

impl Act<'_> {
    /// Deletes an object, or begins to; the object as it is then, and whether it is gone.
    pub(in crate::kube) fn delete(
        &self,
        stored: Stored,
        options: &DeleteOptions,
    ) -> Answer<(Value, bool)> {
        let (key, uid) = (stored.key.clone(), stored.uid.clone());
        let mut work = Work::default();
        let object = self.delete_one(stored, options, &mut work)?;
        if let Some(last) = self.run(work, &uid)? {
            return Ok((last, true));
        }
        let now = self.find_key(key)?;
        Ok((now.map_or(object, |stored| stored.object), false))
    }

    /// Removes an object, what it alone owns, and the marks that waited for it.
    pub(in crate::kube) fn erase(&self, stored: &Stored) -> Answer<Value> {
        let mut work = Work::default();
        let object = self.erase_one(stored, &mut work)?;
        self.run(work, "")?;
        Ok(object)
    }

    /// Does all steps, and those that follow from them. Returns the object of an id as it was last,
    /// if it was removed.
    fn run(&self, mut work: Work, uid: &str) -> Answer<Option<Value>> {
        let mut last = None;
        loop {
            match work.steps.pop() {
                Some(Step::Delete(key)) => {
                    if let Some(stored) = self.find_key(key)? {
                        self.delete_one(stored, &DeleteOptions::default(), &mut work)?;
                    }
                }
                Some(Step::Erase(stored)) => {
                    let object = self.erase_one(&stored, &mut work)?;
                    if stored.uid == uid {
                        last = Some(object);
                    }
                }
                Some(Step::Release(key)) => self.release(key, &mut work)?,
                None => {
                    let Some(name) = work.namespaces.pop_first() else { return Ok(last) };
                    work.steps.extend(namespace::finish(self, &name)?.map(Step::Erase));
                }
            }
        }
    }

    /// Begins to delete an object, and adds what follows. Returns the object as it is then.
    fn delete_one(
        &self,
        stored: Stored,
        options: &DeleteOptions,
        work: &mut Work,
    ) -> Answer<Value> {
        check(&stored, options)?;
        namespace::check_delete(&stored.object, stored.kind)?;
        let stored = self.begin(stored, options, work)?;
        if stored.kind.kind == "Namespace" {
            let name = stored.key.name.clone();
            work.namespaces.insert(name.clone());
            self.ended.borrow_mut().push(name);
        }
        let object = stored.object.clone();
        if is_over(&object) {
            work.steps.push(Step::Erase(stored));
        }
        Ok(object)
    }

    /// Marks an object as being deleted. A later deletion can shorten its grace.
    fn begin(&self, stored: Stored, options: &DeleteOptions, work: &mut Work) -> Answer<Stored> {
        let mut object = stored.object.clone();
        let grace = grace(&stored, options);
        let before = meta::meta(&object, "deletionGracePeriodSeconds").and_then(Value::as_u64);
        if !is_ending(&object) || before.is_some_and(|before| grace < before) {
            set_meta(&mut object, "deletionTimestamp", Some(after_seconds(grace).into()));
            set_meta(&mut object, "deletionGracePeriodSeconds", Some(grace.into()));
            if stored.kind.has_generation {
                let count = meta::meta(&object, "generation").and_then(Value::as_u64);
                set_meta(&mut object, "generation", Some((count.unwrap_or(0) + 1).into()));
            }
            namespace::end(stored.kind, &mut object);
        }
        match options.propagation {
            Propagation::Background => {}
            Propagation::Orphan => self.orphan(&stored)?,
            Propagation::Foreground => {
                let owned = self.owned_by(&stored)?;
                if owned.is_empty() {
                    remove_finalizer(&mut object, FOREGROUND);
                } else {
                    // It is marked before they go: they may own it.
                    add_finalizer(&mut object, FOREGROUND);
                    work.steps.push(Step::Release(stored.key.clone()));
                    let owned = owned.into_iter().rev();
                    work.steps.extend(owned.map(|owned| Step::Delete(owned.key)));
                }
            }
        }
        // One that goes at once is not marked before: its watchers see one change.
        if is_over(&object) {
            return Ok(Stored { object, ..stored });
        }
        self.mark(stored, object)
    }

    fn mark(&self, stored: Stored, object: Value) -> Answer<Stored> {
        let object = self.save(&stored, &object)?;
        let version = text(&object, "/metadata/resourceVersion").parse().unwrap_or(stored.version);
        Ok(Stored { object, version, ..stored })
    }

    fn orphan(&self, owner: &Stored) -> Answer<()> {
        for owned in self.owned_by(owner)? {
            let mut object = owned.object.clone();
            let kept: Vec<Value> = meta::meta(&object, "ownerReferences")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter(|one| text(one, "/uid") != owner.uid)
                .cloned()
                .collect();
            let kept = (!kept.is_empty()).then(|| kept.into());
            set_meta(&mut object, "ownerReferences", kept);
            self.save(&owned, &object)?;
        }
        Ok(())
    }

    /// Removes an object, and adds what follows: what it alone owns goes, and then the marks that
    /// waited for it.
    fn erase_one(&self, stored: &Stored, work: &mut Work) -> Answer<Value> {
        let version = self.remove(stored)?;
        let namespace = &stored.key.namespace;
        if !namespace.is_empty() && self.emptied != Some(&namespace[..]) {
            work.namespaces.insert(namespace.clone());
        }
        work.steps.extend(owner_keys(stored).into_iter().rev().map(Step::Release));
        for owned in self.owned_by(stored)?.into_iter().rev() {
            // In a namespace that is emptied, each object goes by itself.
            let is_apart = self.emptied != Some(&owned.key.namespace[..]);
            let others = meta::owners(&owned.object);
            let mut others = others.iter().filter(|uid| **uid != stored.uid);
            if is_apart && others.next().is_none() && !is_ending(&owned.object) {
                work.steps.push(Step::Delete(owned.key));
            }
        }
        Ok(with_version(stored.object.clone(), version))
    }

    /// Ends the wait of an owner in the foreground that owns nothing any more.
    fn release(&self, owner: Key, work: &mut Work) -> Answer<()> {
        let Some(stored) = self.find_key(owner)? else { return Ok(()) };
        let waits = meta::finalizers(&stored.object).iter().any(|one| one == FOREGROUND);
        if !waits || !is_ending(&stored.object) || self.owns_any(&stored)? {
            return Ok(());
        }
        let mut object = stored.object.clone();
        remove_finalizer(&mut object, FOREGROUND);
        if is_over(&object) {
            work.steps.push(Step::Erase(Stored { object, ..stored }));
            return Ok(());
        }
        self.mark(stored, object).map(drop)
    }
}

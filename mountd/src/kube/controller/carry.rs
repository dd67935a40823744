//! Carrying out an action: one write of one object.

use laminafs::claim::Action;
use laminafs::claim::object::{Claim, Key};
use serde_json::Value;

use super::{Controller, mirror};
use crate::kube::convert;
use crate::kube::meta::{finalizers, is_ending, text};
use crate::kube::objects::{DeleteOptions, Part, Target, WriteOptions};
use crate::kube::status::{Answer, Failure};

/// The manager of the fields that the controller sets.
const MANAGER: &str = "lamina-controller";

/// What follows an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The next action.
    Carry,
    /// A new decision: the object is gone.
    Decide,
}

/// How the controller writes.
pub(super) fn options() -> WriteOptions {
    WriteOptions { manager: MANAGER.to_owned(), ..WriteOptions::default() }
}

/// Whether a written object is gone: nothing held it.
fn is_gone(object: &Value) -> bool {
    is_ending(object) && finalizers(object).is_empty()
}

impl Controller {
    /// Carries out an action that is no order.
    pub(super) fn carry(&mut self, key: &Key, action: &Action) -> Answer<Next> {
        match action {
            Action::Event(event) => {
                self.events.record(&self.store, &self.mirror.objects, event)?;
                if let (Key::Pod(_), "FailedScheduling") = (&event.object, event.reason) {
                    return self.unschedule(&event.object, &event.message);
                }
                Ok(Next::Carry)
            }
            Action::CreateClaim(claim) => self.create_claim(key, claim),
            Action::CreateContent(content) => {
                let key = Key::Content(content.meta.name.clone());
                self.create(&key, convert::new_content(content))
            }
            Action::DeleteVolume { volume } => self.delete(&Key::Volume(volume.clone())),
            Action::DeleteContent { content } => self.delete(&Key::Content(content.clone())),
            action => match convert::target(action) {
                Some(write) => self.write(&write, &|object| convert::change(action, object)),
                None => Ok(Next::Carry),
            },
        }
    }

    /// Notes in the status of a pod why it is not placed, unless it is noted already: a pod that
    /// waits costs no transaction.
    fn unschedule(&mut self, pod: &Key, message: &str) -> Answer<Next> {
        let current = mirror::with_target(pod, |target| self.store.get(target))?;
        let mut marked = current.clone();
        convert::unscheduled(&mut marked, message);
        if marked == current {
            return Ok(Next::Carry);
        }
        let write = convert::Write { object: pod.clone(), part: Part::Whole };
        self.write(&write, &|pod| convert::unscheduled(pod, message))
    }

    /// Changes an object, unless it is another version than the decision saw. An object that is as
    /// it was concerns nothing: what queued it would queue it for ever.
    fn write(&mut self, write: &convert::Write, change: &dyn Fn(&mut Value)) -> Answer<Next> {
        let key = &write.object;
        let seen = self.mirror.version(key).map(|version| version.to_string());
        mirror::with_target(key, |target| {
            let written = self.store.change(target, write.part, &options(), &|current| {
                let object = current
                    .filter(|object| {
                        let version = text(object, "/metadata/resourceVersion");
                        seen.as_deref() == Some(version)
                    })
                    .ok_or_else(|| Failure::changed(target.kind, target.name))?;
                let mut object = object.clone();
                change(&mut object);
                Ok(object)
            });
            let written = match written {
                // The turn ends, and the next one sees the object as it is.
                Err(failure) if failure.code == 409 => {
                    let change = self.mirror.refresh_key(&self.store, key)?;
                    self.note(change);
                    return Err(failure);
                }
                written => written?.object,
            };
            let is_gone = is_gone(&written);
            if !is_gone && seen.as_deref() == Some(text(&written, "/metadata/resourceVersion")) {
                return Ok(Next::Carry);
            }
            let now = (!is_gone).then_some(&written);
            let change = self.mirror.replace(key, target.kind, now);
            self.note(change);
            Ok(if is_gone { Next::Decide } else { Next::Carry })
        })
    }

    /// Deletes an object, which finalizers may hold.
    fn delete(&mut self, key: &Key) -> Answer<Next> {
        let options = DeleteOptions::default();
        mirror::with_target(key, |target| self.store.delete(target, &options))?;
        let change = self.mirror.refresh_key(&self.store, key)?;
        self.note(change);
        Ok(Next::Carry)
    }

    /// Creates the claim of a pod.
    fn create_claim(&mut self, pod: &Key, claim: &Claim) -> Answer<Next> {
        let object = mirror::with_target(pod, |target| self.store.get(target))?;
        let Some(object) = convert::new_claim(claim, &object) else { return Ok(Next::Carry) };
        self.create(&Key::Claim(claim.meta.id()), object)
    }

    /// Creates an object, unless one of its name exists.
    fn create(&mut self, key: &Key, object: Value) -> Answer<Next> {
        mirror::with_target(key, |target| {
            let place = Target { name: "", ..*target };
            match self.store.create(&place, object, &options()) {
                Err(failure) if failure.reason == "AlreadyExists" => {}
                done => drop(done?),
            }
            let change = self.mirror.refresh_key(&self.store, key)?;
            self.note(change);
            Ok(Next::Carry)
        })
    }
}

//! The effect of each action on the objects, as the store of the API server has it.
//!
//! A caller that keeps its own store does the same there. Orders to drivers change no object,
//! except that [`Action::Provision`] ends with the creation of the volume, and orders about
//! snapshots with the status of the content.

mod snapshots;

use super::action::Action;
use super::names;
use super::object::{Claim, ClaimRef, Id, Key, Meta, Volume};
use super::snapshot::{Content, Snapshot};
use super::state::Objects;

impl Objects {
    /// Carries out an action. An object that is gone is left alone.
    pub fn apply(&mut self, action: &Action) {
        match action {
            Action::BindVolume { volume, to, by_controller } => {
                self.change_volume(volume, |volume| bind_volume(volume, to, *by_controller));
            }
            Action::UnbindVolume { volume, keep } => self.change_volume(volume, |volume| {
                volume.claim_ref.clone_from(keep);
                volume.meta.annotations.remove(names::BOUND_BY_CONTROLLER);
            }),
            Action::VolumeStatus { volume, status } => {
                self.change_volume(volume, |volume| volume.status = status.clone());
            }
            Action::VolumeCapacity { volume, size } => {
                self.change_volume(volume, |volume| volume.capacity = *size);
            }
            Action::VolumeAttributesClass { volume, class } => {
                self.change_volume(volume, |volume| volume.attributes_class.clone_from(class));
            }
            Action::BindClaim { claim, volume, by_controller } => {
                self.change_claim(claim, |claim| bind_claim(claim, volume, *by_controller));
            }
            Action::ClaimStatus { claim, status } => {
                self.change_claim(claim, |claim| claim.status = status.clone());
            }
            Action::SetClass { claim, class } => {
                self.change_claim(claim, |claim| claim.class_name = Some(class.clone()));
            }
            Action::Annotate { object, annotations } => {
                self.change_meta(object, |meta| annotate(meta, annotations));
            }
            Action::AddFinalizer { object, finalizer } => self.change_meta(object, |meta| {
                if !meta.has_finalizer(finalizer) {
                    meta.finalizers.push((*finalizer).to_owned());
                }
            }),
            Action::RemoveFinalizer { object, finalizer } => {
                self.change_meta(object, |meta| meta.finalizers.retain(|one| one != finalizer));
            }
            Action::CreateClaim(claim) => {
                self.claims.entry(claim.meta.id()).or_insert_with(|| (**claim).clone());
            }
            Action::PlacePod { pod, node } => {
                if let Some(pod) = self.pods.get_mut(pod) {
                    pod.node.clone_from(node);
                }
            }
            Action::Provision(order) => {
                if self.volume(&order.volume.meta.name).is_none() {
                    self.put_volume(order.volume.clone());
                }
            }
            Action::DeleteVolume { volume } => self.delete(&Key::Volume(volume.clone())),
            Action::Event(_)
            | Action::DeleteBacking { .. }
            | Action::Recycle { .. }
            | Action::Expand { .. }
            | Action::Modify { .. }
            | Action::StandIn { .. } => {}
            other => self.apply_to_snapshots(other),
        }
    }

    /// Deletes an object as a client does: it stays, marked, while it has finalizers.
    pub fn delete(&mut self, object: &Key) {
        self.change_meta(object, |meta| meta.deleting = true);
    }

    fn change_volume(&mut self, name: &str, change: impl FnOnce(&mut Volume)) {
        if let Some(mut volume) = self.remove_volume(name) {
            change(&mut volume);
            if !is_gone(&volume.meta) {
                self.put_volume(volume);
            }
        }
    }

    fn change_claim(&mut self, id: &Id, change: impl FnOnce(&mut Claim)) {
        if let Some(claim) = self.claims.get_mut(id) {
            change(claim);
            if is_gone(&claim.meta) {
                self.claims.remove(id);
            }
        }
    }

    fn change_snapshot(&mut self, id: &Id, change: impl FnOnce(&mut Snapshot)) {
        if let Some(snapshot) = self.snapshots.get_mut(id) {
            change(snapshot);
            if is_gone(&snapshot.meta) {
                self.snapshots.remove(id);
            }
        }
    }

    fn change_content(&mut self, name: &str, change: impl FnOnce(&mut Content)) {
        if let Some(content) = self.contents.get_mut(name) {
            change(content);
            if is_gone(&content.meta) {
                self.contents.remove(name);
            }
        }
    }

    fn change_meta(&mut self, object: &Key, change: impl FnOnce(&mut Meta)) {
        match object {
            Key::Volume(name) => self.change_volume(name, |volume| change(&mut volume.meta)),
            Key::Claim(id) => self.change_claim(id, |claim| change(&mut claim.meta)),
            Key::Snapshot(id) => self.change_snapshot(id, |one| change(&mut one.meta)),
            Key::Content(name) => self.change_content(name, |one| change(&mut one.meta)),
            Key::Pod(id) => {
                if let Some(pod) = self.pods.get_mut(id) {
                    change(&mut pod.meta);
                    if is_gone(&pod.meta) {
                        self.pods.remove(id);
                    }
                }
            }
        }
    }
}

fn is_gone(meta: &Meta) -> bool {
    meta.deleting && meta.finalizers.is_empty()
}

fn annotate(meta: &mut Meta, annotations: &[(&'static str, Option<String>)]) {
    for (key, value) in annotations {
        match value {
            Some(value) => drop(meta.annotations.insert((*key).to_owned(), value.clone())),
            None => drop(meta.annotations.remove(*key)),
        }
    }
}

fn bind_volume(volume: &mut Volume, to: &ClaimRef, by_controller: bool) {
    volume.claim_ref = Some(to.clone());
    if by_controller {
        annotate(&mut volume.meta, &[(names::BOUND_BY_CONTROLLER, Some("yes".to_owned()))]);
    }
}

fn bind_claim(claim: &mut Claim, volume: &str, by_controller: bool) {
    volume.clone_into(&mut claim.volume_name);
    annotate(&mut claim.meta, &[(names::BIND_COMPLETED, Some("yes".to_owned()))]);
    if by_controller {
        annotate(&mut claim.meta, &[(names::BOUND_BY_CONTROLLER, Some("yes".to_owned()))]);
    }
}

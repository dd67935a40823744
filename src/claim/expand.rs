//! Enlarging the volume of a bound claim.
//!
//! The order is content, capacity of the volume, capacity in the claim's status: what an object
//! shows is never more than what is there.

use super::action::Action;
use super::bind::{claim_status, key};
use super::names;
use super::object::{Claim, ClaimStatus, Source, Volume};
use super::state::Objects;

/// The actions for a claim whose request is larger than its capacity.
#[must_use]
pub fn expand(objects: &Objects, claim: &Claim, volume: &Volume) -> Vec<Action> {
    let has_enough = claim.status.capacity.is_some_and(|size| size >= claim.request);
    if has_enough || claim.meta.deleting {
        return Vec::new();
    }
    if !is_served(objects, volume) {
        let message = "waiting for an external controller to expand this PVC";
        return vec![Action::normal(key(claim), "ExternalExpanding", message)];
    }
    let name = &volume.meta.name;
    let size = claim.request.max(volume.capacity);
    let mut actions = Vec::new();
    if volume.capacity < size {
        let message = format!("External resizer is resizing volume {name}");
        actions.push(Action::normal(key(claim), "Resizing", message));
        actions.push(Action::Expand { volume: name.clone(), size });
        actions.push(Action::VolumeCapacity { volume: name.clone(), size });
    }
    let status = ClaimStatus { capacity: Some(size), ..claim.status.clone() };
    actions.extend(claim_status(claim, status));
    let message = "Resize volume succeeded";
    actions.push(Action::normal(key(claim), "VolumeResizeSuccessful", message));
    actions
}

/// Whether a driver of this host holds the volume.
#[must_use]
pub fn is_served(objects: &Objects, volume: &Volume) -> bool {
    let by = volume.meta.annotation(names::PROVISIONED_BY);
    let is_driver = matches!(&volume.source, Source::Csi(driver) if objects.serves(driver));
    is_driver || by.is_some_and(|by| objects.serves(by))
}

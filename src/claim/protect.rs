//! Finalizers: a claim stays while pods use it, a volume while it is bound, and a provisioned
//! volume until its content is deleted.

use super::action::Action;
use super::names;
use super::object::{Claim, Key, ReclaimPolicy, Volume, VolumePhase};
use super::state::Objects;

/// Adds the protection of a claim, or removes it from a deleted claim that no pod uses.
#[must_use]
pub fn claim(objects: &Objects, claim: &Claim) -> Vec<Action> {
    let object = Key::Claim(claim.meta.id());
    let has = claim.meta.has_finalizer(names::CLAIM_PROTECTION);
    let finalizer = names::CLAIM_PROTECTION;
    // A pod counts from its placement to its deletion, also when it has ended.
    let is_used = || objects.pods_of(&claim.meta).any(|pod| !pod.node.is_empty());
    match (claim.meta.deleting, has) {
        (false, false) => vec![Action::AddFinalizer { object, finalizer }],
        (true, true) if !is_used() => vec![Action::RemoveFinalizer { object, finalizer }],
        _ => Vec::new(),
    }
}

/// Adds the protection of a volume, or removes it from a deleted volume that is not bound; and
/// keeps the finalizer of the provisioner on exactly those volumes whose content it deletes.
#[must_use]
pub fn volume(objects: &Objects, volume: &Volume) -> Vec<Action> {
    let object = || Key::Volume(volume.meta.name.clone());
    let has = volume.meta.has_finalizer(names::VOLUME_PROTECTION);
    let finalizer = names::VOLUME_PROTECTION;
    let mut actions = Vec::new();
    match (volume.meta.deleting, has) {
        (false, false) => actions.push(Action::AddFinalizer { object: object(), finalizer }),
        (true, true) if volume.status.phase != VolumePhase::Bound => {
            actions.push(Action::RemoveFinalizer { object: object(), finalizer });
        }
        _ => {}
    }
    let finalizer = names::PROVISIONER_FINALIZER;
    let has = volume.meta.has_finalizer(finalizer);
    let wants = volume.reclaim == ReclaimPolicy::Delete;
    if is_provisioned_here(objects, volume) {
        match (wants, has) {
            (true, false) if !volume.meta.deleting => {
                actions.push(Action::AddFinalizer { object: object(), finalizer });
            }
            (false, true) => actions.push(Action::RemoveFinalizer { object: object(), finalizer }),
            _ => {}
        }
    }
    actions
}

/// Whether this host made the volume for a claim.
#[must_use]
pub fn is_provisioned_here(objects: &Objects, volume: &Volume) -> bool {
    volume.meta.annotation(names::PROVISIONED_BY).is_some_and(|by| objects.serves(by))
}

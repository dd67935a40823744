//! The writes that join a volume and a claim, and the one that parts them.
//!
//! Binding is four writes in a fixed order: the volume's claimRef, the volume's phase, the claim's
//! volumeName, the claim's status. Each is left out if it is there already, so that a binding which
//! was cut short continues where it ended.

use super::action::Action;
use super::names;
use super::object::{
    Claim, ClaimPhase, ClaimRef, ClaimStatus, Key, Volume, VolumePhase, VolumeStatus,
};

/// The reference to a claim that a bound volume has.
#[must_use]
pub fn reference(claim: &Claim) -> ClaimRef {
    ClaimRef { id: claim.meta.id(), uid: claim.meta.uid.clone() }
}

/// The writes of a binding that are still to be done.
#[must_use]
pub fn bind(volume: &Volume, claim: &Claim) -> Vec<Action> {
    let mut actions: Vec<Action> = bind_volume(volume, claim).into_iter().collect();
    actions.extend(volume_phase(volume, VolumePhase::Bound));
    let is_chosen = claim.volume_name != volume.meta.name;
    if is_chosen || !claim.meta.has_annotation(names::BIND_COMPLETED) {
        actions.push(Action::BindClaim {
            claim: claim.meta.id(),
            volume: volume.meta.name.clone(),
            by_controller: is_chosen,
        });
    }
    let mut status = ClaimStatus {
        phase: ClaimPhase::Bound,
        modes: volume.modes.clone(),
        ..claim.status.clone()
    };
    if claim.status.phase != ClaimPhase::Bound {
        // A bound claim keeps its capacity: it may lag behind that of the volume on purpose.
        status.capacity = Some(volume.capacity);
        status.attributes_class.clone_from(&volume.attributes_class);
    }
    actions.extend(claim_status(claim, status));
    actions
}

/// The write of the volume's claimRef, unless it names the claim with its uid.
#[must_use]
pub fn bind_volume(volume: &Volume, claim: &Claim) -> Option<Action> {
    let to = reference(claim);
    (volume.claim_ref.as_ref() != Some(&to)).then(|| Action::BindVolume {
        volume: volume.meta.name.clone(),
        to,
        by_controller: !volume.is_for(&claim.meta),
    })
}

/// The writes that take a volume back from a claim. A reservation that a user made stays, without
/// the uid.
#[must_use]
pub fn unbind(volume: &Volume) -> Vec<Action> {
    let is_ours = volume.meta.has_annotation(names::BOUND_BY_CONTROLLER);
    let reserved =
        || volume.claim_ref.as_ref().map(|to| ClaimRef { uid: String::new(), ..to.clone() });
    let keep = if is_ours { None } else { reserved() };
    let mut actions = vec![Action::UnbindVolume { volume: volume.meta.name.clone(), keep }];
    actions.extend(volume_phase(volume, VolumePhase::Available));
    actions
}

/// The write of a phase without reason, unless the volume has the phase.
#[must_use]
pub fn volume_phase(volume: &Volume, phase: VolumePhase) -> Option<Action> {
    let status = VolumeStatus { phase, ..VolumeStatus::default() };
    volume_status(volume, status)
}

/// The write of a status, unless the volume has it.
#[must_use]
pub fn volume_status(volume: &Volume, status: VolumeStatus) -> Option<Action> {
    let write =
        || Action::VolumeStatus { volume: volume.meta.name.clone(), status: status.clone() };
    (volume.status != status).then(write)
}

/// The write of a status, unless the claim has it.
#[must_use]
pub fn claim_status(claim: &Claim, status: ClaimStatus) -> Option<Action> {
    let write = || Action::ClaimStatus { claim: claim.meta.id(), status: status.clone() };
    (claim.status != status).then(write)
}

/// The write of a phase in which the claim has no volume, unless the claim has it.
#[must_use]
pub fn unbound_status(claim: &Claim, phase: ClaimPhase) -> Option<Action> {
    claim_status(claim, ClaimStatus { phase, ..ClaimStatus::default() })
}

/// The key of a claim.
#[must_use]
pub fn key(claim: &Claim) -> Key {
    Key::Claim(claim.meta.id())
}

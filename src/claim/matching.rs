//! Which volume a claim gets.
//!
//! The rules, and their order, are those of Kubernetes; volumes are taken in the order of names. A
//! volume that is reserved for the claim ends a search, whatever else there is. A claim that is
//! bound at once searches one set of access modes after the other ([`immediate`]): the sets with
//! fewer modes come first. So a volume with fewer modes wins over a smaller one, and a volume that
//! is reserved for the claim but offers more modes loses to a free one that offers fewer. A claim
//! that is bound with a pod searches all sets together ([`on_node`]).
//!
//! Free volumes come in the order of size, so that a search ends with the first that fits.

use std::collections::BTreeSet;

use super::object::{Claim, ModeSet, Node, Volume, VolumePhase};
use super::state::Objects;

/// The volume that a claim gets while no pod is being placed: the best of the first set of access
/// modes that has one. If the claim waits for its first pod, only a volume that is reserved for it
/// counts.
#[must_use]
pub fn immediate<'a>(objects: &'a Objects, claim: &Claim, is_delayed: bool) -> Option<&'a Volume> {
    let own: Vec<&Volume> = reserved(objects, claim).collect();
    let own_in = |set: ModeSet| own.iter().find(|volume| ModeSet::of(&volume.modes) == set);
    let mut sets: Vec<ModeSet> = own.iter().map(|volume| ModeSet::of(&volume.modes)).collect();
    if !is_delayed {
        sets.extend(objects.free_sets(claim.class()));
    }
    let wanted = ModeSet::of(&claim.modes);
    sets.retain(|set| set.holds(wanted));
    sets.sort_unstable();
    sets.into_iter().find_map(|set| match own_in(set) {
        Some(own) => Some(*own),
        None => free(objects, claim, set).next(),
    })
}

/// The volume that a claim gets with a pod on a node: the one that is reserved for it, else the
/// smallest of all sets of access modes that the node reaches. Excluded are those that other claims
/// of the pod get.
#[must_use]
pub fn on_node<'a>(
    objects: &'a Objects,
    claim: &Claim,
    node: &Node,
    excluded: &BTreeSet<String>,
) -> Option<&'a Volume> {
    let is_excluded = |volume: &&Volume| excluded.contains(&volume.meta.name);
    let own = reserved(objects, claim).find(|volume| !is_excluded(volume));
    if let Some(own) = own {
        // A reserved volume ends the search, also if it cannot be reached from the node.
        return reaches(own, node).then_some(own);
    }
    let wanted = ModeSet::of(&claim.modes);
    let sets = objects.free_sets(claim.class()).filter(|set| set.holds(wanted));
    let best_of = |set: ModeSet| {
        free(objects, claim, set).find(|volume| !is_excluded(volume) && reaches(volume, node))
    };
    sets.filter_map(best_of).min_by_key(|volume| (volume.capacity, &volume.meta.name))
}

/// Whether the volume's node affinity allows the node. A volume without one is everywhere.
#[must_use]
pub fn reaches(volume: &Volume, node: &Node) -> bool {
    let selector = volume.affinity.as_ref();
    selector.is_none_or(|selector| selector.selects(&node.meta.name, &node.meta.labels))
}

/// The volumes that are reserved for the claim and fit, in the order of names.
fn reserved<'a>(objects: &'a Objects, claim: &Claim) -> impl Iterator<Item = &'a Volume> {
    let named = objects.volumes_of(&claim.meta.id());
    named.filter(|volume| volume.is_for(&claim.meta) && fits_at_all(claim, volume))
}

/// The free volumes of a set of access modes that fit, the smallest first.
fn free<'a>(objects: &'a Objects, claim: &Claim, set: ModeSet) -> impl Iterator<Item = &'a Volume> {
    let large = objects.free_from(claim.class(), set, claim.request);
    large.filter(move |volume| {
        fits_at_all(claim, volume)
            && volume.status.phase == VolumePhase::Available
            && claim.selector.as_ref().is_none_or(|selector| selector.selects(&volume.meta.labels))
    })
}

/// The rules that hold for a reserved volume too.
fn fits_at_all(claim: &Claim, volume: &Volume) -> bool {
    volume.capacity >= claim.request
        && volume.volume_mode == claim.volume_mode
        && volume.attributes_class == claim.attributes_class
        && !volume.meta.deleting
}

/// Why a volume that the claim itself names cannot be its volume. Selector and node affinity do not
/// count here.
///
/// # Errors
///
/// The reason, in the words of Kubernetes.
pub fn check_named(claim: &Claim, volume: &Volume) -> Result<(), String> {
    if volume.meta.deleting {
        return Err(format!("the volume is marked for deletion {:?}", volume.meta.name));
    }
    let checks = [
        (volume.capacity.bytes() >= claim.request.bytes(), "requested PV is too small"),
        (volume.class() == claim.class(), "storageClassName does not match"),
        (
            volume.attributes_class == claim.attributes_class,
            "volumeAttributesClassName does not match",
        ),
        (volume.volume_mode == claim.volume_mode, "incompatible volumeMode"),
        (ModeSet::of(&volume.modes).holds(ModeSet::of(&claim.modes)), "incompatible accessMode"),
    ];
    match checks.iter().find(|(holds, _)| !holds) {
        Some((_, reason)) => Err((*reason).to_owned()),
        None => Ok(()),
    }
}

//! The claim loop: what is to be done for one claim.
//!
//! A claim without the annotation that its binding is complete looks for a volume; one with it
//! checks that its volume is still there. A claim that lost its volume never gets another one.

use super::action::Action;
use super::bind::{bind, key, unbound_status};
use super::names;
use super::object::{BindingMode, Claim, ClaimPhase, Volume};
use super::state::Objects;
use super::{expand, matching, modify, protect, provision, snapshots};

/// The actions for a claim, in order.
#[must_use]
pub fn decide(objects: &Objects, claim: &Claim) -> Vec<Action> {
    let mut actions = protect::claim(objects, claim);
    if actions.iter().any(|action| matches!(action, Action::RemoveFinalizer { .. })) {
        // The claim is about to go: a volume that were bound to it now would be Released at once.
        actions.extend(snapshots::release_source(objects, claim));
        return actions;
    }
    actions.extend(snapshots::release_source(objects, claim));
    if claim.meta.has_annotation(names::BIND_COMPLETED) {
        actions.extend(bound(objects, claim));
    } else {
        actions.extend(unbound(objects, claim));
    }
    actions
}

/// Whether the claim waits for its first pod.
#[must_use]
pub fn is_delayed(objects: &Objects, claim: &Claim) -> bool {
    let class = objects.classes.get(claim.class());
    class.is_some_and(|class| class.binding == BindingMode::WaitForFirstConsumer)
}

fn unbound(objects: &Objects, claim: &Claim) -> Vec<Action> {
    if !claim.volume_name.is_empty() {
        return named(claim, objects.volume(&claim.volume_name));
    }
    let is_delayed = is_delayed(objects, claim);
    if let Some(volume) = matching::immediate(objects, claim, is_delayed) {
        return bind(volume, claim);
    }
    if !claim.has_class()
        && let Some(class) = objects.default_class()
    {
        let (claim, class) = (claim.meta.id(), class.meta.name.clone());
        return vec![Action::SetClass { claim, class }];
    }
    let mut actions = Vec::new();
    if is_delayed && !claim.meta.has_annotation(names::SELECTED_NODE) {
        actions.push(waiting_for_pod(objects, claim));
    } else if claim.class().is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        actions.push(Action::normal(key(claim), "FailedBinding", message));
    } else {
        actions.extend(provision::provision(objects, claim));
    }
    actions.extend(unbound_status(claim, ClaimPhase::Pending));
    actions
}

/// The event of a claim that waits for a pod, or for the placement of the pods that it has.
fn waiting_for_pod(objects: &Objects, claim: &Claim) -> Action {
    let pods = objects.pods_of(&claim.meta).filter(|pod| pod.node.is_empty());
    let pods: Vec<&str> = pods.map(|pod| &pod.meta.name[..]).collect();
    match &pods[..] {
        [] => {
            let message = "waiting for first consumer to be created before binding";
            Action::normal(key(claim), "WaitForFirstConsumer", message)
        }
        [pod] => {
            let message = format!("waiting for pod {pod} to be scheduled");
            Action::normal(key(claim), "WaitForPodScheduled", message)
        }
        pods => {
            let message = format!("waiting for pods {} to be scheduled", pods.join(","));
            Action::normal(key(claim), "WaitForPodScheduled", message)
        }
    }
}

/// A claim that names its volume gets that one or none.
fn named(claim: &Claim, volume: Option<&Volume>) -> Vec<Action> {
    let pending = |event: Option<Action>| {
        event.into_iter().chain(unbound_status(claim, ClaimPhase::Pending)).collect()
    };
    let Some(volume) = volume else { return pending(None) };
    if volume.is_for(&claim.meta) {
        return bind(volume, claim);
    }
    let name = &volume.meta.name;
    if volume.claim_ref.is_some() {
        let message = format!("volume {name:?} already bound to a different claim.");
        return pending(Some(Action::warning(key(claim), "FailedBinding", message)));
    }
    match matching::check_named(claim, volume) {
        Ok(()) => bind(volume, claim),
        Err(reason) => {
            let message = format!("Cannot bind to requested volume {name:?}: {reason}");
            pending(Some(Action::warning(key(claim), "VolumeMismatch", message)))
        }
    }
}

fn bound(objects: &Objects, claim: &Claim) -> Vec<Action> {
    let lost = |reason: &'static str, message: &str| {
        let event = Action::warning(key(claim), reason, message);
        let status = unbound_status(claim, ClaimPhase::Lost);
        // The event comes with the change of the phase, not with each look at a lost claim.
        status.into_iter().flat_map(|status| [status, event.clone()]).collect()
    };
    if claim.volume_name.is_empty() {
        let message =
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost("ClaimLost", message);
    }
    let Some(volume) = objects.volume(&claim.volume_name) else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lost("ClaimLost", message);
    };
    let is_ours = volume
        .claim_ref
        .as_ref()
        .is_none_or(|to| to.id == claim.meta.id() && to.uid == claim.meta.uid);
    if !is_ours {
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        return lost("ClaimMisbound", message);
    }
    let mut actions = bind(volume, claim);
    if actions.is_empty() {
        actions.extend(expand::expand(objects, claim, volume));
        actions.extend(modify::modify(objects, claim, volume));
    }
    actions
}

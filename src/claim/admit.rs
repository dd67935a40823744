//! What the API server does to an object of storage before it stores it, and the growth of claims
//! that it allows.

use super::names;
use super::object::{Claim, ClaimPhase, Meta, Volume};
use super::state::Objects;

/// Completes a new claim: the default class if it names none, and its protection.
pub fn claim(objects: &Objects, claim: &mut Claim) {
    if !claim.has_class()
        && let Some(class) = objects.default_class()
    {
        claim.class_name = Some(class.meta.name.clone());
    }
    protect(&mut claim.meta, names::CLAIM_PROTECTION);
}

/// Completes a new volume: its protection.
pub fn volume(volume: &mut Volume) {
    protect(&mut volume.meta, names::VOLUME_PROTECTION);
}

fn protect(meta: &mut Meta, finalizer: &str) {
    if !meta.has_finalizer(finalizer) {
        meta.finalizers.push(finalizer.to_owned());
    }
}

/// Whether the request of a claim may change from that of `old` to that of `new`.
///
/// # Errors
///
/// The reason for a refusal, as the API server words it.
pub fn growth(objects: &Objects, old: &Claim, new: &Claim) -> Result<(), &'static str> {
    if new.request <= old.request {
        return Ok(());
    }
    if old.status.phase != ClaimPhase::Bound {
        return Err("Only bound persistent volume claims can be expanded");
    }
    let class = objects.classes.get(old.class());
    if class.is_some_and(|class| class.may_expand) {
        return Ok(());
    }
    Err("only dynamically provisioned pvc can be resized and the storageclass that provisions the \
         pvc must support resize")
}

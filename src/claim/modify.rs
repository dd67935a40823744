//! Giving the volume of a bound claim the attributes of another VolumeAttributesClass.

use super::action::Action;
use super::bind::{claim_status, key};
use super::expand::is_served;
use super::object::{Claim, ClaimStatus, Volume};
use super::state::Objects;

/// The actions for a claim whose attributes class differs from the current one.
///
/// The claim's status names the target while it is not reached: a missing class, or a driver that
/// this host does not serve, keeps it there.
#[must_use]
pub fn modify(objects: &Objects, claim: &Claim, volume: &Volume) -> Vec<Action> {
    let target = &claim.attributes_class;
    if target.is_empty() || *target == claim.status.attributes_class || claim.meta.deleting {
        let status = ClaimStatus { modifying: String::new(), ..claim.status.clone() };
        return claim_status(claim, status).into_iter().collect();
    }
    let name = &volume.meta.name;
    let waiting = ClaimStatus { modifying: target.clone(), ..claim.status.clone() };
    let mut actions: Vec<Action> = claim_status(claim, waiting).into_iter().collect();
    let Some(class) = objects.attributes_classes.get(target) else {
        let message = format!("VAC {target} does not exist");
        actions.push(Action::warning(key(claim), "VolumeModifyFailed", message));
        return actions;
    };
    if !is_served(objects, volume) || !objects.serves(&class.driver) {
        return actions;
    }
    let parameters = class.parameters.clone();
    let message = format!("external resizer is modifying volume {name} with vac {target}");
    actions.push(Action::normal(key(claim), "VolumeModify", message));
    actions.push(Action::Modify { volume: name.clone(), parameters });
    let (of, class) = (name.clone(), target.clone());
    actions.push(Action::VolumeAttributesClass { volume: of, class });
    let done = ClaimStatus {
        attributes_class: target.clone(),
        modifying: String::new(),
        ..claim.status.clone()
    };
    actions.push(Action::ClaimStatus { claim: claim.meta.id(), status: done });
    let message = format!("external resizer modified volume {name} with vac {target} successfully");
    actions.push(Action::normal(key(claim), "VolumeModifySuccessful", message));
    actions
}

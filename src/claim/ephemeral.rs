//! Claims that are made for the ephemeral volumes of pods.

use super::action::Action;
use super::admit;
use super::object::{Claim, ClaimStatus, Id, Meta, Pod, PodVolume};
use super::state::Objects;

/// The claims to create for a pod. A claim of the name that belongs to somebody else stays as it
/// is: it keeps the pod from being placed.
#[must_use]
pub fn claims(objects: &Objects, pod: &Pod) -> Vec<Action> {
    if pod.meta.deleting || pod.is_finished() {
        return Vec::new();
    }
    let missing = pod.volumes.iter().filter_map(|volume| {
        let PodVolume::Ephemeral { template, .. } = volume else { return None };
        let id = Id::new(&pod.meta.namespace, &pod.claim_name(volume));
        (!objects.claims.contains_key(&id)).then(|| create(objects, pod, &id, template))
    });
    missing.collect()
}

/// Why a claim with the name of a pod's own is not used.
#[must_use]
pub fn foreign(pod: &Pod, claim: &Claim) -> String {
    let (of, by) = (claim.meta.id(), pod.meta.id());
    format!("PVC {of} was not created for pod {by} (pod is not owner)")
}

fn create(objects: &Objects, pod: &Pod, id: &Id, template: &Claim) -> Action {
    let mut claim = Claim {
        meta: Meta {
            name: id.name.clone(),
            namespace: id.namespace.clone(),
            labels: template.meta.labels.clone(),
            annotations: template.meta.annotations.clone(),
            controllers: vec![pod.meta.uid.clone()],
            ..Meta::default()
        },
        status: ClaimStatus::default(),
        ..template.clone()
    };
    admit::claim(objects, &mut claim);
    Action::CreateClaim(Box::new(claim))
}

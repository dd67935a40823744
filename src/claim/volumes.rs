//! The volume loop: what is to be done for one volume.
//!
//! A volume without a claim is available; one with a claim is bound as long as the claim exists and
//! names the volume; then it is released, and its policy says what follows. A reclaim that fails is
//! tried again with every look at the volume.

use super::action::Action;
use super::bind::{unbind, volume_phase, volume_status};
use super::names;
use super::object::{Claim, Key, Pod, ReclaimPolicy, Source, Volume, VolumePhase, VolumeStatus};
use super::protect::{self, is_provisioned_here};
use super::state::Objects;

/// The actions for a volume, in order.
#[must_use]
pub fn decide(objects: &Objects, volume: &Volume) -> Vec<Action> {
    let mut actions = protect::volume(objects, volume);
    let Some(to) = &volume.claim_ref else {
        actions.extend(free(objects, volume));
        return actions;
    };
    if to.uid.is_empty() {
        actions.extend(free(objects, volume));
        return actions;
    }
    let claim = objects.claims.get(&to.id).filter(|claim| claim.meta.uid == to.uid);
    match claim {
        None => actions.extend(released(objects, volume)),
        Some(claim) if claim.volume_name.is_empty() => actions.extend(unanswered(volume, claim)),
        Some(claim) if claim.volume_name == volume.meta.name => {
            actions.extend(volume_phase(volume, VolumePhase::Bound));
            actions.extend(stand_in(objects, volume));
        }
        Some(_) => actions.extend(bound_elsewhere(objects, volume)),
    }
    actions
}

/// A volume that no claim has. One that this host made is deleted with its content.
fn free(objects: &Objects, volume: &Volume) -> Vec<Action> {
    if volume.meta.deleting && volume.meta.has_finalizer(names::PROVISIONER_FINALIZER) {
        return reclaim(objects, volume);
    }
    volume_phase(volume, VolumePhase::Available).into_iter().collect()
}

/// The claim that the volume names has not answered yet: the claim's own loop binds it, unless the
/// modes differ.
fn unanswered(volume: &Volume, claim: &Claim) -> Vec<Action> {
    if claim.volume_mode == volume.volume_mode {
        return Vec::new();
    }
    let (name, of) = (&volume.meta.name, &claim.meta.name);
    let to_volume = format!(
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim {of:?} due to \
         incompatible volumeMode."
    );
    let to_claim = format!(
        "Cannot bind PersistentVolume {name:?} to requested PersistentVolumeClaim due to \
         incompatible volumeMode."
    );
    vec![
        Action::warning(Key::Volume(name.clone()), "VolumeMismatch", to_volume),
        Action::warning(Key::Claim(claim.meta.id()), "VolumeMismatch", to_claim),
    ]
}

/// The claim has another volume. A volume that was made for it is of no use to anybody else.
fn bound_elsewhere(objects: &Objects, volume: &Volume) -> Vec<Action> {
    let is_made = volume.meta.has_annotation(names::PROVISIONED_BY);
    if is_made && volume.reclaim == ReclaimPolicy::Delete {
        return released(objects, volume);
    }
    unbind(volume)
}

/// The name of the content of a volume that a driver of this host stands in for.
#[must_use]
pub fn stand_in_name(volume: &Volume) -> String {
    format!("pv-{}", volume.meta.uid)
}

/// Whether a driver of this host stands in for the source of a volume, be it that a provisioner of
/// a cluster made the volume there.
fn is_mapped(objects: &Objects, volume: &Volume) -> bool {
    objects.host.sources.contains(&volume.source.kind())
}

/// Whether the content of a volume is, or would be, a volume of Lamina for which another source is
/// written.
fn has_stand_in(objects: &Objects, volume: &Volume) -> bool {
    volume.meta.has_annotation(names::STAND_IN) || is_mapped(objects, volume)
}

/// Makes the content of a volume of a cluster when it is used first. What the annotation names,
/// a user's choice too, stays the content.
fn stand_in(objects: &Objects, volume: &Volume) -> Vec<Action> {
    if !is_mapped(objects, volume)
        || volume.meta.has_annotation(names::STAND_IN)
        || volume.meta.deleting
    {
        return Vec::new();
    }
    let object = Key::Volume(volume.meta.name.clone());
    let name = stand_in_name(volume);
    let message = format!("volume {name} of this host stands in for {}", volume.source.kind());
    vec![
        Action::StandIn { volume: volume.meta.name.clone() },
        annotate(volume, Some(name)),
        Action::normal(object, "ProvisioningSucceeded", message),
    ]
}

fn annotate(volume: &Volume, name: Option<String>) -> Action {
    let object = Key::Volume(volume.meta.name.clone());
    Action::Annotate { object, annotations: vec![(names::STAND_IN, name)] }
}

fn released(objects: &Objects, volume: &Volume) -> Vec<Action> {
    let mut actions = Vec::new();
    // The phase Failed stays, so that a user sees it, while the reclaim is tried again.
    if volume.status.phase != VolumePhase::Failed {
        actions.extend(volume_phase(volume, VolumePhase::Released));
    }
    actions.extend(reclaim(objects, volume));
    actions
}

fn reclaim(objects: &Objects, volume: &Volume) -> Vec<Action> {
    match volume.reclaim {
        ReclaimPolicy::Retain => Vec::new(),
        ReclaimPolicy::Delete => delete(objects, volume),
        ReclaimPolicy::Recycle => recycle(objects, volume),
    }
}

fn delete(objects: &Objects, volume: &Volume) -> Vec<Action> {
    let is_ours = is_provisioned_here(objects, volume);
    let is_stand_in = has_stand_in(objects, volume);
    if volume.meta.has_annotation(names::PROVISIONED_BY) && !is_ours && !is_stand_in {
        // Another provisioner made the volume, and deletes it.
        return Vec::new();
    }
    let name = &volume.meta.name;
    let may_delete = match &volume.source {
        _ if is_ours || is_stand_in => Ok(()),
        Source::HostPath(path)
            if path.strip_prefix("/tmp/").is_some_and(|rest| !rest.is_empty()) =>
        {
            Ok(())
        }
        Source::HostPath(path) => {
            Err(format!("host_path deleter only supports /tmp/.+ but received provided {path}"))
        }
        _ => Err(format!(
            "error getting deleter volume plugin for volume {name:?}: no deletable volume plugin \
             matched"
        )),
    };
    if let Err(message) = may_delete {
        return failed(volume, "VolumeFailedDelete", message);
    }
    if volume.meta.deleting && !volume.meta.has_finalizer(names::PROVISIONER_FINALIZER) {
        // Nothing holds the object on account of its content: the content is deleted already.
        return Vec::new();
    }
    let volume_name = name.clone();
    let mut actions = vec![Action::DeleteBacking { volume: volume_name.clone() }];
    if !volume.meta.deleting {
        actions.push(Action::DeleteVolume { volume: volume_name.clone() });
    }
    for finalizer in [names::PROVISIONER_FINALIZER, names::VOLUME_PROTECTION] {
        if volume.meta.has_finalizer(finalizer) {
            let object = Key::Volume(volume_name.clone());
            actions.push(Action::RemoveFinalizer { object, finalizer });
        }
    }
    actions
}

fn recycle(objects: &Objects, volume: &Volume) -> Vec<Action> {
    let Some(to) = &volume.claim_ref else { return Vec::new() };
    let object = Key::Volume(volume.meta.name.clone());
    // The claim is gone: a pod counts if it names a claim of that name and has not ended.
    let is_user = |pod: &&Pod| {
        pod.meta.namespace == to.id.namespace
            && !pod.is_finished()
            && pod.volumes.iter().any(|volume| pod.claim_name(volume) == to.id.name)
    };
    let pods: Vec<String> =
        objects.pods.values().filter(is_user).map(|pod| pod.meta.id().to_string()).collect();
    if !pods.is_empty() {
        let message = format!("Volume is used by pods: {}", pods.join(","));
        return vec![Action::normal(object, "VolumeFailedRecycle", message)];
    }
    let is_stand_in = has_stand_in(objects, volume);
    if !is_stand_in && !matches!(volume.source, Source::HostPath(_) | Source::Nfs) {
        let message = "No recycler plugin found for the volume!".to_owned();
        return failed(volume, "VolumeFailedRecycle", message);
    }
    let mut actions = vec![
        Action::Recycle { volume: volume.meta.name.clone() },
        Action::normal(object, "VolumeRecycled", "Volume recycled"),
    ];
    if volume.meta.has_annotation(names::STAND_IN) {
        // The next claim gets new content.
        actions.push(annotate(volume, None));
    }
    actions.extend(unbind(volume));
    actions
}

/// The phase Failed with its reason, and the event of it.
#[must_use]
pub fn failed(volume: &Volume, reason: &'static str, message: String) -> Vec<Action> {
    let status = VolumeStatus {
        phase: VolumePhase::Failed,
        reason: reason.to_owned(),
        message: message.clone(),
    };
    let event = Action::warning(Key::Volume(volume.meta.name.clone()), reason, message);
    volume_status(volume, status).into_iter().chain([event]).collect()
}

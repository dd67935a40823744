//! Making a volume for a claim: by a driver of this host, or by an external provisioner that the
//! claim waits for.

use super::action::{Action, Origin, Provision};
use super::bind::{key, reference};
use super::names;
use super::object::{Claim, Class, Labels, Meta, ReclaimPolicy, Source, Volume, VolumeStatus};
use super::source;
use super::state::Objects;

/// The actions that bring a claim with a class closer to a volume.
#[must_use]
pub fn provision(objects: &Objects, claim: &Claim) -> Vec<Action> {
    let Some(class) = objects.classes.get(claim.class()) else {
        let message = format!("storageclass.storage.k8s.io {:?} not found", claim.class());
        return vec![failure(claim, message)];
    };
    let provisioner = &class.provisioner[..];
    if objects.serves(provisioner) {
        return serve(objects, claim, class);
    }
    let migrated = names::MIGRATED.iter().find(|(name, _)| *name == provisioner);
    if migrated.is_none() && provisioner.starts_with(names::IN_TREE) {
        let message = format!("no volume plugin matched name: {provisioner}");
        return vec![failure(claim, message)];
    }
    external(claim, migrated.map_or(provisioner, |(_, driver)| driver))
}

/// The event of a failed attempt.
#[must_use]
pub fn failure(claim: &Claim, message: String) -> Action {
    Action::warning(key(claim), "ProvisioningFailed", message)
}

/// The name of the volume that is made for a claim.
#[must_use]
pub fn volume_name(claim: &Claim) -> String {
    format!("pvc-{}", claim.meta.uid)
}

fn external(claim: &Claim, provisioner: &str) -> Vec<Action> {
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or \
         manually by the system administrator. If volume creation is delayed, please verify that \
         the provisioner is running and correctly registered."
    );
    let mut actions: Vec<Action> = annotate(claim, provisioner).into_iter().collect();
    actions.push(Action::normal(key(claim), "ExternalProvisioning", message));
    actions
}

/// The annotations that name the provisioner, unless the claim has them.
fn annotate(claim: &Claim, provisioner: &str) -> Option<Action> {
    let keys = [names::OLD_PROVISIONER, names::PROVISIONER];
    let has = |key: &&str| claim.meta.annotation(key) == Some(provisioner);
    if keys.iter().all(has) {
        return None;
    }
    let annotations = keys.map(|key| (key, Some(provisioner.to_owned()))).to_vec();
    Some(Action::Annotate { object: key(claim), annotations })
}

fn serve(objects: &Objects, claim: &Claim, class: &Class) -> Vec<Action> {
    let name = volume_name(claim);
    if claim.meta.deleting || objects.volume(&name).is_some() {
        return Vec::new();
    }
    if source::is_foreign(claim) {
        let mut actions = external(claim, &class.provisioner);
        actions.extend(source::left_to_populator(claim));
        return actions;
    }
    let (attributes, origin) = match check(objects, claim, class) {
        Ok(found) => found,
        Err(reason) => {
            let mut actions: Vec<Action> =
                annotate(claim, &class.provisioner).into_iter().collect();
            actions.push(failure(claim, failed_text(class, &reason)));
            return actions;
        }
    };
    let id = claim.meta.id();
    let mut actions: Vec<Action> = annotate(claim, &class.provisioner).into_iter().collect();
    let message = format!("External provisioner is provisioning volume for claim \"{id}\"");
    actions.push(Action::normal(key(claim), "Provisioning", message));
    actions.push(Action::Provision(Box::new(Provision {
        claim: id,
        provisioner: class.provisioner.clone(),
        parameters: class.parameters.clone(),
        attributes,
        origin,
        node: claim.meta.annotation(names::SELECTED_NODE).map(str::to_owned),
        volume: volume(claim, class),
    })));
    let message = format!("Successfully provisioned volume {name}");
    actions.push(Action::normal(key(claim), "ProvisioningSucceeded", message));
    actions
}

/// The message of a failure to provision.
#[must_use]
pub fn failed_text(class: &Class, reason: &str) -> String {
    format!("failed to provision volume with StorageClass {:?}: {reason}", class.meta.name)
}

/// The parameters of the claim's attributes class, and what its first content is copied from.
fn check(
    objects: &Objects,
    claim: &Claim,
    class: &Class,
) -> Result<(Labels, Option<Origin>), String> {
    if claim.selector.is_some() {
        return Err("claim Selector is not supported".to_owned());
    }
    let origin = source::origin(objects, claim, class)?;
    if claim.attributes_class.is_empty() {
        return Ok((Labels::new(), origin));
    }
    let name = &claim.attributes_class;
    let class = objects.attributes_classes.get(name);
    let missing = || format!("volumeattributesclass.storage.k8s.io {name:?} not found");
    class.map(|class| (class.parameters.clone(), origin)).ok_or_else(missing)
}

/// The object of the new volume.
fn volume(claim: &Claim, class: &Class) -> Volume {
    let mut finalizers = vec![names::VOLUME_PROTECTION.to_owned()];
    if class.reclaim == ReclaimPolicy::Delete {
        finalizers.push(names::PROVISIONER_FINALIZER.to_owned());
    }
    let by = (names::PROVISIONED_BY.to_owned(), class.provisioner.clone());
    Volume {
        meta: Meta {
            name: volume_name(claim),
            annotations: Labels::from([by]),
            finalizers,
            ..Meta::default()
        },
        capacity: claim.request,
        modes: claim.modes.clone(),
        volume_mode: claim.volume_mode,
        class_name: class.meta.name.clone(),
        reclaim: class.reclaim,
        claim_ref: Some(reference(claim)),
        affinity: None,
        attributes_class: claim.attributes_class.clone(),
        mount_options: class.mount_options.clone(),
        source: Source::Csi(class.provisioner.clone()),
        handle: volume_name(claim),
        status: VolumeStatus::default(),
    }
}

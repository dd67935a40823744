//! What follows when a driver fails to carry out an order.

use super::action::{Action, Provision};
use super::bind::key;
use super::contents;
use super::names;
use super::object::{Claim, Key, Source};
use super::provision;
use super::state::Objects;
use super::volumes;

/// The failure of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The driver's message.
    pub message: String,
    /// Whether the volume is in use, so that the order is to be repeated without further ado.
    pub is_in_use: bool,
}

/// The writes that record the failure of an order. The order itself comes again with the next
/// decision: the caller waits before that.
#[must_use]
pub fn after(objects: &Objects, order: &Action, failure: &Failure) -> Vec<Action> {
    let message = &failure.message;
    match order {
        Action::Provision(order) => provisioning(objects, order, message),
        Action::DeleteBacking { volume } if failure.is_in_use => {
            vec![Action::normal(Key::Volume(volume.clone()), "VolumeDelete", &message[..])]
        }
        Action::DeleteBacking { volume } => {
            volume_failed(objects, volume, "VolumeFailedDelete", message.clone())
        }
        Action::Recycle { volume } => {
            let message = format!("Recycle failed: {message}");
            volume_failed(objects, volume, "VolumeFailedRecycle", message)
        }
        Action::Expand { volume, .. } => claim_of(objects, volume, |claim| {
            let by = driver(objects, volume);
            let message = format!("resize volume {volume:?} by resizer {by:?} failed: {message}");
            Action::warning(key(claim), "VolumeResizeFailed", message)
        }),
        Action::StandIn { volume } => {
            let message = format!("failed to make the content of volume {volume:?}: {message}");
            let about = Key::Volume(volume.clone());
            let mut actions = vec![Action::warning(about, "ProvisioningFailed", &message[..])];
            actions.extend(claim_of(objects, volume, |claim| {
                Action::warning(key(claim), "ProvisioningFailed", &message[..])
            }));
            actions
        }
        Action::Modify { volume, .. } => claim_of(objects, volume, |claim| {
            let message = format!("modify volume {volume:?} failed: {message}");
            Action::warning(key(claim), "VolumeModifyFailed", message)
        }),
        Action::TakeSnapshot { content, volume, .. } => {
            let message = format!(
                "Failed to create snapshot: failed to take snapshot of the volume {volume}: \
                 {message}"
            );
            content_failed(objects, content, "SnapshotCreationFailed", message)
        }
        Action::FindSnapshot { content, .. } => {
            let message = format!("Failed to check and update snapshot content: {message}");
            content_failed(objects, content, "SnapshotContentCheckandUpdateFailed", message)
        }
        Action::DeleteSnapshot { content, .. } => {
            let message = format!("Failed to delete snapshot: {message}");
            content_failed(objects, content, "SnapshotDeleteError", message)
        }
        _ => Vec::new(),
    }
}

fn content_failed(
    objects: &Objects,
    content: &str,
    reason: &'static str,
    message: String,
) -> Vec<Action> {
    let content = objects.contents.get(content);
    content.map(|content| contents::failed(content, reason, message)).unwrap_or_default()
}

/// The claim shows the failure. If a pod waits for it, the pod is placed anew.
fn provisioning(objects: &Objects, order: &Provision, message: &str) -> Vec<Action> {
    let Some(claim) = objects.claims.get(&order.claim) else { return Vec::new() };
    let class = objects.classes.get(claim.class());
    let message = class.map_or(message.to_owned(), |class| provision::failed_text(class, message));
    let mut actions = vec![provision::failure(claim, message)];
    if claim.meta.has_annotation(names::SELECTED_NODE) {
        let annotations = vec![(names::SELECTED_NODE, None)];
        actions.push(Action::Annotate { object: key(claim), annotations });
    }
    actions
}

fn volume_failed(
    objects: &Objects,
    volume: &str,
    reason: &'static str,
    message: String,
) -> Vec<Action> {
    let volume = objects.volume(volume);
    volume.map(|volume| volumes::failed(volume, reason, message)).unwrap_or_default()
}

/// The driver that holds a volume.
fn driver<'a>(objects: &'a Objects, volume: &str) -> &'a str {
    let Some(volume) = objects.volume(volume) else { return "" };
    match (&volume.source, volume.meta.annotation(names::PROVISIONED_BY)) {
        (Source::Csi(driver), _) => driver,
        (_, by) => by.unwrap_or_default(),
    }
}

fn claim_of(objects: &Objects, volume: &str, action: impl Fn(&Claim) -> Action) -> Vec<Action> {
    let to = objects.volume(volume).and_then(|volume| volume.claim_ref.as_ref());
    to.and_then(|to| objects.claims.get(&to.id)).map(action).into_iter().collect()
}

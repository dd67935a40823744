//! What Kubernetes would decide about volumes, claims and the pods that use them: a pure function
//! from objects to writes.
//!
//! [`decide`] takes all objects and the key of one, and returns the [`Action`]s that are due for
//! it, in the order in which Kubernetes' controllers write. The caller carries them out one after
//! the other, stops at the first that fails, and asks again with the objects as they are then. When
//! no key yields anything but events, the state is settled.
//!
//! Invariants: each action is idempotent and sets only the fields that it names, and a decision
//! depends on nothing but the objects. So a process that is killed between any two writes
//! continues with the next decision, and reaches the state that it would have reached. There is no
//! clock: what depends on time (retries, aggregation of events) is the caller's.
//!
//! - [`object`]: the objects; [`state`]: all of them; [`action`]: the writes, and [`apply`] their
//!   effect; [`names`]: annotations and finalizers; [`selector`]: labels and nodes;
//! - [`matching`]: which volume a claim gets; [`bind`]: the four writes of a binding;
//! - [`claims`], [`volumes`], [`place`]: the loops of claims, volumes and pods; [`ephemeral`]:
//!   claims of pods; [`provision`], [`expand`], [`modify`]: orders to drivers, and [`failure`]
//!   what follows when one fails; [`protect`]: finalizers;
//! - [`snapshot`]: their objects; [`snapshots`], [`contents`]: the loops of snapshots and of their
//!   contents; [`source`]: claims that begin with the content of a snapshot or of another claim;
//! - [`admit`]: what is added to a new object, and which growth of a claim is allowed.
//!
//! Texts of events are those of Kubernetes, since users search for them. Validation of manifests is
//! not here: objects are taken as valid.

pub mod action;
pub mod admit;
pub mod apply;
pub mod bind;
pub mod claims;
pub mod contents;
pub mod ephemeral;
pub mod expand;
pub mod failure;
pub mod matching;
pub mod modify;
pub mod names;
pub mod object;
pub mod place;
pub mod protect;
pub mod provision;
pub mod selector;
pub mod snapshot;
pub mod snapshots;
pub mod source;
pub mod state;
pub mod volumes;

#[cfg(test)]
mod tests;

pub use crate::types::quantity;
pub use action::{Action, Event, Origin, Provision};
pub use object::{Claim, Key, Volume};
pub use state::Objects;

/// The actions that are due for an object, in order. An object that does not exist needs none.
#[must_use]
pub fn decide(objects: &Objects, key: &Key) -> Vec<Action> {
    match key {
        Key::Volume(name) => {
            objects.volume(name).map(|volume| volumes::decide(objects, volume)).unwrap_or_default()
        }
        Key::Claim(id) => {
            let claim = objects.claims.get(id);
            claim.map(|claim| claims::decide(objects, claim)).unwrap_or_default()
        }
        Key::Pod(id) => {
            objects.pods.get(id).map(|pod| place::decide(objects, pod)).unwrap_or_default()
        }
        Key::Snapshot(id) => {
            let snapshot = objects.snapshots.get(id);
            snapshot.map(|snapshot| snapshots::decide(objects, snapshot)).unwrap_or_default()
        }
        Key::Content(name) => {
            let content = objects.contents.get(name);
            content.map(|content| contents::decide(objects, content)).unwrap_or_default()
        }
    }
}

/// The keys of an object and of those that are tied to it, whose decisions may change with it: its
/// volume or claim, the pods of the claim, the claims of the pod with their volumes, its snapshots
/// and their contents. What waits for a volume, class or node is not among them:
/// [`Objects::waiting`].
#[must_use]
pub fn touched(objects: &Objects, key: &Key) -> Vec<Key> {
    let mut keys = vec![key.clone()];
    match key {
        Key::Volume(name) => {
            let to = objects.volume(name).and_then(|volume| volume.claim_ref.as_ref());
            keys.extend(to.map(|to| Key::Claim(to.id.clone())));
        }
        Key::Claim(id) => {
            let volumes = objects.volumes_of(id);
            keys.extend(volumes.map(|volume| Key::Volume(volume.meta.name.clone())));
            if let Some(claim) = objects.claims.get(id) {
                if !claim.volume_name.is_empty() {
                    keys.push(Key::Volume(claim.volume_name.clone()));
                }
                // Also those whose own claim has the name, and that wait for this one to go.
                let pods = objects.pods_naming(&claim.meta);
                keys.extend(pods.map(|pod| Key::Pod(pod.meta.id())));
                keys.extend(snapshots::of_claim(objects, claim));
            }
        }
        Key::Pod(id) => {
            if let Some(pod) = objects.pods.get(id) {
                let names = pod.volumes.iter().map(|volume| pod.claim_name(volume));
                for name in names {
                    let claim = object::Id::new(&id.namespace, &name);
                    // A volume that is recycled waits for the pods of a claim that is gone.
                    let volumes = objects.volumes_of(&claim);
                    keys.extend(volumes.map(|volume| Key::Volume(volume.meta.name.clone())));
                    keys.push(Key::Claim(claim));
                }
            }
        }
        Key::Snapshot(id) => {
            if let Some(snapshot) = objects.snapshots.get(id) {
                keys.push(Key::Content(snapshot.content_name()));
                if let snapshot::SnapshotSource::Claim(name) = &snapshot.source {
                    keys.push(Key::Claim(object::Id::new(&id.namespace, name)));
                }
            }
        }
        Key::Content(name) => {
            let content = objects.contents.get(name);
            keys.extend(content.map(|content| Key::Snapshot(content.to.id.clone())));
        }
    }
    keys
}

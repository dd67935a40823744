//! All objects that decisions depend on, in memory, and the host that they live on.
//!
//! The caller fills [`Objects`] from its store and keeps them up to date. Volumes are behind
//! functions, so that those of a claim, and the smallest free one, are found without looking at all
//! of them. Iterations run in the order of names: decisions are reproducible.

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use super::object::{
    AttributesClass, Claim, ClaimPhase, Class, Id, Key, Meta, ModeSet, Node, Pod, Volume,
};
use super::snapshot::{Content, Snapshot, SnapshotClass};
use crate::types::quantity::Quantity;

/// What this host does by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The provisioners, and names of CSI drivers, that this host serves.
    pub serves: BTreeSet<String>,
    /// The kinds of sources ([`Source::kind`](super::object::Source::kind)) of volumes made by
    /// hand that drivers of this host stand in for.
    pub sources: BTreeSet<String>,
    /// The name of its node. Where a pod leaves the choice, it goes there: other nodes provision
    /// nothing here.
    pub node: String,
}

/// The objects of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    volumes: BTreeMap<String, Volume>,
    // Volumes without a claimRef, by class and access modes, in the order of size and name.
    free: BTreeMap<String, BTreeMap<ModeSet, BTreeSet<(Quantity, String)>>>,
    // Volumes with a claimRef, by the claim that it names.
    taken: BTreeMap<Id, BTreeSet<String>>,
    /// Claims.
    pub claims: BTreeMap<Id, Claim>,
    /// Storage classes by name.
    pub classes: BTreeMap<String, Class>,
    /// Volume attributes classes by name.
    pub attributes_classes: BTreeMap<String, AttributesClass>,
    /// Pods.
    pub pods: BTreeMap<Id, Pod>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Snapshots.
    pub snapshots: BTreeMap<Id, Snapshot>,
    /// Contents of snapshots by name.
    pub contents: BTreeMap<String, Content>,
    /// Snapshot classes by name.
    pub snapshot_classes: BTreeMap<String, SnapshotClass>,
    /// This host.
    pub host: Host,
}

impl Objects {
    /// Adds a volume, or replaces the one of its name.
    pub fn put_volume(&mut self, volume: Volume) {
        self.remove_volume(&volume.meta.name);
        let name = volume.meta.name.clone();
        match &volume.claim_ref {
            None => {
                let sets = self.free.entry(volume.class().to_owned()).or_default();
                let volumes = sets.entry(ModeSet::of(&volume.modes)).or_default();
                volumes.insert((volume.capacity, name.clone()));
            }
            Some(to) => {
                self.taken.entry(to.id.clone()).or_default().insert(name.clone());
            }
        }
        self.volumes.insert(name, volume);
    }

    /// Removes a volume and returns it.
    pub fn remove_volume(&mut self, name: &str) -> Option<Volume> {
        let volume = self.volumes.remove(name)?;
        match &volume.claim_ref {
            None => self.remove_free(&volume),
            Some(to) => {
                if let Some(names) = self.taken.get_mut(&to.id) {
                    names.remove(name);
                    if names.is_empty() {
                        self.taken.remove(&to.id);
                    }
                }
            }
        }
        Some(volume)
    }

    fn remove_free(&mut self, volume: &Volume) {
        let Some(sets) = self.free.get_mut(volume.class()) else { return };
        let set = ModeSet::of(&volume.modes);
        if let Some(volumes) = sets.get_mut(&set) {
            volumes.remove(&(volume.capacity, volume.meta.name.clone()));
            if volumes.is_empty() {
                sets.remove(&set);
            }
        }
        if sets.is_empty() {
            self.free.remove(volume.class());
        }
    }

    /// The volume of a name.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.get(name)
    }

    /// All volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.values()
    }

    /// The sets of access modes of the volumes of a class that have no claimRef.
    pub fn free_sets(&self, class: &str) -> impl Iterator<Item = ModeSet> {
        self.free.get(class).into_iter().flatten().map(|(set, _)| *set)
    }

    /// The volumes of a class and a set of access modes that have no claimRef and at least a size,
    /// in the order of size and name.
    pub fn free_from<'a>(
        &'a self,
        class: &str,
        set: ModeSet,
        least: Quantity,
    ) -> impl Iterator<Item = &'a Volume> + use<'a> {
        let volumes = self.free.get(class).and_then(|sets| sets.get(&set)).into_iter();
        let large = volumes.flat_map(move |volumes| volumes.range((least, String::new())..));
        large.filter_map(|(_, name)| self.volumes.get(name))
    }

    /// The volumes whose claimRef names the claim, in the order of names.
    pub fn volumes_of<'a>(&'a self, claim: &Id) -> impl Iterator<Item = &'a Volume> + use<'a> {
        self.taken.get(claim).into_iter().flatten().filter_map(|name| self.volumes.get(name))
    }

    /// The pods of the claim's namespace that use it.
    pub fn pods_of<'a>(&'a self, claim: &'a Meta) -> impl Iterator<Item = &'a Pod> {
        self.pods_naming(claim).filter(|pod| pod.uses(claim))
    }

    /// The pods of the claim's namespace with a volume whose claim has that name.
    pub fn pods_naming<'a>(&'a self, claim: &'a Meta) -> impl Iterator<Item = &'a Pod> {
        let from = Id::new(&claim.namespace, "");
        let here = self.pods.range(from..).take_while(|(id, _)| id.namespace == claim.namespace);
        let names = |pod: &&Pod| pod.volumes.iter().any(|one| pod.claim_name(one) == claim.name);
        here.map(|(_, pod)| pod).filter(names)
    }

    /// The class that claims without one get: the newest of those marked, then the first by name.
    #[must_use]
    pub fn default_class(&self) -> Option<&Class> {
        let marked = self.classes.values().filter(|class| is_default(&class.meta));
        marked.min_by_key(|class| (-class.meta.created, &class.meta.name))
    }

    /// Whether this host serves the provisioner or CSI driver.
    #[must_use]
    pub fn serves(&self, name: &str) -> bool {
        self.host.serves.contains(name)
    }

    /// The snapshots of a namespace.
    pub fn snapshots_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Snapshot> {
        let from = Id::new(namespace, "");
        let here =
            self.snapshots.range(from..).take_while(move |(id, _)| id.namespace == namespace);
        here.map(|(_, snapshot)| snapshot)
    }

    /// Whether two names of drivers mean the same volumes: all drivers that this host serves do.
    #[must_use]
    pub fn is_same_driver(&self, one: &str, other: &str) -> bool {
        one == other || (self.serves(one) && self.serves(other))
    }

    /// The keys of what waits: claims and snapshots that are not bound, claims that are lost, and
    /// pods that are not placed. They may gain from any change of a volume, class or node.
    #[must_use]
    pub fn waiting(&self) -> Vec<Key> {
        let pods = self.pods.iter().filter(|(_, pod)| pod.node.is_empty());
        let is_open = |claim: &Claim| {
            let is_lost = claim.status.phase == ClaimPhase::Lost;
            is_lost || !claim.meta.has_annotation(names::BIND_COMPLETED)
        };
        let claims = self.claims.iter().filter(|(_, claim)| is_open(claim));
        let pods = pods.map(|(id, _)| Key::Pod(id.clone()));
        let snapshots = self.snapshots.iter().filter(|(_, one)| one.status.content.is_empty());
        let others = pods.chain(snapshots.map(|(id, _)| Key::Snapshot(id.clone())));
        claims.map(|(id, _)| Key::Claim(id.clone())).chain(others).collect()
    }

    /// The key of everything that decisions are made for.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let pods = self.pods.keys().cloned().map(Key::Pod);
        let claims = self.claims.keys().cloned().map(Key::Claim);
        let volumes = self.volumes.keys().cloned().map(Key::Volume);
        let snapshots = self.snapshots.keys().cloned().map(Key::Snapshot);
        let contents = self.contents.keys().cloned().map(Key::Content);
        pods.chain(claims).chain(volumes).chain(snapshots).chain(contents).collect()
    }
}

/// Whether the class is marked as the default of claims that name none.
#[must_use]
pub fn is_default(class: &Meta) -> bool {
    [names::DEFAULT_CLASS, names::OLD_DEFAULT_CLASS]
        .iter()
        .any(|key| class.annotation(key) == Some("true"))
}

//! What an order is to the volumes of this host.
//!
//! A volume that was made has the name of its PersistentVolume, which is asked for again after a
//! crash and found. Its object has the source `csi` with that name as handle, as the CSI driver of
//! a cluster takes it; a volume of the driver `local` is a directory, and its source `hostPath`.
//! The size of the volume is that of the claim, unless the driver has no sizes.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use laminafs::claim::failure::Failure;
use laminafs::claim::object::{Id, Labels, VolumeMode};
use laminafs::claim::volumes::stand_in_name;
use laminafs::claim::{Action, Objects, Origin, Provision, provision, quantity::Quantity};
use laminafs::service::volumes::{CLAIM_LABEL, Limits, NewVolume, Removal, Volume, VolumeService};
use laminafs::service::{CatalogError, Refusal, hostpath};
use laminafs::types::VolumeName;
use serde_json::{Value, json};

use super::carry::options;
use super::mapping::Map;
use super::mirror::kind;
use crate::csi::UNFINISHED_LABEL;
use crate::csi::client::Client;
use crate::kube::convert::CSI;
use crate::kube::meta::text;
use crate::kube::objects::{Store, Target};
use crate::kube::{backing, convert};

/// The driver whose volumes are directories without a size.
const LOCAL: &str = "local";
/// Drivers of plugins, whose sizes are theirs.
const PLUGIN: &str = "plugin:";
/// The smallest size of a volume of any driver.
const SIZE_MIN: i64 = 1 << 20;
/// The volumes of this host, and what is needed to find them.
pub(super) struct Drivers {
    pub(super) volumes: Arc<VolumeService>,
    pub(super) store: Arc<Store>,
    pub(super) map: Map,
    pub(super) node: String,
    pub(super) csi: Client,
}

pub(super) type Done<T> = Result<T, Failure>;

pub(super) fn failure(message: impl Into<String>) -> Failure {
    Failure { message: message.into(), is_in_use: false }
}

pub(super) fn refused(refusal: Refusal) -> Failure {
    let is_in_use = matches!(refusal, Refusal::Catalog(CatalogError::InUse { .. }));
    Failure { message: refusal.to_string(), is_in_use }
}

pub(super) fn volume_name(text: &str) -> Done<VolumeName> {
    text.parse().map_err(|error| failure(format!("{error}")))
}

fn has_size(driver: &str) -> bool {
    driver != LOCAL && !driver.starts_with(PLUGIN)
}

/// Refuses a device: no driver has any.
fn require_files(mode: VolumeMode, driver: &str) -> Done<()> {
    match mode {
        VolumeMode::Filesystem => Ok(()),
        VolumeMode::Block => Err(failure(format!(
            "driver {driver} has no block devices: use volumeMode: Filesystem"
        ))),
    }
}

pub(super) fn is_missing(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Catalog(CatalogError::Missing { .. }))
}

/// The size in bytes.
fn bytes(size: Quantity) -> u64 {
    u64::try_from(size.bytes().max(SIZE_MIN)).unwrap_or(u64::MAX)
}

impl Drivers {
    /// Carries out an order.
    pub(super) fn carry_out(&self, order: &Action) -> Done<()> {
        let done = catch_unwind(AssertUnwindSafe(|| match order {
            Action::Provision(order) => self.make(order),
            Action::DeleteBacking { volume } => self.delete(volume),
            Action::Recycle { volume } => self.recycle(volume),
            Action::Expand { volume, size } => self.expand(volume, *size),
            Action::StandIn { volume } => self.stand_in(volume),
            Action::Modify { volume, parameters } => self.modify(volume, parameters),
            Action::TakeSnapshot { content, name, volume } => self.take(content, name, volume),
            Action::FindSnapshot { content, handle } => self.find(content, handle),
            Action::DeleteSnapshot { content, handle, name } => {
                self.delete_snapshot(content, handle, name)
            }
            _ => Ok(()),
        }));
        done.unwrap_or_else(|_| Err(failure("the driver panicked: see the log of lamina")))
    }

    /// Removes the volumes that were made for claims which are gone, and that got no object: the
    /// daemon was killed in between. It runs on a thread of its own.
    pub(super) fn remove_orphans(self: &Arc<Self>, objects: &Objects) -> Option<JoinHandle<()>> {
        let made: BTreeSet<String> =
            objects.volumes().map(|volume| volume.meta.name.clone()).collect();
        let wanted: BTreeSet<String> =
            objects.claims.values().map(provision::volume_name).collect();
        let drivers = Arc::clone(self);
        let started =
            std::thread::Builder::new().name("kube-orphans".to_owned()).spawn(move || {
                let all = drivers.volumes.list().unwrap_or_else(|error| {
                    tracing::warn!("looking for volumes without a claim: {error}");
                    Vec::new()
                });
                for volume in all.iter().filter(|one| one.labels.contains_key(UNFINISHED_LABEL)) {
                    let name = volume.name.to_string();
                    let done = match made.contains(&name) {
                        true => drivers.finish(&volume.name),
                        false if wanted.contains(&name) || drivers.is_wanted(volume) => Ok(()),
                        false => {
                            drivers.volumes.remove(&volume.name, Removal::FORCED).map_err(refused)
                        }
                    };
                    if let Err(failure) = done {
                        tracing::warn!("volume {name}: {}", failure.message);
                    }
                }
            });
        let failed = |error| tracing::warn!("looking for volumes without a claim: {error}");
        started.map_err(failed).ok()
    }

    /// Whether the claim of a volume, or its object, exists by now.
    fn is_wanted(&self, volume: &Volume) -> bool {
        let claim = volume.labels.get(CLAIM_LABEL).and_then(|claim| claim.split_once('/'));
        let claim = claim.map(|(namespace, name)| Id::new(namespace, name));
        claim.is_some_and(|id| self.object("persistentvolumeclaims", &id).is_ok())
            || self.persistent_volume(volume.name.as_str()).is_ok()
    }

    /// Notes that a volume has its object: it is kept without one from now on.
    fn finish(&self, name: &VolumeName) -> Done<()> {
        let changes = [(UNFINISHED_LABEL.to_owned(), None)].into();
        self.volumes.label(name, &changes).map(drop).map_err(refused)
    }

    /// Makes a volume and its object, also for a claim that is gone by now: then the volume is
    /// released and removed like any other.
    fn make(&self, order: &Provision) -> Done<()> {
        let object = self.provision(order)?;
        let kind = kind("persistentvolumes").map_err(|error| failure(error.message))?;
        let target = Target { kind, namespace: "", name: "" };
        match self.store.create(&target, object, &options()) {
            Err(error) if error.reason != "AlreadyExists" => return Err(failure(error.message)),
            _ => {}
        }
        self.finish(&volume_name(&order.volume.meta.name)?)
    }

    fn modify(&self, volume: &str, parameters: &Labels) -> Done<()> {
        let own = self.own(volume)?;
        if self.csi_volume(&self.persistent_volume(volume)?)?.is_some() {
            return self.modify_csi(&own, parameters.clone());
        }
        let changes = parameters.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        self.volumes.throttle(&own.name, &changes.collect()).map(drop).map_err(refused)
    }

    fn object(&self, record: &str, id: &Id) -> Done<Value> {
        let of = kind(record).map_err(|error| failure(error.message))?;
        let target = Target { kind: of, namespace: &id.namespace, name: &id.name };
        self.store.get(&target).map_err(|error| failure(error.message))
    }

    fn persistent_volume(&self, name: &str) -> Done<Value> {
        self.object("persistentvolumes", &Id::new("", name))
    }

    /// The volume behind a PersistentVolume.
    pub(super) fn backing(&self, volume: &str) -> Done<VolumeName> {
        let object = self.persistent_volume(volume)?;
        match backing::volume(&self.volumes, &object) {
            Ok(Some(name)) => Ok(name),
            Ok(None) => {
                Err(failure("its source is not a volume of Lamina: use csi with csi.lamina.dev"))
            }
            Err(refusal) => Err(refused(refusal)),
        }
    }

    /// The volume behind a PersistentVolume, if it was made for it. Whoever makes an object can
    /// name any volume there.
    fn own(&self, volume: &str) -> Done<Volume> {
        let name = self.backing(volume)?;
        self.own_named(&self.persistent_volume(volume)?, &name)
    }

    fn own_named(&self, object: &Value, name: &VolumeName) -> Done<Volume> {
        let found = self.volumes.inspect(name).map_err(refused)?;
        let volume = text(object, "/metadata/name").to_owned();
        let names = [volume, stand_in_name(&convert::volume(object))];
        let is_its = names.iter().any(|name| *name == found.name.as_str());
        if is_its && found.labels.contains_key(CLAIM_LABEL) {
            return Ok(found);
        }
        let name = &found.name;
        Err(failure(format!(
            "volume {name} was not made for a claim: change it with lamina volume"
        )))
    }

    fn provision(&self, order: &Provision) -> Done<Value> {
        if let Some(node) = order.node.as_ref().filter(|node| **node != self.node) {
            return Err(failure(format!("node {node} is not this host, {}", self.node)));
        }
        if self.is_for_csi(order) {
            return self.provision_csi(order);
        }
        let (driver, mut options) = self.map.driver(order);
        require_files(order.volume.volume_mode, &driver)?;
        let size = order.volume.capacity.max(Quantity::of_bytes(SIZE_MIN));
        if has_size(&driver) {
            options.insert("size".to_owned(), bytes(size).to_string());
        }
        let name = volume_name(&order.volume.meta.name)?;
        let labels = [(CLAIM_LABEL, order.claim.to_string()), (UNFINISHED_LABEL, "yes".to_owned())];
        let labels = labels.map(|(key, value)| (key.to_owned(), value)).into();
        let made = match (self.volumes.inspect(&name), &order.origin) {
            (Ok(found), _) => found,
            (Err(refusal), _) if !is_missing(&refusal) => return Err(refused(refusal)),
            (Err(_), Some(origin)) => {
                let source = self.origin(origin, &driver)?;
                self.volumes.clone_labelled(&source, name.clone(), labels).map_err(refused)?
            }
            (Err(_), None) => {
                let new = NewVolume { name: name.clone(), driver: Some(driver), options, labels };
                self.volumes.create(new).map_err(refused)?
            }
        };
        let made = self.grown(made, bytes(size))?;
        let mut volume = order.volume.clone();
        volume.capacity = size;
        Ok(convert::new_volume(&volume, source(&made)?, &self.node))
    }

    /// The name of the volume, or the id of the snapshot, that a volume of a driver is copied from.
    fn origin(&self, origin: &Origin, driver: &str) -> Done<String> {
        let (found, source) = match origin {
            Origin::Volume(name) => {
                let found = self.volumes.inspect(&self.backing(name)?).map_err(refused)?;
                let source = found.name.to_string();
                (found, source)
            }
            Origin::Snapshot(handle) => {
                let found = self.volumes.inspect_snapshot(handle).map_err(refused)?;
                let source = found.id.clone();
                (found, source)
            }
        };
        if found.driver != driver {
            let (of, has) = (&found.name, &found.driver);
            return Err(failure(format!(
                "the source {of} has the driver {has}, the class asks for {driver}"
            )));
        }
        Ok(source)
    }

    /// A volume that has at least a size.
    fn grown(&self, volume: Volume, bytes: u64) -> Done<Volume> {
        let is_small = volume.size_bytes.is_none_or(|size| size < bytes);
        if !has_size(&volume.driver) || !is_small {
            return Ok(volume);
        }
        let limits = Limits { size_bytes: Some(bytes), inodes: None };
        self.volumes.resize(&volume.name, limits).map_err(refused)
    }

    /// The name of the volume that stands in for a source, whether it exists or not.
    fn stand_in_of(&self, object: &Value) -> Option<String> {
        if let Some(name) = backing::stand_in(object) {
            return Some(name.to_owned());
        }
        let volume = convert::volume(object);
        let mapped = self.map.stand_in(&volume.source.kind(), volume.class());
        mapped.map(|_| stand_in_name(&volume))
    }

    fn delete(&self, volume: &str) -> Done<()> {
        let object = self.persistent_volume(volume)?;
        let path = text(&object, "/spec/hostPath/path");
        let is_provisioned = object
            .pointer("/metadata/annotations")
            .is_some_and(|all| all.get(laminafs::claim::names::PROVISIONED_BY).is_some());
        if !path.is_empty() && !is_provisioned {
            let failed = |error| failure(format!("deleting {path}: {error}"));
            return hostpath::delete(Path::new(path), self.volumes.root()).map_err(failed);
        }
        if let Some(found) = self.csi_volume(&object)? {
            return self.delete_csi(&self.own_named(&object, &found.name)?);
        }
        let name = match self.stand_in_of(&object) {
            Some(name) => volume_name(&name)?,
            None => volume_name(volume)?,
        };
        if self.volumes.inspect(&name).is_err_and(|refusal| is_missing(&refusal)) {
            // Its content is gone already.
            return Ok(());
        }
        let name = self.own_named(&object, &name)?.name;
        // A holder keeps it: another program uses it.
        match self.volumes.remove(&name, Removal { takes_claimed: true, ..Removal::default() }) {
            Err(refusal) if is_missing(&refusal) => Ok(()),
            done => done.map_err(refused),
        }
    }

    fn recycle(&self, volume: &str) -> Done<()> {
        let object = self.persistent_volume(volume)?;
        if self.stand_in_of(&object).is_some() {
            return self.delete(volume);
        }
        let path = text(&object, "/spec/hostPath/path");
        if path.is_empty() {
            return Err(failure("only a volume with the source hostPath is recycled on this host"));
        }
        let failed = |error| failure(format!("emptying {path}: {error}"));
        hostpath::scrub(Path::new(path), self.volumes.root()).map_err(failed)
    }

    /// Makes the content of a volume of a cluster. A volume that a crash leaves without the
    /// annotation is found by its name at the next attempt.
    fn stand_in(&self, volume: &str) -> Done<()> {
        let object = self.persistent_volume(volume)?;
        let wanted = convert::volume(&object);
        let source = wanted.source.kind();
        let mapped = self.map.stand_in(&source, wanted.class());
        let missing = || failure(format!("{source} is not in [kube.map] of the configuration"));
        let (driver, mut options) = mapped.ok_or_else(missing)?;
        require_files(wanted.volume_mode, &driver)?;
        if has_size(&driver) {
            let size = wanted.capacity.max(Quantity::of_bytes(SIZE_MIN));
            options.insert("size".to_owned(), bytes(size).to_string());
        }
        let name = volume_name(&stand_in_name(&wanted))?;
        match self.volumes.inspect(&name) {
            Ok(found) if found.labels.contains_key(CLAIM_LABEL) => return Ok(()),
            Ok(_) => {
                return Err(failure(format!("volume {name} exists and belongs to another object")));
            }
            Err(refusal) if !is_missing(&refusal) => return Err(refused(refusal)),
            Err(_) => {}
        }
        let claim = wanted.claim_ref.map(|to| to.id.to_string()).unwrap_or_default();
        let labels = [(CLAIM_LABEL.to_owned(), claim)].into();
        let new = NewVolume { name, driver: Some(driver), options, labels };
        self.volumes.create(new).map(drop).map_err(refused)
    }

    fn expand(&self, volume: &str, size: Quantity) -> Done<()> {
        let own = self.own(volume)?;
        match self.csi_volume(&self.persistent_volume(volume)?)? {
            Some(_) => self.expand_csi(&own, size),
            None => self.grown(own, bytes(size)).map(drop),
        }
    }
}

/// The source of the object of a volume.
fn source(volume: &Volume) -> Done<(&'static str, Value)> {
    if volume.driver != LOCAL {
        return Ok(("csi", json!({"driver": CSI, "volumeHandle": volume.name.to_string()})));
    }
    let path = volume.mountpoint.to_str();
    let path = path.ok_or_else(|| failure("the path of the data root is not UTF-8"))?;
    Ok(("hostPath", json!({"path": path, "type": ""})))
}

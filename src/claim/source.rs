//! Claims whose first content is that of a snapshot or of another claim.
//!
//! Only a driver that holds the source can copy it, and only into at least as much space. Sources
//! of other kinds are left to populators.

use super::action::{Action, Origin};
use super::bind::key;
use super::names;
use super::object::{Claim, ClaimPhase, Class, DataSource, Id, Source, VolumeMode, VolumePhase};
use super::snapshot::Snapshot;
use super::state::Objects;

/// Whether the source is of a kind that no driver reads.
#[must_use]
pub fn is_foreign(claim: &Claim) -> bool {
    claim.data_source.as_ref().is_some_and(|source| !is_snapshot(source) && !is_claim(source))
}

/// The events of a claim with such a source.
#[must_use]
pub fn left_to_populator(claim: &Claim) -> [Action; 2] {
    let assumed = "Assuming an external populator will provision the volume";
    let unknown = "The datasource for this PVC does not match any registered VolumePopulator";
    [
        Action::normal(key(claim), "Provisioning", assumed),
        Action::warning(key(claim), "UnrecognizedDataSourceKind", unknown),
    ]
}

fn is_snapshot(source: &DataSource) -> bool {
    source.group == names::SNAPSHOT_GROUP && source.kind == "VolumeSnapshot"
}

fn is_claim(source: &DataSource) -> bool {
    source.group.is_empty() && source.kind == "PersistentVolumeClaim"
}

/// What the volume of a claim is copied from; `None` for an empty volume.
///
/// # Errors
///
/// Why it cannot be copied, or not yet.
pub fn origin(objects: &Objects, claim: &Claim, class: &Class) -> Result<Option<Origin>, String> {
    let Some(source) = &claim.data_source else { return Ok(None) };
    let id = Id::new(&claim.meta.namespace, &source.name);
    match is_snapshot(source) {
        true => snapshot(objects, claim, class, &id).map(Some),
        false => other_claim(objects, claim, class, &id).map(Some),
    }
}

/// A snapshot that is ready, bound to a content of the same driver, and not larger than the claim.
fn snapshot(objects: &Objects, claim: &Claim, class: &Class, id: &Id) -> Result<Origin, String> {
    let name = &id.name;
    let found = objects.snapshots.get(id).ok_or_else(|| {
        format!(
            "error getting snapshot {name} from api server: \
             volumesnapshots.snapshot.storage.k8s.io {name:?} not found"
        )
    })?;
    if found.meta.deleting {
        return Err(format!("snapshot {name} is currently being deleted"));
    }
    let not_bound = || format!("snapshot {name} not bound");
    let content = objects.contents.get(&found.status.content).ok_or_else(not_bound)?;
    let is_its = content.belongs_to(&found.meta);
    if !is_its || !objects.is_same_driver(&content.driver, &class.provisioner) {
        return Err(not_bound());
    }
    if !found.is_ready() || content.handle().is_empty() {
        return Err(format!("snapshot {name} is not Ready"));
    }
    check_size(claim, found)?;
    let may_change = || content.meta.annotation(names::MODE_CHANGE) == Some("true");
    if content.mode.is_some_and(|mode| mode != claim.volume_mode) && !may_change() {
        let (of, needed, at) = (claim.meta.id(), names::MODE_CHANGE, &content.meta.name);
        return Err(format!(
            "requested volume {of} modifies the mode of the source volume but does not have \
             permission to do so. {needed} annotation is not present on snapshotcontent {at}"
        ));
    }
    Ok(Origin::Snapshot(content.handle().to_owned()))
}

fn check_size(claim: &Claim, snapshot: &Snapshot) -> Result<(), String> {
    match snapshot.status.restore_size {
        Some(size) if claim.request < size => Err(format!(
            "requested volume size {} is less than the size {} for the source snapshot {}",
            claim.request.bytes(),
            size.bytes(),
            snapshot.meta.name
        )),
        _ => Ok(()),
    }
}

/// A claim that is bound to a volume of the same driver, and not larger than the new one.
fn other_claim(objects: &Objects, claim: &Claim, class: &Class, id: &Id) -> Result<Origin, String> {
    let name = &id.name;
    let from = objects.claims.get(id).ok_or_else(|| {
        format!(
            "error getting PVC {name} ({name}) from namespace {}: persistentvolumeclaim {name:?} \
             not found",
            id.namespace
        )
    })?;
    if from.meta.deleting {
        return Err(format!("the PVC DataSource {name} is currently being deleted"));
    }
    let size = from.status.capacity.filter(|_| from.status.phase == ClaimPhase::Bound);
    let Some(size) = size else {
        return Err(format!("the PVC DataSource {name} is not bound, source is not ready"));
    };
    if claim.request < size {
        return Err(format!(
            "error, new PVC request must be greater than or equal in size to the specified PVC \
             data source, requested {} but source is {}",
            claim.request.bytes(),
            size.bytes()
        ));
    }
    if from.volume_mode != claim.volume_mode {
        return Err(format!(
            "the source PVC and destination PVCs must have the same volume mode for cloning.  \
             Source is {}, but new PVC requested {}",
            mode(from.volume_mode),
            mode(claim.volume_mode)
        ));
    }
    let broken = || "claim in dataSource not bound or invalid".to_owned();
    let volume = objects.volume(&from.volume_name).ok_or_else(broken)?;
    let is_bound = volume.is_for(&from.meta) && volume.status.phase == VolumePhase::Bound;
    let is_reachable = match &volume.source {
        Source::Csi(driver) => objects.is_same_driver(driver, &class.provisioner),
        // A volume of this host may be shown by its directory.
        _ => volume.meta.annotation(names::PROVISIONED_BY).is_some_and(|by| objects.serves(by)),
    };
    if !is_bound || !is_reachable {
        return Err(broken());
    }
    Ok(Origin::Volume(volume.meta.name.clone()))
}

fn mode(mode: VolumeMode) -> &'static str {
    match mode {
        VolumeMode::Filesystem => "Filesystem",
        VolumeMode::Block => "Block",
    }
}

//! Admission: what the API server does to an object before it stores it, and why it refuses one.
//!
//! [`default`] sets the fields that Kubernetes sets, [`create`] and [`update`] judge an object
//! whose defaults are set. All three are pure functions of JSON values: the caller has filled in
//! `metadata.name` (from `generateName`) and `metadata.namespace`, and has checked against the
//! schema that each field exists and has the right type. A field of a wrong type counts as unset
//! here.
//!
//! A [`FieldError`] prints as Kubernetes prints it, since users search for these texts. A field
//! that Kubernetes accepts and that has no effect on this host is named in the warnings: nothing
//! is ignored in silence. Rules that need other objects (default class, growth by class, existence
//! of a namespace) are not here.
//!
//! - `field`: a value and its path; `report`: errors and warnings; `names`, `meta`, `selector`,
//!   `amounts`: rules that several kinds share; `source`, `files`: volume sources;
//! - `volume`, `claim`, `class`, `snapshot`, `pod`, `container`, `mounts`, `plain`: the kinds;
//! - `defaults`, `pod_defaults`: the defaults; `effects`: the warnings.

mod amounts;
mod claim;
mod class;
mod container;
mod defaults;
mod effects;
mod field;
mod files;
mod meta;
mod mounts;
mod names;
mod plain;
mod pod;
mod pod_defaults;
mod report;
mod selector;
mod snapshot;
mod source;
mod volume;

#[cfg(test)]
mod tests;

use serde_json::Value;

use field::Field;
pub use report::{FieldError, Report};

/// Sets the defaults of an object of a kind. Kinds without defaults are left alone.
pub fn default(kind: &str, object: &mut Value) {
    match kind {
        "Pod" => pod_defaults::pod(object),
        _ => defaults::set(kind, object),
    }
}

/// Judges a new object whose defaults are set.
#[must_use]
pub fn create(kind: &str, object: &Value) -> Report {
    let mut report = Report::default();
    let object = Field::root(object);
    let judge: fn(&Field<'_>, &mut Report) = match kind {
        "Namespace" => plain::namespace,
        "ConfigMap" => plain::config_map,
        "Secret" => plain::secret,
        "Node" => plain::node,
        "Event" => plain::event,
        "PersistentVolume" => volume::create,
        "PersistentVolumeClaim" => claim::create,
        "StorageClass" => class::storage,
        "VolumeAttributesClass" => class::attributes,
        "CSIDriver" => class::driver,
        "CSINode" => class::node,
        "Pod" => pod::create,
        "VolumeSnapshot" => snapshot::snapshot,
        "VolumeSnapshotContent" => snapshot::content,
        "VolumeSnapshotClass" => snapshot::class,
        _ => return report,
    };
    judge(&object, &mut report);
    effects::warn(kind, &object, &mut report);
    report
}

/// Judges the change of an object to `new`, whose defaults are set.
#[must_use]
pub fn update(kind: &str, old: &Value, new: &Value) -> Report {
    let (old, object) = (Field::root(old), Field::root(new));
    let mut report = create(kind, new);
    meta::update(&old, &object, &mut report);
    match kind {
        "ConfigMap" => plain::config_map_update(&old, &object, &mut report),
        "Secret" => plain::secret_update(&old, &object, &mut report),
        "PersistentVolume" => volume::update(&old, &object, &mut report),
        "PersistentVolumeClaim" => claim::update(&old, &object, &mut report),
        "StorageClass" => class::storage_update(&old, &object, &mut report),
        "VolumeAttributesClass" => class::attributes_update(&old, &object, &mut report),
        "CSIDriver" => class::driver_update(&old, &object, &mut report),
        "CSINode" => class::node_update(&old, &object, &mut report),
        "Pod" => pod::update(&old, &object, &mut report),
        "VolumeSnapshot" => snapshot::snapshot_update(&old, &object, &mut report),
        "VolumeSnapshotContent" => snapshot::content_update(&old, &object, &mut report),
        _ => {}
    }
    report
}

//! PersistentVolumeClaims, and the claims inside pods.

use serde_json::Value;

use super::amounts;
use super::field::Field;
use super::meta;
use super::names;
use super::report::Report;
use super::selector;
use super::volume::{access_modes, changes, class_name};

/// Judges a new claim.
pub(super) fn create(claim: &Field<'_>, report: &mut Report) {
    meta::create(claim, meta::NAMESPACED, report);
    spec(&claim.child("spec"), report);
}

/// Judges the specification of a claim, also of one inside a pod.
pub(super) fn spec(spec: &Field<'_>, report: &mut Report) {
    let modes = spec.child("accessModes");
    if modes.is_empty() {
        report.required(&modes, "at least 1 access mode is required");
    }
    let selector = spec.child("selector");
    if selector.is_set() {
        selector::labels(&selector, report);
    }
    access_modes(&modes, report);
    let mut storage = spec.at(&["resources", "requests"]).key("storage");
    storage.path = format!("{}.resources[storage]", spec.path);
    if storage.is_set() {
        amounts::positive(&storage, report);
    } else {
        report.required(&storage, "");
    }
    class_name(&spec.child("storageClassName"), report);
    report.known(&spec.child("volumeMode"), &["Block", "Filesystem"]);
    let (source, reference) = (spec.child("dataSource"), spec.child("dataSourceRef"));
    for one in [&source, &reference] {
        data_source(one, report);
    }
    let namespace = reference.child("namespace");
    let shown = format!("{}.dataSource", spec.path);
    if !namespace.is_empty() {
        report.invalid_all(&namespace, namespace.text(), names::label(namespace.text()));
        if source.is_set() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            report.invalid_shown(spec, &shown, detail);
        }
    } else if source.is_set() && reference.is_set() && !is_same(&source, &reference) {
        report.invalid_shown(spec, &shown, "must match dataSourceRef");
    }
    class_name(&spec.child("volumeAttributesClassName"), report);
}

fn is_same(one: &Field<'_>, other: &Field<'_>) -> bool {
    ["apiGroup", "kind", "name"]
        .iter()
        .all(|name| one.child(name).text() == other.child(name).text())
}

fn data_source(source: &Field<'_>, report: &mut Report) {
    if !source.is_set() {
        return;
    }
    report.require(&source.child("name"));
    report.require(&source.child("kind"));
    let (group, kind) = (source.child("apiGroup"), source.child("kind"));
    if group.is_empty() && kind.text() != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        report.invalid_text(source, kind.text(), detail);
    }
    if !group.is_empty() {
        report.invalid_all(&group, group.text(), names::subdomain(group.text()));
    }
}

/// Judges the change of a claim: of a bound one the request may grow and the attributes class may
/// change; volume and class may be set once; all else stays.
pub(super) fn update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    let is_bound = new.at(&["status", "phase"]).text() == "Bound";
    old_class(old, new, report);
    let statuses = old.child("status");
    let (old, new) = (old.child("spec"), new.child("spec"));
    let changed = changed_fields(&old, &new, is_bound);
    if !changed.is_empty() {
        let detail = format!(
            "spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for bound claims\n{}",
            changes(&old, &new, &changed)
        );
        report.forbidden(&new, &detail);
    }
    shrink(&old, &new, &statuses.child("capacity"), report);
    report.immutable(&old.child("volumeMode"), &new.child("volumeMode").called("volumeMode"));
    let name = "volumeAttributesClassName";
    if old.child(name).is_set() {
        let (now, current) = (new.child(name), statuses.child("currentVolumeAttributesClassName"));
        if !now.is_set() && current.is_set() {
            let detail = "update to nil is forbidden when \
                          status.currentVolumeAttributesClassName is not nil";
            report.forbidden(&now, detail);
        } else if now.is_set() && now.is_empty() && !old.child(name).is_empty() {
            report.forbidden(&now, "update from non-nil value to an empty string is forbidden");
        }
    }
}

/// Refuses a change of the class in the old annotation.
fn old_class(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    let key = "volume.beta.kubernetes.io/storage-class";
    let path = ["metadata", "annotations"];
    let (before, now) = (old.at(&path).key(key), new.at(&path).key(key));
    let is_moved = before.is_set()
        && !now.is_set()
        && new.at(&["spec", "storageClassName"]).text() == before.text();
    if before.text() != now.text() && !is_moved {
        let now = now.called(&format!("metadata.annotations.{key}"));
        report.invalid_text(&now, now.text(), "field is immutable");
    }
}

/// The names of the fields that changed and must not.
fn changed_fields<'v>(old: &Field<'v>, new: &Field<'v>, is_bound: bool) -> Vec<&'v str> {
    let mut all: Vec<&str> = old.entries().into_iter().map(|(name, _)| name).collect();
    all.extend(new.entries().into_iter().map(|(name, _)| name));
    all.sort_unstable();
    all.dedup();
    all.retain(|name| {
        let (before, now) = (old.child(name), new.child(name));
        let may_change = match *name {
            "volumeName" => before.is_empty(),
            "storageClassName" => !before.is_set() && now.is_set(),
            "volumeAttributesClassName" => true,
            "resources" => are_alike(&before, &now, is_bound),
            _ => false,
        };
        !may_change && !before.equals(&now)
    });
    all
}

/// Whether the resources are alike, but for the requested size of a bound claim. The same quantity
/// may be written in another way.
fn are_alike(old: &Field<'_>, new: &Field<'_>, is_bound: bool) -> bool {
    let size = ["requests", "storage"];
    let is_same_size = matches!(
        (amounts::parse(&old.at(&size)), amounts::parse(&new.at(&size))),
        (Some(Ok(old)), Some(Ok(new))) if old == new
    );
    let without = |field: &Field<'_>| {
        let mut value = field.value().cloned().unwrap_or_default();
        if let Some(Value::Object(requests)) = value.get_mut("requests") {
            requests.remove("storage");
        }
        value
    };
    (is_bound || is_same_size) && without(old) == without(new)
}

/// Refuses a request that shrinks to what the volume has, or below.
fn shrink(old: &Field<'_>, new: &Field<'_>, capacity: &Field<'_>, report: &mut Report) {
    let request = ["resources", "requests", "storage"];
    let size = |field: &Field<'_>| amounts::parse(field).and_then(Result::ok);
    let (Some(before), Some(now)) = (size(&old.at(&request)), size(&new.at(&request))) else {
        return;
    };
    let held = size(&capacity.child("storage")).unwrap_or_default();
    if now < before && now <= held {
        let detail = "field can not be less than status.capacity";
        report.forbidden(&new.at(&request), detail);
    }
}

//! VolumeSnapshots, their contents and classes: the schema and the rules of their definitions.
//!
//! These kinds are custom resources: an error shows the type of the value in its place.

use super::field::Field;
use super::meta;
use super::report::Report;

const POLICIES: [&str; 2] = ["Delete", "Retain"];

/// Judges a VolumeSnapshot.
pub(super) fn snapshot(snapshot: &Field<'_>, report: &mut Report) {
    meta::create(snapshot, meta::NAMESPACED, report);
    let spec = snapshot.child("spec");
    if !exists(&spec, report) || !exists(&spec.child("source"), report) {
        return;
    }
    let names = ["volumeSnapshotContentName", "persistentVolumeClaimName"];
    exactly_one(&spec.child("source"), names, report);
    class_name(&spec, report);
}

/// Judges the change of a VolumeSnapshot.
pub(super) fn snapshot_update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    let path = ["spec", "source"];
    for name in ["persistentVolumeClaimName", "volumeSnapshotContentName"] {
        fixed(&old.at(&path), &new.at(&path), name, report);
    }
}

/// Judges a VolumeSnapshotContent.
pub(super) fn content(content: &Field<'_>, report: &mut Report) {
    meta::create(content, meta::GLOBAL, report);
    let spec = content.child("spec");
    if !exists(&spec, report) {
        return;
    }
    policy(&spec.child("deletionPolicy"), report);
    exists(&spec.child("driver"), report);
    if exists(&spec.child("source"), report) {
        exactly_one(&spec.child("source"), ["volumeHandle", "snapshotHandle"], report);
    }
    let reference = spec.child("volumeSnapshotRef");
    if exists(&reference, report)
        && (reference.child("name").is_empty() || reference.child("namespace").is_empty())
    {
        let detail = "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must \
                      be set";
        report.invalid_text(&reference, "object", detail);
    }
    class_name(&spec, report);
}

/// Judges the change of a VolumeSnapshotContent.
pub(super) fn content_update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    let (old, new) = (old.child("spec"), new.child("spec"));
    for name in ["volumeHandle", "snapshotHandle"] {
        fixed(&old.child("source"), &new.child("source"), name, report);
    }
    fixed(&old, &new, "sourceVolumeMode", report);
}

/// Judges a VolumeSnapshotClass.
pub(super) fn class(class: &Field<'_>, report: &mut Report) {
    meta::create(class, meta::GLOBAL, report);
    policy(&class.child("deletionPolicy"), report);
    exists(&class.child("driver"), report);
}

/// Refuses a field that is unset. An empty one is set.
fn exists(field: &Field<'_>, report: &mut Report) -> bool {
    if !field.is_set() {
        report.required(field, "");
    }
    field.is_set()
}

fn policy(policy: &Field<'_>, report: &mut Report) {
    if exists(policy, report) {
        report.known(policy, &POLICIES);
    }
}

fn class_name(spec: &Field<'_>, report: &mut Report) {
    let name = spec.child("volumeSnapshotClassName");
    if name.is_set() && name.is_empty() {
        let detail = "volumeSnapshotClassName must not be the empty string when set";
        report.invalid_text(&name, "string", detail);
    }
}

fn exactly_one(source: &Field<'_>, names: [&str; 2], report: &mut Report) {
    let [first, second] = names;
    if source.child(first).is_set() == source.child(second).is_set() {
        let detail = format!("exactly one of {first} and {second} must be set");
        report.invalid_text(source, "object", &detail);
    }
}

/// Refuses the change of a field, and its removal.
fn fixed(old: &Field<'_>, new: &Field<'_>, name: &str, report: &mut Report) {
    let (before, now) = (old.child(name), new.child(name));
    if !before.is_set() || before.equals(&now) {
        return;
    }
    if now.is_set() {
        report.invalid_text(&now, "string", &format!("{name} is immutable"));
    } else {
        report.invalid_text(new, "object", &format!("{name} is required once set"));
    }
}

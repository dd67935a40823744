//! PersistentVolumes.

use super::amounts;
use super::field::Field;
use super::meta;
use super::names;
use super::report::Report;
use super::selector;
use super::source;

/// The access modes, in the order in which an error lists them.
const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Judges a new volume.
pub(super) fn create(volume: &Field<'_>, report: &mut Report) {
    meta::create(volume, meta::GLOBAL, report);
    let spec = volume.child("spec");
    let modes = spec.child("accessModes");
    if modes.is_empty() {
        report.required(&modes, "");
    }
    access_modes(&modes, report);
    capacity(&spec.child("capacity"), report);
    let policy = spec.child("persistentVolumeReclaimPolicy");
    report.known(&policy, &["Delete", "Recycle", "Retain"]);
    let affinity = spec.child("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.child("required");
        if required.is_set() {
            selector::nodes(&required, report);
        } else {
            report.required(&required, "must specify required node constraints");
        }
    }
    if let Some((name, source)) = source::one(&spec, &source::OF_VOLUME, report) {
        if name == "csi" {
            source::persistent_csi(&source, report);
        }
        if name == "local" && !affinity.is_set() {
            report.required(&affinity, "Local volume requires node affinity");
        }
        let path = source.child("path").text();
        if name == "hostPath" && is_root(path) && policy.text() == "Recycle" {
            report.forbidden(&policy, "may not be 'recycle' for a hostPath mount of '/'");
        }
        if name == "hostPath" && !path.starts_with('/') && policy.text() == "Recycle" {
            report.forbidden(&policy, "may not be 'recycle' for a relative hostPath");
        }
    }
    class_name(&spec.child("storageClassName"), report);
    report.known(&spec.child("volumeMode"), &["Block", "Filesystem"]);
    attributes_class(&spec, report);
}

fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| part.is_empty() || part == ".")
}

/// Judges access modes: all are known, and one for a single pod stands alone.
pub(super) fn access_modes(modes: &Field<'_>, report: &mut Report) {
    let items = modes.items();
    for mode in &items {
        if !MODES.contains(&mode.text()) {
            report.unsupported(modes, mode, &MODES);
        }
    }
    let has = |is_alone: bool| {
        let known = items.iter().filter(|mode| MODES.contains(&mode.text()));
        known.filter(|mode| (mode.text() == "ReadWriteOncePod") == is_alone).count() > 0
    };
    if has(true) && has(false) {
        report.forbidden(modes, "may not use ReadWriteOncePod with other access modes");
    }
}

fn capacity(capacity: &Field<'_>, report: &mut Report) {
    if capacity.is_empty() {
        report.required(capacity, "");
    }
    let entries = capacity.entries();
    if !capacity.key("storage").is_set() || entries.len() > 1 {
        report.unsupported(capacity, capacity, &["storage"]);
    }
    for (_, quantity) in entries {
        amounts::basic(&quantity, report);
        amounts::positive(&quantity, report);
    }
}

/// Judges the name of a class, if there is one.
pub(super) fn class_name(name: &Field<'_>, report: &mut Report) {
    if !name.is_empty() {
        report.invalid_all(name, name.text(), names::subdomain(name.text()));
    }
}

fn attributes_class(spec: &Field<'_>, report: &mut Report) {
    let name = spec.child("volumeAttributesClassName");
    if !name.is_set() {
        return;
    }
    if name.is_empty() {
        report.required(&name, "an empty string is disallowed");
    }
    class_name(&name, report);
    if !spec.child("csi").is_set() {
        let detail = "has to be specified when using volumeAttributesClassName";
        report.required(&spec.child("csi"), detail);
    }
}

/// Judges the change of a volume: its source, mode and affinity stay.
pub(super) fn update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    let (old, new) = (old.child("spec"), new.child("spec"));
    let changed: Vec<&str> = source::OF_VOLUME
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !is_same_source(name, &old, &new))
        .collect();
    if !changed.is_empty() {
        let at = new.called("spec.persistentvolumesource");
        let lines = changes(&old, &new, &changed);
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{lines}");
        report.forbidden(&at, &detail);
    }
    report.immutable(&old.child("volumeMode"), &new.child("volumeMode").called("volumeMode"));
    let (before, now) = (old.child("nodeAffinity"), new.child("nodeAffinity"));
    if before.is_set() && !before.equals(&now) {
        let now = now.called("nodeAffinity");
        report.invalid(&now, "field is immutable, except for updating from beta label to GA");
    }
    let name = "volumeAttributesClassName";
    if old.child(name).is_set() && !new.child(name).is_set() {
        report.forbidden(&new.child(name), "update from non-nil value to nil is forbidden");
    }
}

/// Whether a source is as it was. The secret for expansion may be added to a CSI source.
fn is_same_source(name: &str, old: &Field<'_>, new: &Field<'_>) -> bool {
    let (old, new) = (old.child(name), new.child(name));
    if old.equals(&new) {
        return true;
    }
    let secret = "controllerExpandSecretRef";
    let is_added = old.is_set() && !old.child(secret).is_set() && new.child(secret).is_set();
    let without = |field: &Field<'_>| {
        let mut value = field.value().cloned().unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.remove(secret);
        }
        value
    };
    name == "csi" && is_added && without(&old) == without(&new)
}

/// The fields before and after a change, a line each.
pub(super) fn changes(old: &Field<'_>, new: &Field<'_>, names: &[&str]) -> String {
    let mut lines = Vec::new();
    for name in names {
        let line = |mark: &str, field: &Field<'_>| {
            field.child(name).value().map(|value| format!("{mark} {name}: {value}"))
        };
        lines.extend(line("-", old));
        lines.extend(line("+", new));
    }
    lines.join("\n")
}

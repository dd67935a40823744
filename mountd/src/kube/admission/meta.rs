//! Metadata, which has the same rules for all kinds.

use super::field::Field;
use super::names::{self, Rule};
use super::report::Report;

/// The bytes that all annotations of an object may have.
const ANNOTATIONS_MAX: usize = 256 << 10;

/// Finalizers without a domain that Kubernetes knows.
const FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Where objects of a kind live, and how they may be called.
#[derive(Clone, Copy)]
pub(super) struct Naming {
    /// Whether the kind has namespaces.
    pub(super) is_namespaced: bool,
    /// The rule for names.
    pub(super) rule: Rule,
}

/// Names of a kind with namespaces.
pub(super) const NAMESPACED: Naming = Naming { is_namespaced: true, rule: names::subdomain };
/// Names of a kind without namespaces.
pub(super) const GLOBAL: Naming = Naming { is_namespaced: false, rule: names::subdomain };

/// Judges the metadata of an object.
pub(super) fn create(object: &Field<'_>, naming: Naming, report: &mut Report) {
    let meta = object.child("metadata");
    let prefix = meta.child("generateName");
    if !prefix.is_empty() {
        let masked = masked(prefix.text());
        report.invalid_all(&prefix, prefix.text(), (naming.rule)(&masked));
    }
    let name = meta.child("name");
    if name.is_empty() {
        report.required(&name, "name or generateName is required");
    } else {
        report.invalid_all(&name, name.text(), (naming.rule)(name.text()));
    }
    let namespace = meta.child("namespace");
    match (naming.is_namespaced, namespace.is_empty()) {
        (true, true) => report.required(&namespace, ""),
        (true, false) => {
            report.invalid_all(&namespace, namespace.text(), names::label(namespace.text()));
        }
        (false, false) => report.forbidden(&namespace, "not allowed on this type"),
        (false, true) => {}
    }
    labels(&meta.child("labels"), report);
    annotations(&meta.child("annotations"), report);
    owners(&meta.child("ownerReferences"), report);
    finalizers(&meta.child("finalizers"), report);
}

/// A prefix may end with a hyphen, since something follows.
fn masked(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

/// Judges labels: keys and values.
pub(super) fn labels(labels: &Field<'_>, report: &mut Report) {
    for (key, value) in labels.entries() {
        report.invalid_all(labels, key, names::qualified(key));
        report.invalid_all(labels, value.text(), names::label_value(value.text()));
    }
}

/// Judges annotations: keys, and the size of all.
pub(super) fn annotations(annotations: &Field<'_>, report: &mut Report) {
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        report.invalid_all(annotations, key, names::qualified(&key.to_lowercase()));
        bytes += key.len() + value.text().len();
    }
    if bytes > ANNOTATIONS_MAX {
        report.too_long(&annotations.path, ANNOTATIONS_MAX);
    }
}

fn owners(owners: &Field<'_>, report: &mut Report) {
    let mut controllers = Vec::new();
    for owner in owners.items() {
        // Errors name the list, not the item.
        let at = |name: &str| owner.child(name).called(&format!("{}.{name}", owners.path));
        if at("apiVersion").is_empty() {
            report.invalid_text(&at("apiVersion"), "", "version must not be empty");
        }
        for name in ["kind", "name", "uid"] {
            if at(name).is_empty() {
                report.invalid_text(&at(name), "", "must not be empty");
            }
        }
        if owner.child("controller").is_true() {
            controllers.push(at("name").text());
        }
    }
    if let [first, second, ..] = &controllers[..] {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for \
             {first} and {second}"
        );
        report.invalid(owners, &detail);
    }
}

fn finalizers(finalizers: &Field<'_>, report: &mut Report) {
    let items = finalizers.items();
    for item in &items {
        let faults = names::qualified(item.text());
        let is_fine = faults.is_empty();
        report.invalid_all(finalizers, item.text(), faults);
        if is_fine && !item.text().contains('/') && !FINALIZERS.contains(&item.text()) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            report.invalid_text(finalizers, item.text(), detail);
        }
    }
    let has = |name: &str| items.iter().any(|item| item.text() == name);
    if has("orphan") && has("foregroundDeletion") {
        report.invalid(finalizers, "finalizer foregroundDeletion and orphan cannot be both set");
    }
}

/// Judges the change of metadata.
pub(super) fn update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    let (old, new) = (old.child("metadata"), new.child("metadata"));
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"] {
        if old.child(name).is_set() {
            report.immutable(&old.child(name), &new.child(name));
        }
    }
    if old.child("deletionTimestamp").is_set() {
        let before: Vec<&str> = old.child("finalizers").items().iter().map(Field::text).collect();
        let now = new.child("finalizers");
        let added: Vec<String> = now
            .items()
            .iter()
            .filter(|item| !before.contains(&item.text()))
            .map(|item| format!("{:?}", item.text()))
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                added.join(", ")
            );
            report.forbidden(&now, &detail);
        }
    }
}

//! Paths, modes and projections of files into a pod.

use std::collections::BTreeSet;

use super::field::Field;
use super::report::Report;

/// The fields of a pod that the downward API shows.
const SHOWN: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// The limits and requests of a container that a variable or a file shows.
const AMOUNTS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Refuses a path that leads out of where it starts.
pub(super) fn no_way_up(path: &Field<'_>, report: &mut Report) {
    if path.text().split('/').any(|part| part == "..") {
        report.invalid(path, "must not contain '..'");
    }
}

/// Refuses a path that is absolute or leads out.
pub(super) fn relative(path: &Field<'_>, report: &mut Report) {
    if path.text().starts_with('/') {
        report.invalid(path, "must be a relative path");
    }
    no_way_up(path, report);
}

/// Refuses a mode that has more than permissions.
pub(super) fn mode(mode: &Field<'_>, report: &mut Report) {
    if mode.integer().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        report.invalid(mode, detail);
    }
}

/// Judges the keys that a ConfigMap or Secret shows as files.
pub(super) fn keys(source: &Field<'_>, report: &mut Report) {
    mode(&source.child("defaultMode"), report);
    for item in source.child("items").items() {
        report.require(&item.child("key"));
        target(&item.child("path"), report);
        mode(&item.child("mode"), report);
    }
}

/// Judges the path of a projected file.
fn target(path: &Field<'_>, report: &mut Report) {
    if !report.require(path) {
        return;
    }
    relative(path, report);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        report.invalid(path, "must not start with '..'");
    }
}

/// Judges the fields of a pod that are shown as files.
pub(super) fn downward(source: &Field<'_>, report: &mut Report) {
    mode(&source.child("defaultMode"), report);
    for item in source.child("items").items() {
        // Errors name the source, not the item.
        let item = item.called(&source.path);
        target(&item.child("path"), report);
        let (field, resource) = (item.child("fieldRef"), item.child("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, true) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                report.invalid_text(&item, "resource", detail);
            }
            (false, false) => {
                report.required(&item, "one of fieldRef and resourceFieldRef is required");
            }
            (true, false) => shown(&field, &SHOWN, report),
            (false, true) => {
                if report.require(&resource.child("containerName")) {
                    amount(&resource, report);
                }
            }
        }
        mode(&item.child("mode"), report);
    }
}

/// Judges a reference to a field of the pod.
pub(super) fn shown(reference: &Field<'_>, known: &[&str], report: &mut Report) {
    let path = reference.child("fieldPath");
    if !report.require(&path) {
        return;
    }
    let text = path.text();
    let is_subscript = ["metadata.annotations['", "metadata.labels['"]
        .iter()
        .any(|prefix| text.starts_with(prefix) && text.ends_with("']"));
    if !is_subscript {
        report.known(&path, known);
    }
}

/// Judges a reference to a limit or request of a container.
pub(super) fn amount(reference: &Field<'_>, report: &mut Report) {
    let resource = reference.child("resource");
    if !report.require(&resource) {
        return;
    }
    let text = resource.text();
    if !["limits.hugepages-", "requests.hugepages-"].iter().any(|start| text.starts_with(start)) {
        report.known(&resource, &AMOUNTS);
    }
}

/// Judges sources that are projected into one directory.
pub(super) fn projected(source: &Field<'_>, report: &mut Report) {
    mode(&source.child("defaultMode"), report);
    let mut paths = BTreeSet::new();
    for one in source.child("sources").items() {
        let parts = ["secret", "configMap", "downwardAPI", "serviceAccountToken"];
        let set: Vec<(&str, Field<'_>)> = parts
            .into_iter()
            .map(|name| (name, one.child(name)))
            .filter(|(_, part)| part.is_set())
            .collect();
        for (name, part) in &set {
            match *name {
                "downwardAPI" => downward(part, report),
                "serviceAccountToken" => token(source, part, report),
                _ => {
                    report.require(&part.child("name"));
                    keys(part, report);
                }
            }
            for item in part.child("items").items() {
                let path = item.child("path").text();
                if !path.is_empty() && !paths.insert(path.to_owned()) {
                    let named = part.child("name").text();
                    let shown = if *name == "downwardAPI" { path } else { named };
                    report.invalid_text(source, shown, "conflicting duplicate paths");
                }
            }
        }
        if set.len() > 1 {
            report.forbidden(&one, "may not specify more than 1 volume type");
        }
    }
}

/// Judges the token of a service account. Errors about its path name the whole source.
fn token(source: &Field<'_>, token: &Field<'_>, report: &mut Report) {
    let seconds = token.child("expirationSeconds");
    match seconds.integer() {
        Some(..600) => {
            report.invalid(&seconds, "may not specify a duration less than 10 minutes");
        }
        Some(0x1_0000_0001..) => {
            report.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
        }
        _ => {}
    }
    target(&token.child("path").called(&format!("{}.path", source.path)), report);
}

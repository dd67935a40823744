//! StorageClasses, VolumeAttributesClasses, CSIDrivers and CSINodes.

use std::collections::BTreeSet;

use super::field::Field;
use super::meta;
use super::names;
use super::report::Report;
use super::source;

/// The number of parameters that a class may have.
const PARAMETERS_MAX: usize = 512;
/// The bytes that all of its parameters may have.
const PARAMETER_BYTES_MAX: usize = 256 << 10;

/// Judges a StorageClass.
pub(super) fn storage(class: &Field<'_>, report: &mut Report) {
    meta::create(class, meta::GLOBAL, report);
    provisioner(&class.child("provisioner"), report);
    parameters(&class.child("parameters"), report);
    report.known(&class.child("reclaimPolicy"), &["Delete", "Retain"]);
    let binding = class.child("volumeBindingMode");
    if binding.is_set() {
        report.known(&binding, &["Immediate", "WaitForFirstConsumer"]);
    } else {
        report.required(&binding, "");
    }
    for term in class.child("allowedTopologies").items() {
        topology(&term.child("matchLabelExpressions"), report);
    }
}

/// Judges the name of what makes or changes volumes.
fn provisioner(name: &Field<'_>, report: &mut Report) {
    if report.require(name) {
        report.invalid_all(name, name.text(), names::qualified(&name.text().to_lowercase()));
    }
}

fn parameters(parameters: &Field<'_>, report: &mut Report) {
    let entries = parameters.entries();
    if entries.len() > PARAMETERS_MAX {
        report.too_long(&parameters.path, PARAMETERS_MAX);
        return;
    }
    let mut bytes = 0;
    for (key, value) in entries {
        if key.is_empty() {
            report.invalid_text(parameters, key, "field can not be empty.");
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > PARAMETER_BYTES_MAX {
        report.too_long(&parameters.path, PARAMETER_BYTES_MAX);
    }
}

fn topology(expressions: &Field<'_>, report: &mut Report) {
    let mut keys = BTreeSet::new();
    for one in expressions.items() {
        let (key, values) = (one.child("key"), one.child("values"));
        report.require(&values);
        let mut seen = BTreeSet::new();
        for value in values.items() {
            if !seen.insert(value.text()) {
                report.duplicate(&value, value.text());
            }
        }
        report.invalid_all(&key, key.text(), names::qualified(key.text()));
        if !keys.insert(key.text()) {
            report.duplicate(&key, key.text());
        }
    }
}

/// Judges the change of a StorageClass: nothing of what volumes are made by may change.
pub(super) fn storage_update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    for name in ["parameters", "provisioner", "reclaimPolicy"] {
        frozen(old, new, name, report);
    }
    report.immutable(&old.child("volumeBindingMode"), &new.child("volumeBindingMode"));
}

fn frozen(old: &Field<'_>, new: &Field<'_>, name: &str, report: &mut Report) {
    if !old.child(name).equals(&new.child(name)) {
        report.forbidden(&new.child(name), &format!("updates to {name} are forbidden."));
    }
}

/// Judges a VolumeAttributesClass.
pub(super) fn attributes(class: &Field<'_>, report: &mut Report) {
    meta::create(class, meta::GLOBAL, report);
    provisioner(&class.child("driverName"), report);
    let given = class.child("parameters");
    parameters(&given, report);
    if given.is_empty() {
        report.required(&given, "must contain at least one key/value pair");
    }
}

/// Judges the change of a VolumeAttributesClass.
pub(super) fn attributes_update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    for name in ["driverName", "parameters"] {
        frozen(old, new, name, report);
    }
}

/// Judges a CSIDriver.
pub(super) fn driver(driver: &Field<'_>, report: &mut Report) {
    meta::create(driver, meta::GLOBAL, report);
    let name = driver.at(&["metadata", "name"]);
    if name.text().len() > 63 {
        report.too_long(&name.path, 63);
    }
    let spec = driver.child("spec");
    for name in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if !spec.child(name).is_set() {
            report.required(&spec.child(name), "");
        }
    }
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    report.known(&spec.child("fsGroupPolicy"), &policies);
    let modes = spec.child("volumeLifecycleModes");
    for mode in modes.items() {
        if !["Ephemeral", "Persistent"].contains(&mode.text()) {
            report.unsupported(&modes, &mode, &["Ephemeral", "Persistent"]);
        }
    }
}

/// Judges the change of a CSIDriver.
pub(super) fn driver_update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    let (old, new) = (old.child("spec"), new.child("spec"));
    for name in ["attachRequired", "volumeLifecycleModes"] {
        report.immutable(&old.child(name), &new.child(name));
    }
}

/// Judges a CSINode.
pub(super) fn node(node: &Field<'_>, report: &mut Report) {
    meta::create(node, meta::GLOBAL, report);
    let mut names_seen = BTreeSet::new();
    for driver in node.at(&["spec", "drivers"]).items() {
        let (name, id) = (driver.child("name"), driver.child("nodeID"));
        source::driver_name(&name, report);
        if !name.is_empty() && !names_seen.insert(name.text()) {
            report.duplicate(&name, name.text());
        }
        if report.require(&id) && id.text().len() > 256 {
            report.invalid(&id, "must be 256 characters or less");
        }
        let mut keys = BTreeSet::new();
        for key in driver.child("topologyKeys").items() {
            if !keys.insert(key.text()) {
                report.duplicate(&key, key.text());
            }
            report.invalid_all(&key, key.text(), names::qualified(key.text()));
        }
        let count = driver.at(&["allocatable", "count"]);
        if count.integer().is_some_and(|count| count < 0) {
            report.invalid(&count, "must be greater than or equal to 0");
        }
    }
}

/// Judges the change of a CSINode: a driver that is there stays as it is.
pub(super) fn node_update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    let before = old.at(&["spec", "drivers"]).items();
    for driver in new.at(&["spec", "drivers"]).items() {
        let name = driver.child("name").text();
        let was = before.iter().find(|one| one.child("name").text() == name);
        if was.is_some_and(|was| !was.child("nodeID").equals(&driver.child("nodeID"))) {
            report.invalid(&driver.child("nodeID"), "field is immutable");
        }
    }
}

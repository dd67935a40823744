//! The volumes that a container mounts, and the devices that it gets.

use std::collections::BTreeSet;

use super::field::Field;
use super::files;
use super::pod::Volumes;
use super::report::Report;

/// Judges the mounts of a container. Some errors name the list and not the mount, as in Kubernetes.
pub(super) fn mounts(container: &Field<'_>, volumes: &Volumes<'_>, report: &mut Report) {
    let list = container.child("volumeMounts");
    let devices = container.child("volumeDevices");
    let (names, paths) = (texts(&devices, "name"), texts(&devices, "devicePath"));
    let mut places = BTreeSet::new();
    for mount in list.items() {
        let (name, path) = (mount.child("name"), mount.child("mountPath"));
        report.require(&name);
        if !volumes.contains_key(name.text()) {
            report.not_found(&name, name.text());
        }
        report.require(&path);
        if !places.insert(path.text()) {
            report.invalid(&path, "must be unique");
        }
        if names.contains(name.text()) {
            report.invalid(&name, "must not already exist in volumeDevices");
        }
        if paths.contains(path.text()) {
            report.invalid(&path, "must not already exist as a path in volumeDevices");
        }
        let at = |name: &str| mount.child(name).called(&list.child(name).path);
        files::relative(&at("subPath"), report);
        let expression = mount.child("subPathExpr");
        if !expression.is_empty() && !mount.child("subPath").is_empty() {
            report.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
        }
        files::relative(&at("subPathExpr"), report);
        propagation(container, &at("mountPropagation"), report);
        recursive(&mount, &at("recursiveReadOnly"), report);
    }
}

fn texts<'v>(list: &Field<'v>, name: &str) -> BTreeSet<&'v str> {
    list.items().iter().map(|item| item.child(name).text()).collect()
}

fn propagation(container: &Field<'_>, mode: &Field<'_>, report: &mut Report) {
    report.known(mode, &["Bidirectional", "HostToContainer", "None"]);
    let is_privileged = container.at(&["securityContext", "privileged"]).is_true();
    if mode.text() == "Bidirectional" && !is_privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        report.forbidden(mode, detail);
    }
}

fn recursive(mount: &Field<'_>, mode: &Field<'_>, report: &mut Report) {
    report.known(mode, &["Disabled", "Enabled", "IfPossible"]);
    if !["Enabled", "IfPossible"].contains(&mode.text()) {
        return;
    }
    if !mount.child("readOnly").is_true() {
        report.forbidden(mode, "may only be specified when readOnly is true");
    }
    if !["", "None"].contains(&mount.child("mountPropagation").text()) {
        let detail = "may only be specified when mountPropagation is None or not specified";
        report.forbidden(mode, detail);
    }
}

/// Judges the devices of a container.
pub(super) fn devices(container: &Field<'_>, volumes: &Volumes<'_>, report: &mut Report) {
    let mounts = container.child("volumeMounts");
    let (names, paths) = (texts(&mounts, "name"), texts(&mounts, "mountPath"));
    let (mut seen, mut places) = (BTreeSet::new(), BTreeSet::new());
    for device in container.child("volumeDevices").items() {
        let (name, path) = (device.child("name"), device.child("devicePath"));
        if report.require(&name) && !seen.insert(name.text()) {
            report.invalid(&name, "must be unique");
        }
        match volumes.get(name.text()) {
            None => report.not_found(&name, name.text()),
            Some(&"persistentVolumeClaim" | &"ephemeral") => {}
            Some(_) => {
                let detail = "can only use volume source type of PersistentVolumeClaim or \
                              Ephemeral for block mode";
                report.invalid(&name, detail);
            }
        }
        report.require(&path);
        if places.contains(path.text()) {
            report.invalid(&path, "must be unique");
        }
        if path.text().split('/').any(|part| part == "..") {
            report.invalid(&path, "can not contain backsteps ('..')");
        } else {
            places.insert(path.text());
        }
        if names.contains(name.text()) {
            report.invalid(&name, "must not already exist in volumeMounts");
        }
        if paths.contains(path.text()) {
            report.invalid(&path, "must not already exist as a path in volumeMounts");
        }
    }
}

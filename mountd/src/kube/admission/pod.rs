//! Pods: their volumes, policies and what may change.

use std::collections::BTreeMap;

use serde_json::Value;

use super::amounts;
use super::claim;
use super::container;
use super::field::Field;
use super::files;
use super::meta;
use super::names;
use super::report::Report;
use super::selector;
use super::source;
use super::volume::changes;

/// The volumes of a pod by name, and the source of each.
pub(super) type Volumes<'v> = BTreeMap<&'v str, &'static str>;

/// Judges a new pod.
pub(super) fn create(pod: &Field<'_>, report: &mut Report) {
    meta::create(pod, meta::NAMESPACED, report);
    let spec = pod.child("spec");
    let volumes = volumes(pod, &spec.child("volumes"), report);
    container::all(&spec, &volumes, report);
    let policy = spec.child("restartPolicy");
    if report.require(&policy) {
        report.known(&policy, &["Always", "OnFailure", "Never"]);
    }
    let dns = spec.child("dnsPolicy");
    if report.require(&dns) {
        report.known(&dns, &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]);
    }
    let servers = spec.at(&["dnsConfig", "nameservers"]);
    if dns.text() == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        report.required(&servers, detail);
    }
    let deadline = spec.child("activeDeadlineSeconds");
    let limit = i64::from(i32::MAX);
    if deadline.integer().is_some_and(|seconds| !(1..=limit).contains(&seconds)) {
        report.invalid(&deadline, "must be between 1 and 2147483647, inclusive");
    }
    meta::labels(&spec.child("nodeSelector"), report);
    for name in ["nodeName", "serviceAccountName", "runtimeClassName", "priorityClassName"] {
        let name = spec.child(name);
        if !name.is_empty() {
            report.invalid_all(&name, name.text(), names::subdomain(name.text()));
        }
    }
    for name in ["hostname", "subdomain"] {
        let name = spec.child(name);
        if !name.is_empty() {
            report.invalid_all(&name, name.text(), names::label(name.text()));
        }
    }
    let affinity = spec.at(&["affinity", "nodeAffinity"]);
    let required = affinity.child("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        selector::nodes(&required, report);
    }
}

fn volumes<'v>(pod: &Field<'v>, list: &Field<'v>, report: &mut Report) -> Volumes<'v> {
    let mut found = Volumes::new();
    for volume in list.items() {
        let name = volume.child("name");
        if report.require(&name) {
            report.invalid_all(&name, name.text(), names::label(name.text()));
            if found.contains_key(name.text()) {
                report.duplicate(&name, name.text());
            }
        }
        let Some((kind, at)) = source::one(&volume, &source::OF_POD, report) else { continue };
        found.insert(name.text(), kind);
        match kind {
            "emptyDir" => empty_dir(&at, report),
            "secret" | "configMap" => files::keys(&at, report),
            "downwardAPI" => files::downward(&at, report),
            "projected" => files::projected(&at, report),
            "ephemeral" => ephemeral(pod, &name, &at, report),
            "image" => pull_policy(&at.child("pullPolicy"), report),
            _ => {}
        }
    }
    found
}

fn empty_dir(source: &Field<'_>, report: &mut Report) {
    let limit = source.child("sizeLimit");
    if let Some(size) = amounts::judged(&limit, report)
        && size.is_negative()
    {
        report.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
    }
}

/// Judges when an image is pulled.
pub(super) fn pull_policy(policy: &Field<'_>, report: &mut Report) {
    report.known(policy, &["Always", "IfNotPresent", "Never"]);
}

fn ephemeral(pod: &Field<'_>, name: &Field<'_>, source: &Field<'_>, report: &mut Report) {
    let template = source.child("volumeClaimTemplate");
    if !template.is_set() {
        report.required(&template, "");
        return;
    }
    let meta = template.child("metadata");
    meta::labels(&meta.child("labels"), report);
    meta::annotations(&meta.child("annotations"), report);
    for (key, field) in meta.entries() {
        if !["labels", "annotations"].contains(&key) && !field.is_empty() {
            let at = field.called(&format!("{}.{key}", meta.path));
            report.forbidden(&at, "cannot be set");
        }
    }
    claim::spec(&template.child("spec"), report);
    let claim = format!("{}-{}", pod.at(&["metadata", "name"]).text(), name.text());
    for fault in names::subdomain(&claim) {
        report.invalid(name, &format!("PVC name {claim:?}: {fault}"));
    }
}

/// What may change in the specification of a pod.
const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
    additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set \
    to 1 if it was previously negative)";

/// Judges the change of a pod: images and the deadline may change, little else.
pub(super) fn update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    let (old, new) = (old.child("spec"), new.child("spec"));
    for name in ["containers", "initContainers"] {
        let (before, now) = (old.child(name), new.child(name));
        if before.items().len() != now.items().len() {
            report.forbidden(&now, "pod updates may not add or remove containers");
            return;
        }
    }
    let (before, now) = (frozen_part(&old), frozen_part(&new));
    if before == now {
        return;
    }
    let (before, now) = (Field::root(&before), Field::root(&now));
    let mut names: Vec<&str> = before.entries().into_iter().map(|(name, _)| name).collect();
    names.extend(now.entries().into_iter().map(|(name, _)| name));
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !before.child(name).equals(&now.child(name)));
    // The node of a pod is set once, by whatever places it.
    if names == ["nodeName"] && !before.child("nodeName").is_set() {
        return;
    }
    if !names.is_empty() {
        report.forbidden(&new, &format!("{FROZEN}\n{}", changes(&before, &now, &names)));
    }
}

/// The specification without what may change.
fn frozen_part(spec: &Field<'_>) -> Value {
    let mut value = spec.value().cloned().unwrap_or_default();
    let Some(fields) = value.as_object_mut() else { return value };
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        fields.remove(name);
    }
    for list in ["containers", "initContainers"] {
        let containers = fields.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            container.remove("image");
        }
    }
    value
}

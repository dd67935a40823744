//! The containers of a pod.

use std::collections::BTreeSet;

use super::amounts;
use super::field::Field;
use super::files;
use super::mounts;
use super::names;
use super::pod::{Volumes, pull_policy};
use super::report::Report;

/// The fields of a pod that a variable can show.
const VARIABLES: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Judges all containers of a pod: their names are unique together.
pub(super) fn all(spec: &Field<'_>, volumes: &Volumes<'_>, report: &mut Report) {
    let (normal, init) = (spec.child("containers"), spec.child("initContainers"));
    if normal.is_empty() {
        report.required(&normal, "");
    }
    let mut names = BTreeSet::new();
    for container in normal.items().into_iter().chain(init.items()) {
        one(&container, volumes, report);
        let name = container.child("name");
        if !name.is_empty() && !names.insert(name.text()) {
            report.duplicate(&name, name.text());
        }
    }
    host_ports(&normal, report);
    for container in init.items() {
        let policy = container.child("restartPolicy");
        report.known(&policy, &["Always"]);
    }
}

fn one(container: &Field<'_>, volumes: &Volumes<'_>, report: &mut Report) {
    let name = container.child("name");
    if report.require(&name) {
        report.invalid_all(&name, name.text(), names::label(name.text()));
    }
    let image = container.child("image");
    if report.require(&image) && image.text().trim() != image.text() {
        report.invalid(&image, "must not have leading or trailing whitespace");
    }
    let policies = ["File", "FallbackToLogsOnError"];
    report.known(&container.child("terminationMessagePolicy"), &policies);
    pull_policy(&container.child("imagePullPolicy"), report);
    ports(&container.child("ports"), report);
    environment(container, report);
    mounts::mounts(container, volumes, report);
    mounts::devices(container, volumes, report);
    resources(&container.child("resources"), report);
}

/// Refuses a port of the host that two containers take.
fn host_ports(containers: &Field<'_>, report: &mut Report) {
    let mut taken = BTreeSet::new();
    for container in containers.items() {
        for port in container.child("ports").items() {
            let number = port.child("hostPort");
            let Some(value) = number.integer().filter(|value| *value != 0) else { continue };
            let (protocol, host) = (port.child("protocol").text(), port.child("hostIP").text());
            let whole = format!("{protocol}/{host}/{value}");
            if !taken.insert(whole.clone()) {
                report.duplicate(&number, &whole);
            }
        }
    }
}

fn ports(ports: &Field<'_>, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.child("name");
        if !name.is_empty() {
            report.invalid_all(&name, name.text(), names::port(name.text()));
            if !seen.insert(name.text()) {
                report.duplicate(&name, name.text());
            }
        }
        let number = port.child("containerPort");
        match number.integer() {
            None | Some(0) => report.required(&number, ""),
            Some(1..=65535) => {}
            Some(_) => report.invalid(&number, "must be between 1 and 65535, inclusive"),
        }
        let host = port.child("hostPort");
        if host.integer().is_some_and(|port| !(0..=65535).contains(&port)) {
            report.invalid(&host, "must be between 1 and 65535, inclusive");
        }
        report.known(&port.child("protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

fn environment(container: &Field<'_>, report: &mut Report) {
    for variable in container.child("env").items() {
        let name = variable.child("name");
        if report.require(&name) {
            report.invalid_all(&name, name.text(), names::variable(name.text()));
        }
        let from = variable.child("valueFrom");
        if from.is_set() {
            value_from(&variable, &from, report);
        }
    }
    let list = container.child("envFrom");
    for from in list.items() {
        let sources = ["configMapRef", "secretRef"].map(|name| from.child(name));
        let mut count = 0;
        for source in sources.iter().filter(|source| source.is_set()) {
            report.require(&source.child("name"));
            count += 1;
        }
        // Errors name the list, not the item.
        match count {
            0 => {
                let detail = "must specify one of: `configMapRef` or `secretRef`";
                report.invalid_text(&list, "", detail);
            }
            1 => {}
            _ => report.invalid_text(&list, "", ONE_SOURCE),
        }
    }
}

const ONE_SOURCE: &str = "may not have more than one field specified at a time";

fn value_from(variable: &Field<'_>, from: &Field<'_>, report: &mut Report) {
    let names = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"];
    let set: Vec<&str> = names.into_iter().filter(|name| from.child(name).is_set()).collect();
    for name in &set {
        let source = from.child(name);
        match *name {
            "fieldRef" => files::shown(&source, &VARIABLES, report),
            "resourceFieldRef" => files::amount(&source, report),
            _ => {
                let (name, key) = (source.child("name"), source.child("key"));
                report.invalid_all(&name, name.text(), names::subdomain(name.text()));
                if report.require(&key) {
                    report.invalid_all(&key, key.text(), names::config_key(key.text()));
                }
            }
        }
    }
    if set.is_empty() {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or \
                      `secretKeyRef`";
        report.invalid_text(from, "", detail);
    } else if !variable.child("value").is_empty() {
        report.invalid_text(from, "", "may not be specified when `value` is not empty");
    } else if set.len() > 1 {
        report.invalid_text(from, "", ONE_SOURCE);
    }
}

/// Judges limits and requests: a request is at most the limit.
fn resources(resources: &Field<'_>, report: &mut Report) {
    let (limits, requests) = (resources.child("limits"), resources.child("requests"));
    for (name, limit) in limits.entries() {
        resource_name(name, &limit, report);
        amounts::not_negative(&limit, report);
    }
    for (name, request) in requests.entries() {
        resource_name(name, &request, report);
        amounts::not_negative(&request, report);
        let limit = amounts::parse(&limits.key(name)).and_then(Result::ok);
        let amount = amounts::parse(&request).and_then(Result::ok);
        if let (Some(amount), Some(limit)) = (amount, limit)
            && amount > limit
        {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            report.invalid_text(&requests, &amount.to_string(), &detail);
        }
    }
}

/// Resources of a container without a domain.
const OF_CONTAINERS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Other resources without a domain that Kubernetes knows.
const OF_OTHERS: [&str; 2] = ["storage", "pods"];

fn resource_name(name: &str, at: &Field<'_>, report: &mut Report) {
    report.invalid_all(at, name, names::qualified(name));
    if name.contains('/') || name.starts_with("hugepages-") || OF_CONTAINERS.contains(&name) {
        return;
    }
    if !OF_OTHERS.contains(&name) {
        report.invalid_text(at, name, "must be a standard resource type or fully qualified");
    }
    report.invalid_text(at, name, "must be a standard resource for containers");
}

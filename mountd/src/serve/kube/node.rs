//! The object of this host: a node that is ready.

use std::net::{IpAddr, UdpSocket};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::discovery::GIT_VERSION;
use crate::kube::kinds::Kind;
use crate::kube::objects::{ListOptions, Part, Store, Target, WriteOptions};
use crate::kube::seam::{PatchForm, patched};
use crate::kube::status::{Answer, Failure};

/// An address outside: no packet is sent to it. It selects the interface of the default route.
const OUTSIDE: &str = "192.0.2.1:9";

/// The runtime of the nodes that are hosts of Lamina.
const RUNTIME: &str = "lamina://";
/// The manager of the fields of nodes.
const MANAGER: &str = "lamina";

/// The name of the host, in lower case as names of nodes are.
pub fn host_name() -> String {
    kernel("hostname").to_lowercase()
}

/// A text of the kernel.
fn kernel(name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    text.trim().to_owned()
}

fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(OUTSIDE).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The name of the operating system.
fn system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// The architecture as Kubernetes names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The id of this machine; empty if it has none.
fn machine() -> String {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    text.trim().to_owned()
}

fn status(name: &str) -> Value {
    let mut addresses = vec![json!({"type": "Hostname", "address": name})];
    if let Some(address) = address() {
        addresses.insert(0, json!({"type": "InternalIP", "address": address.to_string()}));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let capacity = json!({"cpu": processors.to_string(), "pods": "110"});
    let machine = machine();
    json!({
        "addresses": addresses,
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "lamina serves volumes",
        }],
        "nodeInfo": {
            "machineID": machine,
            "systemUUID": machine,
            "bootID": "",
            "kernelVersion": kernel("osrelease"),
            "osImage": system(),
            "containerRuntimeVersion": format!("{RUNTIME}{}", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": GIT_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
    })
}

/// The text at a pointer; empty if there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Sets the conditions of a ready node to unknown.
fn retire(node: &mut Value, name: &str) {
    let conditions = node.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    let is_ready = |one: &Value| text(one, "/type") == "Ready" && text(one, "/status") == "True";
    for condition in conditions.into_iter().flatten().filter(|one| is_ready(one)) {
        *condition = json!({
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": format!("the name of the host is {name} now"),
            "lastTransitionTime": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        });
    }
}

/// Has the nodes that this machine was under other names not be ready: nothing is provisioned for
/// them any more. A machine without an id knows none of them.
fn retire_others(store: &Store, kind: &'static Kind, name: &str, machine: &str) -> Answer<()> {
    if machine.is_empty() {
        return Ok(());
    }
    let options = WriteOptions { manager: MANAGER.to_owned(), ..WriteOptions::default() };
    for node in store.list(kind, &ListOptions::default())?.items {
        let other = text(&node, "/metadata/name");
        if other == name || text(&node, "/status/nodeInfo/machineID") != machine {
            continue;
        }
        let target = Target { kind, namespace: "", name: other };
        let change = |current: Option<&Value>| {
            let mut node = current.cloned().ok_or_else(|| Failure::not_found(kind, other))?;
            retire(&mut node, name);
            Ok(node)
        };
        match store.change(&target, Part::Status, &options, &change) {
            // It was deleted meanwhile.
            Err(failure) if failure.code == 404 => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// The name of the node of this host: the one that was asked for, else the one under which this
/// machine is ready, else the name of the host.
pub fn known(store: &Store, wanted: &str) -> Answer<String> {
    if !wanted.is_empty() {
        return Ok(wanted.to_owned());
    }
    let kind = Kind::of_path("", "v1", "nodes");
    let kind = kind.ok_or_else(|| Failure::internal("the kind Node is unknown"))?;
    let (machine, own) = (machine(), host_name());
    let is_ready = |node: &Value| {
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|one| text(one, "/type") == "Ready" && text(one, "/status") == "True")
    };
    let is_here = |node: &&Value| {
        let version = text(node, "/status/nodeInfo/containerRuntimeVersion");
        text(node, "/status/nodeInfo/machineID") == machine
            && version.starts_with(RUNTIME)
            && is_ready(node)
    };
    let nodes = store.list(kind, &ListOptions::default())?.items;
    let names: Vec<&str> =
        nodes.iter().filter(is_here).map(|node| text(node, "/metadata/name")).collect();
    match names.first() {
        Some(first) if !names.contains(&&own[..]) => Ok((*first).to_owned()),
        _ => Ok(own),
    }
}

/// Creates the object of this host, or brings it up to date.
pub fn announce(store: &Store, name: &str) -> Answer<()> {
    let kind = Kind::of_path("", "v1", "nodes");
    let kind = kind.ok_or_else(|| Failure::internal("the kind Node is unknown"))?;
    let labels = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture(),
    });
    let node = json!({"metadata": {"name": name, "labels": labels}, "status": status(name)});
    let options = WriteOptions { manager: MANAGER.to_owned(), ..WriteOptions::default() };
    store.create_if_missing(kind, node.clone())?;
    let target = Target { kind, namespace: "", name };
    let of = (kind, Part::Status);
    let change = |current: Option<&Value>| patched(of, PatchForm::Merge, current, &node, &options);
    store.change(&target, Part::Status, &options, &change)?;
    retire_others(store, kind, name, &machine())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_this_machine_with_another_name_is_not_ready_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let kind = Kind::of_path("", "v1", "nodes").unwrap();
        for (name, machine) in [("old", "m1"), ("new", "m1"), ("other", "m2")] {
            let mut status = status(name);
            *status.pointer_mut("/nodeInfo/machineID").unwrap() = machine.into();
            let node = json!({"metadata": {"name": name}, "status": status});
            store.create_if_missing(kind, node).unwrap();
        }
        let ready = |name| {
            let node = store.get(&Target { kind, namespace: "", name }).unwrap();
            text(&node, "/status/conditions/0/status").to_owned()
        };
        retire_others(&store, kind, "new", "").unwrap();
        assert_eq!(ready("old"), "True");
        retire_others(&store, kind, "new", "m1").unwrap();
        assert_eq!(["old", "new", "other"].map(ready), ["Unknown", "True", "True"]);
        let version = store.version().unwrap();
        retire_others(&store, kind, "new", "m1").unwrap();
        assert_eq!(store.version().unwrap(), version);
    }
}

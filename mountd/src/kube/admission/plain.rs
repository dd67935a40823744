//! Namespaces, ConfigMaps, Secrets, Nodes and Events.

use super::field::Field;
use super::meta::{self, Naming};
use super::names;
use super::report::Report;

/// The bytes that the data of a ConfigMap or Secret may have.
const DATA_MAX: usize = 1 << 20;

/// Judges a Namespace.
pub(super) fn namespace(namespace: &Field<'_>, report: &mut Report) {
    meta::create(namespace, Naming { is_namespaced: false, rule: names::label }, report);
    let finalizers = namespace.at(&["spec", "finalizers"]);
    for item in finalizers.items() {
        report.invalid_all(&finalizers, item.text(), names::qualified(item.text()));
    }
}

/// Judges a ConfigMap.
pub(super) fn config_map(map: &Field<'_>, report: &mut Report) {
    meta::create(map, meta::NAMESPACED, report);
    let (data, binary) = (map.child("data"), map.child("binaryData"));
    let mut bytes = 0;
    for (key, value) in data.entries() {
        report.invalid_all(&value, key, names::config_key(key));
        if binary.key(key).is_set() {
            report.invalid_text(&value, key, "duplicate of key present in binaryData");
        }
        bytes += value.text().len();
    }
    for (key, value) in binary.entries() {
        report.invalid_all(&value, key, names::config_key(key));
        bytes += decoded_len(value.text());
    }
    if bytes > DATA_MAX {
        // Kubernetes names no field here.
        report.too_long("[]", DATA_MAX);
    }
}

/// The number of bytes behind a text in base64.
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

/// Judges the change of a ConfigMap.
pub(super) fn config_map_update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    frozen(old, new, &["data", "binaryData"], report);
}

/// Refuses changes of an object that is marked as immutable.
fn frozen(old: &Field<'_>, new: &Field<'_>, names: &[&str], report: &mut Report) {
    if !old.child("immutable").is_true() {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if !new.child("immutable").is_true() {
        report.forbidden(&new.child("immutable"), detail);
    }
    for name in names {
        if !old.child(name).equals(&new.child(name)) {
            report.forbidden(&new.child(name), detail);
        }
    }
}

/// Judges a Secret.
pub(super) fn secret(secret: &Field<'_>, report: &mut Report) {
    meta::create(secret, meta::NAMESPACED, report);
    let data = secret.child("data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        report.invalid_all(&value, key, names::config_key(key));
        bytes += decoded_len(value.text());
    }
    if bytes > DATA_MAX {
        report.too_long(&data.path, DATA_MAX);
    }
    let needs: &[&str] = match secret.child("type").text() {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in needs {
        // An empty value is fine here: the key must exist.
        if !data.key(key).is_set() {
            report.required(&data.key(key), "");
        }
    }
    if secret.child("type").text() == "kubernetes.io/basic-auth" {
        let has = |key: &str| data.key(key).is_set();
        if !has("username") && !has("password") {
            report.required(&data.key("username"), "");
            report.required(&data.key("password"), "");
        }
    }
    if secret.child("type").text() == "kubernetes.io/service-account-token" {
        let annotations = secret.at(&["metadata", "annotations"]);
        report.require(&annotations.key("kubernetes.io/service-account.name"));
    }
}

/// Judges the change of a Secret.
pub(super) fn secret_update(old: &Field<'_>, new: &Field<'_>, report: &mut Report) {
    report.immutable(&old.child("type"), &new.child("type"));
    frozen(old, new, &["data"], report);
}

/// Judges a Node.
pub(super) fn node(node: &Field<'_>, report: &mut Report) {
    meta::create(node, meta::GLOBAL, report);
    for taint in node.at(&["spec", "taints"]).items() {
        let (key, effect) = (taint.child("key"), taint.child("effect"));
        report.invalid_all(&key, key.text(), names::qualified(key.text()));
        if report.require(&effect) {
            report.known(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

/// Judges an Event.
pub(super) fn event(event: &Field<'_>, report: &mut Report) {
    meta::create(event, meta::NAMESPACED, report);
    let namespace = event.at(&["involvedObject", "namespace"]);
    let own = event.at(&["metadata", "namespace"]);
    // Events of objects without a namespace are in the default one.
    let wanted = if namespace.is_empty() { "default" } else { namespace.text() };
    if own.text() != wanted && !(namespace.is_empty() && own.text() == "kube-system") {
        report.invalid_text(&namespace, namespace.text(), "does not match event.namespace");
    }
}

//! A Pod in words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{NONE, Page, items, or_none, pairs, plain_text};
use crate::kube::age;
use crate::kube::meta::{is_ending, text, texts};

/// Describes a pod.
pub(super) fn describe(page: &mut Page, pod: &Value) {
    page.field(0, "Name", text(pod, "/metadata/name"));
    page.field(0, "Namespace", text(pod, "/metadata/namespace"));
    optional(page, "Priority", &plain_text(pod, "/spec/priority"));
    optional(page, "Service Account", text(pod, "/spec/serviceAccountName"));
    let node = match text(pod, "/spec/nodeName") {
        "" => NONE.to_owned(),
        node => format!("{node}/{}", text(pod, "/status/hostIP")),
    };
    page.field(0, "Node", &node);
    optional(page, "Start Time", &date(text(pod, "/status/startTime")));
    page.labels("Labels", pod, "/metadata/labels");
    page.annotations(pod);
    status(page, pod);
    page.field(0, "IP", text(pod, "/status/podIP"));
    page.field(0, "IPs", NONE);
    let owners = items(pod, "/metadata/ownerReferences").iter();
    let by = owners.filter(|one| one.get("controller") == Some(&Value::Bool(true)));
    for owner in by {
        let owner = format!("{}/{}", text(owner, "/kind"), text(owner, "/name"));
        page.field(0, "Controlled By", &owner);
    }
    for (title, list, statuses) in [
        ("Init Containers", "/spec/initContainers", "/status/initContainerStatuses"),
        ("Containers", "/spec/containers", "/status/containerStatuses"),
    ] {
        let containers = items(pod, list);
        if containers.is_empty() {
            continue;
        }
        page.line(0, &format!("{title}:"));
        for one in containers {
            let mut statuses = items(pod, statuses).iter();
            let status = statuses.find(|status| text(status, "/name") == text(one, "/name"));
            container(page, one, status);
        }
    }
    let conditions = items(pod, "/status/conditions");
    if !conditions.is_empty() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus");
        for one in conditions {
            page.line(1, &format!("{} \t{} ", text(one, "/type"), text(one, "/status")));
        }
    }
    volumes(page, pod);
    page.field(0, "QoS Class", text(pod, "/status/qosClass"));
    page.labels("Node-Selectors", pod, "/spec/nodeSelector");
    tolerations(page, pod);
}

fn optional(page: &mut Page, title: &str, value: &str) {
    if !value.is_empty() {
        page.field(0, title, value);
    }
}

fn status(page: &mut Page, pod: &Value) {
    if !is_ending(pod) || ["Failed", "Succeeded"].contains(&text(pod, "/status/phase")) {
        page.field(0, "Status", text(pod, "/status/phase"));
    } else {
        page.status(pod);
        let grace = plain_text(pod, "/metadata/deletionGracePeriodSeconds");
        page.field(0, "Termination Grace Period", &format!("{grace}s"));
    }
    optional(page, "Reason", text(pod, "/status/reason"));
    optional(page, "Message", text(pod, "/status/message"));
}

/// A time as mail has it, in UTC; empty for none.
fn date(time: &str) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Ok(parsed) = humantime::parse_rfc3339_weak(time) else { return String::new() };
    let since = parsed.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let exact = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string();
    let part = |from: usize, to: usize| exact.get(from..to).unwrap_or_default().to_owned();
    let days = usize::try_from(since.as_secs() / 86_400).unwrap_or(0);
    let day = DAYS.get(days % 7).copied().unwrap_or_default();
    let month = part(5, 7).parse::<usize>().unwrap_or(1);
    let month = MONTHS.get(month.saturating_sub(1)).copied().unwrap_or_default();
    format!("{day}, {} {month} {} {} +0000", part(8, 10), part(0, 4), part(11, 19))
}

fn container(page: &mut Page, container: &Value, status: Option<&Value>) {
    page.line(1, &format!("{}:", text(container, "/name")));
    if let Some(status) = status {
        page.field(2, "Container ID", text(status, "/containerID"));
    }
    page.field(2, "Image", text(container, "/image"));
    if let Some(status) = status {
        page.field(2, "Image ID", text(status, "/imageID"));
    }
    ports(page, container);
    for (title, list) in [("Command", "/command"), ("Args", "/args")] {
        let words = texts(container, list);
        if !words.is_empty() {
            page.line(2, &format!("{title}:"));
            let words = words.iter().flat_map(|word| word.split('\n'));
            words.for_each(|word| page.line(3, word));
        }
    }
    if let Some(status) = status {
        state(page, "State", status.get("state"));
        if status.pointer("/lastState").and_then(Value::as_object).is_some_and(|s| !s.is_empty()) {
            state(page, "Last State", status.get("lastState"));
        }
        let is_ready = status.get("ready") == Some(&Value::Bool(true));
        page.field(2, "Ready", if is_ready { "True" } else { "False" });
        page.field(2, "Restart Count", &plain_text(status, "/restartCount"));
    }
    for (title, list) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
        let amounts = container.pointer(list).and_then(Value::as_object).into_iter().flatten();
        let rows: Vec<String> = amounts
            .map(|(name, _)| {
                format!("{name}:\t{}", plain_text(container, &format!("{list}/{name}")))
            })
            .collect();
        if !rows.is_empty() {
            page.line(2, &format!("{title}:"));
            rows.iter().for_each(|row| page.line(3, row));
        }
    }
    environment(page, container);
    mounts(page, container);
}

fn ports(page: &mut Page, container: &Value) {
    let ports = items(container, "/ports");
    for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let shown = |port: &Value| {
            let number = plain_text(port, &format!("/{field}"));
            let number = if number.is_empty() { "0".to_owned() } else { number };
            format!("{number}/{}", text(port, "/protocol"))
        };
        let all = ports.iter().map(shown).collect::<Vec<_>>().join(", ");
        let title = if ports.len() > 1 { format!("{title}s") } else { title.to_owned() };
        page.field(2, &title, or_none(&all));
    }
}

fn state(page: &mut Page, title: &str, state: Option<&Value>) {
    let state = state.unwrap_or(&Value::Null);
    if let Some(running) = state.get("running") {
        page.field(2, title, "Running");
        page.field(3, "Started", &date(text(running, "/startedAt")));
    } else if let Some(ended) = state.get("terminated") {
        page.field(2, title, "Terminated");
        for (name, field) in [("Reason", "/reason"), ("Message", "/message")] {
            let value = text(ended, field);
            if !value.is_empty() {
                page.field(3, name, value);
            }
        }
        page.field(3, "Exit Code", &plain_text(ended, "/exitCode"));
        page.field(3, "Started", &date(text(ended, "/startedAt")));
        page.field(3, "Finished", &date(text(ended, "/finishedAt")));
    } else {
        page.field(2, title, "Waiting");
        let reason = text(state, "/waiting/reason");
        if !reason.is_empty() {
            page.field(3, "Reason", reason);
        }
    }
}

fn environment(page: &mut Page, container: &Value) {
    let variables = items(container, "/env");
    if variables.is_empty() {
        return page.field(2, "Environment", NONE);
    }
    page.line(2, "Environment:");
    for one in variables {
        let name = text(one, "/name");
        let from = |pointer: &str| one.pointer(pointer).filter(|from| from.is_object());
        let value = if let Some(field) = from("/valueFrom/fieldRef") {
            format!(" ({}:{})", text(field, "/apiVersion"), text(field, "/fieldPath"))
        } else if let Some(of) = from("/valueFrom/secretKeyRef") {
            format!("<set to the key '{}' in secret '{}'>", text(of, "/key"), text(of, "/name"))
        } else if let Some(of) = from("/valueFrom/configMapKeyRef") {
            format!("<set to the key '{}' of config map '{}'>", text(of, "/key"), text(of, "/name"))
        } else {
            text(one, "/value").replace('\n', "\n\t")
        };
        page.field(3, name, &value);
    }
}

fn mounts(page: &mut Page, container: &Value) {
    let mut mounts: Vec<&Value> = items(container, "/volumeMounts").iter().collect();
    if mounts.is_empty() {
        return page.field(2, "Mounts", NONE);
    }
    mounts.sort_by_key(|mount| text(mount, "/mountPath"));
    page.line(2, "Mounts:");
    for mount in mounts {
        let is_fixed = mount.get("readOnly") == Some(&Value::Bool(true));
        let mut flags = vec![if is_fixed { "ro".to_owned() } else { "rw".to_owned() }];
        let part = text(mount, "/subPath");
        if !part.is_empty() {
            flags.push(format!("path={part:?}"));
        }
        let (path, name) = (text(mount, "/mountPath"), text(mount, "/name"));
        page.line(3, &format!("{path} from {name} ({})", flags.join(",")));
    }
}

fn volumes(page: &mut Page, pod: &Value) {
    let volumes = items(pod, "/spec/volumes");
    if volumes.is_empty() {
        return page.field(0, "Volumes", NONE);
    }
    page.line(0, "Volumes:");
    for volume in volumes {
        page.line(1, &format!("{}:", text(volume, "/name")));
        let fields = volume.as_object().into_iter().flatten();
        let mut sources = fields.filter(|(name, _)| *name != "name");
        if let Some((name, source)) = sources.next() {
            volume_source(page, name, source);
        }
    }
}

fn volume_source(page: &mut Page, name: &str, source: &Value) {
    let value = |field: &str| plain_text(source, &format!("/{field}"));
    let or = |field: &str, other: &str| match value(field) {
        text if text.is_empty() => other.to_owned(),
        text => text,
    };
    let (form, rows) = match name {
        "persistentVolumeClaim" => (
            "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
            vec![("ClaimName", value("claimName")), ("ReadOnly", or("readOnly", "false"))],
        ),
        "hostPath" => (
            "HostPath (bare host directory volume)",
            vec![("Path", value("path")), ("HostPathType", value("type"))],
        ),
        "emptyDir" => (
            "EmptyDir (a temporary directory that shares a pod's lifetime)",
            vec![("Medium", value("medium")), ("SizeLimit", or("sizeLimit", "<unset>"))],
        ),
        "configMap" => (
            "ConfigMap (a volume populated by a ConfigMap)",
            vec![("Name", value("name")), ("Optional", or("optional", "false"))],
        ),
        "secret" => (
            "Secret (a volume populated by a Secret)",
            vec![("SecretName", value("secretName")), ("Optional", or("optional", "false"))],
        ),
        other => return page.field(2, "Type", other),
    };
    page.field(2, "Type", form);
    rows.iter().for_each(|(title, value)| page.field(2, title, value));
}

fn tolerations(page: &mut Page, pod: &Value) {
    let mut all: Vec<String> = items(pod, "/spec/tolerations").iter().map(toleration).collect();
    if all.is_empty() {
        all.push(NONE.to_owned());
    }
    all.sort();
    for (at, one) in all.iter().enumerate() {
        let title = if at == 0 { "Tolerations:" } else { "" };
        page.line(0, &format!("{title}\t{one}"));
    }
}

fn toleration(toleration: &Value) -> String {
    let fields = pairs(toleration, "");
    let value =
        |name: &str| fields.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| *value);
    let mut shown = value("key").to_owned();
    if !value("value").is_empty() {
        shown.push_str(&format!("={}", value("value")));
    }
    if !value("effect").is_empty() {
        shown.push_str(&format!(":{}", value("effect")));
    }
    if value("operator") == "Exists" {
        shown.push_str(if fields.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if let Some(seconds) = toleration.get("tolerationSeconds").and_then(Value::as_u64) {
        shown.push_str(&format!(" for {}", age::shown(seconds)));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_mail() {
        assert_eq!(date("2026-11-30T02:38:14Z"), "Mon, 30 Nov 2026 02:38:14 +0000");
        assert_eq!(date(""), "");
    }
}

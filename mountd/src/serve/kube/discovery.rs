//! Discovery: which groups, kinds and verbs there are, in one document or in one for each group.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::identity::USER;
use crate::kube::kinds::{GROUPS, KINDS, Kind, VERBS};

/// The release of Kubernetes whose API is served.
pub const GIT_VERSION: &str = concat!("v1.36.0+lamina.", env!("CARGO_PKG_VERSION"));
/// What can be done with a status.
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

/// `/version`
pub fn release() -> Value {
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        _ => "linux",
    };
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": platform,
    })
}

/// `/api`
pub fn core(address: SocketAddr) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()},
        ],
    })
}

/// The answer to a client that asks what it may do: everything, or it would have no connection.
/// `asked` is the specification of its question.
pub fn review(asked: &Value) -> Value {
    json!({
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": asked,
        "status": {"allowed": true, "reason": "the client certificate is of this authority"},
    })
}

/// The answer to a client that asks for the list of what it may do.
pub fn rules(asked: &Value) -> Value {
    let all = json!(["*"]);
    json!({
        "kind": "SelfSubjectRulesReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": asked,
        "status": {
            "resourceRules": [{"verbs": all, "apiGroups": all, "resources": all}],
            "nonResourceRules": [{"verbs": all, "nonResourceURLs": all}],
            "incomplete": false,
        },
    })
}

/// The answer to a client that asks who it is: all certificates of this authority are of one user.
pub fn whoami() -> Value {
    let (user, group) = USER;
    json!({
        "kind": "SelfSubjectReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {},
        "status": {
            "userInfo": {"username": user, "groups": [group, "system:authenticated"]},
        },
    })
}

/// A group, without the fields that name its form.
fn group_entry(name: &str) -> Option<Value> {
    let kind = KINDS.iter().find(|kind| kind.group == name && !name.is_empty())?;
    let version = json!({"groupVersion": kind.api_version(), "version": kind.version});
    Some(json!({"name": name, "versions": [version], "preferredVersion": version}))
}

/// `/apis/GROUP`
pub fn group(name: &str) -> Option<Value> {
    let mut group = group_entry(name)?;
    if let Some(map) = group.as_object_mut() {
        map.insert("kind".to_owned(), "APIGroup".into());
        map.insert("apiVersion".to_owned(), "v1".into());
    }
    Some(group)
}

/// `/apis`
pub fn groups() -> Value {
    let groups: Vec<Value> = GROUPS.iter().filter_map(|name| group_entry(name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(kind: &'static Kind) -> Vec<Value> {
    let mut main = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.is_namespaced,
        "kind": kind.kind,
        "verbs": VERBS,
    });
    if let Some(map) = main.as_object_mut() {
        if !kind.short.is_empty() {
            map.insert("shortNames".to_owned(), json!(kind.short));
        }
        if !kind.categories.is_empty() {
            map.insert("categories".to_owned(), json!(kind.categories));
        }
    }
    let status = kind.has_status.then(|| {
        json!({
            "name": format!("{}/status", kind.plural),
            "singularName": "",
            "namespaced": kind.is_namespaced,
            "kind": kind.kind,
            "verbs": STATUS_VERBS,
        })
    });
    [main].into_iter().chain(status).collect()
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub fn version(group: &str, version: &str) -> Option<Value> {
    let kinds = KINDS.iter().filter(|kind| kind.group == group && kind.version == version);
    let resources: Vec<Value> = kinds.clone().flat_map(resources).collect();
    let first = kinds.into_iter().next()?;
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": resources,
    }))
}

fn aggregated_resource(kind: &'static Kind) -> Value {
    let answers = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let status = json!({
        "subresource": "status",
        "responseKind": answers,
        "verbs": STATUS_VERBS,
    });
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": answers,
        "scope": if kind.is_namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": VERBS,
        "shortNames": kind.short,
        "categories": kind.categories,
    });
    if let (true, Some(map)) = (kind.has_status, resource.as_object_mut()) {
        map.insert("subresources".to_owned(), json!([status]));
    }
    resource
}

/// `/api` or `/apis` in one document of a version.
pub fn aggregated(is_core: bool, form: &str) -> Value {
    let names: &[&str] = if is_core { &[""] } else { &GROUPS };
    let items: Vec<Value> = names
        .iter()
        .map(|group| {
            let kinds = KINDS.iter().filter(|kind| kind.group == *group);
            let resources: Vec<Value> = kinds.map(aggregated_resource).collect();
            let mut meta = json!({"creationTimestamp": null});
            if let (false, Some(map)) = (group.is_empty(), meta.as_object_mut()) {
                map.insert("name".to_owned(), (*group).into());
            }
            json!({
                "metadata": meta,
                "versions": [{"version": "v1", "resources": resources, "freshness": "Current"}],
            })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{form}"),
        "metadata": {},
        "items": items,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_list_the_same_kinds() {
        let mut listed = Vec::new();
        for (group, is_core) in [("", true), (GROUPS[0], false), (GROUPS[1], false)] {
            let list = version(group, "v1").unwrap();
            let resources = list["resources"].as_array().unwrap().clone();
            let names = resources.iter().map(|one| one["name"].as_str().unwrap().to_owned());
            let found = aggregated(is_core, "v2");
            let items = found["items"].as_array().unwrap();
            let item = items
                .iter()
                .find(|item| item["metadata"]["name"].as_str().unwrap_or_default() == group);
            let all = item.unwrap()["versions"][0]["resources"].as_array().unwrap();
            let mut expected = Vec::new();
            for one in all {
                let name = one["resource"].as_str().unwrap();
                expected.push(name.to_owned());
                let below = one["subresources"].as_array().into_iter().flatten();
                expected.extend(below.map(|_| format!("{name}/status")));
            }
            let names: Vec<String> = names.collect();
            assert_eq!(names, expected);
            listed.extend(names);
        }
        assert_eq!(listed.iter().filter(|name| !name.contains('/')).count(), KINDS.len());
        assert!(group("storage.k8s.io").is_some() && group("apps").is_none());
    }
}

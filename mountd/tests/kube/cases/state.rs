//! What a case comes to: all objects, without what differs from run to run.

use std::collections::BTreeMap;

use serde_json::Value;

use super::life::Life;

/// The objects by their kinds and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State(BTreeMap<String, Value>);

const LISTS: [&str; 7] = [
    "/api/v1/persistentvolumes",
    "/api/v1/persistentvolumeclaims",
    "/api/v1/pods",
    "/api/v1/nodes",
    "/api/v1/namespaces",
    "/apis/storage.k8s.io/v1/storageclasses",
    "/apis/storage.k8s.io/v1/volumeattributesclasses",
];

/// Times, versions and ids.
const VARIABLE: [&str; 8] = [
    "creationTimestamp",
    "deletionTimestamp",
    "lastHeartbeatTime",
    "lastPhaseTransitionTime",
    "lastProbeTime",
    "lastTransitionTime",
    "managedFields",
    "resourceVersion",
];

fn clean(value: &mut Value, names: &[(String, String)]) {
    match value {
        Value::Object(fields) => {
            VARIABLE.iter().for_each(|name| drop(fields.remove(*name)));
            fields.values_mut().for_each(|value| clean(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| clean(value, names)),
        Value::String(text) => {
            for (uid, name) in names {
                *text = text.replace(uid, name);
            }
            // Of an object that is gone by now.
            if is_uid(text) {
                "some-id".clone_into(text);
            }
            if let Some(("pvc", uid)) = text.split_once('-')
                && is_uid(uid)
            {
                "pvc-some-id".clone_into(text);
            }
        }
        _ => {}
    }
}

fn is_uid(text: &str) -> bool {
    let lens: Vec<usize> = text.split('-').map(str::len).collect();
    lens == [8, 4, 4, 4, 12] && text.chars().all(|one| one == '-' || one.is_ascii_hexdigit())
}

impl State {
    pub fn read(life: &mut Life<'_>) -> Self {
        let mut all = Vec::new();
        for path in LISTS {
            let list = life.get(path).json();
            for item in list["items"].as_array().unwrap() {
                all.push((path.rsplit('/').next().unwrap(), item.clone()));
            }
        }
        let field = |item: &Value, name: &str| {
            item["metadata"][name].as_str().unwrap_or_default().to_owned()
        };
        let dir = (life.dir().to_str().unwrap().to_owned(), "$DIR".to_owned());
        let ids = all.iter().filter(|(kind, _)| *kind != "persistentvolumes");
        let ids = ids.map(|(_, item)| (field(item, "uid"), format!("<{}>", field(item, "name"))));
        let names: Vec<(String, String)> = ids.chain([dir]).collect();
        let entries = all.into_iter().map(|(kind, mut item)| {
            clean(&mut item, &names);
            (format!("{kind} {} {}", field(&item, "namespace"), field(&item, "name")), item)
        });
        Self(entries.collect())
    }

    /// How another state differs.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let keys = self.0.keys().chain(other.0.keys());
        let differs = |key: &&String| self.0.get(*key) != other.0.get(*key);
        let key = keys.into_iter().find(differs)?;
        let text = |state: &Self| state.0.get(key).map_or("none".to_owned(), Value::to_string);
        Some(format!("{key}\n  calm   {}\n  killed {}", text(self), text(other)))
    }
}

//! What a look at an object says.
//!
//! | word | means |
//! | --- | --- |
//! | `there`, `gone` | the object exists, or not |
//! | `KEY=VALUE` | a field by its short name (`FIELDS`), or by its JSON pointer; `-` is none |
//! | `modes=RWO,ROX` | the access modes of a claim's status |
//! | `claim=NAME` | the claim in a volume's claimRef; `-` is none |
//! | `uid=yes` | that it has an id; `chosen=yes`: that the controller chose the other side |
//! | `made=no` | whether a provisioner made the volume |
//! | `complete=yes` | whether the binding of a claim is marked as complete |
//! | `deleting=yes` | whether it has a deletion timestamp; `held=yes`: whether a finalizer |
//! | `why=REASON` | the reason of a pod's condition PodScheduled |

use serde_json::{Value, json};

use super::manifest::{MODES, Place};

/// Short names of fields, by kind.
const FIELDS: [(&str, &str, &str); 16] = [
    ("pvc", "phase", "/status/phase"),
    ("pvc", "size", "/status/capacity/storage"),
    ("pvc", "request", "/spec/resources/requests/storage"),
    ("pvc", "volume", "/spec/volumeName"),
    ("pvc", "class", "/spec/storageClassName"),
    ("pvc", "vac", "/status/currentVolumeAttributesClassName"),
    ("pvc", "node", "/metadata/annotations/volume.kubernetes.io~1selected-node"),
    ("pv", "phase", "/status/phase"),
    ("pv", "reason", "/status/reason"),
    ("pv", "size", "/spec/capacity/storage"),
    ("pv", "class", "/spec/storageClassName"),
    ("pv", "policy", "/spec/persistentVolumeReclaimPolicy"),
    ("pv", "vac", "/spec/volumeAttributesClassName"),
    ("pod", "phase", "/status/phase"),
    ("pod", "node", "/spec/nodeName"),
    ("ns", "phase", "/status/phase"),
];

fn pointed(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(all)) if all.is_empty() => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn yes(holds: bool) -> String {
    if holds { "yes" } else { "no" }.to_owned()
}

fn modes(object: &Value) -> String {
    let Some(all) = object["status"]["accessModes"].as_array() else { return "-".to_owned() };
    let short = |mode: &Value| MODES.iter().find(|(_, long)| mode == long).unwrap().0;
    all.iter().map(short).collect::<Vec<_>>().join(",")
}

fn claim(object: &Value) -> String {
    let to = &object["spec"]["claimRef"];
    let Some(name) = to["name"].as_str() else { return "-".to_owned() };
    match to["namespace"].as_str() {
        Some("default") => name.to_owned(),
        namespace => format!("{}/{name}", namespace.unwrap_or_default()),
    }
}

fn has_note(object: &Value, key: &str) -> String {
    yes(object["metadata"]["annotations"].get(key).is_some())
}

fn why(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let placed = conditions.and_then(|all| all.iter().find(|one| one["type"] == "PodScheduled"));
    placed.map_or("-".to_owned(), |one| pointed(one, "/reason"))
}

fn field(kind: &str, object: &Value, key: &str) -> String {
    match key {
        "modes" => modes(object),
        "claim" => claim(object),
        "uid" => yes(!pointed(object, "/spec/claimRef/uid").starts_with('-')),
        "chosen" => has_note(object, "pv.kubernetes.io/bound-by-controller"),
        "made" => has_note(object, "pv.kubernetes.io/provisioned-by"),
        "complete" => has_note(object, "pv.kubernetes.io/bind-completed"),
        "deleting" => yes(object["metadata"].get("deletionTimestamp").is_some()),
        "held" => yes(pointed(object, "/metadata/finalizers") != "-"),
        "why" => why(object),
        pointer if pointer.starts_with('/') => pointed(object, pointer),
        short => {
            let found = FIELDS.iter().find(|(of, name, _)| *of == kind && *name == short);
            let (_, _, pointer) = found.unwrap_or_else(|| panic!("no field {short} of {kind}"));
            pointed(object, pointer)
        }
    }
}

/// Whether a word holds of an object, or how it is instead.
pub fn holds(place: &Place, object: Option<&Value>, word: &str) -> Result<(), String> {
    let is = match object {
        None => "gone".to_owned(),
        Some(_) if matches!(word, "there" | "gone") => "there".to_owned(),
        Some(object) => {
            let (key, _) = word.split_once('=').unwrap_or_else(|| panic!("bad word {word}"));
            format!("{key}={}", field(&place.kind, object, key))
        }
    };
    if is == word { Ok(()) } else { Err(format!("{is}, not {word}")) }
}

/// An empty object, for a kind whose fields are asked for.
#[test]
fn short_names_and_pointers_show_fields() {
    let place = Place::new("pvc", "a");
    let object = json!({"status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"]}});
    for word in ["phase=Bound", "modes=RWO", "volume=-", "/status/phase=Bound", "there"] {
        holds(&place, Some(&object), word).unwrap();
    }
    holds(&place, Some(&object), "gone").unwrap_err();
    holds(&place, None, "there").unwrap_err();
    holds(&place, None, "gone").unwrap();
}

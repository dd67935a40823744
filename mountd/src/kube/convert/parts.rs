//! The parts that several kinds share.

use std::time::UNIX_EPOCH;

use laminafs::claim::object::{AccessMode, LabelSelector, Labels, Meta, NodeSelector};
use laminafs::claim::selector::{NodeTerm, Operator, Requirement};
use laminafs::types::quantity::Quantity;
use serde_json::Value;

use crate::kube::meta::text;
pub(super) use crate::kube::meta::texts;

const MODES: [(AccessMode, &str); 4] = [
    (AccessMode::ReadWriteOnce, "ReadWriteOnce"),
    (AccessMode::ReadOnlyMany, "ReadOnlyMany"),
    (AccessMode::ReadWriteMany, "ReadWriteMany"),
    (AccessMode::ReadWriteOncePod, "ReadWriteOncePod"),
];

/// The name of an access mode.
#[must_use]
pub fn shown_mode(mode: AccessMode) -> &'static str {
    MODES.iter().find(|(one, _)| *one == mode).map_or("", |(_, name)| name)
}

pub(super) fn string(object: &Value, pointer: &str) -> String {
    text(object, pointer).to_owned()
}

pub(super) fn amount(object: &Value, pointer: &str) -> Option<Quantity> {
    match object.pointer(pointer)? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

pub(super) fn labels(object: &Value, pointer: &str) -> Labels {
    let map = object.pointer(pointer).and_then(Value::as_object);
    let pairs = map.into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

pub(super) fn modes(object: &Value, pointer: &str) -> Vec<AccessMode> {
    let names = texts(object, pointer).into_iter();
    names.filter_map(|name| MODES.iter().find(|(_, one)| *one == name).map(|one| one.0)).collect()
}

pub(super) fn meta(object: &Value) -> Meta {
    let created = text(object, "/metadata/creationTimestamp");
    let created = humantime::parse_rfc3339(created).ok();
    let created = created.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let controllers = owners
        .into_iter()
        .flatten()
        .filter(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
    Meta {
        name: string(object, "/metadata/name"),
        namespace: string(object, "/metadata/namespace"),
        uid: string(object, "/metadata/uid"),
        labels: labels(object, "/metadata/labels"),
        annotations: labels(object, "/metadata/annotations"),
        finalizers: texts(object, "/metadata/finalizers"),
        deleting: !text(object, "/metadata/deletionTimestamp").is_empty(),
        created: created.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0),
        controllers: controllers.map(|owner| string(owner, "/uid")).collect(),
    }
}

fn requirements(object: &Value, pointer: &str) -> Vec<Requirement> {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(requirement).collect()
}

fn requirement(object: &Value) -> Option<Requirement> {
    let operator = match text(object, "/operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return None,
    };
    Some(Requirement { key: string(object, "/key"), operator, values: texts(object, "/values") })
}

pub(super) fn selector(object: &Value) -> LabelSelector {
    LabelSelector {
        labels: labels(object, "/matchLabels"),
        expressions: requirements(object, "/matchExpressions"),
    }
}

pub(super) fn node_selector(object: &Value) -> NodeSelector {
    let terms = object.get("nodeSelectorTerms").and_then(Value::as_array);
    let term = |object: &Value| NodeTerm {
        expressions: requirements(object, "/matchExpressions"),
        fields: requirements(object, "/matchFields"),
    };
    NodeSelector { terms: terms.into_iter().flatten().map(term).collect() }
}

/// `allowedTopologies` of a class.
pub(super) fn topologies(class: &Value) -> Option<NodeSelector> {
    let terms = class.get("allowedTopologies")?.as_array().filter(|terms| !terms.is_empty())?;
    let expressions = |term: &Value| {
        let list = term.get("matchLabelExpressions").and_then(Value::as_array);
        let one = |one: &Value| Requirement {
            key: string(one, "/key"),
            operator: Operator::In,
            values: texts(one, "/values"),
        };
        list.into_iter().flatten().map(one).collect()
    };
    let term = |term: &Value| NodeTerm { expressions: expressions(term), fields: Vec::new() };
    Some(NodeSelector { terms: terms.iter().map(term).collect() })
}

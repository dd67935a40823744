//! Server-side apply, and the record of the fields that other requests change.
//!
//! An applied object names the fields that its manager wants, and no others. What the manager
//! applied before and no longer does is removed, unless another manager has it. A value that
//! another manager has may be set to the same value by both; to set it to another one is a
//! conflict, or takes the field over.

use serde_json::{Map, Value, json};

use super::field_set::{FieldSet, field};
use super::managed::{self, Conflict, Entry, Operation};
use super::typed::{self, Difference};
use super::{PatchError, Writer};
use crate::kube::schema::{Type, kind_named};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager whose applies go on where its client-side applies ended.
const KUBECTL: &str = "kubectl";

/// The manager of fields that were there before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields that the server has, and no manager.
const UNMANAGED: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// A kind, and the part of its objects that a request writes.
struct Scope {
    of: Option<Type>,
    /// The field that the request cannot write: `status`, or all but the status.
    hidden: Option<&'static str>,
}

impl Scope {
    fn new(kind: &str, writer: &Writer<'_>) -> Self {
        let has_status = kind_named(kind).is_some_and(|kind| kind.has_status);
        let hidden = match writer.subresource {
            Some("status") => Some("spec"),
            _ => has_status.then_some("status"),
        };
        Self { of: Type::of_kind(kind), hidden }
    }

    fn of(&self) -> Option<&Type> {
        self.of.as_ref()
    }

    /// Leaves the fields that a manager can have.
    fn strip(&self, set: &mut FieldSet) {
        *set = set.difference(&FieldSet::of_fields(&UNMANAGED));
        if let Some(hidden) = self.hidden {
            set.remove_tree(&field(hidden));
        }
    }

    fn difference(&self, old: &Value, new: &Value) -> Difference {
        Difference::between(old, new, self.of()).without(|set| self.strip(set))
    }
}

/// The object after an apply of `config`.
pub(super) fn apply(
    kind: &str,
    current: Option<&Value>,
    config: &Value,
    (writer, force): (Writer<'_>, bool),
) -> Result<Value, PatchError> {
    let scope = Scope::new(kind, &writer);
    let config = checked(config, kind, &scope)?;
    let mut live = current.cloned().unwrap_or_else(|| Map::new().into());
    let before = entries_of(&mut live, current.is_some(), &scope);
    let mut own = Entry::of(&writer, Operation::Apply, &config);
    own.fields = typed::fields_of(&config, scope.of());

    let mut entries = before.clone();
    let last = entries.iter().position(|one| one.is_same_manager(&own));
    let last = last.map(|at| entries.remove(at));
    let merged = typed::merge(live.clone(), &config, scope.of());
    let pruned = match &last {
        Some(last) => prune(&merged, (&entries, &own, last), &scope),
        None => merged,
    };
    // Only now: that the object has a name keeps its metadata from being pruned.
    scope.strip(&mut own.fields);

    let difference = scope.difference(&live, &pruned);
    let changed = difference.modified.union(&difference.added);
    let conflicts = conflicts(&entries, &changed, &allowed(&live, &writer, &scope));
    if !force && !conflicts.is_empty() {
        let message = managed::conflict_message(&conflicts);
        return Err(PatchError::Conflict { message, causes: conflicts });
    }
    for entry in &mut entries {
        entry.fields = entry.fields.difference(&changed).difference(&difference.removed);
    }
    entries.push(own);
    let mut object = pruned;
    refresh_last_applied(&mut object, &config, &writer);
    if let Some(current) = current
        && object == live
        && is_same_record(&before, &entries)
    {
        return Ok(current.clone());
    }
    managed::put(&mut object, &entries);
    Ok(object)
}

/// The applied object without nulls and without what the request cannot write.
fn checked(config: &Value, kind: &str, scope: &Scope) -> Result<Value, PatchError> {
    if !config.is_object() {
        return Err(PatchError::Malformed("an applied object is a map of fields".to_owned()));
    }
    let managed = config.pointer("/metadata/managedFields").unwrap_or(&Value::Null);
    if managed.as_array().map_or(!managed.is_null(), |all| !all.is_empty()) {
        return Err(PatchError::Malformed("metadata.managedFields must be nil".to_owned()));
    }
    let mut config = config.clone();
    strip_nulls(&mut config);
    if let (Some(hidden), Value::Object(fields)) = (scope.hidden, &mut config) {
        fields.remove(hidden);
    }
    if let Some(Value::Object(metadata)) = config.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    match typed::misfit(&config, scope.of(), "") {
        None => Ok(config),
        Some(problem) => {
            let text =
                |path: &str| config.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let name = match text("/metadata/namespace") {
                "" => format!("/{}", text("/metadata/name")),
                namespace => format!("{namespace}/{}", text("/metadata/name")),
            };
            let version = text("/apiVersion");
            let version = if version == "v1" { "/v1" } else { version };
            Err(PatchError::Schema(format!(
                "failed to create typed patch object ({name}; {version}, Kind={kind}): {problem}"
            )))
        }
    }
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// The record of a stored object, taken out of it. An object without one got its fields before
/// anybody applied.
fn entries_of(live: &mut Value, exists: bool, scope: &Scope) -> Vec<Entry> {
    let entries = managed::take(live).unwrap_or_default();
    if !entries.is_empty() || !exists {
        return entries;
    }
    let writer = Writer { manager: BEFORE_FIRST_APPLY, subresource: None, now: "" };
    let mut entry = Entry::of(&writer, Operation::Update, live);
    entry.time = None;
    entry.fields = typed::fields_of(live, scope.of());
    scope.strip(&mut entry.fields);
    vec![entry]
}

/// The merged object without what its manager applied last and no longer does.
///
/// What other managers have stays, with all it is part of; so does what nobody has, unless it was
/// applied.
fn prune(merged: &Value, (others, own, last): (&[Entry], &Entry, &Entry), scope: &Scope) -> Value {
    let of = scope.of();
    let whole = |set: &FieldSet| set.with_declared_fields(of);
    let rest = |set: &FieldSet| typed::remove(merged, set, of).unwrap_or_else(|| json!({}));
    let fields = |value: &Value| whole(&typed::fields_of(value, of));

    let last = whole(&last.fields);
    let owned = others.iter().fold(own.fields.clone(), |all, one| all.union(&one.fields));
    let all = fields(merged);
    let kept = rest(&last);
    let kept = rest(&all.difference(&fields(&kept).union(&whole(&owned))));
    rest(&all.difference(&fields(&kept)).intersection(&last))
}

fn conflicts(entries: &[Entry], changed: &FieldSet, allowed: &FieldSet) -> Vec<Conflict> {
    let of_entry = |entry: &Entry| {
        let fields = entry.fields.intersection(changed).difference(allowed);
        Conflict::all(entry, &fields)
    };
    entries.iter().flat_map(of_entry).collect()
}

/// The fields that kubectl applied on its own side before: its server-side apply takes them over.
fn allowed(live: &Value, writer: &Writer<'_>, scope: &Scope) -> FieldSet {
    let Some(text) = last_applied(live).filter(|_| writer.manager == KUBECTL) else {
        return FieldSet::default();
    };
    let applied: Value = serde_json::from_str(text).unwrap_or_default();
    let mut fields = typed::fields_of(&applied, scope.of());
    fields.insert(&[field("metadata"), field("annotations"), field(LAST_APPLIED)]);
    fields
}

fn last_applied(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()
}

/// Keeps the annotation of client-side applies true, if the object has it.
fn refresh_last_applied(object: &mut Value, config: &Value, writer: &Writer<'_>) {
    if writer.manager != KUBECTL || last_applied(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{config}\n");
    if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") {
        annotations.insert(LAST_APPLIED.to_owned(), text.into());
    }
}

/// Whether two records differ in nothing but times.
fn is_same_record(before: &[Entry], after: &[Entry]) -> bool {
    let count = |all: &[Entry]| all.iter().filter(|one| !one.fields.is_empty()).count();
    count(before) == count(after)
        && after.iter().filter(|one| !one.fields.is_empty()).all(|one| {
            before.iter().any(|old| old.is_same_manager(one) && old.fields == one.fields)
        })
}

/// Records what a create, an update or another patch changed, in the new object.
///
/// `old` is the object as it is stored, `None` for a create. The record that `new` brings along is
/// taken if it can be read, which lets a client change it; an empty one starts anew.
pub fn track_update(kind: &str, old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let scope = Scope::new(kind, writer);
    let mut live = old.cloned().unwrap_or_else(|| Map::new().into());
    let stored = managed::take(&mut live).unwrap_or_default();
    let is_reset = new.pointer("/metadata/managedFields") == Some(&json!([{}]));
    let brought = managed::take(new).filter(|entries| !entries.is_empty());
    let mut entries = match brought {
        _ if is_reset => Vec::new(),
        Some(entries) if writer.subresource.is_none() => entries,
        _ => stored,
    };
    if let Value::Object(live) = &mut live {
        for (name, part) in blank(kind) {
            live.entry(name).or_insert(part);
        }
    }
    let difference = scope.difference(&live, new);
    let changed = difference.modified.union(&difference.added);
    for entry in &mut entries {
        entry.fields = entry.fields.difference(&changed).difference(&difference.removed);
    }
    if !changed.is_empty() {
        let mut own = Entry::of(writer, Operation::Update, new);
        own.fields = changed;
        if let Some(at) = entries.iter().position(|one| one.is_same_manager(&own)) {
            own.fields = own.fields.union(&entries.remove(at).fields);
        }
        entries.push(own);
    }
    entries.retain(|one| !one.fields.is_empty());
    managed::cap(&mut entries);
    managed::put(new, &entries);
}

/// What an object of the kind has before anything is set: the parts that Kubernetes never leaves
/// out, and that are nobody's. A custom resource has none but its metadata.
fn blank(kind: &str) -> Map<String, Value> {
    let is_custom = kind_named(kind).is_some_and(|kind| kind.is_custom());
    let spec = match kind {
        "Pod" => json!({ "containers": null }),
        "PersistentVolumeClaim" => json!({ "resources": {} }),
        "CSINode" => json!({ "drivers": null }),
        _ => json!({}),
    };
    let parts = [
        ("metadata", json!({})),
        ("spec", spec),
        ("status", json!({})),
        ("involvedObject", json!({})),
        ("source", json!({})),
    ];
    let of = Type::of_kind(kind);
    let has = |name: &str| {
        let is_declared = of.is_some_and(|of| of.declared(name).is_some());
        is_declared && (name == "metadata" || !is_custom)
    };
    let parts = parts.into_iter().filter(|(name, _)| has(name));
    parts.map(|(name, part)| (name.to_owned(), part)).collect()
}

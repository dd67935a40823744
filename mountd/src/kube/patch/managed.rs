//! The record of the managers of fields: `metadata.managedFields`.

use serde_json::{Map, Value, json};

use super::Writer;
use super::field_set::FieldSet;

/// The most entries of plain updates: the oldest become one entry then, as in Kubernetes.
const UPDATES: usize = 10;

/// The manager of the entry that the oldest become.
const ANCIENT: &str = "ancient-changes";

/// What a request does to an object, as an entry records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// The fields of one manager.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) operation: Operation,
    pub(super) time: Option<String>,
    pub(super) manager: String,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) fields: FieldSet,
}

impl Entry {
    /// The entry of a writer, without fields yet.
    pub(super) fn of(writer: &Writer<'_>, operation: Operation, object: &Value) -> Self {
        let api_version = object.get("apiVersion").and_then(Value::as_str);
        Self {
            operation,
            time: Some(writer.now.to_owned()),
            manager: writer.manager.to_owned(),
            api_version: api_version.unwrap_or("v1").to_owned(),
            subresource: writer.subresource.unwrap_or_default().to_owned(),
            fields: FieldSet::default(),
        }
    }

    /// Whether two entries are of the same manager. An apply is one whatever its version.
    pub(super) fn is_same_manager(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.manager == other.manager
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn decode(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let operation = match text("operation")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        Some(Self {
            operation,
            time: text("time").map(str::to_owned),
            manager: text("manager").unwrap_or_default().to_owned(),
            api_version: text("apiVersion").unwrap_or("v1").to_owned(),
            subresource: text("subresource").unwrap_or_default().to_owned(),
            fields: FieldSet::decode(entry.get("fieldsV1").unwrap_or(&Value::Null)),
        })
    }

    fn encode(&self) -> Value {
        let operation = if self.operation == Operation::Apply { "Apply" } else { "Update" };
        let mut entry = json!({
            "manager": self.manager,
            "operation": operation,
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.encode(),
        });
        if let Value::Object(fields) = &mut entry {
            if let Some(time) = &self.time {
                fields.insert("time".to_owned(), time.as_str().into());
            }
            if !self.subresource.is_empty() {
                fields.insert("subresource".to_owned(), self.subresource.as_str().into());
            }
        }
        entry
    }
}

/// Takes the record out of an object. `None` if it has none, or one that cannot be read.
pub(super) fn take(object: &mut Value) -> Option<Vec<Entry>> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    match metadata.remove("managedFields")? {
        Value::Array(entries) => entries.iter().map(Entry::decode).collect(),
        _ => None,
    }
}

/// Writes the record into an object, in the order of Kubernetes; none for no entries.
pub(super) fn put(object: &mut Value, entries: &[Entry]) {
    let mut entries: Vec<&Entry> = entries.iter().filter(|one| !one.fields.is_empty()).collect();
    entries.sort_by_key(|one| {
        (one.operation, &one.time, &one.manager, &one.api_version, &one.subresource)
    });
    let Value::Object(fields) = object else { return };
    let metadata = fields.entry("metadata").or_insert_with(|| Map::new().into());
    let Value::Object(metadata) = metadata else { return };
    metadata.remove("managedFields");
    if !entries.is_empty() {
        let all = entries.into_iter().map(Entry::encode).collect();
        metadata.insert("managedFields".to_owned(), Value::Array(all));
    }
}

/// Puts the oldest updates together, so that no more than ten remain.
pub(super) fn cap(entries: &mut Vec<Entry>) {
    let is_update = |one: &&Entry| one.operation == Operation::Update;
    entries.sort_by(|a, b| (a.operation, &a.time).cmp(&(b.operation, &b.time)));
    while entries.iter().filter(is_update).count() > UPDATES {
        let pair =
            entries.iter().enumerate().filter(|(_, one)| is_update(one)).find_map(|(at, old)| {
                let is_same = |one: &Entry| {
                    (&one.api_version, &one.subresource) == (&old.api_version, &old.subresource)
                };
                let later = entries.iter().skip(at + 1).position(is_same)?;
                Some((at, at + later))
            });
        let Some((older, newer)) = pair else { return };
        let old = entries.remove(older);
        // The entry takes the place and the time of the newer one, which has moved up by one.
        let Some(entry) = entries.get_mut(newer) else { return };
        entry.fields = entry.fields.union(&old.fields);
        ANCIENT.clone_into(&mut entry.manager);
    }
}

/// A field that a request sets and another manager has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager: `"NAME"`, with its version if it did not apply the field.
    pub manager: String,
    /// The field, such as `.spec.containers[name="c"].image`.
    pub field: String,
}

impl Conflict {
    /// The conflicts of an entry over these fields.
    pub(super) fn all(entry: &Entry, fields: &FieldSet) -> Vec<Self> {
        let mut manager = format!("{:?}", entry.manager);
        if !entry.subresource.is_empty() {
            manager.push_str(&format!(" with subresource {:?}", entry.subresource));
        }
        if entry.operation == Operation::Update {
            manager.push_str(&format!(" using {}", entry.api_version));
        }
        let one = |field| Self { manager: manager.clone(), field };
        fields.paths().into_iter().map(one).collect()
    }

    /// The message of this cause in `Status`.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

/// The message for all conflicts of a request.
pub(super) fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", one.message(), one.field);
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|one| one.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        let of_manager = conflicts.iter().filter(|one| one.manager == manager);
        lines.extend(of_manager.map(|one| format!("- {}", one.field)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

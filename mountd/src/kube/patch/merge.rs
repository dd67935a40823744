//! JSON merge patch: RFC 7386.

use serde_json::{Map, Value};

/// Merges the patch into the value: null removes a field, and a list replaces a list.
pub(super) fn apply(value: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut fields = match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for (name, patch) in patch {
        if patch.is_null() {
            fields.remove(name);
        } else {
            let old = fields.get_mut(name).map_or(Value::Null, Value::take);
            fields.insert(name.clone(), apply(old, patch));
        }
    }
    fields.into()
}

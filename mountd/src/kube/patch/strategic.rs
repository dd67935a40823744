//! Strategic merge patch: a merge patch whose lists are merged as the kind's schema says.
//!
//! A patch may hold directives besides fields:
//!
//! - `$patch: replace` or `delete` in a map, or in an item of a list, replaces or removes it;
//! - `$retainKeys: [...]` removes the fields of a map that it does not name;
//! - `$deleteFromPrimitiveList/FIELD: [...]` removes values from the list FIELD;
//! - `$setElementOrder/FIELD: [...]` puts the list FIELD in this order.

mod lists;

use serde_json::{Map, Value};

use super::PatchError;
use crate::kube::schema::Type;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const REMOVE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

fn malformed(message: impl Into<String>) -> PatchError {
    PatchError::Malformed(message.into())
}

/// Merges the patch into the fields of an object of this type.
pub(super) fn apply(
    fields: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    of: Option<&Type>,
) -> Result<(), PatchError> {
    match patch.get(DIRECTIVE).map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            *fields = patch.clone();
            fields.remove(DIRECTIVE);
            return Ok(());
        }
        Some(Some("delete")) => {
            fields.clear();
            return Ok(());
        }
        Some(other) => {
            let other = other.unwrap_or("a value that is not a string");
            return Err(malformed(format!("Unknown patch type found: {other}")));
        }
    }
    retain(fields, patch)?;
    for (name, order) in directives(patch, ORDER) {
        lists::in_order((fields, patch), (name, order), of)?;
    }
    for (name, values) in directives(patch, REMOVE_FROM) {
        lists::remove_values(fields, name, values)?;
    }
    for (name, value) in patch.iter().filter(|(name, _)| !is_directive(name)) {
        // The order has taken care of its list.
        if patch.contains_key(&format!("{ORDER}{name}")) && value.is_array() {
            continue;
        }
        merge_field(fields, (name, value), of)?;
    }
    Ok(())
}

fn is_directive(name: &str) -> bool {
    name == DIRECTIVE || name == RETAIN || name.starts_with(REMOVE_FROM) || name.starts_with(ORDER)
}

fn directives<'p>(
    patch: &'p Map<String, Value>,
    prefix: &'p str,
) -> impl Iterator<Item = (&'p str, &'p Value)> {
    patch.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
}

/// Removes the fields that `$retainKeys` does not name.
fn retain(fields: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(keys) = patch.get(RETAIN) else { return Ok(()) };
    let bad = || malformed("invalid patch format of retainKeys");
    let keys: Vec<&str> = keys
        .as_array()
        .ok_or_else(bad)?
        .iter()
        .map(|key| key.as_str().ok_or_else(bad))
        .collect::<Result<_, _>>()?;
    let kept = |name: &str| keys.contains(&name);
    // A field that the patch sets is one to keep.
    if patch.iter().any(|(name, value)| !is_directive(name) && !value.is_null() && !kept(name)) {
        return Err(bad());
    }
    fields.retain(|name, _| kept(name));
    Ok(())
}

/// Merges one field of the patch.
fn merge_field(
    fields: &mut Map<String, Value>,
    (name, value): (&str, &Value),
    of: Option<&Type>,
) -> Result<(), PatchError> {
    if value.is_null() {
        fields.remove(name);
        return Ok(());
    }
    let inner = of.and_then(|of| of.field(name));
    match (fields.get_mut(name), value) {
        (Some(Value::Object(old)), Value::Object(patch)) => {
            if inner.is_some_and(|inner| inner.replaces_map()) {
                *old = patch.clone();
                return Ok(());
            }
            apply(old, patch, inner.as_ref())
        }
        (Some(Value::Array(old)), Value::Array(patch)) => {
            match inner.filter(|inner| inner.merges_list()) {
                Some(inner) => lists::merge(old, patch, &inner),
                None => {
                    *old = patch.clone();
                    Ok(())
                }
            }
        }
        (old, _) => {
            let is_gone = value.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
            match (old, is_gone) {
                (None, true) => {}
                (Some(old), _) => *old = added(value, inner.as_ref())?,
                (None, false) => {
                    fields.insert(name.to_owned(), added(value, inner.as_ref())?);
                }
            }
            Ok(())
        }
    }
}

/// A value that the object does not have, without the directives and nulls of the patch.
fn added(value: &Value, of: Option<&Type>) -> Result<Value, PatchError> {
    Ok(match value {
        Value::Object(patch) => {
            let mut fields = Map::new();
            apply(&mut fields, patch, of)?;
            fields.into()
        }
        Value::Array(patch) => match of.filter(|of| of.merges_list()) {
            Some(of) => {
                let mut items = Vec::new();
                lists::merge(&mut items, patch, of)?;
                items.into()
            }
            None => value.clone(),
        },
        _ => value.clone(),
    })
}

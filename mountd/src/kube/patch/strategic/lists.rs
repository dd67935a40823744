//! Lists of a strategic merge patch: merged by key or by value, and put in order.
//!
//! Items that only the server has keep their order among each other, and stand where they stood in
//! relation to those of the patch, as far as both orders allow.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{DIRECTIVE, ORDER, PatchError, apply, malformed};
use crate::kube::schema::Type;

/// What tells the items of a list apart.
#[derive(Clone, Copy)]
enum Key {
    /// The value itself.
    Value,
    /// This field of it.
    Field(&'static str),
}

impl Key {
    fn of_list(list: &Type) -> Self {
        list.merge_key().map_or(Self::Value, Self::Field)
    }

    /// The key of an item as a text, so that long lists are searched by it.
    fn of(&self, item: &Value) -> Option<String> {
        match self {
            Self::Value => Some(item.to_string()),
            Self::Field(name) => item.get(name).map(Value::to_string),
        }
    }

    /// The position of each key in a list: of the first item that has it.
    fn positions(&self, items: &[Value]) -> BTreeMap<String, usize> {
        let keys = items.iter().enumerate().rev();
        keys.filter_map(|(at, item)| Some((self.of(item)?, at))).collect()
    }
}

/// Merges a list of the patch into a list of the object.
pub(super) fn merge(items: &mut Vec<Value>, patch: &[Value], of: &Type) -> Result<(), PatchError> {
    let key = Key::of_list(of);
    let mut patch = patch.to_vec();
    let before = key.positions(items);
    if let Key::Field(name) = key {
        if let Some(rest) = replacement(&patch) {
            *items = rest;
            return Ok(());
        }
        check_keys(&patch, name)?;
        remove_items(items, &mut patch, key)?;
    }
    merge_items(items, &patch, (of, key))?;
    *items = ordered(std::mem::take(items), &key.positions(&patch), (&before, key));
    Ok(())
}

/// The items that replace the whole list, if one of them is `$patch: replace`.
fn replacement(patch: &[Value]) -> Option<Vec<Value>> {
    let replaces = |item: &&Value| directive(item) == Some("replace");
    patch.iter().find(replaces)?;
    Some(patch.iter().filter(|item| !replaces(item)).cloned().collect())
}

fn directive(item: &Value) -> Option<&str> {
    item.get(DIRECTIVE)?.as_str()
}

fn check_keys(patch: &[Value], name: &str) -> Result<(), PatchError> {
    match patch.iter().find(|item| item.get(name).is_none()) {
        None => Ok(()),
        Some(item) => Err(PatchError::Unprocessable(format!(
            "map: {item} does not contain declared merge key: {name}"
        ))),
    }
}

/// Removes the items that the patch deletes, and the deletions from the patch.
fn remove_items(
    items: &mut Vec<Value>,
    patch: &mut Vec<Value>,
    key: Key,
) -> Result<(), PatchError> {
    let mut removed = BTreeSet::new();
    for item in patch.iter() {
        match directive(item) {
            Some("delete") => removed.extend(key.of(item)),
            None | Some("merge") => {}
            Some(other) => return Err(malformed(format!("Unknown patch type found: {other}"))),
        }
    }
    items.retain(|item| key.of(item).is_none_or(|key| !removed.contains(&key)));
    patch.retain(|item| directive(item) != Some("delete"));
    Ok(())
}

fn merge_items(
    items: &mut Vec<Value>,
    patch: &[Value],
    (of, key): (&Type, Key),
) -> Result<(), PatchError> {
    let inner = of.items();
    let mut places = key.positions(items);
    for item in patch {
        let id = key.of(item).unwrap_or_default();
        let found = places.get(&id).and_then(|at| items.get_mut(*at));
        match (found, item) {
            (Some(Value::Object(old)), Value::Object(patch)) => apply(old, patch, inner.as_ref())?,
            (Some(_), _) => {}
            (None, _) => {
                let item = super::added(item, inner.as_ref())?;
                places.insert(id, items.len());
                items.push(item);
            }
        }
    }
    Ok(())
}

/// Puts the items of a list in order: those of `order` as there, the others as they stood before.
fn ordered(
    items: Vec<Value>,
    order: &BTreeMap<String, usize>,
    (before, key): (&BTreeMap<String, usize>, Key),
) -> Vec<Value> {
    // With the place in the new order, if any, and the place before.
    let mut named = Vec::new();
    let mut others = Vec::new();
    for item in items {
        let id = key.of(&item).unwrap_or_default();
        let stood = before.get(&id).copied();
        match order.get(&id) {
            Some(place) => named.push((*place, stood, item)),
            None => others.push((stood, item)),
        }
    }
    named.sort_by_key(|(place, ..)| *place);
    others.sort_by_key(|(stood, _)| *stood);
    let mut all = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    for (place, other) in others {
        // Those of the patch go first as long as they stood before this one, or are new.
        while let Some((.., item)) =
            named.next_if(|(_, stood, _)| stood.is_none() || *stood <= place)
        {
            all.push(item);
        }
        all.push(other);
    }
    all.extend(named.map(|(.., item)| item));
    all
}

/// Carries `$setElementOrder` out: merges the list of the patch, and orders the whole.
pub(super) fn in_order(
    (fields, patch): (&mut Map<String, Value>, &Map<String, Value>),
    (name, order): (&str, &Value),
    of: Option<&Type>,
) -> Result<(), PatchError> {
    let bad = || malformed("invalid patch format of setElementOrder list");
    let order = order.as_array().ok_or_else(bad)?;
    let of = of.and_then(|of| of.field(name)).filter(|of| of.merges_list());
    let of =
        of.ok_or_else(|| malformed(format!("{ORDER}{name}: {name} is not a list to merge")))?;
    let key = Key::of_list(&of);
    if let Key::Field(field) = key {
        check_keys(order, field)?;
    }
    let places = key.positions(order);
    let mut items = match fields.get(name) {
        Some(Value::Array(items)) => items.clone(),
        _ => Vec::new(),
    };
    let before = key.positions(&items);
    if let Some(Value::Array(patch)) = patch.get(name) {
        let is_named = |item: &Value| key.of(item).is_some_and(|key| places.contains_key(&key));
        if patch.iter().any(|item| directive(item).is_none() && !is_named(item)) {
            return Err(malformed(format!(
                "The order in patch list does not match {ORDER}{name} list: {}",
                Value::from(order.clone())
            )));
        }
        merge(&mut items, patch, &of)?;
    }
    if let Some(values) = patch.get(&format!("{}{name}", super::REMOVE_FROM)) {
        remove(&mut items, values)?;
    }
    let items = ordered(items, &places, (&before, key));
    if !items.is_empty() || fields.contains_key(name) || patch.contains_key(name) {
        fields.insert(name.to_owned(), items.into());
    }
    Ok(())
}

/// Carries `$deleteFromPrimitiveList` out.
pub(super) fn remove_values(
    fields: &mut Map<String, Value>,
    name: &str,
    values: &Value,
) -> Result<(), PatchError> {
    match fields.get_mut(name) {
        Some(Value::Array(items)) => remove(items, values),
        _ => Ok(()),
    }
}

fn remove(items: &mut Vec<Value>, values: &Value) -> Result<(), PatchError> {
    let bad = || malformed("invalid patch format of primitive list");
    let values: BTreeSet<String> =
        values.as_array().ok_or_else(bad)?.iter().map(Value::to_string).collect();
    items.retain(|item| !values.contains(&item.to_string()));
    Ok(())
}

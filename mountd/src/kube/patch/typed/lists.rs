//! Lists whose items have managers of their own: sets, and lists of maps with keys.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::kube::schema::{ListType, Type};

/// The step to an item of a list.
pub(in crate::kube::patch) fn element(item: &Value, list: &ListType, of: Option<&Type>) -> String {
    match list {
        ListType::Map(keys) => {
            let keys: Map<String, Value> = keys
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), key_of(item, key, of)?)))
                .collect();
            format!("k:{}", Value::Object(keys))
        }
        ListType::Set | ListType::Atomic => format!("v:{item}"),
    }
}

/// The value of a key field: its default, if the item leaves it out.
fn key_of(item: &Value, key: &str, of: Option<&Type>) -> Option<Value> {
    let own = item.get(key).filter(|value| !value.is_null());
    own.or_else(|| of?.default_of(key)).cloned()
}

/// The items by their steps. Of items with one key, which only a stored object has, the first.
pub(super) fn by_element<'v>(
    items: &'v [Value],
    list: &ListType,
    of: Option<&Type>,
) -> BTreeMap<String, &'v Value> {
    let mut all = BTreeMap::new();
    for item in items {
        all.entry(element(item, list, of)).or_insert(item);
    }
    all
}

/// Why an applied list has no items that can be told apart.
pub(super) fn problem(items: &[Value], list: &ListType, of: Option<&Type>) -> Option<String> {
    if let ListType::Map(keys) = list {
        for (at, item) in items.iter().enumerate() {
            let missing = keys.iter().find(|key| key_of(item, key, of).is_none());
            if let Some(key) = missing {
                return Some(format!(
                    "element {at}: associative list with keys has an element that omits key \
                     field {key:?} (and doesn't have default value)"
                ));
            }
        }
    }
    let mut seen = BTreeSet::new();
    let twice = items.iter().find(|item| !seen.insert(element(item, list, of)))?;
    let mut set = super::FieldSet::default();
    set.insert(&[element(twice, list, of)]);
    Some(format!("duplicate entries for key {}", set.paths().concat()))
}

/// Joins two lists: in the order of the new one, with the other items of the old one where they
/// stood in relation to those that both have.
pub(super) fn merge(
    old: Vec<Value>,
    new: &[Value],
    (list, of): (&ListType, Option<&Type>),
) -> Vec<Value> {
    let step = |item: &Value| element(item, list, of);
    let new_steps: Vec<String> = new.iter().map(step).collect();
    let old: Vec<(String, Value)> = old.into_iter().map(|item| (step(&item), item)).collect();
    let olds: BTreeMap<&String, &Value> =
        old.iter().rev().map(|(step, item)| (step, item)).collect();
    let in_new: BTreeSet<&String> = new_steps.iter().collect();
    // The items of both lists, in the order of the new one. An old item that is not the next of
    // them is passed over: it comes, or came, in its place of the new list.
    let mut shared = new_steps.iter().filter(|step| olds.contains_key(step)).peekable();
    let mut left = old.iter().peekable();
    let mut right = new.iter().zip(&new_steps).peekable();
    let mut merged = Vec::with_capacity(old.len() + new.len());
    loop {
        let is_passed_over = match (left.peek(), right.peek()) {
            (None, None) => return merged,
            (Some((step, item)), _) if !in_new.contains(step) => {
                merged.push(item.clone());
                true
            }
            (Some((step, _)), Some((_, next))) => {
                step != *next && shared.peek().is_some_and(|shared| *shared != step)
            }
            (Some(_), None) => true,
            (None, Some(_)) => false,
        };
        if is_passed_over {
            left.next();
            continue;
        }
        let Some((item, step)) = right.next() else { return merged };
        merged.push(match olds.get(step) {
            Some(old) => super::merge((*old).clone(), item, of),
            None => item.clone(),
        });
        left.next_if(|(old, _)| old == step);
        shared.next_if(|shared| *shared == step);
    }
}

//! Objects seen through the schema of their kind: their fields, their differences, and what of
//! them remains.
//!
//! A part of an object is a leaf if one manager has it as a whole: a scalar, an atomic list or
//! map. Everything else consists of its parts, and is there only as long as they are.

mod lists;

use serde_json::{Map, Value};

use super::field_set::{FieldSet, field};
use crate::kube::schema::{ListType, Type};

pub(super) use lists::element;

/// How the parts of a value are managed.
enum Shape<'v> {
    Leaf,
    Map(&'v Map<String, Value>),
    List(&'v [Value], ListType),
}

fn shape<'v>(value: &'v Value, of: Option<&Type>) -> Shape<'v> {
    match value {
        Value::Object(fields) if !of.is_some_and(Type::is_atomic_map) => Shape::Map(fields),
        Value::Array(items) => match of.map_or(ListType::Atomic, Type::list_type) {
            ListType::Atomic => Shape::Leaf,
            list => Shape::List(items, list),
        },
        _ => Shape::Leaf,
    }
}

fn is_null_or_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The fields that an object sets.
pub(super) fn fields_of(value: &Value, of: Option<&Type>) -> FieldSet {
    let mut set = FieldSet::default();
    collect(value, of, (&mut Vec::new(), &mut set));
    set
}

fn collect(value: &Value, of: Option<&Type>, (path, set): (&mut Vec<String>, &mut FieldSet)) {
    match shape(value, of) {
        Shape::Leaf => set.insert(path),
        Shape::Map(fields) => {
            for (name, value) in fields {
                path.push(field(name));
                collect(value, of.and_then(|of| of.field(name)).as_ref(), (path, set));
                // An empty map has nothing but itself, and the key of a map is there by itself.
                let is_declared = of.and_then(|of| of.declared(name)).is_some();
                if value.is_object() && is_null_or_empty(value) || !is_declared {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Shape::List(items, list) => {
            let inner = of.and_then(Type::items);
            for item in items {
                path.push(element(item, &list, inner.as_ref()));
                collect(item, inner.as_ref(), (path, set));
                set.insert(path);
                path.pop();
            }
        }
    }
}

/// The fields in which two objects differ.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Difference {
    /// From the first object to the second.
    pub(super) fn between(old: &Value, new: &Value, of: Option<&Type>) -> Self {
        let mut difference = Self::default();
        difference.compare((Some(old), Some(new)), of, &mut Vec::new());
        difference
    }

    /// Removes fields from all three sets.
    pub(super) fn without(mut self, remove: impl Fn(&mut FieldSet)) -> Self {
        remove(&mut self.added);
        remove(&mut self.modified);
        remove(&mut self.removed);
        self
    }

    fn compare(
        &mut self,
        (old, new): (Option<&Value>, Option<&Value>),
        of: Option<&Type>,
        path: &mut Vec<String>,
    ) {
        let is_part = |value: Option<&Value>| match value {
            None | Some(Value::Null) => true,
            Some(value) => !matches!(shape(value, of), Shape::Leaf),
        };
        let is_empty = |value: Option<&Value>| value.is_none_or(is_null_or_empty);
        let is_same_kind = match (old, new) {
            (Some(old), Some(new)) => {
                old.is_object() == new.is_object() || old.is_null() || new.is_null()
            }
            _ => true,
        };
        if !is_part(old) || !is_part(new) || !is_same_kind || is_empty(old) && is_empty(new) {
            return self.leaf(old, new, path);
        }
        if [old, new].into_iter().flatten().any(Value::is_object) {
            self.compare_maps((old, new), of, path);
        } else {
            self.compare_lists((old, new), of, path);
        }
        match (old, new) {
            (None, _) => self.added.insert(path),
            (_, None) => self.removed.insert(path),
            _ => {}
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>, path: &[String]) {
        match (old, new) {
            (None, None) => {}
            (None, Some(_)) => self.added.insert(path),
            (Some(_), None) => self.removed.insert(path),
            (Some(old), Some(new)) if old != new => self.modified.insert(path),
            _ => {}
        }
    }

    fn compare_maps(
        &mut self,
        (old, new): (Option<&Value>, Option<&Value>),
        of: Option<&Type>,
        path: &mut Vec<String>,
    ) {
        let old = old.and_then(Value::as_object);
        let new = new.and_then(Value::as_object);
        let only_new = new.into_iter().flatten().map(|(name, _)| name);
        let only_new = only_new.filter(|name| old.is_none_or(|old| !old.contains_key(*name)));
        let names = old.into_iter().flatten().map(|(name, _)| name).chain(only_new);
        for name in names {
            let inner = of.and_then(|of| of.field(name));
            let left = old.and_then(|fields| fields.get(name));
            let right = new.and_then(|fields| fields.get(name));
            path.push(field(name));
            self.compare((left, right), inner.as_ref(), path);
            path.pop();
        }
    }

    fn compare_lists<'a>(
        &mut self,
        (old, new): (Option<&'a Value>, Option<&'a Value>),
        of: Option<&Type>,
        path: &mut Vec<String>,
    ) {
        let list = of.map_or(ListType::Atomic, Type::list_type);
        let inner = of.and_then(Type::items);
        let items = |value: Option<&'a Value>| -> &'a [Value] {
            value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
        };
        let old = lists::by_element(items(old), &list, inner.as_ref());
        let mut new = lists::by_element(items(new), &list, inner.as_ref());
        for (step, left) in old {
            let right = new.remove(&step);
            path.push(step);
            self.compare((Some(left), right), inner.as_ref(), path);
            path.pop();
        }
        for (step, right) in new {
            path.push(step);
            self.compare((None, Some(right)), inner.as_ref(), path);
            path.pop();
        }
    }
}

/// The object with the fields of another one: lists and maps are joined as the schema says.
pub(super) fn merge(old: Value, new: &Value, of: Option<&Type>) -> Value {
    match (old, shape(new, of)) {
        (Value::Object(mut fields), Shape::Map(new)) => {
            for (name, new) in new {
                let inner = of.and_then(|of| of.field(name));
                let value = match fields.get_mut(name).map(Value::take) {
                    Some(old) => merge(old, new, inner.as_ref()),
                    None => new.clone(),
                };
                fields.insert(name.clone(), value);
            }
            fields.into()
        }
        (Value::Array(old), Shape::List(new, list)) => {
            let inner = of.and_then(Type::items);
            lists::merge(old, new, (&list, inner.as_ref())).into()
        }
        _ => new.clone(),
    }
}

/// The object without the fields of the set; `None` if nothing of it remains.
pub(super) fn remove(value: &Value, set: &FieldSet, of: Option<&Type>) -> Option<Value> {
    match shape(value, of) {
        Shape::Leaf => None,
        Shape::Map(fields) => {
            let mut rest = Map::new();
            for (name, value) in fields {
                let step = field(name);
                if set.has(&step) {
                    continue;
                }
                let inner = of.and_then(|of| of.field(name));
                let kept = match set.below(&step) {
                    Some(below) => remove(value, below, inner.as_ref()),
                    None => Some(value.clone()),
                };
                rest.extend(kept.map(|value| (name.clone(), value)));
            }
            // Empty, but there: `emptyDir: {}` is a value. The set has it if nobody wants it.
            Some(rest.into())
        }
        Shape::List(items, list) => {
            let inner = of.and_then(Type::items);
            let kept = |item: &Value| {
                let step = element(item, &list, inner.as_ref());
                match set.below(&step) {
                    _ if set.has(&step) => None,
                    Some(below) => remove(item, below, inner.as_ref()),
                    None => Some(item.clone()),
                }
            };
            let rest: Vec<Value> = items.iter().filter_map(kept).collect();
            (!rest.is_empty()).then(|| rest.into())
        }
    }
}

/// Why an applied object does not fit its kind: an unknown field, or a list with a key twice.
pub(super) fn misfit(value: &Value, of: Option<&Type>, path: &str) -> Option<String> {
    let expected = of.and_then(Type::container).filter(|expected| match *expected {
        "list" => !value.is_array(),
        _ => !value.is_object(),
    });
    if let Some(expected) = expected {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return Some(format!("{path}: expected {expected}, got &{{{value}}}"));
    }
    match shape(value, of) {
        Shape::Leaf => None,
        Shape::Map(fields) => fields.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match of.map(|of| (of, of.field(name))) {
                Some((of, None)) if of.has_fields() => {
                    Some(format!("{path}: field not declared in schema"))
                }
                Some((_, inner)) => misfit(value, inner.as_ref(), &path),
                None => None,
            }
        }),
        Shape::List(items, list) => {
            let inner = of.and_then(Type::items);
            let problem = lists::problem(items, &list, inner.as_ref());
            problem.map(|problem| format!("{path}: {problem}")).or_else(|| {
                items
                    .iter()
                    .enumerate()
                    .find_map(|(at, item)| misfit(item, inner.as_ref(), &format!("{path}[{at}]")))
            })
        }
    }
}

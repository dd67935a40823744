//! A value inside an object, together with the path that errors name.

use serde_json::Value;

/// A place in an object. The value is missing if the field is unset or null.
#[derive(Debug, Clone)]
pub(super) struct Field<'v> {
    /// The path as Kubernetes prints it: `spec.volumes[0].name`, `data[key]`.
    pub(super) path: String,
    value: Option<&'v Value>,
}

impl<'v> Field<'v> {
    /// The object itself.
    pub(super) fn root(value: &'v Value) -> Self {
        Self { path: String::new(), value: Some(value) }
    }

    /// The field of a name.
    pub(super) fn child(&self, name: &str) -> Self {
        let path =
            if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, value: self.below(name) }
    }

    /// The field at a path of names.
    pub(super) fn at(&self, names: &[&str]) -> Self {
        names.iter().fold(self.clone(), |field, name| field.child(name))
    }

    /// The same value under another path: Kubernetes names some fields in its own way.
    pub(super) fn called(&self, path: &str) -> Self {
        Self { path: path.to_owned(), value: self.value }
    }

    /// The entry of a map.
    pub(super) fn key(&self, key: &str) -> Self {
        Self { path: format!("{}[{key}]", self.path), value: self.below(key) }
    }

    fn below(&self, name: &str) -> Option<&'v Value> {
        self.value?.get(name).filter(|value| !value.is_null())
    }

    /// The value, if it is set.
    pub(super) fn value(&self) -> Option<&'v Value> {
        self.value
    }

    /// Whether the field is set.
    pub(super) fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// Whether the field is unset, or an empty text, list or map.
    pub(super) fn is_empty(&self) -> bool {
        match self.value {
            None => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(entries)) => entries.is_empty(),
            Some(_) => false,
        }
    }

    /// The text, empty if there is none.
    pub(super) fn text(&self) -> &'v str {
        self.value.and_then(Value::as_str).unwrap_or_default()
    }

    /// The integer, if there is one.
    pub(super) fn integer(&self) -> Option<i64> {
        self.value?.as_i64()
    }

    /// Whether the field is `true`.
    pub(super) fn is_true(&self) -> bool {
        self.value.and_then(Value::as_bool).unwrap_or_default()
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Vec<Self> {
        let items = self.value.and_then(Value::as_array).into_iter().flatten();
        let at = |(number, value): (usize, &'v Value)| Self {
            path: format!("{}[{number}]", self.path),
            value: Some(value).filter(|value| !value.is_null()),
        };
        items.enumerate().map(at).collect()
    }

    /// The entries of a map, in the order of keys.
    pub(super) fn entries(&self) -> Vec<(&'v str, Self)> {
        let entries = self.value.and_then(Value::as_object).into_iter().flatten();
        let mut all: Vec<_> = entries.map(|(key, _)| (&key[..], self.key(key))).collect();
        all.sort_by_key(|(key, _)| *key);
        all
    }

    /// Whether two fields have the same value. Unset, and an empty list or map, are alike.
    pub(super) fn equals(&self, other: &Self) -> bool {
        (self.is_bare() && other.is_bare()) || self.value == other.value
    }

    fn is_bare(&self) -> bool {
        self.is_empty() && !matches!(self.value, Some(Value::String(_)))
    }
}

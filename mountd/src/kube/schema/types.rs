//! A cursor over the schema: from a kind down to its fields, items and values.

use serde_json::Value;

use super::definitions::Definitions;
use super::kinds::kind_named;

/// The type of a place in an object.
#[derive(Clone, Copy, Debug)]
pub struct Type {
    /// The name of the definition, if the place refers to one.
    pub(super) name: Option<&'static str>,
    /// The schema of the place itself: its words go before those of the definition.
    place: &'static Value,
    /// The schema of the definition, or of the place.
    pub(super) schema: &'static Value,
}

/// How two managers share a list.
#[derive(Debug, PartialEq, Eq)]
pub enum ListType {
    /// One manager has the whole list.
    Atomic,
    /// Each value is an item of its own.
    Set,
    /// Items are told apart by these fields.
    Map(Vec<&'static str>),
}

impl Type {
    /// The type of a kind.
    pub fn of_kind(kind: &str) -> Option<Self> {
        Self::named(&kind_named(kind)?.definition())
    }

    /// The definition of a name such as `io.k8s.api.core.v1.PodSpec`.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (name, schema) = Definitions::all().named(name)?;
        Some(Self { name: Some(name), place: schema, schema })
    }

    fn of_place(place: &'static Value) -> Self {
        match Definitions::all().target(place) {
            Some((name, schema)) => Self { name: Some(name), place, schema },
            None => Self { name: None, place, schema: place },
        }
    }

    /// The type of a declared field, or of each value of a map.
    pub fn field(&self, name: &str) -> Option<Self> {
        self.declared(name).or_else(|| self.values())
    }

    /// The type of a declared field.
    pub fn declared(&self, name: &str) -> Option<Self> {
        Some(Self::of_place(self.schema.get("properties")?.get(name)?))
    }

    /// The type of a map's values.
    pub fn values(&self) -> Option<Self> {
        self.schema.get("additionalProperties").map(Self::of_place)
    }

    /// The type of a list's items.
    pub fn items(&self) -> Option<Self> {
        self.schema.get("items").map(Self::of_place)
    }

    /// The type at a path of fields. Lists take no word of the path.
    #[cfg(test)]
    pub fn at(&self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(*self, |at, name| at.items().unwrap_or(at).field(name))
    }

    /// What holds the values of the type: a `list` or a `map`; nothing for a scalar.
    pub fn container(&self) -> Option<&'static str> {
        match self.word("type") {
            Some("array") => Some("list"),
            Some("object") => Some("map"),
            _ => None,
        }
    }

    /// Whether the fields of the type are declared by name.
    pub fn has_fields(&self) -> bool {
        self.schema.get("properties").is_some()
    }

    /// How managers share the list. A list that does not say is atomic.
    pub fn list_type(&self) -> ListType {
        match self.word("x-kubernetes-list-type") {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(self.keys()),
            _ => ListType::Atomic,
        }
    }

    fn keys(&self) -> Vec<&'static str> {
        let keys = self.extension("x-kubernetes-list-map-keys").and_then(Value::as_array);
        keys.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Whether one manager has the whole map.
    pub fn is_atomic_map(&self) -> bool {
        self.word("x-kubernetes-map-type") == Some("atomic")
    }

    /// The field by which a strategic merge tells the items of the list apart.
    pub fn merge_key(&self) -> Option<&'static str> {
        self.word("x-kubernetes-patch-merge-key")
    }

    /// Whether a strategic merge joins the list with the patch's, rather than replaces it.
    pub fn merges_list(&self) -> bool {
        self.has_strategy("merge")
    }

    /// Whether a strategic merge replaces the map.
    pub fn replaces_map(&self) -> bool {
        self.has_strategy("replace")
    }

    fn has_strategy(&self, strategy: &str) -> bool {
        let all = self.word("x-kubernetes-patch-strategy").unwrap_or_default();
        all.split(',').any(|one| one == strategy)
    }

    /// The default of a field of this type.
    pub fn default_of(&self, field: &str) -> Option<&'static Value> {
        self.declared(field)?.place.get("default")
    }

    /// The fields that an object of the type has.
    pub(super) fn required(&self) -> impl Iterator<Item = &'static str> {
        let names = self.schema.get("required").and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str)
    }

    /// The values that the place may have; none if it is free.
    pub(super) fn allowed(&self) -> impl Iterator<Item = &'static Value> {
        self.extension("enum").and_then(Value::as_array).into_iter().flatten()
    }

    /// The least number of the place.
    pub(super) fn minimum(&self) -> Option<f64> {
        self.extension("minimum")?.as_f64()
    }

    /// A text of the schema, such as `type` or `format`.
    pub(super) fn word(&self, name: &str) -> Option<&'static str> {
        self.extension(name)?.as_str()
    }

    /// Whether the place takes a number in place of its text.
    pub(super) fn is_int_or_string(&self) -> bool {
        self.extension("x-kubernetes-int-or-string").is_some()
    }

    fn extension(&self, name: &str) -> Option<&'static Value> {
        self.place.get(name).or_else(|| self.schema.get(name))
    }
}

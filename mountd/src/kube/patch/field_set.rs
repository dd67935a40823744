//! Sets of fields, as `managedFields` records them.
//!
//! A set is a tree. Each step is a text as `FieldsV1` has it: `f:NAME` for a field, `k:{...}` for
//! an item of a list by its key fields, `v:...` for an item by its value. A node says whether its
//! own path is in the set, apart from those below it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::kube::schema::Type;

/// The name under which a node with paths below it says that its own path is in the set.
const SELF: &str = ".";

/// A set of paths into an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    is_member: bool,
    children: BTreeMap<String, FieldSet>,
}

/// The step to a field.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

impl FieldSet {
    /// The set of a `FieldsV1`; the paths that it cannot read are left out.
    pub(super) fn decode(fields: &Value) -> Self {
        let mut set = Self::default();
        for (step, below) in fields.as_object().into_iter().flatten() {
            if step == SELF {
                set.is_member = true;
                continue;
            }
            let Some(step) = canonical(step) else { continue };
            let mut child = Self::decode(below);
            child.is_member |= child.children.is_empty();
            set.children.insert(step, child);
        }
        set
    }

    /// The set as `FieldsV1`.
    pub(super) fn encode(&self) -> Value {
        let mut fields = Map::new();
        if self.is_member && !self.children.is_empty() {
            fields.insert(SELF.to_owned(), Map::new().into());
        }
        for (step, child) in &self.children {
            fields.insert(step.clone(), child.encode());
        }
        fields.into()
    }

    /// Adds a path.
    pub(super) fn insert(&mut self, path: &[String]) {
        match path.split_first() {
            Some((step, rest)) => self.children.entry(step.clone()).or_default().insert(rest),
            None => self.is_member = true,
        }
    }

    /// The set of these paths of fields.
    pub(super) fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path.iter().map(|name| field(name)).collect::<Vec<_>>());
        }
        set
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_member && self.children.values().all(Self::is_empty)
    }

    /// Whether the step's own path is in the set.
    pub(super) fn has(&self, step: &str) -> bool {
        self.children.get(step).is_some_and(|child| child.is_member)
    }

    /// The paths below a step, if there are any.
    pub(super) fn below(&self, step: &str) -> Option<&Self> {
        self.children.get(step).filter(|child| !child.is_empty())
    }

    /// Removes a step and all below it.
    pub(super) fn remove_tree(&mut self, step: &str) {
        self.children.remove(step);
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.is_member |= other.is_member;
        for (step, child) in &other.children {
            let merged =
                all.children.get(step).map_or_else(|| child.clone(), |own| own.union(child));
            all.children.insert(step.clone(), merged);
        }
        all
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        let none = Self::default();
        self.combine(other, |own, others| own && !others, &none)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let none = Self::default();
        self.combine(other, |own, others| own && others, &none)
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool, none: &Self) -> Self {
        let children = self.children.iter().map(|(step, child)| {
            let others = other.children.get(step).unwrap_or(none);
            (step.clone(), child.combine(others, keep, none))
        });
        Self {
            is_member: keep(self.is_member, other.is_member),
            children: children.filter(|(_, child)| !child.is_empty()).collect(),
        }
    }

    /// The set with each declared field on the way to a path. Keys of maps and items of lists are
    /// left out: they exist only if somebody has them.
    pub(super) fn with_declared_fields(&self, of: Option<&Type>) -> Self {
        let children = self.children.iter().map(|(step, child)| {
            let name = step.strip_prefix("f:");
            let declared = name.and_then(|name| of?.declared(name));
            let inner = match name {
                Some(name) => of.and_then(|of| of.field(name)),
                None => of.and_then(Type::items),
            };
            let mut child = child.with_declared_fields(inner.as_ref());
            child.is_member |= declared.is_some() && !child.is_empty();
            (step.clone(), child)
        });
        Self { is_member: self.is_member, children: children.collect() }
    }

    /// All paths, as a person reads them: `.spec.containers[name="c"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, at: &mut String, paths: &mut Vec<String>) {
        if self.is_member {
            paths.push(at.clone());
        }
        for (step, child) in &self.children {
            let len = at.len();
            at.push_str(&readable(step));
            child.collect(at, paths);
            at.truncate(len);
        }
    }
}

/// The step with its JSON written as we write it, so that equal steps are equal texts.
fn canonical(step: &str) -> Option<String> {
    let (kind, rest) = step.split_at_checked(2)?;
    match kind {
        "f:" | "i:" => Some(step.to_owned()),
        "k:" | "v:" => {
            let value: Value = serde_json::from_str(rest).ok()?;
            Some(format!("{kind}{value}"))
        }
        _ => None,
    }
}

/// The step as part of a path for a person.
fn readable(step: &str) -> String {
    let Some((kind, rest)) = step.split_at_checked(2) else { return step.to_owned() };
    match kind {
        "f:" => format!(".{rest}"),
        "v:" => format!("[={rest}]"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> =
                keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => format!("[{rest}]"),
    }
}

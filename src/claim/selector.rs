//! Label selectors, node selectors, and whether labels and nodes match them.
//!
//! The rules are those of Kubernetes: a selector without requirements matches every object, the
//! terms of a node selector are alternatives, and a term without requirements matches no node.

use std::collections::BTreeMap;

/// Labels, or annotations, by key.
pub type Labels = BTreeMap<String, String>;

/// How a requirement compares the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The key exists and its value is one of the list.
    In,
    /// The key is missing, or its value is none of the list.
    NotIn,
    /// The key exists.
    Exists,
    /// The key is missing.
    DoesNotExist,
    /// The key's value is a larger integer. Only node selectors have this operator.
    Gt,
    /// The key's value is a smaller integer. Only node selectors have this operator.
    Lt,
}

/// One condition on the value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The key of the label, or `metadata.name` among the fields of a node.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// The operands.
    pub values: Vec<String>,
}

impl Requirement {
    /// Whether a value, or its absence, fulfils the requirement.
    #[must_use]
    pub fn accepts(&self, value: Option<&str>) -> bool {
        let listed = || value.is_some_and(|value| self.values.iter().any(|one| one == value));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.integers(value).is_some_and(|(value, limit)| value > limit),
            Operator::Lt => self.integers(value).is_some_and(|(value, limit)| value < limit),
        }
    }

    fn integers(&self, value: Option<&str>) -> Option<(i64, i64)> {
        let [limit] = &self.values[..] else { return None };
        Some((value?.parse().ok()?, limit.parse().ok()?))
    }
}

/// The selector of a claim: all of its conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Labels with exactly these values.
    pub labels: Labels,
    /// Further conditions.
    pub expressions: Vec<Requirement>,
}

impl LabelSelector {
    /// Whether an object with these labels is selected. A selector without conditions selects all.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self
                .expressions
                .iter()
                .all(|one| one.accepts(labels.get(&one.key).map(String::as_str)))
    }
}

/// One alternative of a node selector: all of its conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeTerm {
    /// Conditions on the node's labels.
    pub expressions: Vec<Requirement>,
    /// Conditions on the node's fields. The only field is `metadata.name`.
    pub fields: Vec<Requirement>,
}

/// The nodes that a volume, or a pod, may use: those of any term.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSelector {
    /// The alternatives.
    pub terms: Vec<NodeTerm>,
}

impl NodeSelector {
    /// Whether the node with this name and these labels is selected. Without terms no node is.
    #[must_use]
    pub fn selects(&self, name: &str, labels: &Labels) -> bool {
        self.terms.iter().any(|term| term.selects(name, labels))
    }
}

impl NodeTerm {
    fn selects(&self, name: &str, labels: &Labels) -> bool {
        let is_empty = self.expressions.is_empty() && self.fields.is_empty();
        let field = |one: &Requirement| one.key == "metadata.name" && one.accepts(Some(name));
        !is_empty
            && self.fields.iter().all(field)
            && self
                .expressions
                .iter()
                .all(|one| one.accepts(labels.get(&one.key).map(String::as_str)))
    }
}

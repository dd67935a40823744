//! What verification finds.

/// A part of a layer that is not what was put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What differs.
    pub what: String,
    /// The files that it belongs to.
    pub files: Vec<String>,
}

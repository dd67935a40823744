//! The result of a verification.

/// A part of a layer that differs from what was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// A description of the difference.
    pub what: String,
    /// The paths of the affected files.
    pub files: Vec<String>,
}

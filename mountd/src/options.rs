//! Options of mount(8) and of fuse-overlayfs: parses lists of options into the specification of a
//! mount.

mod flags;
mod parse;
mod split;

pub use flags::Flags;
pub use parse::{Parsed, parse, size};
pub use split::{paths, split, unescape};

/// An error in an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// The option is unknown.
    #[error("unknown option {0:?}")]
    Unknown(String),
    /// The value is invalid.
    #[error("option {option}: {reason}")]
    Value {
        /// The option.
        option: String,
        /// The reason.
        reason: String,
    },
}

impl OptionError {
    /// Returns the error for an invalid value.
    pub fn value(option: &str, reason: impl Into<String>) -> Self {
        Self::Value { option: option.to_owned(), reason: reason.into() }
    }
}

//! Options of mount(8) and of fuse-overlayfs: a list of words becomes a mount that is asked for.

mod flags;
mod parse;
mod split;

pub use flags::Flags;
pub use parse::{Parsed, parse, size};
pub use split::{paths, split, unescape};

/// Why an option is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error("unknown option {0:?}")]
    Unknown(String),
    /// Its value cannot be taken.
    #[error("option {option}: {reason}")]
    Value {
        /// The option.
        option: String,
        /// What is wrong.
        reason: String,
    },
}

impl OptionError {
    /// A value that cannot be taken.
    pub fn value(option: &str, reason: impl Into<String>) -> Self {
        Self::Value { option: option.to_owned(), reason: reason.into() }
    }
}

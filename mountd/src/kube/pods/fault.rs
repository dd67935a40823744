//! Why something of a pod failed, in a sentence for its events and its status.

use std::fmt;

use crate::kube::status::Failure;

/// Why something of a pod failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(String);

impl Fault {
    /// A sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self(failure.message)
    }
}

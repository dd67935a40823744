//! Failures of the library, and the only table that turns them into errno values.

pub mod errno;
mod host;

pub use errno::Errno;
pub use host::{FromHost, HostError};

/// Why an operation on the union failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The backing file system refused an operation.
    #[error("{op}: {errno}")]
    Os {
        /// The system call that failed.
        op: &'static str,
        /// The errno of the system call.
        errno: Errno,
    },
    /// A rule of the union refuses the operation.
    #[error("{0}")]
    Rule(Errno),
    /// A layer holds something that contradicts its format; never shown as absence.
    #[error("corrupt layer: {what}")]
    Corrupt {
        /// The finding, and its place.
        what: String,
    },
}

/// Result of an operation on the union or on its backing.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Makes the error of a refused system call `op`.
    #[must_use]
    pub const fn os(op: &'static str, errno: Errno) -> Self {
        Self::Os { op, errno }
    }

    /// The errno of a system call on the mount that fails with this error.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Os { errno, .. } | Self::Rule(errno) => *errno,
            Self::Corrupt { .. } => Errno::IO,
        }
    }

    /// Whether the failure is exactly `errno`.
    #[must_use]
    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == errno
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Rule(errno)
    }
}

//! Errors of the driver: a code of gRPC and a sentence.

use laminafs::service::publication::PublicationError;
use laminafs::service::{CatalogError, Failure, Refusal, VolumeError};
use tonic::{Code, Status};

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    code: Code,
    message: String,
}

/// The outcome of a call.
pub type Outcome<T> = Result<T, Fault>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $code:ident)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(message: impl Into<String>) -> Self {
            Self { code: Code::$code, message: message.into() }
        })*
    };
}

impl Fault {
    codes! {
        /// A field is missing or wrong.
        invalid InvalidArgument
        /// The object does not exist.
        missing NotFound
        /// The object exists, and differs from the request.
        exists AlreadyExists
        /// The state of the object does not allow it.
        not_now FailedPrecondition
        /// Another call works on it.
        aborted Aborted
        /// A size, or an offset, is out of range.
        range OutOfRange
        /// There is no space, or a limit is reached.
        exhausted ResourceExhausted
        /// The driver does not offer it.
        unimplemented Unimplemented
        /// The host failed.
        internal Internal
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// With other words before the message.
    #[must_use]
    pub fn about(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        Self::new(fault.code, fault.message)
    }
}

fn with_hint(message: String, hint: Option<String>) -> String {
    match hint {
        Some(hint) => format!("{message}: {hint}"),
        None => message,
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            refusal if refusal.is_missing() => Code::NotFound,
            refusal if refusal.is_in_use() => Code::FailedPrecondition,
            Refusal::Catalog(CatalogError::Exists { .. }) => Code::AlreadyExists,
            Refusal::Catalog(CatalogError::Changed { .. }) => Code::Aborted,
            Refusal::Catalog(CatalogError::BadObjectName(_)) => Code::InvalidArgument,
            Refusal::Volume(VolumeError::TooSmall { .. }) => Code::OutOfRange,
            Refusal::Volume(VolumeError::IsDevice { .. } | VolumeError::NotDevice { .. }) => {
                Code::FailedPrecondition
            }
            Refusal::Volume(VolumeError::Unrelated { .. }) => Code::InvalidArgument,
            Refusal::Volume(
                VolumeError::Option { .. }
                | VolumeError::Unsupported { .. }
                | VolumeError::NoDriver { .. }
                | VolumeError::NoPlugin { .. },
            ) => Code::InvalidArgument,
            refusal if refusal.is_full() => Code::ResourceExhausted,
            _ => Code::Internal,
        };
        Self { code, message: with_hint(refusal.to_string(), refusal.hint()) }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let code = match &failure {
            Failure::Busy { .. } | Failure::InUse { .. } => Code::FailedPrecondition,
            Failure::NoVolume { .. } => Code::NotFound,
            _ => Code::Internal,
        };
        Self { code, message: with_hint(failure.to_string(), failure.hint()) }
    }
}

impl From<PublicationError> for Fault {
    fn from(error: PublicationError) -> Self {
        let code = match &error {
            PublicationError::Invalid { .. } | PublicationError::Flag { .. } => {
                Code::InvalidArgument
            }
            PublicationError::NoSource { .. } => Code::NotFound,
            PublicationError::AlreadyPublished { .. } => Code::AlreadyExists,
            PublicationError::NoParent { .. }
            | PublicationError::Other { .. }
            | PublicationError::Foreign { .. }
            | PublicationError::Occupied { .. }
            | PublicationError::Busy { .. } => Code::FailedPrecondition,
            PublicationError::View { .. }
            | PublicationError::Record { .. }
            | PublicationError::Release(_)
            | PublicationError::Host(_) => Code::Internal,
        };
        Self { code, message: error.to_string() }
    }
}

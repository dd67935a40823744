//! A refusal of the host, with the path that it concerns.

use std::io;
use std::path::{Path, PathBuf};

use super::Error;

/// A system call on a path of the host failed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct HostError {
    /// The path.
    pub path: PathBuf,
    /// The error of the operating system.
    pub source: io::Error,
}

/// Makers of errors that hold a [`HostError`], for `map_err`.
pub trait FromHost: From<HostError> + Sized {
    /// Adds the path to an error of the standard library.
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| HostError { path: path.to_owned(), source }.into()
    }

    /// Adds the path to an error of `sys`.
    fn host(path: &Path) -> impl Fn(Error) -> Self + use<Self> {
        let path = path.to_owned();
        move |error| {
            let source = io::Error::from_raw_os_error(error.errno().0);
            HostError { path: path.clone(), source }.into()
        }
    }
}

impl<E: From<HostError>> FromHost for E {}

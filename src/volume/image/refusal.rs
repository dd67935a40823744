//! The errors that the parts of the driver share.

use std::path::Path;

use crate::volume::error::VolumeError;

/// The name of the driver.
pub(super) const DRIVER: &str = "image";

pub(super) fn refused_option(key: &str, value: &str, reason: &str) -> VolumeError {
    let (key, value, reason) = (key.to_owned(), value.to_owned(), reason.to_owned());
    VolumeError::Option { driver: DRIVER, key, value, reason }
}

pub(super) fn unsupported(verb: &'static str, reason: &str) -> VolumeError {
    VolumeError::Unsupported { driver: DRIVER, verb, reason: reason.to_owned() }
}

pub(super) fn busy(path: &Path) -> VolumeError {
    VolumeError::Busy { path: path.to_owned() }
}

//! Volume drivers: what holds the content of a volume, and how large it may grow.
//!
//! A driver works in the directory of one volume. It shows the content at `_data` of it, by a
//! mount where it has a file system of its own. Callers serialise the calls for one volume (the
//! state lock of [`crate::catalog::volumes`]); calls for different volumes run side by side. A
//! driver keeps no state in memory: after a crash the next call reads the host.

pub mod driver;
pub mod error;
pub mod image;
pub mod local;
mod mounted;
mod tree;

pub use driver::{Driver, Limits, Place, Spec, Usage};
pub use error::{Result, VolumeError};
use image::ImageDriver;
use local::LocalDriver;

/// All drivers.
const DRIVERS: [&dyn Driver; 2] = [&LocalDriver, &ImageDriver];

/// The driver of a name.
///
/// # Errors
/// [`VolumeError::NoDriver`].
pub fn driver(name: &str) -> Result<&'static dyn Driver> {
    let found = DRIVERS.into_iter().find(|driver| driver.name() == name);
    found.ok_or_else(|| VolumeError::NoDriver {
        name: name.to_owned(),
        known: DRIVERS.map(|driver| driver.name()).join(", "),
    })
}

//! Volume drivers: what holds the content of a volume, and how large it may grow.
//!
//! A driver works in the directory of one volume. It shows the content at `_data` of it, by a
//! mount where it has a file system of its own. Callers serialise the calls for one volume (the
//! state lock of [`crate::catalog::volumes`]); calls for different volumes run side by side. A
//! driver keeps no state in memory: after a crash the next call reads the host.

use std::ops::Deref;

pub mod driver;
pub mod error;
pub mod image;
pub mod local;
mod mounted;
pub mod plugin;
mod tree;
pub mod union;

pub use driver::{Attached, Driver, Freezing, Limits, OnCopied, Place, Spec, Usage, Wait};
pub use error::{Result, VolumeError};
use image::ImageDriver;
use local::LocalDriver;
use plugin::PluginDriver;
pub(crate) use tree::usage as tree_usage;
use union::UnionDriver;

/// All drivers, but for those of plugins.
const DRIVERS: [&dyn Driver; 3] = [&LocalDriver, &ImageDriver, &UnionDriver];

/// Removes what volumes shared and none of them needs any more, and returns how many rests there
/// were.
///
/// # Errors
/// [`VolumeError`].
pub fn settle(volumes: &std::path::Path) -> Result<usize> {
    DRIVERS.iter().try_fold(0, |sum, driver| Ok(sum + driver.settle(volumes)?))
}

/// A driver that was chosen by its name.
pub enum Chosen {
    /// One of Lamina.
    Own(&'static dyn Driver),
    /// That of a plugin.
    Plugin(PluginDriver),
}

impl Deref for Chosen {
    type Target = dyn Driver;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Own(driver) => *driver,
            Self::Plugin(driver) => driver,
        }
    }
}

/// The driver of a name; `plugin:NAME` is that of a volume plugin of Docker.
///
/// # Errors
/// [`VolumeError::NoDriver`]; [`VolumeError::Option`] for a name that no plugin can have.
pub fn driver(name: &str) -> Result<Chosen> {
    if let Some(plugin) = name.strip_prefix(plugin::PREFIX) {
        return PluginDriver::new(plugin).map(Chosen::Plugin);
    }
    let found = DRIVERS.into_iter().find(|driver| driver.name() == name);
    found.map(Chosen::Own).ok_or_else(|| VolumeError::NoDriver {
        name: name.to_owned(),
        known: DRIVERS.map(|driver| driver.name()).join(", ") + ", plugin:NAME",
    })
}

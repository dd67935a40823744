//! Volumes, as front ends ask for them.

use std::io;
use std::path::Path;

use crate::catalog::containers::Containers;

pub use crate::catalog::volumes::{Volume, VolumeError, Volumes, is_name};

/// Removes a volume with its content.
///
/// # Errors
/// [`VolumeError`]: `InUse` while a mount uses it, `Named` while a container names it, mounted or
/// not.
pub fn remove(root: &Path, name: &str) -> Result<(), VolumeError> {
    let volumes = Volumes::new(root);
    volumes.inspect(name)?;
    if let Some(container) = user_of(root, name)? {
        return Err(VolumeError::Named { name: name.to_owned(), container });
    }
    volumes.remove(name)
}

/// The container that names a volume, if there is one.
fn user_of(root: &Path, name: &str) -> Result<Option<String>, VolumeError> {
    let path = root.join("containers");
    if !path.is_dir() {
        return Ok(None);
    }
    let all = Containers::open(root).and_then(|containers| containers.all());
    let all = all.map_err(|error| VolumeError::Io { path, source: io::Error::other(error) })?;
    let names = |graft: &crate::catalog::containers::Graft| graft.source.volume() == Some(name);
    let user = all.into_iter().find(|container| container.grafts.iter().any(names));
    Ok(user.map(|container| container.name))
}

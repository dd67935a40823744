//! Operations on volumes.

use std::path::Path;

use crate::catalog::containers::Containers;
use crate::catalog::error::{CatalogError, User};
use crate::types::{Graft, VolumeName};

pub use crate::catalog::volumes::{Volume, Volumes};

/// Removes a volume with its content.
///
/// # Errors
/// [`CatalogError::InUse`] while a mount or a container, mounted or not, uses it.
pub fn remove(root: &Path, name: &VolumeName) -> Result<(), CatalogError> {
    let volumes = Volumes::new(root);
    volumes.inspect(name)?;
    if let Some(container) = user_of(root, name)? {
        let (kind, by) = ("volume", User::Container(container));
        return Err(CatalogError::InUse { kind, name: name.to_string(), by });
    }
    volumes.remove(name)
}

/// The container that uses a volume, if there is one.
fn user_of(root: &Path, name: &VolumeName) -> Result<Option<String>, CatalogError> {
    if !root.join("containers").is_dir() {
        return Ok(None);
    }
    let all = Containers::open(root)?.all()?;
    let uses = |graft: &Graft| graft.source.volume() == Some(name);
    let user = all.into_iter().find(|container| container.grafts.iter().any(uses));
    Ok(user.map(|container| container.name.into()))
}

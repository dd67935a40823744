//! The layers of containers: `stack.json` in the directory of a container names those above its
//! image, as the record of a volume of the driver `union` does.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::catalog::containers::{read_limits, require_whole_at};
use crate::catalog::error::CatalogError;
use crate::error::FromHost;
use crate::service::Failure;
use crate::service::failure::{Refusal, ServiceResult};
use crate::service::spec::MountSpec;
use crate::store::files::{open_dir, write_whole};
use crate::sys;
use crate::types::RenameFlags;
use crate::volume::union::stack::{self, Stack};

type Refused<T> = Result<T, Refusal>;

/// In the work directory: the inode number of the upper that its index belongs to.
const OWNER: &str = "owner";

/// The layers of a container; none if no snapshot was ever taken.
pub(in crate::service) fn stack_of(dir: &Path) -> Refused<Stack> {
    Ok(stack::read_any(dir)?)
}

/// Refuses the mount of a container whose layers or limits are others by now, or that is rolled
/// back in part. The upper is locked, so that they stay as they are.
pub(in crate::service) fn require_current(spec: &MountSpec) -> ServiceResult<()> {
    let (Some(id), Some(dirs)) = (&spec.container, &spec.upper) else { return Ok(()) };
    let Some(dir) = dirs.upper.parent() else { return Ok(()) };
    let failed = |error| Failure::Container { name: id.clone(), error: Box::new(error) };
    let layers = stack_of(dir).map_err(failed)?.layers;
    let seen = spec.lowers.iter().take(spec.former).filter_map(|path| path.parent()?.file_name());
    let mut is_current = layers.iter().map(OsStr::new).eq(seen);
    // A view has no mount point: it is that of a rollback, for example.
    if !spec.target.as_os_str().is_empty() {
        require_whole_at(dir, id).map_err(|error| failed(error.into()))?;
        is_current &= read_limits(dir).map_err(|error| failed(error.into()))? == spec.limits;
    }
    if !is_current {
        let (kind, name) = ("container", id.clone());
        return Err(failed(CatalogError::Changed { kind, name }.into()));
    }
    settle_index(dir).map_err(failed)
}

/// Notes which upper the index in the work directory belongs to, before another one may take its
/// place: a crash can leave the index of an upper that is a layer by then.
pub(in crate::service) fn note_index(dir: &Path) -> Refused<()> {
    let upper = open_dir(&dir.join("upper")).map_err(CatalogError::from)?;
    let stat = sys::file::statx(upper.as_fd(), b"").map_err(CatalogError::host(dir))?;
    let path = dir.join("work").join(OWNER);
    Ok(write_whole(&path, stat.ino.to_string().as_bytes()).map_err(CatalogError::from)?)
}

/// Empties an index that belongs to a former upper. All files in it have all of their names.
pub(in crate::service) fn settle_index(dir: &Path) -> Refused<()> {
    let (note, index) = (dir.join("work").join(OWNER), dir.join("work/index"));
    let owner = match std::fs::read_to_string(&note) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(CatalogError::io(&note))?,
    };
    let upper = open_dir(&dir.join("upper")).map_err(CatalogError::from)?;
    let stat = sys::file::statx(upper.as_fd(), b"").map_err(CatalogError::host(dir))?;
    if owner != stat.ino.to_string() && index.is_dir() {
        sys::remove::remove_dir_all(&index).map_err(CatalogError::io(&index))?;
    }
    Ok(std::fs::remove_file(&note).map_err(CatalogError::io(&note))?)
}

/// Exchanges two directories in one step, by their names in open ones.
pub(in crate::service) fn exchange(
    (one, entry): (&OwnedFd, &[u8]),
    (other, other_entry): (&OwnedFd, &[u8]),
    shown: &Path,
) -> Refused<()> {
    let flags = RenameFlags { exchange: true, ..RenameFlags::default() };
    let exchanged = sys::dir::renameat2((one.as_fd(), entry), (other.as_fd(), other_entry), flags);
    Ok(exchanged.map_err(CatalogError::host(shown))?)
}

//! Merging a new layer into an existing layer with the same id.

use std::fs::File;
use std::io;
use std::path::Path;

use super::error::{Result, StoreError};
use super::files::{DATA, discard};
use super::remote;
use crate::error::FromHost;

/// Completes the existing layer with the data or the origin of a new one, and removes the new one.
pub(super) fn merge(dir: &Path, target: &Path) -> Result<()> {
    if remote::is_partial(target) {
        if remote::is_partial(dir) {
            remote::take_origin(dir, target)?;
        } else {
            complete(dir, target)?;
        }
    }
    discard(dir);
    Ok(())
}

// Writes into the file that readers have open: the same bytes at the same offsets.
fn complete(dir: &Path, target: &Path) -> Result<()> {
    let (from, path) = (dir.join(DATA), target.join(DATA));
    let mut from = File::open(&from).map_err(StoreError::io(&from))?;
    let mut to = File::options().write(true).open(&path).map_err(StoreError::io(&path))?;
    io::copy(&mut from, &mut to).and_then(|_| to.sync_all()).map_err(StoreError::io(&path))?;
    remote::end(target)
}

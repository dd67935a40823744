//! Data of files: shares extents where possible, otherwise copies and keeps holes.

use crate::error::{Errno, Result};
use crate::types::Seek;
use crate::union::layer::File;

/// The most that one copy step moves, so that the daemon can be stopped in between.
const COPY_STEP: u64 = 64 << 20;

/// Copies `size` bytes of data, sharing extents where the file system can, keeping holes.
///
/// # Errors
/// As reading and writing; `EIO` for a source shorter than `size`.
pub fn copy_data(source: &dyn File, size: u64, to: &dyn File) -> Result<()> {
    if source.clone_to(to).is_ok() || to.take_clone(source).is_ok() {
        return Ok(());
    }
    copy_extents(source, size, to)
}

/// As [`copy_data`], without sharing extents.
pub(super) fn copy_extents(source: &dyn File, size: u64, to: &dyn File) -> Result<()> {
    to.set_len(size)?;
    let mut position = 0;
    while position < size {
        let start = match source.seek(position, Seek::Data) {
            Ok(start) => start,
            Err(error) if error.is(Errno::NXIO) => break,
            Err(error) if error.is(Errno::INVAL) || error.is(Errno::OPNOTSUPP) => position,
            Err(error) => return Err(error),
        };
        let end = source.seek(start, Seek::Hole).unwrap_or(size).clamp(start, size);
        let mut at = start;
        while at < end {
            let moved = source.copy_range(at, to, at, (end - at).min(COPY_STEP))?;
            if moved == 0 {
                return Err(Errno::IO.into());
            }
            at += moved;
        }
        position = end.max(start + 1);
    }
    Ok(())
}

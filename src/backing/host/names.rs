//! Names that calls on directories take.

use crate::error::{Errno, Result};

/// The name by which a call means the descriptor itself.
pub(super) const ITSELF: &[u8] = b"";

/// Refuses a name that is not one component of a path.
pub(super) fn component(name: &[u8]) -> Result<&[u8]> {
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return Err(Errno::INVAL.into());
    }
    Ok(name)
}

//! `lamina volume tidy`: what a long command becomes when a signal interrupts it.
//!
//! The program is replaced by this command, in the same process: all its threads end at once, and
//! its locks are released. So nothing is being written any more when the rest is removed.

use std::path::Path;
use std::process::ExitCode;

use laminafs::service::images::Images;
use laminafs::service::process::EndSignals;
use laminafs::service::volumes::VolumeService;

use crate::report::{CliError, INTERRUPTED, warn};

/// Removes what this process, and any that ended, left unfinished in a data root.
///
/// # Errors
/// None; what stays is removed by the next command that changes the data root.
pub(super) fn run(root: &Path) -> Result<ExitCode, CliError> {
    // A further signal does not stop it.
    let _held = EndSignals::block();
    if root.is_dir()
        && let Err(error) = tidy(root)
    {
        warn(&format!("the rest of the interrupted command stays: {error}"));
    }
    Ok(ExitCode::from(INTERRUPTED))
}

fn tidy(root: &Path) -> Result<(), CliError> {
    Images::open(root)?.leaving()();
    Ok(VolumeService::open(root)?.tidy()?)
}

//! The trash, as the commands that empty it find its settings: those of `lamina serve`.

use std::path::PathBuf;

use clap::Args;
use laminafs::service::volumes::{TrashPolicy, VolumeService};

use crate::report::{CliError, warn};
use crate::serve::config;

/// Arguments of commands that empty the trash.
#[derive(Debug, Args)]
pub struct TrashArgs {
    /// The file with the settings of the trash [default: /etc/lamina/lamina.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl TrashArgs {
    /// Reads when volumes leave the trash. `None` if the settings are there and cannot be read:
    /// then nothing leaves it, since the default may be less than what they ask for.
    ///
    /// # Errors
    /// [`CliError`] for a file that was named.
    pub(super) fn policy(&self) -> Result<Option<TrashPolicy>, CliError> {
        match config::trash(self.config.as_deref()) {
            Ok(policy) => Ok(Some(policy)),
            Err(error) if self.config.is_none() => {
                warn(&format!("{error}; the trash is not emptied until the file is corrected"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Removes the volumes in the trash whose time is over, and returns how many there were.
///
/// # Errors
/// [`CliError`].
pub(super) fn empty(
    service: &VolumeService,
    policy: Option<TrashPolicy>,
) -> Result<usize, CliError> {
    Ok(policy.map(|policy| service.empty_trash(&policy)).transpose()?.map_or(0, |gone| gone.len()))
}

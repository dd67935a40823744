//! `lamina volume inspect`.

use std::path::Path;

use clap::Args;
use laminafs::service::volumes::{Volume, VolumeService};

use crate::report::{CliError, say_json};

/// Arguments of `lamina volume inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Names of volumes.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: &InspectArgs) -> Result<(), CliError> {
    let service = VolumeService::open(root)?;
    let inspect =
        |name: &String| -> Result<Volume, CliError> { Ok(service.inspect(&name.parse()?)?) };
    let found: Result<Vec<Volume>, CliError> = args.names.iter().map(inspect).collect();
    say_json(&found?)
}

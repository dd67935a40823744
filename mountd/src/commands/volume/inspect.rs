//! `lamina volume inspect`.

use clap::Args;
use laminafs::service::volumes::Volume;

use super::Context;
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
pub(super) fn run(context: &Context, args: &InspectArgs) -> Result<(), CliError> {
    let service = context.service()?;
    let inspect =
        |name: &String| -> Result<Volume, CliError> { Ok(service.inspect(&name.parse()?)?) };
    let found: Result<Vec<Volume>, CliError> = args.names.iter().map(inspect).collect();
    say_json(&found?)
}

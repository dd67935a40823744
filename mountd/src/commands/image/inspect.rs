//! `lamina image inspect`.

use clap::Args;
use laminafs::service::images::ImageDetails;

use super::Context;
use crate::report::{CliError, say_json};

/// Arguments of `lamina image inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// `NAME[:TAG]`, or the first digits of an id.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &InspectArgs) -> Result<(), CliError> {
    let found: Result<Vec<ImageDetails>, _> =
        args.names.iter().map(|name| context.images.inspect(name)).collect();
    say_json(&found?)
}

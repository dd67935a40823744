//! `lamina container inspect`.

use clap::Args;
use laminafs::service::containers::ContainerInfo;

use super::Context;
use crate::report::{CliError, say_json};

/// Arguments of `lamina container inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Names of containers, or the first digits of their ids.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &InspectArgs) -> Result<(), CliError> {
    let runtime = context.runtime.as_deref();
    let found: Result<Vec<ContainerInfo>, _> =
        args.names.iter().map(|name| context.images.container(name, runtime)).collect();
    say_json(&found?)
}

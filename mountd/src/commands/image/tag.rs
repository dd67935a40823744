//! `lamina image tag`.

use clap::Args;

use super::Context;
use crate::commands::resolved;
use crate::report::CliError;

/// Arguments of `lamina image tag`.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// `NAME[:TAG]`, or the first digits of an id.
    source: String,
    /// The further names.
    #[arg(required = true, value_name = "NAME[:TAG]")]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &TagArgs) -> Result<(), CliError> {
    resolved::show(&context.images, &args.source);
    let tag = |name: &String| Ok(context.images.tag(&args.source, name)?);
    args.names.iter().try_for_each(tag)
}

//! `lamina container resize`.

use clap::Args;
use laminafs::types::size;

use super::{Context, LimitArgs};
use crate::report::{CliError, say};

/// Arguments of `lamina container resize`.
#[derive(Debug, Args)]
pub struct ResizeArgs {
    /// Name or id of the container.
    name: String,
    /// The new limits.
    #[command(flatten)]
    limits: LimitArgs,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &ResizeArgs) -> Result<(), CliError> {
    let limits = args.limits.limits()?;
    if limits == Default::default() {
        return Err(CliError::Usage("give a new limit: --size or --inodes".to_owned()));
    }
    let limits = context.images.resize_container(&args.name, limits)?;
    let shown = limits.size_bytes.map_or_else(|| "no limit".to_owned(), size::shown);
    say(&format!("{}: {shown}\n", args.name))
}

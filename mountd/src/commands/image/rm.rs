//! `lamina image rm`.

use clap::Args;

use super::Context;
use crate::report::{CliError, say};

/// Arguments of `lamina image rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Print what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    /// `NAME[:TAG]`, or the first digits of an id.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &RmArgs) -> Result<(), CliError> {
    for name in &args.names {
        match args.dry_run {
            true => say(&format!("would remove {}\n", context.images.removable(name)?))?,
            false => say(&format!("{}\n", context.images.remove(name)?))?,
        }
    }
    Ok(())
}

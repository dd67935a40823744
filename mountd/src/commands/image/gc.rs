//! `lamina image gc`.

use clap::Args;

use super::Context;
use super::prune::layers;
use crate::commands::bar::{Clock, with_late_bar};
use crate::report::{CliError, note};

/// Arguments of `lamina image gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Print the layers that would be removed, and remove nothing. A process may still read some of
    /// them, which stay then.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &GcArgs) -> Result<(), CliError> {
    let clock = Clock::start();
    let removed = match args.dry_run {
        true => context.images.collectable()?,
        false => {
            with_late_bar("removal of layers", |progress| context.images.collect_freed(progress))?
        }
    };
    let ids: Vec<&String> = removed.iter().map(|layer| &layer.id).collect();
    context.show(&ids, |all| all.iter().map(|id| format!("{id}\n")).collect())?;
    if !removed.is_empty() {
        note(&match args.dry_run {
            true => format!("{} would be removed", layers(&removed)),
            false => format!("{} removed in {clock}", layers(&removed)),
        });
    }
    Ok(())
}

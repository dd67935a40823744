//! `lamina pod mount`.

use clap::Args;

use super::{Context, failed};
use crate::kube::pods;
use crate::report::{CliError, say, say_json};

/// Arguments of `lamina pod mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The name of the pod.
    pod: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &MountArgs) -> Result<(), CliError> {
    let (store, volumes) = (context.store()?, context.volumes()?);
    let place = (&store, &volumes, context.runtime_dir.as_deref());
    let shown = pods::mount(place, (&context.namespace, &args.pod)).map_err(failed)?;
    if args.json {
        return say_json(&shown);
    }
    let lines = shown.iter().map(|one| format!("{}  {}\n", one.container, one.root.display()));
    say(&lines.collect::<String>())
}

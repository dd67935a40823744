//! `lamina container diff`.

use clap::Args;
use laminafs::service::diff::of_container;
use laminafs::service::volumes::VolumeService;

use super::Context;
use crate::container::files::OF_HOST;
use crate::report::{CliError, say, say_json};

/// Places of the runtime, which are no changes of the program.
const OF_RUNTIME: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Arguments of `lamina container diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The name of the container, or the first digits of its id.
    name: String,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &DiffArgs) -> Result<(), CliError> {
    let volumes = VolumeService::open(&context.root)?;
    let found = context.images.container(&args.name, None)?;
    let upper = context.images.upper_of(&found.id, context.runtime.as_deref())?;
    let mut changes = of_container((&context.images, &volumes), &upper)?;
    if found.program.is_some() {
        changes.retain(|path, _| !is_of_runtime(path));
    }
    if args.json {
        return say_json(&changes);
    }
    let line = |(path, change)| format!("{change:?} {path}\n");
    say(&changes.iter().map(line).collect::<String>())
}

/// Whether the runtime made an object as the place of a mount.
fn is_of_runtime(path: &str) -> bool {
    let is_below = |top: &&str| {
        path.strip_prefix(*top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    OF_RUNTIME.iter().any(is_below)
        || path.strip_prefix("/etc/").is_some_and(|name| OF_HOST.contains(&name))
}

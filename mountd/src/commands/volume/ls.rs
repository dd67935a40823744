//! `lamina volume ls`.

use std::path::Path;

use laminafs::service::volumes::{Volume, Volumes};

use crate::args::ListArgs;
use crate::report::{CliError, say, say_json};

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: &ListArgs) -> Result<(), CliError> {
    let volumes = Volumes::new(root).list()?;
    if args.json { say_json(&volumes) } else { say(&table(&volumes, args.quiet)) }
}

fn table(volumes: &[Volume], quiet: bool) -> String {
    if quiet {
        return volumes.iter().map(|volume| format!("{}\n", volume.name)).collect();
    }
    let width = volumes.iter().map(|volume| volume.name.as_str().len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:<width$}  {:<20}  MOUNTPOINT\n", "NAME", "CREATED");
    for volume in volumes {
        let (name, created) = (volume.name.as_str(), &volume.created_at);
        let line = format!("{name:<width$}  {created:<20}  {}\n", volume.mountpoint.display());
        text.push_str(&line);
    }
    text
}

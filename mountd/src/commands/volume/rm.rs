//! `lamina volume rm`.

use std::path::Path;

use clap::Args;
use laminafs::service::volumes::{TrashPolicy, VolumeService};

use crate::report::{CliError, say};

/// Arguments of `lamina volume rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Succeed if a volume does not exist, and remove one that a container engine still holds.
    #[arg(short, long)]
    force: bool,
    /// Remove the content at once. Without it, the volume stays in the trash for 7 days, or until
    /// space is short; `lamina volume undelete` brings it back.
    #[arg(long)]
    purge: bool,
    /// Names of volumes.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: &RmArgs) -> Result<(), CliError> {
    let service = VolumeService::open(root)?;
    for text in &args.names {
        let name = text.parse()?;
        let free = if args.force { Ok(()) } else { service.require_unheld(&name) };
        let removed = free.and_then(|()| match args.purge {
            true => service.erase(&name),
            false => service.remove(&name),
        });
        match removed {
            Err(error) if error.is_missing() && args.force => {}
            done => {
                done?;
                say(&format!("{text}\n"))?;
            }
        }
    }
    service.empty_trash(&TrashPolicy::default())?;
    Ok(())
}

//! `lamina volume rm`.

use std::path::Path;

use clap::Args;
use laminafs::service::volumes::VolumeService;

use super::trash::{self, TrashArgs};
use crate::report::{CliError, say};

/// Arguments of `lamina volume rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Succeed if a volume does not exist, and remove one that a container engine still
    /// holds, or a claim of Kubernetes.
    #[arg(short, long)]
    force: bool,
    /// Remove the content at once. Without it, the volume stays in the trash for 7 days (or as
    /// the configuration says), or until space is short; `lamina volume undelete` brings it back.
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    trash: TrashArgs,
    /// Names of volumes.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: &RmArgs) -> Result<(), CliError> {
    let policy = args.trash.policy()?;
    let service = VolumeService::open(root)?;
    for text in &args.names {
        let name = text.parse()?;
        let free = match args.force {
            true => Ok(()),
            false => service.require_unheld(&name).and_then(|()| service.require_unclaimed(&name)),
        };
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
    trash::empty(&service, policy)?;
    Ok(())
}

//! `lamina volume rm`.

use clap::Args;
use laminafs::service::volumes::{Removal, VolumeService};

use super::Context;
use super::trash::{self, TrashArgs};
use crate::report::CliError;

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
    /// Show what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
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
pub(super) fn run(context: &Context, args: &RmArgs) -> Result<(), CliError> {
    let policy = args.trash.policy()?;
    let service = context.service()?;
    context.show_each(&args.names, |text| match remove(&service, args, text) {
        Err(CliError::Refusal(error)) if error.is_missing() && args.force => Ok(false),
        done => done.map(|()| true),
    })?;
    if args.dry_run {
        return Ok(());
    }
    trash::empty(&service, policy)?;
    Ok(())
}

fn remove(service: &VolumeService, args: &RmArgs, text: &str) -> Result<(), CliError> {
    let name = text.parse()?;
    let (takes_held, takes_claimed) = (args.force, args.force);
    let how = Removal { takes_held, takes_claimed, takes_content: args.purge };
    match args.dry_run {
        true => service.require_removable(&name, how)?,
        false => service.remove(&name, how)?,
    }
    Ok(())
}

//! `lamina container stop`.

use clap::Args;
use laminafs::service::containers::ContainerInfo;

use super::Context;
use crate::commands::umount;
use crate::report::{CliError, say};

/// Arguments of `lamina container stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Detach the mount now, and end it when it is no longer used.
    #[arg(short, long)]
    lazy: bool,
    /// Names of containers, or the first digits of their ids.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &StopArgs) -> Result<(), CliError> {
    for name in &args.names {
        unmount(&context.images.container(name, context.runtime.as_deref())?, args.lazy)?;
        say(&format!("{name}\n"))?;
    }
    Ok(())
}

/// Unmounts a container, if it is mounted.
///
/// # Errors
/// [`CliError`].
pub(super) fn unmount(container: &ContainerInfo, lazy: bool) -> Result<(), CliError> {
    match &container.mountpoint {
        Some(target) => umount::unmount(&umount::request(target.clone(), lazy)).map(drop),
        None if container.mounted => Err(CliError::Usage(format!(
            "container {:?} is mounted, but its daemon does not answer: unmount it with umount(8)",
            container.name
        ))),
        None => Ok(()),
    }
}

//! `lamina container rm`.

use std::time::Duration;

use clap::Args;
use laminafs::service::Refusal;

use super::Context;
use super::stop::unmount;
use crate::report::{CliError, say};

/// Arguments of `lamina container rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Stop the containers that are mounted.
    #[arg(short, long)]
    force: bool,
    /// Names of containers, or the first digits of their ids.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &RmArgs) -> Result<(), CliError> {
    for name in &args.names {
        let found = context.images.container(name, context.runtime.as_deref())?;
        if args.force && found.mounted {
            unmount(&found, true)?;
            wait(context, name)?;
        }
        context.images.remove_container(&found.id)?;
        say(&format!("{name}\n"))?;
    }
    Ok(())
}

/// Waits until the daemon of a detached mount has ended, for at most 10 s.
fn wait(context: &Context, name: &str) -> Result<(), Refusal> {
    for _ in 0..1000 {
        if !context.images.container(name, context.runtime.as_deref())?.mounted {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

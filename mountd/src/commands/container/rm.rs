//! `lamina container rm`.

use std::time::Duration;

use clap::Args;
use laminafs::service::Refusal;
use laminafs::service::containers::ContainerInfo;

use super::Context;
use super::stop::{end, is_held, unmount};
use crate::report::{CliError, say};

/// Arguments of `lamina container rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Stop the containers that are mounted, and kill those that run.
    #[arg(short, long)]
    force: bool,
    /// Print what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
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
        let is_running = is_held(context, &found);
        if is_running && !args.force {
            let text = format!(
                "container {name:?} runs: end it with lamina container stop, or remove it with \
                 rm -f"
            );
            return Err(CliError::Container(text));
        }
        if args.dry_run {
            if found.mounted && !args.force {
                let text =
                    format!("container {name:?} is mounted: stop it, or remove it with rm -f");
                return Err(CliError::Container(text));
            }
            say(&format!("would remove {name}\n"))?;
            continue;
        }
        remove(context, &found, is_running, args.force)?;
        say(&format!("{name}\n"))?;
    }
    Ok(())
}

fn remove(
    context: &Context,
    found: &ContainerInfo,
    is_running: bool,
    force: bool,
) -> Result<(), CliError> {
    if is_running {
        end(context, found, Duration::ZERO)?;
    } else if force && found.mounted {
        unmount(found, true)?;
        wait(context, &found.id)?;
    }
    match context.images.remove_container(&found.id) {
        // One that was run with --rm has removed itself.
        Err(error) if is_running && error.is_missing() => Ok(()),
        done => Ok(done?),
    }
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

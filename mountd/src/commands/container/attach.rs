//! `lamina container attach`, `wait` and `kill`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use laminafs::service::containers::ContainerInfo;

use super::Context;
use super::run::follow;
use super::stop::is_held;
use crate::container::attach::{Part, attach};
use crate::container::place::Place;
use crate::report::{CliError, say};

/// Between two looks at a container that is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `lamina container attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Pass on no input.
    #[arg(long)]
    no_stdin: bool,
    /// The name of the container, or the first digits of its id.
    name: String,
}

/// Arguments of `lamina container wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Names of containers, or the first digits of their ids.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Arguments of `lamina container kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// The signal, by its name or number.
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names of containers, or the first digits of their ids.
    #[arg(required = true)]
    names: Vec<String>,
}

/// A container that runs.
fn running(context: &Context, name: &str) -> Result<ContainerInfo, CliError> {
    let found = context.images.container(name, context.runtime.as_deref())?;
    if is_held(context, &found) {
        return Ok(found);
    }
    let text = format!("container {name:?} does not run: start it with lamina container start");
    Err(CliError::Container(text))
}

/// Shows the output of a container that runs until it ends.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &AttachArgs) -> Result<ExitCode, CliError> {
    let found = running(context, &args.name)?;
    let program = found.program.as_ref();
    let terminal = program.is_some_and(|program| program.terminal);
    let input = program.is_some_and(|program| program.stdin) && !args.no_stdin;
    let socket = Place::new(&found, context.runtime.as_deref()).socket();
    let done = attach(&socket, Part { input, terminal });
    let what = format!("the process of container {:?}", args.name);
    follow(&found.name, done.map_err(|error| CliError::Io { what, error })?)
}

/// Waits until containers have ended, and prints their exit codes.
///
/// # Errors
/// [`CliError`].
pub(super) fn wait(context: &Context, args: &WaitArgs) -> Result<(), CliError> {
    for name in &args.names {
        let mut found = context.images.container(name, context.runtime.as_deref())?;
        while is_held(context, &found) {
            std::thread::sleep(LOOK);
            match context.images.container(&found.id, context.runtime.as_deref()) {
                // It went with its program.
                Err(error) if error.is_missing() => break,
                now => found = now?,
            }
        }
        if let Ok(now) = context.images.container(&found.id, context.runtime.as_deref()) {
            found = now;
        }
        match found.run.and_then(|run| run.exit_code) {
            Some(code) => say(&format!("{code}\n"))?,
            None => {
                let text =
                    format!("container {name:?} has no exit code: it did not run to its end");
                return Err(CliError::Container(text));
            }
        }
    }
    Ok(())
}

/// Sends a signal to containers.
///
/// # Errors
/// [`CliError`].
pub(super) fn kill(context: &Context, args: &KillArgs) -> Result<(), CliError> {
    for name in &args.names {
        let found = running(context, name)?;
        let place = Place::new(&found, context.runtime.as_deref());
        let what = format!("a signal to container {name:?}");
        let killed = place.crun().kill(place.id(), args.signal.trim_start_matches("SIG"));
        killed.map_err(|error| CliError::Io { what, error })?;
        say(&format!("{name}\n"))?;
    }
    Ok(())
}

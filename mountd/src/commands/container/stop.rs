//! `lamina container stop`.

use std::time::{Duration, Instant};

use clap::Args;
use laminafs::service::containers::ContainerInfo;

use super::Context;
use crate::commands::umount;
use crate::container::place::Place;
use crate::report::{CliError, say};

/// Between two looks at a container that ends.
const LOOK: Duration = Duration::from_millis(20);
/// Between two signals to one that has not begun yet, or that does not end.
const AGAIN: Duration = Duration::from_millis(200);
/// How long the end of a killed program is waited for.
const KILLED: Duration = Duration::from_secs(60);

/// Arguments of `lamina container stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Detach the mount now, and end it when it is no longer used.
    #[arg(short, long)]
    lazy: bool,
    /// Kill a program that has not ended after this time.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    time: u32,
    /// Names of containers, or the first digits of their ids.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &StopArgs) -> Result<(), CliError> {
    let grace = Duration::from_secs(args.time.into());
    for name in &args.names {
        let found = context.images.container(name, context.runtime.as_deref())?;
        match is_held(context, &found) {
            true => end(context, &found, grace)?,
            false => unmount(&found, args.lazy)?,
        }
        say(&format!("{name}\n"))?;
    }
    Ok(())
}

/// Whether a process holds a container.
pub(super) fn is_held(context: &Context, of: &ContainerInfo) -> bool {
    Place::new(of, context.runtime.as_deref()).is_held()
}

/// Asks the program of a container to end, kills it after a time, and waits until its process has
/// unmounted the container.
///
/// # Errors
/// [`CliError`].
pub(super) fn end(context: &Context, of: &ContainerInfo, grace: Duration) -> Result<(), CliError> {
    let place = Place::new(of, context.runtime.as_deref());
    let crun = place.crun();
    let signal = of.program.as_ref().map(|program| &program.stop_signal[..]).unwrap_or_default();
    let signal = if signal.is_empty() { "TERM" } else { signal };
    let kill_at = Instant::now() + grace;
    let (mut next, mut is_asked) = (Instant::now(), false);
    while place.is_held() {
        let now = Instant::now();
        if now >= kill_at + KILLED {
            let text = format!("container {:?} does not end: see lamina container ls", of.name);
            return Err(CliError::Container(text));
        }
        let kills = now >= kill_at;
        if now >= next && (kills || !is_asked) {
            next = now + AGAIN;
            // A program that has not begun yet cannot be asked.
            is_asked = crun.kill(place.id(), if kills { "KILL" } else { signal }).is_ok();
        }
        std::thread::sleep(LOOK);
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

//! The tree of a container for a command, also of one that is not mounted.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Context;
use crate::commands::container::stop::unmount;
use crate::container::own::mount_container;
use crate::container::place::Place;
use crate::report::CliError;

/// How long another command with the container is waited for.
const WAIT: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Calls a function with the root of a container. One that is not mounted is mounted meanwhile, and
/// held, so that neither its program nor another command begins.
///
/// # Errors
/// [`CliError`]; those of the function.
pub(super) fn with_root<T>(
    context: &Context,
    name: &str,
    act: impl FnOnce(&Path) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let runtime = context.runtime.as_deref();
    let deadline = Instant::now() + WAIT;
    let io = |error| CliError::Io { what: format!("the lock of container {name:?}"), error };
    loop {
        let found = context.images.container(name, runtime)?;
        let place = Place::new(&found, runtime);
        let held = place.try_hold().map_err(io)?;
        let found = context.images.container(&found.id, runtime)?;
        let is_temporary = place.is_temporary();
        match (held, &found.mountpoint) {
            // A mount that outlives this command.
            (Some(_), Some(root)) => return act(root),
            (None, Some(root)) if !is_temporary => return act(root),
            (Some(held), None) if !found.mounted => {
                let marked = place.mark_temporary(&held);
                marked.map_err(io)?;
                let at = place.make_mount_point().map_err(io)?;
                let root = mount_container(&context.root, &found.id, &at)
                    .map_err(|error| CliError::Container(error.to_string()))?;
                let mounted = context.images.container(&found.id, runtime)?;
                let done = act(&root);
                unmount(&mounted, false)?;
                place.end_mount_point().map_err(io)?;
                place.unmark_temporary().map_err(io)?;
                return done;
            }
            _ if Instant::now() >= deadline => {
                let text = format!("container {name:?} is in use by another command");
                return Err(CliError::Container(text));
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}

//! `lamina umount`: unmounts a mount of this program, and waits until the daemon has left its
//! layers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use laminafs::service::UnmountFlags;
use laminafs::service::unmount::{Unmounted, Wish, run as unmount};

use crate::report::{Trouble, warn};
use crate::run;

/// How long an unmount may take, in seconds.
pub const TIMEOUT_SECS: f64 = 30.0;

/// An unmount as the command asks for it, with the time limit of the command.
pub fn wish(target: PathBuf, lazy: bool) -> Wish {
    Wish {
        target,
        how: UnmountFlags { lazy, force: false },
        or_read_only: false,
        timeout: Duration::from_secs_f64(TIMEOUT_SECS),
        runtime: run::runtime_dir(),
    }
}

/// Runs the command.
///
/// # Errors
/// [`Trouble`].
pub fn run(wish: &Wish) -> Result<ExitCode, Trouble> {
    let target = wish.target.display();
    match unmount(wish)? {
        Unmounted::Gone => {}
        Unmounted::ReadOnly => warn(&format!("{target} is in use and is read-only now")),
        Unmounted::Elsewhere { pid, places } => {
            let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let places = places.join(", ");
            warn(&format!(
                "{target} is unmounted; its daemon{pid} goes on, since the file system is also \
                 mounted on {places}"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

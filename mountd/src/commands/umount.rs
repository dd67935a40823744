//! `lamina umount`: unmounts a mount of Lamina, and waits until the daemon has closed its layers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use laminafs::service::UnmountFlags;
use laminafs::service::unmount::{self, UnmountRequest, Unmounted};

use crate::report::{CliError, warn};
use crate::run;

/// The default time limit, in seconds.
const TIMEOUT_SECS: f64 = 30.0;

/// Arguments of `lamina umount`.
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// Detach the mount now, and end it when it is no longer used.
    #[arg(short, long)]
    pub lazy: bool,
    /// Give up after this time.
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT_SECS, value_parser = seconds)]
    pub timeout: f64,
    /// The mount point; symbolic links are followed.
    pub mountpoint: PathBuf,
}

/// Parses a positive number of seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let invalid = || format!("invalid time {text:?}: use a number of seconds, as 30 or 0.5");
    let secs: f64 = text.parse().map_err(|_| invalid())?;
    match Duration::try_from_secs_f64(secs) {
        Ok(_) if secs <= 1e9 => Ok(secs),
        _ => Err(invalid()),
    }
}

/// The unmount request of the command, with its time limit.
pub fn request(target: PathBuf, lazy: bool) -> UnmountRequest {
    UnmountRequest {
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
/// [`CliError`].
pub fn run(args: UmountArgs) -> Result<ExitCode, CliError> {
    let timeout = Duration::from_secs_f64(args.timeout);
    unmount(&UnmountRequest { timeout, ..request(args.mountpoint, args.lazy) })
}

/// Unmounts, and warns if the file system stays in use.
///
/// # Errors
/// [`CliError`].
pub fn unmount(request: &UnmountRequest) -> Result<ExitCode, CliError> {
    let target = request.target.display();
    match unmount::run(request)? {
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

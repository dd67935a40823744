//! `lamina volume serve`, which the driver `union` starts.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use laminafs::service::served;
use laminafs::service::spec::MountSpec;

use crate::report::CliError;
use crate::run;

/// Arguments of `lamina volume serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The directory of the volume.
    directory: PathBuf,
    /// Serve a snapshot, which nobody may write to.
    #[arg(long)]
    read_only: bool,
}

/// Mounts the content of a volume, and returns when it is served.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &ServeArgs) -> Result<ExitCode, CliError> {
    let spec = served::spec(&args.directory, args.read_only)?;
    run::mount(&MountSpec { runtime: run::runtime_dir(), ..spec }, false)
}

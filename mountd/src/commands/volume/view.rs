//! `lamina volume view`, which a publication with a group or a context starts.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use laminafs::service::publication::serving;
use laminafs::service::spec::MountSpec;

use crate::report::CliError;
use crate::run;

/// Arguments of `lamina volume view`.
#[derive(Debug, Args)]
pub struct ViewArgs {
    /// The directory of the view, with its record.
    directory: PathBuf,
}

/// Mounts the view, and returns when it is served. Its lock is held until it ends.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &ViewArgs) -> Result<ExitCode, CliError> {
    let serving = serving(&args.directory)?;
    let spec = MountSpec { runtime: run::runtime_dir(), ..serving.spec };
    let done = run::mount(&spec, false);
    drop(serving.lock);
    done
}

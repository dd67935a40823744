//! `lamina doctor`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use laminafs::service::Failure;
use laminafs::service::doctor::examine;

use crate::report::{CliError, say, say_json};

/// Arguments of `lamina doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// A directory on the file system to examine for upper directories.
    #[arg(default_value = ".")]
    pub directory: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let failed = |error| Failure::Path { what: "directory", path: args.directory.clone(), error };
    let found = examine(&args.directory).map_err(failed)?;
    if args.json {
        say_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let line = |finding: &laminafs::service::doctor::Finding| {
        let mark = if finding.available { "yes" } else { "off" };
        format!("{mark}  {:<16} {}\n", finding.name, finding.detail)
    };
    say(&found.iter().map(line).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

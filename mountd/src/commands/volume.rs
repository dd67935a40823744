//! `lamina volume`: named volumes.

mod create;
mod inspect;
mod ls;
mod rm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::args::ListArgs;
use crate::report::CliError;
use crate::run;

/// Arguments of `lamina volume`.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// The command.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// Commands of `lamina volume`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume; an existing one is left as it is.
    Create(create::CreateArgs),
    /// List the volumes.
    Ls(ListArgs),
    /// Show the records of volumes, as JSON.
    Inspect(inspect::InspectArgs),
    /// Remove volumes and their content.
    Rm(rm::RmArgs),
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: VolumeArgs) -> Result<ExitCode, CliError> {
    let root = match args.command {
        VolumeCommand::Create(_) => run::data_root(args.root),
        _ => run::existing_root(args.root)?,
    };
    let done = match args.command {
        VolumeCommand::Create(args) => create::run(&root, &args),
        VolumeCommand::Ls(args) => ls::run(&root, &args),
        VolumeCommand::Inspect(args) => inspect::run(&root, &args),
        VolumeCommand::Rm(args) => rm::run(&root, &args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

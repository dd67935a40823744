//! `lamina system`: all objects of a data root together.

mod df;
mod prune;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::report::CliError;
use crate::run;

/// Arguments of `lamina system`.
#[derive(Debug, Args)]
pub struct SystemArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// The command.
    #[command(subcommand)]
    command: SystemCommand,
}

/// Commands of `lamina system`.
#[derive(Debug, Subcommand)]
enum SystemCommand {
    /// Show the space of images, containers, volumes, snapshots, trash and cache.
    Df(df::DfArgs),
    /// Remove stopped containers, images that nothing uses, layers that nothing needs, the cache.
    Prune(prune::PruneArgs),
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: SystemArgs) -> Result<ExitCode, CliError> {
    let root = run::existing_root(args.root)?;
    let done = match args.command {
        SystemCommand::Df(args) => df::run(&root, &args),
        SystemCommand::Prune(args) => prune::run(&root, &args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

//! `lamina container`: a writable layer over an image, under a name.

mod create;
mod inspect;
mod ls;
mod rm;
mod start;
mod stop;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use laminafs::service::images::Images;

use crate::args::ListArgs;
use crate::report::CliError;
use crate::run;

/// Arguments of `lamina container`.
#[derive(Debug, Args)]
pub struct ContainerArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// The command.
    #[command(subcommand)]
    pub command: ContainerCommand,
}

/// Commands of `lamina container`.
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// Create a container; what is written to it stays until it is removed.
    Create(create::CreateArgs),
    /// Mount a container, and print the mount point.
    Start(start::StartArgs),
    /// Unmount containers; what was written to them stays.
    Stop(stop::StopArgs),
    /// Remove containers and what was written to them; volumes stay.
    Rm(rm::RmArgs),
    /// List the containers.
    Ls(ListArgs),
    /// Show the records of containers, as JSON.
    Inspect(inspect::InspectArgs),
}

/// The objects that all of the commands use.
struct Context {
    images: Images,
    root: PathBuf,
    runtime: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: ContainerArgs) -> Result<ExitCode, CliError> {
    let root = run::existing_root(args.root)?;
    let context = Context { images: Images::open(&root)?, root, runtime: run::runtime_dir() };
    let done = match args.command {
        ContainerCommand::Create(args) => create::run(&context, args),
        ContainerCommand::Start(args) => return start::run(&context, &args),
        ContainerCommand::Stop(args) => stop::run(&context, &args),
        ContainerCommand::Rm(args) => rm::run(&context, &args),
        ContainerCommand::Ls(args) => ls::run(&context, &args),
        ContainerCommand::Inspect(args) => inspect::run(&context, &args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

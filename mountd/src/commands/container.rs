//! `lamina container`: a writable layer over an image, under a name.

mod create;
mod inspect;
mod ls;
mod resize;
mod rm;
mod snapshot;
mod start;
mod stop;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use laminafs::service::images::Images;
use laminafs::types::Limits;

use crate::args::ListArgs;
use crate::options::size;
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
    /// Change the limits of what is written to a container.
    Resize(resize::ResizeArgs),
    /// Make, list and remove snapshots of a container with its volumes.
    Snapshot(snapshot::SnapshotArgs),
    /// Give a stopped container and its volumes the content of one of its snapshots.
    Rollback(snapshot::RollbackArgs),
    /// Make a container of another one, with clones of its volumes.
    Fork(snapshot::ForkArgs),
    /// Remove containers and what was written to them; volumes stay.
    Rm(rm::RmArgs),
    /// List the containers.
    Ls(ListArgs),
    /// Show the records of containers, as JSON.
    Inspect(inspect::InspectArgs),
}

/// The limits of what is written to a container.
#[derive(Debug, Args)]
struct LimitArgs {
    /// The most data, as 512M or 10G [default: what the file system has].
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// The most inodes [default: one for each 4K of --size].
    #[arg(long, value_name = "COUNT")]
    inodes: Option<u64>,
}

impl LimitArgs {
    fn limits(&self) -> Result<Limits, CliError> {
        let size_bytes = self.size.as_deref().map(|text| size("size", text)).transpose()?;
        Ok(Limits { size_bytes, inodes: self.inodes })
    }
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
        ContainerCommand::Resize(args) => resize::run(&context, &args),
        ContainerCommand::Snapshot(args) => snapshot::run(&context, args),
        ContainerCommand::Rollback(args) => snapshot::rollback(&context, &args),
        ContainerCommand::Fork(args) => snapshot::fork(&context, args),
        ContainerCommand::Rm(args) => rm::run(&context, &args),
        ContainerCommand::Ls(args) => ls::run(&context, &args),
        ContainerCommand::Inspect(args) => inspect::run(&context, &args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

//! `lamina container`: a writable layer over an image, under a name.

mod attach;
mod commit;
mod cp;
mod create;
mod diff;
mod exec;
mod hold;
mod inspect;
mod logs;
mod ls;
mod mounted;
mod resize;
mod rm;
mod run;
mod snapshot;
mod start;
mod stop;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use laminafs::service::images::Images;
use laminafs::types::Limits;

use crate::args::ListArgs;
use crate::container::ended::repair;
use crate::options::size;
use crate::report::CliError;
use crate::run as run_env;

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
    /// Create a container and run a program in it, under crun.
    ///
    /// The exit code is that of the program; 125 if it was not started or the arguments are wrong,
    /// 126 if it cannot be executed, 127 if it is missing, and 128 and the number of the signal
    /// that ended it.
    Run(Box<run::RunArgs>),
    /// Run a further program in a container that runs.
    Exec(exec::ExecArgs),
    /// Print what the program of a container wrote.
    Logs(logs::LogsArgs),
    /// Copy files between a container, which may run, and the host.
    Cp(cp::CpArgs),
    /// Make an image of the changes in a container, which may run.
    Commit(commit::CommitArgs),
    /// List what a container, which may run, adds (A), changes (C), deletes (D).
    Diff(diff::DiffArgs),
    /// Show the output of a container that runs, until it ends.
    Attach(attach::AttachArgs),
    /// Wait until containers have ended, and print their exit codes.
    Wait(attach::WaitArgs),
    /// Send a signal to the programs of containers.
    Kill(attach::KillArgs),
    /// Hold a container while its program runs.
    #[command(hide = true)]
    Hold(hold::HoldArgs),
    /// Create a container; what is written to it stays until it is removed.
    Create(create::CreateArgs),
    /// Mount a container and print the mount point, or run its program again.
    Start(start::StartArgs),
    /// End the programs of containers and unmount them; what was written to them stays.
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

impl ContainerCommand {
    /// Whether another command runs this one, which has seen to what was left.
    const fn is_inner(&self) -> bool {
        match self {
            Self::Hold(_) => true,
            Self::Start(args) => args.mount_only,
            _ => false,
        }
    }
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

/// Whether the words of a command line are those of `container run` or `container exec`, which end
/// with the exit code of a program.
pub fn is_program(words: &[OsString]) -> bool {
    let mut words = words.iter().filter_map(|word| word.to_str());
    if words.next() != Some("container") {
        return false;
    }
    let mut is_value = false;
    let verb = words.find(|word| {
        let is_word = !is_value && !word.starts_with('-');
        is_value = *word == "--root";
        is_word
    });
    matches!(verb, Some("run" | "exec"))
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: ContainerArgs) -> Result<ExitCode, CliError> {
    let is_program = matches!(args.command, ContainerCommand::Run(_) | ContainerCommand::Exec(_));
    let done = run_command(args);
    match done {
        // 1 and 2 may be exit codes of the program.
        Err(error) if is_program && !matches!(error, CliError::Program { .. }) => {
            Err(CliError::Program { code: hold::REFUSED, error: Box::new(error) })
        }
        done => done,
    }
}

fn run_command(args: ContainerArgs) -> Result<ExitCode, CliError> {
    let root = run_env::existing_root(args.root)?;
    let context = Context { images: Images::open(&root)?, root, runtime: run_env::runtime_dir() };
    if !args.command.is_inner() {
        repair(&context.images, context.runtime.as_deref())?;
    }
    let done = match args.command {
        ContainerCommand::Run(args) => return run::run(&context, &args),
        ContainerCommand::Exec(args) => return exec::run(&context, &args),
        ContainerCommand::Hold(args) => return hold::run(&context, args),
        ContainerCommand::Attach(args) => return attach::run(&context, &args),
        ContainerCommand::Wait(args) => attach::wait(&context, &args),
        ContainerCommand::Kill(args) => attach::kill(&context, &args),
        ContainerCommand::Logs(args) => logs::run(&context, &args),
        ContainerCommand::Cp(args) => cp::run(&context, &args),
        ContainerCommand::Commit(args) => commit::run(&context, args),
        ContainerCommand::Diff(args) => diff::run(&context, &args),
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

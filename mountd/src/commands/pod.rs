//! `lamina pod`: the pods of this host, with a daemon or without one.

mod logs;
mod ls;
mod mount;
mod start;
mod stop;
mod supervise;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use laminafs::service::volumes::VolumeService;

use crate::kube::objects::Store;
use crate::kube::pods::Fault;
use crate::report::CliError;
use crate::run;

/// Arguments of `lamina pod`.
#[derive(Debug, Args)]
pub struct PodArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// The namespace of the pod.
    #[arg(short, long, value_name = "NAME", global = true, default_value = "default")]
    namespace: String,
    /// The command.
    #[command(subcommand)]
    command: PodCommand,
}

/// Commands of `lamina pod`.
#[derive(Debug, Subcommand)]
enum PodCommand {
    /// Mount the containers of a pod with its volumes, print their roots, and run nothing.
    Mount(mount::MountArgs),
    /// Run the containers of a pod; one that has ended is run again.
    Start(start::StartArgs),
    /// End the containers of a pod, and unmount it; the object stays.
    Stop(stop::StopArgs),
    /// Print what a container wrote.
    Logs(logs::LogsArgs),
    /// List the pods.
    Ls(ls::LsArgs),
    /// Hold a pod; `start` and the daemon run this.
    #[command(hide = true)]
    Supervise(supervise::SuperviseArgs),
}

/// The objects that all of the commands use.
struct Context {
    root: PathBuf,
    runtime_dir: Option<PathBuf>,
    namespace: String,
}

impl Context {
    fn store(&self) -> Result<Store, CliError> {
        Ok(Store::open(&self.root)?)
    }

    fn volumes(&self) -> Result<VolumeService, CliError> {
        Ok(VolumeService::open(&self.root)?)
    }
}

/// A failure of a pod, as the command line says it.
fn failed(fault: impl Into<Fault>) -> CliError {
    CliError::Pod(fault.into().to_string())
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: PodArgs) -> Result<ExitCode, CliError> {
    let root = run::existing_root(args.root)?;
    let context = Context { root, runtime_dir: run::runtime_dir(), namespace: args.namespace };
    let done = match args.command {
        PodCommand::Mount(args) => mount::run(&context, &args),
        PodCommand::Start(args) => start::run(&context, &args),
        PodCommand::Stop(args) => stop::run(&context, &args),
        PodCommand::Logs(args) => logs::run(&context, &args),
        PodCommand::Ls(args) => ls::run(&context, &args),
        PodCommand::Supervise(args) => return supervise::run(&context, &args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

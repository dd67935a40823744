//! `lamina pod supervise`, which `start` and the daemon run for each pod.

use std::process::ExitCode;

use clap::Args;
use laminafs::service::Failure;
use laminafs::service::background::{self, Role};
use laminafs::service::process::EndSignals;

use super::{Context, failed};
use crate::kube::pods::Runtime;
use crate::kube::pods::supervise::{Setup, Supervisor};
use crate::report::CliError;

/// Arguments of `lamina pod supervise`.
#[derive(Debug, Args)]
pub struct SuperviseArgs {
    /// The program that runs the containers.
    #[arg(long, value_enum, default_value_t)]
    runtime: Runtime,
    /// Run a pod again that has ended.
    #[arg(long)]
    again: bool,
    /// Run nothing, and end what an earlier process left.
    #[arg(long, conflicts_with = "again")]
    stop: bool,
    /// The name of the pod.
    pod: String,
}

/// Takes the pod, goes to the background, and runs the pod until it has ended.
///
/// # Errors
/// [`CliError`] if the pod cannot be taken.
pub(super) fn run(context: &Context, args: &SuperviseArgs) -> Result<ExitCode, CliError> {
    let setup = Setup {
        root: context.root.clone(),
        runtime_dir: context.runtime_dir.clone(),
        runtime: args.runtime,
        namespace: context.namespace.clone(),
        name: args.pod.clone(),
        again: args.again,
        stops: args.stop,
    };
    let ready = match background::split()? {
        Role::Starter(code) => return Ok(ExitCode::from(code)),
        Role::Daemon(ready) => ready,
    };
    let signals = EndSignals::block();
    let signals = signals.map_err(|error| Failure::System { what: "blocking signals", error })?;
    let Some(supervisor) = Supervisor::take(&setup).map_err(failed)? else {
        ready.report()?;
        return Ok(ExitCode::SUCCESS);
    };
    crate::log::detach();
    ready.report()?;
    let end = supervisor.ender();
    let watch = std::thread::Builder::new().name("signals".to_owned());
    let watching = watch.spawn(move || {
        loop {
            signals.wait();
            end();
        }
    });
    watching.map_err(|error| CliError::Io { what: "starting a thread".to_owned(), error })?;
    supervisor.run();
    Ok(ExitCode::SUCCESS)
}

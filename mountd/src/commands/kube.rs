//! The objects of Kubernetes without kubectl: `lamina apply`, `get`, `describe`, `delete`, and
//! `lamina kube`.
//!
//! They open the objects of the data root themselves, with the rules of the daemon. A daemon on the
//! same root sees their changes, and its controller carries out what is due; without one, the
//! command does so before it ends (`host`).

pub mod apply;
pub mod delete;
pub mod describe;
mod export;
mod files;
pub mod get;
mod host;
mod names;
mod print;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::report::{CliError, FAILED};

/// Arguments of `lamina kube`.
#[derive(Debug, Args)]
pub struct KubeArgs {
    #[command(subcommand)]
    command: KubeCommand,
}

#[derive(Debug, Subcommand)]
enum KubeCommand {
    /// Print manifests with which `kubectl apply` makes the volumes of this host known to a
    /// cluster.
    Export(export::ExportArgs),
}

/// Runs `lamina kube`.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &KubeArgs) -> Result<ExitCode, CliError> {
    match &args.command {
        KubeCommand::Export(args) => export::run(args),
    }
}

/// What a command of several objects ends with: those that failed were reported one by one.
#[derive(Debug, Default)]
struct Outcome {
    has_failed: bool,
}

impl Outcome {
    /// Reports a failure, and goes on.
    fn failed(&mut self, text: String) {
        self.failed_with(&CliError::Objects(text));
    }

    /// As [`Outcome::failed`], for an error that has a hint.
    fn failed_with(&mut self, error: &CliError) {
        self.has_failed = true;
        error.report();
    }

    fn code(&self) -> ExitCode {
        if self.has_failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
    }
}

/// Writes a line where results do not go.
fn note(text: &str) {
    use std::io::Write;
    if let Err(error) = writeln!(std::io::stderr(), "{text}") {
        tracing::debug!(%error, "printing a line failed");
    }
}

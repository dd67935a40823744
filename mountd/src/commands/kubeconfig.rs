//! `lamina kubeconfig`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::report::{CliError, say};
use crate::serve::kube::identity::Identity;

/// Arguments of `lamina kubeconfig`.
#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The server that the client connects to [default: where the daemon listens].
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &KubeconfigArgs) -> Result<ExitCode, CliError> {
    let root = crate::run::existing_root(args.root.clone())?;
    say(&Identity::open(&root)?.kubeconfig(args.server.as_deref())?)?;
    Ok(ExitCode::SUCCESS)
}

//! `lamina serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::report::CliError;
use crate::serve::config::{Address, DOCKER, Flags};

/// Arguments of `lamina serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The configuration file [default: /etc/lamina/lamina.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Serve the volume plugin of Docker and podman on a socket
    /// [default: /run/docker/plugins/lamina.sock].
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = DOCKER)]
    pub docker: Option<PathBuf>,
    /// Serve metrics and health on a loopback address or a socket [default: not served].
    #[arg(long, value_name = "ADDR|unix:PATH")]
    pub metrics: Option<Address>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: ServeArgs) -> Result<ExitCode, CliError> {
    // The paths keep their meaning whatever directory the daemon is started from.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let flags = Flags {
        root: args.root.map(absolute),
        config: args.config.map(absolute),
        docker: args.docker.map(absolute),
        metrics: args.metrics,
    };
    crate::serve::run(&flags)
}

//! `lamina serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::csi::Role;
use crate::report::CliError;
use crate::serve::config::{Address, DOCKER, Endpoint, Flags};

/// Where clients of Kubernetes look for its API.
const KUBE: &str = "127.0.0.1:6443";

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
    /// Serve the API of Kubernetes for storage objects over HTTPS; `lamina kubeconfig` prints the
    /// configuration of its clients [default: not served].
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = KUBE)]
    pub kube: Option<SocketAddr>,
    /// Serve the Container Storage Interface on a socket [default: $CSI_ENDPOINT with --csi-role].
    #[arg(long, value_name = "unix://PATH")]
    pub csi: Option<Endpoint>,
    /// What is served there: controller, node or all.
    #[arg(long, value_name = "ROLE")]
    pub csi_role: Option<Role>,
    /// Offer the alpha calls of CSI 1.13 about the health of volumes there, in place of the
    /// conditions of 1.12.
    #[arg(long)]
    pub csi_alpha: bool,
    /// The name of this host's node for Kubernetes and orchestrators [default: the name of the
    /// host].
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
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
        kube: args.kube,
        csi: endpoint(args.csi, args.csi_role)?.map(absolute),
        csi_role: args.csi_role,
        csi_alpha: args.csi_alpha,
        node: args.node,
    };
    crate::serve::run(&flags)
}

/// The socket of the Container Storage Interface. Orchestrators name it in the environment of the
/// driver.
fn endpoint(flag: Option<Endpoint>, role: Option<Role>) -> Result<Option<PathBuf>, CliError> {
    let named = std::env::var("CSI_ENDPOINT").ok().filter(|_| role.is_some());
    match (flag, named) {
        (Some(flag), _) => Ok(Some(flag.0)),
        (None, Some(text)) => {
            let parsed: Endpoint =
                text.parse().map_err(|error| CliError::Usage(format!("CSI_ENDPOINT: {error}")))?;
            Ok(Some(parsed.0))
        }
        (None, None) => Ok(None),
    }
}

//! Arguments for access to a registry.

use std::path::PathBuf;

use clap::Args;
use laminafs::service::pull::AccessOptions;

/// Credentials and certificates for a registry.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// User and password for the registry.
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<String>,
    /// Read passwords from this file [default: the files of podman and Docker].
    #[arg(long, value_name = "FILE", conflicts_with = "creds")]
    pub authfile: Option<PathBuf>,
    /// Certificates for this registry: `*.crt` are authorities, `NAME.cert` with `NAME.key`
    /// identify the client [default: HOST:PORT below ~/.config/containers/certs.d,
    /// /etc/containers/certs.d, /etc/docker/certs.d].
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Refuse plain HTTP and bad certificates. A registry on this machine may use HTTP anyway.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
        require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub tls_verify: bool,
}

impl From<RegistryArgs> for AccessOptions {
    fn from(args: RegistryArgs) -> Self {
        let RegistryArgs { creds, authfile, cert_dir, tls_verify } = args;
        Self { creds, authfile, cert_dir, insecure: !tls_verify, ..Self::default() }
    }
}

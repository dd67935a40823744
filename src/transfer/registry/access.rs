//! Access to a registry: credentials and connection settings from options, from the environment and
//! from the files of podman and Docker.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::auth::Credentials;
use super::connection::Connection;
use super::reference::Reference;
use crate::error::FromHost;
use crate::sys::process::variable;
use crate::transfer::error::{Result, TransferError};

/// The options for a registry.
#[derive(Debug, Clone, Default)]
pub struct AccessOptions {
    /// `USER[:PASSWORD]`.
    pub creds: Option<String>,
    /// The file with the credentials.
    pub authfile: Option<PathBuf>,
    /// A directory of certificates.
    pub cert_dir: Option<PathBuf>,
    /// Whether invalid certificates and plain HTTP are accepted.
    pub insecure: bool,
    /// Whether the file with the credentials was found by an earlier run. It may be gone or changed
    /// by now, and then the registry is accessed without credentials.
    pub again: bool,
}

/// The credentials and the connection settings for a registry.
#[derive(Clone)]
pub struct Access {
    /// The credentials.
    pub credentials: Option<Credentials>,
    /// The file that they were read from.
    pub authfile: Option<PathBuf>,
    /// The connection settings.
    pub connection: Connection,
}

impl Access {
    /// Completes the options from the environment and the files of podman and Docker.
    ///
    /// # Errors
    /// [`TransferError::Host`] for a file with credentials that cannot be read, or that was named
    /// explicitly and does not exist.
    pub fn find(reference: &Reference, words: AccessOptions) -> Result<Self> {
        let (credentials, authfile) = match &words.creds {
            Some(pair) => (Some(Credentials::of(pair)), None),
            None if words.again => kept(words.authfile.filter(|file| file.exists()), reference)
                .unwrap_or_else(|error| {
                    tracing::warn!(%error, "no passwords are known");
                    (None, None)
                }),
            None => kept(words.authfile, reference)?,
        };
        let connection = Connection {
            tls_verify: !words.insecure,
            certs: words.cert_dir.or_else(|| certs_of(reference)),
            proxies: [
                text(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
                text(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
            ],
            no_proxy: text(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
            prompt: words.again,
            ..Connection::default()
        };
        Ok(Self { credentials, authfile, connection })
    }
}

/// The value of the first of these variables that is set.
fn text(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| variable(name)?.into_string().ok())
}

/// The directory in which podman or Docker keeps the certificates for a registry, if any.
fn certs_of(reference: &Reference) -> Option<PathBuf> {
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(Path::new(&variable("HOME")?).join(".config")));
    let own = config.map(|dir| dir.join("containers/certs.d"));
    let all = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    let found = own.into_iter().chain(all).map(|dir| dir.join(&reference.host));
    found.into_iter().find(|dir| dir.is_dir())
}

/// The credentials for the reference from the first file that has some, and the path of that file.
fn kept(
    given: Option<PathBuf>,
    reference: &Reference,
) -> Result<(Option<Credentials>, Option<PathBuf>)> {
    let named = given.or_else(|| variable("REGISTRY_AUTH_FILE").map(PathBuf::from));
    let runtime =
        variable("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("containers/auth.json"));
    let docker = variable("HOME").map(|dir| Path::new(&dir).join(".docker/config.json"));
    let files = match &named {
        Some(file) => vec![file.clone()],
        None => runtime.into_iter().chain(docker).collect(),
    };
    for file in files {
        let text = match std::fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => continue,
            read => read.map_err(TransferError::io(&file))?,
        };
        let found = Credentials::from_auth_file(&text, reference);
        let found = found.map_err(|error| {
            let source = std::io::Error::new(ErrorKind::InvalidData, error);
            TransferError::io(&file)(source)
        })?;
        if found.is_some() {
            return Ok((found, Some(file)));
        }
    }
    Ok((None, None))
}

//! `lamina image pull`: its words, and where passwords are kept.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use laminafs::service::images::Images;
use laminafs::service::pull::{Connection, Credentials, Pull, Reference, pull};

use super::with_progress;
use crate::cli::PullArgs;
use crate::report::{Trouble, say};

/// Runs the command.
///
/// # Errors
/// [`Trouble`].
pub fn run((images, root): (&Images, &Path), json: bool, args: PullArgs) -> Result<(), Trouble> {
    let reference = Reference::parse(&args.reference)?;
    let credentials = match &args.creds {
        Some(pair) => Some(Credentials::of(pair)),
        None => kept(args.authfile, &reference)?,
    };
    let connection = Connection {
        tls_verify: args.tls_verify,
        certs: args.cert_dir.or_else(|| certs_of(&reference)),
        proxies: [
            text(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            text(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
        ],
        no_proxy: text(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
    };
    let request = Pull { reference, names: args.tags, credentials, connection };
    let id = with_progress(json, |told| pull(images, root, &request, told))?;
    if json { Ok(()) } else { say(&format!("{id}\n")) }
}

/// What a variable says, if anything.
fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The first of these variables that says something.
fn text(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| set(name)?.into_string().ok())
}

/// Where podman and Docker keep the certificates for a registry, if they do.
fn certs_of(reference: &Reference) -> Option<PathBuf> {
    let config = set("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(Path::new(&set("HOME")?).join(".config")));
    let own = config.map(|dir| dir.join("containers/certs.d"));
    let all = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    let found = own.into_iter().chain(all).map(|dir| dir.join(&reference.host));
    found.into_iter().find(|dir| dir.is_dir())
}

/// What the first file that has something for the reference says. A file that was asked for by
/// name has to be there.
fn kept(given: Option<PathBuf>, reference: &Reference) -> Result<Option<Credentials>, Trouble> {
    let named = given.or_else(|| set("REGISTRY_AUTH_FILE").map(PathBuf::from));
    let runtime = set("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("containers/auth.json"));
    let docker = set("HOME").map(|dir| Path::new(&dir).join(".docker/config.json"));
    let files = match &named {
        Some(file) => vec![file.clone()],
        None => runtime.into_iter().chain(docker).collect(),
    };
    for file in files {
        let what = file.display().to_string();
        let text = match std::fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => continue,
            read => read.map_err(|error| Trouble::Io { what: what.clone(), error })?,
        };
        let found = Credentials::from_auth_file(&text, reference);
        let found = found.map_err(|error| {
            let error = std::io::Error::new(ErrorKind::InvalidData, error);
            Trouble::Io { what, error }
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

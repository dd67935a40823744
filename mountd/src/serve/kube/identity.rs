//! The certificate authority of a data root, and the certificates that it signs.
//!
//! `kube/` below the data root, which only its owner reads, holds:
//!
//! | file | content |
//! | --- | --- |
//! | `ca.crt`, `ca.key` | the authority, made once |
//! | `kubeconfig` | the last one that was printed, with the key of the client |
//! | `address` | where the daemon listens |
//!
//! The key of the server is made at each start and never stored. Files appear whole, under a lock
//! on the directory. A lost directory is a new authority: its clients need a new kubeconfig.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::report::CliError;

const DAY: Duration = Duration::from_secs(86_400);
/// Clocks of clients may be behind.
const EARLIER: Duration = DAY;
/// How long certificates are valid: the authority, the server since its start, a client.
const AUTHORITY_DAYS: u32 = 3650;
const SERVER_DAYS: u32 = 1825;
const CLIENT_DAYS: u32 = 365;
/// The name of the authority. Its certificate is found by it: it never changes.
const AUTHORITY: &str = "lamina";
/// The user and the group of clients.
pub const USER: (&str, &str) = ("lamina-admin", "system:masters");
/// Where clients connect if no daemon ever ran.
const ADDRESS: &str = "127.0.0.1:6443";

/// A certificate authority.
pub struct Identity {
    dir: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

fn failed(what: &'static str) -> impl Fn(rcgen::Error) -> CliError {
    move |error| CliError::Io { what: what.to_owned(), error: io::Error::other(error) }
}

fn params(name: (&str, &str), days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    if !name.1.is_empty() {
        subject.push(DnType::OrganizationName, name.1);
    }
    subject.push(DnType::CommonName, name.0);
    params.distinguished_name = subject;
    params.not_before = (SystemTime::now() - EARLIER).into();
    params.not_after = (SystemTime::now() + DAY * days).into();
    params
}

fn authority() -> CertificateParams {
    let mut params = params((AUTHORITY, ""), AUTHORITY_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

/// Holds the lock on the directory until the file that it answers is dropped.
fn lock(dir: &Path) -> io::Result<File> {
    let file = File::open(dir)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Writes a file that appears whole, for its owner alone. The caller holds the lock: the name of
/// the new file is the same for all writers.
fn publish(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

impl Identity {
    /// Opens the authority of a data root, or makes it.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub fn open(root: &Path) -> Result<Self, CliError> {
        let dir = root.join("kube");
        let io = |error| CliError::Io { what: dir.display().to_string(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io)?;
        let held = lock(&dir).map_err(io)?;
        let (key_file, file) = (dir.join("ca.key"), dir.join("ca.crt"));
        let found = (read(&key_file).map_err(io)?, read(&file).map_err(io)?);
        let (key, certificate) = match found {
            (Some(key), Some(certificate)) => {
                (KeyPair::from_pem(&key).map_err(failed("kube/ca.key"))?, certificate)
            }
            _ => {
                let key = KeyPair::generate().map_err(failed("making a key"))?;
                let made = authority().self_signed(&key).map_err(failed("making an authority"))?;
                let certificate = made.pem();
                // The certificate comes last: without it, both are made anew.
                publish(&key_file, &key.serialize_pem()).map_err(io)?;
                publish(&file, &certificate).map_err(io)?;
                (key, certificate)
            }
        };
        drop(held);
        let issuer = Issuer::new(authority(), key);
        Ok(Self { dir, certificate, issuer })
    }

    fn publish(&self, name: &str, text: &str) -> Result<(), CliError> {
        let path = self.dir.join(name);
        let wrap = |error| CliError::Io { what: path.display().to_string(), error };
        let held = lock(&self.dir).map_err(wrap)?;
        publish(&path, text).map_err(wrap)?;
        drop(held);
        Ok(())
    }

    /// Records where the daemon listens, for [`Identity::kubeconfig`].
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub fn write_address(&self, address: SocketAddr) -> Result<(), CliError> {
        self.publish("address", &format!("{address}\n"))
    }

    /// The configuration of a server at an address, which asks each client for its certificate.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub fn server(
        &self,
        address: SocketAddr,
        node: &str,
    ) -> Result<Arc<rustls::ServerConfig>, CliError> {
        let what = "making the certificate of the server";
        let mut names: Vec<String> =
            ["127.0.0.1", "::1", "localhost", "kubernetes", "kubernetes.default.svc"]
                .map(str::to_owned)
                .to_vec();
        names.push(address.ip().to_string());
        names.extend([node.to_owned(), super::node::host_name()]);
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !name.is_empty());
        let mut params = params(("lamina-server", ""), SERVER_DAYS);
        params.subject_alt_names =
            CertificateParams::new(names).map_err(failed(what))?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(failed(what))?;
        let made = params.signed_by(&key, &self.issuer).map_err(failed(what))?;
        let tls = |error: Box<dyn std::error::Error + Send + Sync>| CliError::Io {
            what: what.to_owned(),
            error: io::Error::other(error),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der()?).map_err(|error| tls(error.into()))?;
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        );
        let verifier = verifier.build().map_err(|error| tls(error.into()))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(error.into()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![made.der().clone()], key)
            .map_err(|error| tls(error.into()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The certificate of the authority as bytes.
    fn der(&self) -> Result<CertificateDer<'static>, CliError> {
        let body: String =
            self.certificate.lines().filter(|line| !line.starts_with("-----")).collect();
        let wrap = |error| CliError::Io {
            what: self.dir.join("ca.crt").display().to_string(),
            error: io::Error::new(ErrorKind::InvalidData, error),
        };
        STANDARD.decode(body.trim()).map(CertificateDer::from).map_err(wrap)
    }

    /// A kubeconfig with a new client certificate, which is also kept below the data root.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub fn kubeconfig(&self, server: Option<&str>) -> Result<String, CliError> {
        let what = "making the certificate of a client";
        let mut params = params(USER, CLIENT_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(failed(what))?;
        let made = params.signed_by(&key, &self.issuer).map_err(failed(what))?;
        let listens = fs::read_to_string(self.dir.join("address"));
        let listens = listens.map_or_else(|_| ADDRESS.to_owned(), |text| local(text.trim()));
        let server = server.map_or_else(|| format!("https://{listens}"), str::to_owned);
        let [authority, certificate, key] =
            [&self.certificate, &made.pem(), &key.serialize_pem()].map(|pem| STANDARD.encode(pem));
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: lamina\n  cluster:\n    \
             server: {}\n    certificate-authority-data: {authority}\nusers:\n- name: lamina\n  \
             user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
             contexts:\n- name: lamina\n  context:\n    cluster: lamina\n    user: lamina\n\
             current-context: lamina\n",
            json!(server)
        );
        self.publish("kubeconfig", &text)?;
        Ok(text)
    }
}

/// An address to which a client of this host connects: one of all interfaces is none.
fn local(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(found) if found.ip().is_unspecified() => format!("127.0.0.1:{}", found.port()),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_authority_is_made_once_and_its_files_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path()).unwrap().certificate;
        let again = Identity::open(dir.path()).unwrap();
        assert_eq!(again.certificate, first);
        again.kubeconfig(None).unwrap();
        for name in ["ca.key", "ca.crt", "kubeconfig"] {
            let meta = fs::metadata(dir.path().join("kube").join(name)).unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{name}");
        }
        let meta = fs::metadata(dir.path().join("kube")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn writers_at_the_same_time_all_write_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for port in 1..9 {
                let dir = dir.path();
                scope.spawn(move || {
                    let identity = Identity::open(dir).unwrap();
                    for _ in 0..8 {
                        identity.write_address(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
                        let text = identity.kubeconfig(None).unwrap();
                        assert!(text.contains("server: \"https://127.0.0.1:"), "{text}");
                        let kept = fs::read_to_string(dir.join("kube/kubeconfig")).unwrap();
                        assert!(kept.ends_with("current-context: lamina\n"), "{kept}");
                    }
                });
            }
        });
        let names = fs::read_dir(dir.path().join("kube")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["address", "ca.crt", "ca.key", "kubeconfig"]);
    }

    #[test]
    fn a_kubeconfig_names_the_server_that_listens() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        let has = |text: &str, server: &str| assert!(text.contains(server), "{text}");
        has(&identity.kubeconfig(None).unwrap(), "server: \"https://127.0.0.1:6443\"");
        identity.write_address("0.0.0.0:7000".parse().unwrap()).unwrap();
        has(&identity.kubeconfig(None).unwrap(), "server: \"https://127.0.0.1:7000\"");
        has(&identity.kubeconfig(Some("https://host")).unwrap(), "server: \"https://host\"");
        identity.server("127.0.0.1:1".parse().unwrap(), "node").unwrap();
    }
}

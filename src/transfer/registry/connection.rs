//! Connections to registries: trusted certificates and proxies.
//!
//! Certificates are those that the host trusts, and those of a directory for one registry with the
//! layout of Docker and podman: `*.crt` are further authorities, and `NAME.cert` with `NAME.key` is
//! presented to the registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::Proxy;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::reference::is_loopback;
use crate::error::FromHost;
use crate::transfer::error::{Result, TransferError};

/// A registry that sends no data for this time has failed.
const SILENCE: Duration = Duration::from_secs(30);

/// The longest file of certificates.
const FILE_MAX: u64 = 4 << 20;

/// The settings of a connection to a registry.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Whether certificates are checked and plain HTTP is refused.
    pub tls_verify: bool,
    /// A directory of certificates for this registry.
    pub certs: Option<PathBuf>,
    /// The proxy for HTTPS and that for plain HTTP: `[http[s]://][USER[:PASSWORD]@]HOST[:PORT]`.
    pub proxies: [Option<String>; 2],
    /// Hosts that are reached without a proxy, separated by commas, each with its subdomains; `*`
    /// means all hosts. This machine never needs a proxy.
    pub no_proxy: String,
    /// Whether a caller waits: then a slow or busy registry is an error.
    pub prompt: bool,
    /// The time for which a registry may send no data.
    pub patience: Duration,
}

impl Default for Connection {
    fn default() -> Self {
        let (proxies, no_proxy) = Default::default();
        let patience = SILENCE;
        Self { tls_verify: true, certs: None, proxies, no_proxy, prompt: false, patience }
    }
}

impl Connection {
    /// The trusted certificates, and the certificate of this client.
    pub(super) fn tls(&self) -> Result<TlsConfig> {
        let own = self.certs.as_deref().map(read_certs).transpose()?.unwrap_or_default();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "certificates of the host");
        }
        let native = found.certs.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned());
        let all: Vec<_> = native.chain(own.authorities).collect();
        // A host without certificates: use those that browsers trust.
        let roots = match all.is_empty() {
            true => RootCerts::WebPki,
            false => RootCerts::Specific(Arc::new(all)),
        };
        let tls = TlsConfig::builder().root_certs(roots).client_cert(own.shown);
        Ok(tls.disable_verification(!self.tls_verify).build())
    }

    /// Returns the proxy for requests of a scheme.
    pub(super) fn proxy(&self, scheme: &str, host: &str) -> Result<Option<Proxy>> {
        let [secure, plain] = &self.proxies;
        let given = if scheme == "https" { secure } else { plain };
        let Some(given) = given.as_deref().filter(|_| !is_loopback(host)) else { return Ok(None) };
        let url = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
        // The address may contain a password.
        let place = given.rsplit('@').next().unwrap_or_default().to_owned();
        let bad = |error| TransferError::Proxy { place: place.clone(), what: format!("{error}") };
        let parts = Proxy::new(&url).map_err(bad)?;
        let mut proxy = Proxy::builder(parts.protocol()).host(parts.host()).port(parts.port());
        if let (Some(user), password) = (parts.username(), parts.password()) {
            proxy = proxy.username(user).password(password.unwrap_or_default());
        }
        for host in ["localhost", "127.*", "[::1]"] {
            proxy = proxy.no_proxy(host);
        }
        for host in self.no_proxy.split(',').map(str::trim).filter(|host| !host.is_empty()) {
            proxy = proxy.no_proxy(host);
            if !host.starts_with(['*', '.']) {
                proxy = proxy.no_proxy(&format!(".{host}"));
            }
        }
        proxy.build().map(Some).map_err(bad)
    }
}

#[derive(Default)]
struct Certs {
    authorities: Vec<Certificate<'static>>,
    shown: Option<ClientCert>,
}

fn bad(path: &Path, what: impl Into<String>) -> TransferError {
    TransferError::Certificate { path: path.to_owned(), what: what.into() }
}

fn read_certs(dir: &Path) -> Result<Certs> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(TransferError::io(dir))? {
        files.push(entry.map_err(TransferError::io(dir))?.path());
    }
    files.sort();
    let mut found = Certs::default();
    for path in &files {
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("crt") => found.authorities.extend(certificates(path)?),
            Some("cert") => {
                let key = path.with_extension("key");
                if !files.contains(&key) {
                    return Err(bad(
                        path,
                        format!("{} is missing in the same directory", key.display()),
                    ));
                }
                let pem = read(&key)?;
                let key = PrivateKey::from_pem(&pem).map_err(|_| bad(&key, "holds no key"))?;
                found.shown = Some(ClientCert::new_with_certs(&certificates(path)?, key));
            }
            Some("key") if !files.contains(&path.with_extension("cert")) => {
                return Err(bad(path, "its .cert file is missing"));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let len = fs::metadata(path).map_err(TransferError::io(path))?.len();
    if len > FILE_MAX {
        return Err(bad(path, "is too long"));
    }
    fs::read(path).map_err(TransferError::io(path))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let pem = read(path)?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item.map_err(|error| bad(path, error.to_string()))? {
            PemItem::Certificate(certificate) => found.push(certificate),
            _ => tracing::debug!(path = %path.display(), "holds more than certificates"),
        }
    }
    if found.is_empty() {
        return Err(bad(path, "holds no certificate"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(connection: &Connection, scheme: &str, host: &str) -> Option<String> {
        let proxy = connection.proxy(scheme, host).unwrap()?;
        let uri = format!("{scheme}://{host}/").parse().unwrap();
        (!proxy.is_no_proxy(&uri)).then(|| format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn proxies_are_chosen_by_scheme_and_host() {
        let connection = Connection {
            proxies: [Some("u:p@p.lan:3128".to_owned()), Some("http://q.lan:1".to_owned())],
            no_proxy: "a.org, .b.org,10.0.0.1".to_owned(),
            ..Connection::default()
        };
        let secure = |host| through(&connection, "https", host);
        assert_eq!(secure("c.org").as_deref(), Some("p.lan:3128"));
        assert_eq!(through(&connection, "http", "c.org").as_deref(), Some("q.lan:1"));
        for host in ["localhost:5000", "127.0.0.1", "a.org", "x.a.org", "x.b.org", "10.0.0.1"] {
            assert_eq!(secure(host), None, "{host}");
        }
        for host in ["b.org", "ba.org", "10.0.0.2"] {
            assert!(secure(host).is_some(), "{host}");
        }
        assert_eq!(through(&Connection::default(), "https", "c.org"), None);
    }

    #[test]
    fn a_bad_proxy_is_named_without_its_password() {
        let proxies = [Some("ftp://u:secret@p.lan:x".to_owned()), None];
        let error = Connection { proxies, ..Connection::default() }.proxy("https", "c.org");
        let said = error.unwrap_err().to_string();
        assert!(said.contains("p.lan:x") && !said.contains("secret"), "{said}");
    }

    #[test]
    fn files_of_certificates_are_read_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let said = |name: &str| {
            let connection =
                Connection { certs: Some(dir.path().to_owned()), ..Connection::default() };
            let said = connection.tls().unwrap_err().to_string();
            fs::remove_file(dir.path().join(name)).unwrap();
            said
        };
        for (name, what) in [("a.crt", "no certificate"), ("a.cert", "a.key"), ("a.key", ".cert")] {
            fs::write(dir.path().join(name), "nothing").unwrap();
            let said = said(name);
            assert!(said.contains(name) && said.contains(what), "{said}");
        }
        fs::write(dir.path().join("README"), "").unwrap();
        let connection = Connection { certs: Some(dir.path().to_owned()), ..Connection::default() };
        assert!(connection.tls().is_ok());
    }
}

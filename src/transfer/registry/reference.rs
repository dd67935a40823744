//! References as Docker writes them: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.

use crate::catalog::name::{full_name, is_host};
use crate::transfer::error::{Result, TransferError};
use crate::types::Digest;

const HUB: &str = "docker.io";

/// The registry, repository and tag or digest of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The text as it was given.
    pub text: String,
    /// `HOST[:PORT]`.
    pub host: String,
    /// The repository.
    pub path: String,
    /// The tag or, where one is given, the digest.
    pub version: String,
    /// The name for the store; `None` for a reference with only a digest.
    pub name: Option<String>,
    /// The SHA-256 digest in the reference, if any.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Parses a reference. Names without a host are those of docker.io, as in Docker.
    ///
    /// # Errors
    /// [`TransferError::BadReference`].
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || TransferError::BadReference(text.to_owned());
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(Digest::parse(digest).map_err(|_| bad())?)),
            None => (text, None),
        };
        if digest.as_ref().is_some_and(|digest| !digest.is_sha256()) {
            return Err(bad());
        }
        let full = full_name(named).map_err(|_| bad())?;
        let (place, tag) = full.rsplit_once(':').ok_or_else(bad)?;
        let (host, path) = match place.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            Some(_) => (HUB, place.to_owned()),
            None => (HUB, format!("library/{place}")),
        };
        let host = if host == "index.docker.io" { HUB } else { host };
        let path = match path.contains('/') || host != HUB {
            true => path,
            false => format!("library/{path}"),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(bad());
        }
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            path,
            version: digest.as_ref().map_or_else(|| tag.to_owned(), Digest::to_string),
            name: (digest.is_none() || full == named).then(|| full.clone()),
            digest,
        })
    }

    /// The host that serves the registry, which for docker.io has another name.
    #[must_use]
    pub fn address(&self) -> &str {
        if self.host == HUB { "registry-1.docker.io" } else { &self.host }
    }
}

/// Whether `HOST[:PORT]` is this machine, by its name alone.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    bare == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_docker_does() {
        let hex = "0a".repeat(32);
        let cases = [
            ("debian", "docker.io", "library/debian", "latest"),
            ("a/b:1", "docker.io", "a/b", "1"),
            ("docker.io/debian", "docker.io", "library/debian", "latest"),
            ("localhost/x", "localhost", "x", "latest"),
            ("127.0.0.1:5000/a/b/c:V1", "127.0.0.1:5000", "a/b/c", "V1"),
            ("quay.io/x/y", "quay.io", "x/y", "latest"),
        ];
        for (text, host, path, version) in cases {
            let found = Reference::parse(text).unwrap();
            assert_eq!((&*found.host, &*found.path, &*found.version), (host, path, version));
            assert_eq!(found.name.unwrap(), full_name(text).unwrap());
        }
        let found = Reference::parse(&format!("debian@sha256:{hex}")).unwrap();
        assert_eq!((found.version, found.name), (format!("sha256:{hex}"), None));
        let found = Reference::parse(&format!("debian:13@sha256:{hex}")).unwrap();
        assert_eq!(found.name.unwrap(), "debian:13");
        for bad in ["", "A", "Foo/bar", "a@sha256:12", "a@md5:1", "a b", "h.io/", "a:b:c", "../x"] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.evil.org", "127.0.0.1.evil.org", "10.0.0.1", "[::2]:80"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}

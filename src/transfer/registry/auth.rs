//! Credentials, and the challenges of registries.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::HashMap;

use super::reference::Reference;

/// A user and a password. Neither is ever printed.
#[derive(Clone)]
pub struct Credentials(String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
}

impl Credentials {
    /// Parses `USER:PASSWORD`; without a colon the password is empty.
    #[must_use]
    pub fn of(pair: &str) -> Self {
        Self(if pair.contains(':') { pair.to_owned() } else { format!("{pair}:") })
    }

    /// The value of an `Authorization` header.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(&self.0))
    }

    /// Looks up a reference in a file written by `podman login` or `docker login`, the entry with
    /// the longest path first.
    ///
    /// # Errors
    /// A text for a malformed file or one that needs a credential helper; never content of the
    /// file.
    pub fn from_auth_file(text: &[u8], reference: &Reference) -> Result<Option<Self>, String> {
        let file: AuthFile = serde_json::from_slice(text)
            .map_err(|error| format!("line {}: malformed", error.line()))?;
        let host = &reference.host;
        let mut keys = Vec::new();
        let mut path = Some(format!("{host}/{}", reference.path));
        while let Some(key) = path {
            path = key.rsplit_once('/').map(|(parent, _)| parent.to_owned());
            keys.push(key);
        }
        keys.push(format!("https://{host}"));
        keys.push(format!("https://{host}/v1/"));
        if host == "docker.io" {
            keys.push("https://index.docker.io/v1/".to_owned());
            keys.push("index.docker.io".to_owned());
        }
        let refused = |helper: &str| {
            format!("the credential helper {helper} is not supported: use --creds or --authfile")
        };
        if let Some(helper) = file.cred_helpers.get(host) {
            return Err(refused(helper));
        }
        let Some((key, entry)) = keys.iter().find_map(|key| file.auths.get_key_value(key)) else {
            return Ok(None);
        };
        match (&entry.auth, &file.creds_store) {
            (Some(auth), _) if !auth.is_empty() => {
                let pair = STANDARD.decode(auth).ok().and_then(|raw| String::from_utf8(raw).ok());
                let pair = pair.filter(|pair| pair.contains(':'));
                pair.map(|pair| Some(Self(pair))).ok_or_else(|| format!("{key}: malformed auth"))
            }
            (_, Some(helper)) => Err(refused(helper)),
            _ => Ok(None),
        }
    }
}

/// An authentication that a registry requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password.
    Basic,
    /// A token of this server, requested with these parameters.
    Bearer { realm: String, parameters: Vec<(String, String)> },
}

impl Challenge {
    /// Parses a `WWW-Authenticate` header.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut parameters) = (None, Vec::new());
        while let Some((key, after)) = rest.split_once('=') {
            let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
            let (value, left) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            match &*key {
                "realm" => realm = Some(value.to_owned()),
                "service" | "scope" => parameters.push((key, value.to_owned())),
                _ => {}
            }
            rest = left;
        }
        Some(Self::Bearer { realm: realm?, parameters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let header = r#"Bearer realm="https://a.b/t",service="s",scope="repository:x:pull,push""#;
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let parameters = vec![pair("service", "s"), pair("scope", "repository:x:pull,push")];
        let wanted = Challenge::Bearer { realm: "https://a.b/t".to_owned(), parameters };
        assert_eq!(Challenge::parse(header), Some(wanted));
        assert_eq!(Challenge::parse(r#"Basic realm="x""#), Some(Challenge::Basic));
        for bad in ["Digest realm=\"x\"", "Bearer service=\"s\"", "Bearer realm=\"x", ""] {
            assert_eq!(Challenge::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_longest_path_of_an_auth_file_counts() {
        let reference = Reference::parse("q.io/a/b").unwrap();
        let read = |text: &str| {
            let found = Credentials::from_auth_file(text.as_bytes(), &reference);
            found.map(|found| found.map(|found| found.0))
        };
        let text = r#"{"auths":{"q.io":{"auth":"dTpw"},"q.io/a":{"auth":"djpx"}}}"#;
        assert_eq!(read(text), Ok(Some("v:q".to_owned())));
        assert_eq!(read(r#"{"auths":{"other.io":{"auth":"dTpw"}}}"#), Ok(None));
        assert!(read(r#"{"auths":{"q.io":{"auth":"!"}}}"#).unwrap_err().contains("malformed"));
        assert!(read(r#"{"credHelpers":{"q.io":"pass"}}"#).unwrap_err().contains("pass"));
        let stored = r#"{"auths":{"q.io":{}},"credsStore":"desktop"}"#;
        assert!(read(stored).unwrap_err().contains("desktop"));
    }
}

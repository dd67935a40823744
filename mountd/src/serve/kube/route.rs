//! Paths and parameters.

use std::borrow::Cow;

use crate::kube::kinds::Kind;

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// `/api`
    Api,
    /// `/apis`
    Apis,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Version(String, String),
    /// `/version`
    Release,
    /// `/healthz` and what is below it
    Health,
    /// A question of a client about itself
    Review(Review),
    /// `/openapi/...`, with the rest
    OpenApi(String),
    /// Objects
    Objects(Place),
    /// Nothing
    Nowhere,
}

/// What a client asks about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Review {
    /// Whether it may do something
    Access,
    /// All that it may do
    Rules,
    /// Who it is
    User,
}

/// Objects of a kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The kind.
    pub kind: &'static Kind,
    /// The namespace; `None` for all, and for a kind without.
    pub namespace: Option<String>,
    /// The name; `None` for the collection.
    pub name: Option<String>,
    /// Below the object: `status`.
    pub below: Option<String>,
}

/// Decodes a part of a path.
fn decoded(part: &str) -> String {
    let mut pieces = part.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let digits = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match digits {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(piece.bytes().skip(2));
            }
            None => {
                bytes.push(b'%');
                bytes.extend(piece.bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Route {
    /// The route of a path.
    #[must_use]
    pub fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            ["api"] => Self::Api,
            ["apis"] => Self::Apis,
            ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] => {
                Self::Review(Review::Access)
            }
            ["apis", "authorization.k8s.io", "v1", "selfsubjectrulesreviews"] => {
                Self::Review(Review::Rules)
            }
            ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"] => {
                Self::Review(Review::User)
            }
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", "v1"] => Self::Version(String::new(), "v1".to_owned()),
            ["apis", group, version] => Self::Version((*group).to_owned(), (*version).to_owned()),
            ["version"] => Self::Release,
            ["healthz" | "livez" | "readyz", ..] => Self::Health,
            ["openapi", rest @ ..] => Self::OpenApi(rest.join("/")),
            ["api", version, rest @ ..] => Self::objects("", version, rest),
            ["apis", group, version, rest @ ..] => Self::objects(group, version, rest),
            _ => Self::Nowhere,
        }
    }

    fn objects(group: &str, version: &str, parts: &[&str]) -> Self {
        let (namespace, rest) = match parts {
            // Below a namespace itself.
            ["namespaces", _, "status" | "finalize"] => (None, parts),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            _ => (None, parts),
        };
        let (plural, name, below) = match rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some(*name), None),
            [plural, name, below @ ..] => (plural, Some(*name), Some(below.join("/"))),
            [] => return Self::Nowhere,
        };
        let Some(kind) = Kind::of_path(group, version, plural) else { return Self::Nowhere };
        let needs_namespace = kind.is_namespaced && name.is_some();
        if needs_namespace != namespace.is_some() && (needs_namespace || !kind.is_namespaced) {
            return Self::Nowhere;
        }
        let (namespace, name) = (namespace.map(decoded), name.map(decoded));
        Self::Objects(Place { kind, namespace, name, below })
    }
}

/// The parameters of a request.
#[derive(Debug, Clone, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// The first value of a parameter; empty if it is not there.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// All values of a parameter.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| &value[..])
    }

    /// Whether a parameter is set to true.
    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.is_some_and(|(_, value)| matches!(&value[..], "" | "1" | "true" | "True" | "TRUE"))
    }
}

/// A text for a header: without what ends or breaks it.
#[must_use]
pub fn header_text(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| !c.is_control()) {
        return text.into();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> (String, [Option<String>; 3]) {
        match Route::parse(path) {
            Route::Objects(place) => {
                let Place { kind, namespace, name, below } = place;
                (kind.resource().to_string(), [namespace, name, below])
            }
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_lead_to_objects() {
        let some = |text: &str| Some(text.to_owned());
        let cases = [
            ("/api/v1/persistentvolumes", "persistentvolumes", [None, None, None]),
            (
                "/api/v1/persistentvolumes/a%2Eb/status",
                "persistentvolumes",
                [None, some("a.b"), some("status")],
            ),
            ("/api/v1/namespaces/n", "namespaces", [None, some("n"), None]),
            ("/api/v1/namespaces/n/status", "namespaces", [None, some("n"), some("status")]),
            ("/api/v1/namespaces/n/pods", "pods", [some("n"), None, None]),
            ("/api/v1/namespaces/n/pods/p", "pods", [some("n"), some("p"), None]),
            ("/api/v1/pods", "pods", [None, None, None]),
            (
                "/apis/storage.k8s.io/v1/storageclasses/s",
                "storageclasses.storage.k8s.io",
                [None, some("s"), None],
            ),
        ];
        for (path, kind, parts) in cases {
            assert_eq!(place(path), (kind.to_owned(), parts), "{path}");
        }
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in [
            "/",
            "/api/v2/pods",
            "/api/v1/services",
            "/api/v1/pods/p",
            "/api/v1/namespaces/n/persistentvolumes",
            "/apis/apps/v1/deployments",
        ] {
            assert_eq!(Route::parse(path), Route::Nowhere, "{path}");
        }
        assert_eq!(Route::parse("/openapi/v3/api/v1"), Route::OpenApi("v3/api/v1".to_owned()));
        assert_eq!(Route::parse("/readyz/ping"), Route::Health);
    }

    #[test]
    fn parameters_are_decoded() {
        let parameters = Parameters::parse("labelSelector=a%3Db&watch=&dryRun=All&limit=5&x=0");
        assert_eq!(parameters.value("labelSelector"), "a=b");
        assert!(parameters.is_true("watch") && !parameters.is_true("x"));
        assert_eq!(parameters.values("dryRun").collect::<Vec<_>>(), ["All"]);
        assert_eq!(header_text("a\nb"), "a b");
    }
}

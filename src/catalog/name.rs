//! Names of images: their form, and which image a short one means.
//!
//! A name without a registry is looked up as podman does: as it is, then below `localhost/`, then
//! as Docker's own registry has it. `docker.io/library/x`, `docker.io/x` and `x` are one image
//! there (distribution/reference, "familiar names").

use super::error::{CatalogError, Result};
use crate::types::hex::is_hex;

/// The longest name with its tag.
const NAME_MAX: usize = 255;
const TAG: &str = "latest";
/// Docker's registry, under the names that it has in references.
const HUB: [&str; 2] = ["docker.io", "index.docker.io"];
const OFFICIAL: &str = "library/";

/// Puts a name into the form `NAME:TAG`.
///
/// # Errors
/// [`CatalogError::BadName`].
pub fn full_name(text: &str) -> Result<String> {
    let bad = || CatalogError::BadName(text.to_owned());
    let last = text.rsplit('/').next().unwrap_or(text);
    let (path, tag) = match last.rsplit_once(':') {
        Some((_, tag)) => (text.get(..text.len() - tag.len() - 1).ok_or_else(bad)?, tag),
        None => (text, TAG),
    };
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        let ends = |byte: Option<u8>| byte.is_some_and(inner);
        ends(part.bytes().next())
            && ends(part.bytes().last())
            && part.bytes().all(|byte| inner(byte) || b"._-".contains(&byte))
    };
    // A registry may have capitals and a port.
    let host = |host: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
        host.starts_with(|first: char| first.is_ascii_alphanumeric()) && host.bytes().all(plain)
    };
    let good = match path.split_once('/') {
        Some((first, rest)) => (part(first) || host(first)) && rest.split('/').all(part),
        None => part(path),
    };
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let tagged =
        (1..=128).contains(&tag.len()) && tag.bytes().all(word) && !tag.starts_with(['.', '-']);
    let full = format!("{path}:{tag}");
    if good && tagged && full.len() <= NAME_MAX { Ok(full) } else { Err(bad()) }
}

/// `PATH@sha256:DIGITS`, without a tag between.
pub(super) fn digest_name(text: &str) -> Option<String> {
    let (named, digits) = text.split_once("@sha256:")?;
    let full = full_name(named).ok().filter(|_| is_hex(digits, 64))?;
    let (path, _) = full.rsplit_once(':')?;
    Some(format!("{path}@sha256:{digits}"))
}

pub(super) fn file_name(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

pub(super) fn name_of(file: &str) -> String {
    file.replace("%2F", "/").replace("%25", "%")
}

/// Whether the first component of a name is a registry.
#[must_use]
pub fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// The full names that a name may mean, the likeliest first. Tag or digest stay.
#[must_use]
pub fn candidates(full: &str) -> Vec<String> {
    let mut found = vec![full.to_owned()];
    match full.split_once('/').filter(|(first, _)| is_host(first)) {
        Some((host, rest)) if HUB.contains(&host) => {
            let short = rest.strip_prefix(OFFICIAL).filter(|short| !short.contains('/'));
            let short = short.unwrap_or(rest);
            if !short.contains('/') {
                found.push(format!("{}/{OFFICIAL}{short}", HUB[0]));
            }
            found.push(format!("{}/{short}", HUB[0]));
            found.push(short.to_owned());
        }
        Some(_) => {}
        None => {
            found.push(format!("localhost/{full}"));
            if !full.contains('/') {
                found.push(format!("{}/{OFFICIAL}{full}", HUB[0]));
            }
            found.push(format!("{}/{full}", HUB[0]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_registries() {
        let good = [
            ("debian", "debian:latest"),
            ("a/b-c_d.e", "a/b-c_d.e:latest"),
            ("localhost:5000/x:1.0", "localhost:5000/x:1.0"),
            ("Reg.Example/x", "Reg.Example/x:latest"),
            ("x:Tag_1", "x:Tag_1"),
        ];
        for (text, full) in good {
            assert_eq!(full_name(text).unwrap(), full);
            assert_eq!(name_of(&file_name(full)), full);
        }
        for bad in
            ["", "A", "a//b", "../x", "a/../b", ".", "a:", "a:b:c", "a b", "-a", "a/", "a:.x"]
        {
            assert!(full_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_short_name_means_this_host_then_docker() {
        let cases: [(&str, &[&str]); 5] = [
            ("d:1", &["d:1", "localhost/d:1", "docker.io/library/d:1", "docker.io/d:1"]),
            ("a/d:1", &["a/d:1", "localhost/a/d:1", "docker.io/a/d:1"]),
            ("docker.io/library/d:1", &["docker.io/library/d:1", "docker.io/d:1", "d:1"]),
            ("docker.io/d:1", &["docker.io/d:1", "docker.io/library/d:1", "d:1"]),
            ("quay.io/d:1", &["quay.io/d:1"]),
        ];
        for (full, expected) in cases {
            let mut found = candidates(full);
            let mut seen = std::collections::HashSet::new();
            found.retain(|name| seen.insert(name.clone()));
            assert_eq!(found, expected, "{full}");
        }
    }
}

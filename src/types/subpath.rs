//! Paths beneath the root of a volume.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest path, in bytes: `PATH_MAX` without the NUL.
const LONGEST: usize = 4095;

/// The path of a directory or file of a volume, from the root of its content: one component at
/// least, none of them `.` or `..`, no slash in front. A link on the way may still lead out of the
/// volume; the kernel refuses that when it resolves the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Subpath(Vec<u8>);

/// A text that cannot be a [`Subpath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid subpath {subpath:?}: {reason}")]
pub struct BadSubpath {
    /// The text.
    pub subpath: String,
    /// The reason, and what to use.
    pub reason: &'static str,
}

impl Subpath {
    /// The path, without a slash in front.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Subpath {
    type Error = BadSubpath;

    fn try_from(path: &[u8]) -> Result<Self, BadSubpath> {
        let is_part = |part: &&[u8]| !part.is_empty() && *part != b".";
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(is_part).collect();
        let reason = if path.starts_with(b"/") {
            "it is absolute; use a path from the root of the volume, as DIR/DIR"
        } else if parts.contains(&&b".."[..]) {
            "it contains ..; use a path from the root of the volume, as DIR/DIR"
        } else if parts.is_empty() {
            "it is the whole volume; leave out the subpath"
        } else if path.contains(&0) || path.len() > LONGEST {
            "it is not a path; use at most 4095 bytes without NUL"
        } else {
            return Ok(Self(parts.join(&b'/')));
        };
        Err(BadSubpath { subpath: String::from_utf8_lossy(path).into_owned(), reason })
    }
}

impl TryFrom<Vec<u8>> for Subpath {
    type Error = BadSubpath;

    fn try_from(path: Vec<u8>) -> Result<Self, BadSubpath> {
        Self::try_from(&path[..])
    }
}

impl FromStr for Subpath {
    type Err = BadSubpath;

    fn from_str(path: &str) -> Result<Self, BadSubpath> {
        Self::try_from(path.as_bytes())
    }
}

impl From<Subpath> for Vec<u8> {
    fn from(path: Subpath) -> Self {
        path.0
    }
}

impl fmt::Display for Subpath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_without_what_means_nothing() {
        for (given, kept) in
            [("a", "a"), ("a//b/./c/", "a/b/c"), ("./a", "a"), ("..a/b..", "..a/b..")]
        {
            assert_eq!(given.parse::<Subpath>().unwrap().to_string(), kept);
        }
        assert_eq!(Subpath::try_from(&b"\xff/b"[..]).unwrap().as_bytes(), b"\xff/b");
    }

    #[test]
    fn what_leads_out_or_nowhere_is_refused_by_name() {
        let long = "a".repeat(LONGEST + 1);
        for (given, word) in [
            ("/etc", "absolute"),
            ("//", "absolute"),
            ("..", "contains .."),
            ("a/../b", "contains .."),
            ("a/..", "contains .."),
            ("", "whole volume"),
            ("./.", "whole volume"),
            ("a\0b", "NUL"),
            (&long, "4095"),
        ] {
            let error = given.parse::<Subpath>().unwrap_err();
            assert_eq!(error.subpath, given);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}

//! Names that people give to volumes and containers.
//!
//! A name is checked where it enters, once. It is never a path: it has no slash and does not begin
//! with a dot.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::hex;

/// The longest name, in bytes.
pub const OBJECT_NAME_MAX: usize = 128;

/// A text that cannot be the name of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid {kind} name {name:?}: use 1 to 128 of A-Z a-z 0-9 _ . -, beginning with a letter or \
     digit"
)]
pub struct BadObjectName {
    /// `volume` or `container`.
    pub kind: &'static str,
    /// The text.
    pub name: String,
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.len() <= OBJECT_NAME_MAX
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

macro_rules! object_name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $is_name:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The text of the name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadObjectName;

            fn try_from(name: String) -> Result<Self, BadObjectName> {
                let is_name: fn(&str) -> bool = $is_name;
                if !is_name(&name) {
                    return Err(BadObjectName { kind: $kind, name });
                }
                Ok(Self(name))
            }
        }

        impl FromStr for $type {
            type Err = BadObjectName;

            fn from_str(name: &str) -> Result<Self, BadObjectName> {
                Self::try_from(name.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

object_name!(
    /// The name of a volume.
    VolumeName, "volume", is_plain
);
object_name!(
    /// The name of a container. It never looks like the id of a container.
    ContainerName, "container", |name| is_plain(name) && !hex::is_hex(name, 64)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_docker_and_never_paths() {
        for good in ["a", "A-b_c.d", "0", &"x".repeat(128)] {
            assert_eq!(good.parse::<VolumeName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "ä", "a\n", &"x".repeat(129)] {
            let refused = bad.parse::<VolumeName>().unwrap_err();
            assert_eq!((refused.kind, refused.name.as_str()), ("volume", bad));
        }
    }

    #[test]
    fn the_name_of_a_container_is_no_id() {
        let id = "0".repeat(64);
        assert!(id.parse::<VolumeName>().is_ok());
        assert!(id.parse::<ContainerName>().is_err());
        assert!(id[1..].parse::<ContainerName>().is_ok());
    }

    #[test]
    fn a_record_with_another_name_is_refused() {
        assert!(serde_json::from_str::<VolumeName>("\"data\"").is_ok());
        assert!(serde_json::from_str::<VolumeName>("\"../x\"").is_err());
    }
}

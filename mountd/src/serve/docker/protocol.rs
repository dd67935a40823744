//! Requests and replies of Docker's volume plugin protocol.
//!
//! "Docker volume plugins" of the Docker documentation. Requests are read leniently: `Opts` may be
//! null, unknown members are ignored, and what follows the object may be a line feed. A reply is an
//! object; an `Err` that is not empty is an error, whatever the status code is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;

use laminafs::types::VolumeName;
use serde::{Deserialize, Serialize};

/// The media type of replies.
pub const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// A call of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/Plugin.Activate`.
    Activate,
    /// `/VolumeDriver.Capabilities`.
    Capabilities,
    /// `/VolumeDriver.Create`.
    Create,
    /// `/VolumeDriver.Remove`.
    Remove,
    /// `/VolumeDriver.Mount`.
    Mount,
    /// `/VolumeDriver.Unmount`.
    Unmount,
    /// `/VolumeDriver.Path`.
    Path,
    /// `/VolumeDriver.Get`.
    Get,
    /// `/VolumeDriver.List`.
    List,
}

impl FromStr for Endpoint {
    type Err = ();

    fn from_str(path: &str) -> Result<Self, ()> {
        Ok(match path {
            "/Plugin.Activate" => Self::Activate,
            "/VolumeDriver.Capabilities" => Self::Capabilities,
            "/VolumeDriver.Create" => Self::Create,
            "/VolumeDriver.Remove" => Self::Remove,
            "/VolumeDriver.Mount" => Self::Mount,
            "/VolumeDriver.Unmount" => Self::Unmount,
            "/VolumeDriver.Path" => Self::Path,
            "/VolumeDriver.Get" => Self::Get,
            "/VolumeDriver.List" => Self::List,
            _ => return Err(()),
        })
    }
}

impl Endpoint {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Activate => "Activate",
            Self::Capabilities => "Capabilities",
            Self::Create => "Create",
            Self::Remove => "Remove",
            Self::Mount => "Mount",
            Self::Unmount => "Unmount",
            Self::Path => "Path",
            Self::Get => "Get",
            Self::List => "List",
        }
    }
}

/// A request of any endpoint.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Request {
    /// The name of a volume, as the client wrote it.
    pub name: String,
    /// Options of a new volume.
    pub opts: Option<BTreeMap<String, String>>,
    /// The user of a mount.
    #[serde(rename = "ID")]
    pub id: String,
}

/// Reads a request. An empty body is an empty request.
///
/// # Errors
/// A sentence for the client.
pub fn request(body: &[u8]) -> Result<Request, String> {
    if body.trim_ascii().is_empty() {
        return Ok(Request::default());
    }
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err("invalid request: not a JSON object".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| format!("invalid request: {error}"))
}

/// The reply of a call without a result.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Outcome {
    /// Empty for success.
    pub err: String,
}

/// The reply of `/Plugin.Activate`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Activated {
    /// The protocols of the plugin.
    pub implements: [&'static str; 1],
}

/// The reply of `/VolumeDriver.Capabilities`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Capable {
    /// What the driver can do.
    pub capabilities: Scope,
}

/// Whether a volume is one of this host or of a cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Scope {
    /// `local` or `global`.
    pub scope: &'static str,
}

/// The reply of `Mount` and `Path`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mounted {
    /// The directory of the content.
    pub mountpoint: String,
    /// Empty for success.
    pub err: String,
}

/// A volume of a reply.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    /// Its name.
    pub name: VolumeName,
    /// The directory of its content.
    pub mountpoint: String,
}

/// The reply of `/VolumeDriver.List`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct List {
    /// The volumes.
    pub volumes: Vec<Listed>,
    /// Empty for success.
    pub err: String,
}

/// The reply of `/VolumeDriver.Get`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Got {
    /// The volume.
    pub volume: Described,
    /// Empty for success.
    pub err: String,
}

/// A volume with its details.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Described {
    /// Its name.
    pub name: VolumeName,
    /// The directory of its content.
    pub mountpoint: String,
    /// When it was created. A client that cannot parse it takes the volume for missing, so that
    /// what is not RFC 3339 is left out.
    #[serde(skip_serializing_if = "is_not_time")]
    pub created_at: String,
    /// What `docker volume inspect` shows.
    pub status: Status,
}

/// The `Status` of a volume.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// The driver of Lamina.
    pub driver: String,
    /// The limit of its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The limit of its inodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// Its used space when it was measured last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
}

/// Whether Go's `time.Time` refuses a text.
fn is_not_time(text: &str) -> bool {
    !is_rfc3339(text)
}

/// Whether a text is a time with a `T`, and `Z` or an offset: `2026-11-28T22:06:09.5+01:00`.
fn is_rfc3339(text: &str) -> bool {
    let Some((time, rest)) = text.split_at_checked("YYYY-MM-DDTHH:MM:SS".len()) else {
        return false;
    };
    let within = |range, least: u32, most| {
        let value = time.get::<Range<usize>>(range).and_then(|part| part.parse().ok());
        value.is_some_and(|value| (least..=most).contains(&value))
    };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let has_digits = rest.starts_with('.') == (rest.len() > zone.len() + 1);
    let date = within(5..7, 1, 12) && within(8..10, 1, 31);
    let day = within(11..13, 0, 23) && within(14..16, 0, 59) && within(17..19, 0, 59);
    let is_offset = ["+00:00", "-00:00"].contains(&&shape(zone)[..]);
    let zoned = zone == "Z" || is_offset;
    shape(time) == "0000-00-00T00:00:00" && date && day && has_digits && zoned
}

/// A text with 0 for each digit.
fn shape(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn requests_are_read_as_the_clients_write_them() {
        let bare = request(b"{\"Name\":\"a\",\"Opts\":null}\n").unwrap();
        assert_eq!(bare, Request { name: "a".to_owned(), ..Request::default() });
        let full = b"{\"Name\":\"a\",\"Opts\":{\"size\":\"1G\"},\"Later\":[1]}\n";
        assert_eq!(request(full).unwrap().opts.unwrap()["size"], "1G");
        assert_eq!(request(b"{\"Name\":\"a\",\"ID\":\"f0\"}").unwrap().id, "f0");
        for empty in [&b""[..], b"\n", b"{}", b"{}\n"] {
            assert_eq!(request(empty).unwrap(), Request::default());
        }
        for bad in [&b"{"[..], b"[]", b"x", b"{} {}", b"{\"Name\":1}", b"\xff", b"{\"Opts\":[]}"] {
            let reason = request(bad).unwrap_err();
            assert!(reason.starts_with("invalid request: "), "{reason}");
        }
    }

    #[test]
    fn replies_are_spelled_as_docker_reads_them() {
        assert_eq!(json(&Outcome::default()), r#"{"Err":""}"#);
        assert_eq!(
            json(&Activated { implements: ["VolumeDriver"] }),
            r#"{"Implements":["VolumeDriver"]}"#
        );
        let capable = Capable { capabilities: Scope { scope: "local" } };
        assert_eq!(json(&capable), r#"{"Capabilities":{"Scope":"local"}}"#);
        let list = List { volumes: Vec::new(), err: String::new() };
        assert_eq!(json(&list), r#"{"Volumes":[],"Err":""}"#);
        let mut volume = Described {
            name: "a".parse().unwrap(),
            mountpoint: "/m".to_owned(),
            created_at: "2026-11-28T22:06:09Z".to_owned(),
            status: Status { driver: "local".to_owned(), ..Status::default() },
        };
        let text = json(&volume);
        assert!(text.contains(r#""CreatedAt":"2026-11-28T22:06:09Z","Status":{"#), "{text}");
        volume.created_at = "yesterday".to_owned();
        let got = Got { volume, err: String::new() };
        assert_eq!(
            json(&got),
            r#"{"Volume":{"Name":"a","Mountpoint":"/m","Status":{"Driver":"local"}},"Err":""}"#
        );
    }

    #[test]
    fn times_are_those_that_go_parses() {
        for good in [
            "2026-11-28T22:06:09Z",
            "2026-11-28T22:06:09.123456789Z",
            "2026-11-28T22:06:09+02:00",
            "2026-11-28T22:06:09.5-00:30",
        ] {
            assert!(!is_not_time(good), "{good}");
        }
        for bad in [
            "",
            "2026-11-28",
            "2026-11-28 22:06:09Z",
            "2026-11-28T22:06:09",
            "2026-13-28T22:06:09Z",
            "2026-00-28T22:06:09Z",
            "2026-11-28T24:06:09Z",
            "2026-11-28T22:06:09.Z",
            "2026-11-28T22:06:09+2:00",
            "2026-11-28T22:06:09Z ",
            "+026-11-28T22:06:09Z",
            "\u{e9}2026-11-28T22:06:09Z",
        ] {
            assert!(is_not_time(bad), "{bad}");
        }
    }

    #[test]
    fn endpoints_are_those_of_the_protocol() {
        for path in ["/Plugin.Activate", "/VolumeDriver.Get", "/VolumeDriver.Unmount"] {
            let endpoint: Endpoint = path.parse().unwrap();
            assert!(path.ends_with(&format!(".{}", endpoint.name())));
        }
        for path in ["/", "/VolumeDriver.get", "/VolumeDriver.Get/", "VolumeDriver.Get"] {
            assert!(path.parse::<Endpoint>().is_err(), "{path}");
        }
    }
}

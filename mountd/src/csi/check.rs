//! What every request is checked for: capabilities, sizes, names and paths.

use std::path::{Component, Path, PathBuf};

use super::fault::{Fault, Outcome};
use super::wire::volume_capability::access_mode::Mode;
use super::wire::volume_capability::{AccessType, MountVolume};
use super::wire::{CapacityRange, VolumeCapability};

/// The longest string of the specification, in bytes.
const STRING_MAX: usize = 128;
/// The longest path of Linux.
const PATH_MAX: usize = 4096;

/// How one user uses a volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// `None` for a device.
    pub mount: Option<MountVolume>,
    /// The access mode.
    pub mode: Mode,
}

impl Access {
    /// The access that a capability asks for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if a part is missing, or needs several nodes.
    pub fn new(capability: Option<&VolumeCapability>) -> Outcome<Self> {
        let missing = |field| Fault::invalid(format!("volume_capability{field} is missing"));
        let capability = capability.ok_or_else(|| missing(""))?;
        let mount = match &capability.access_type {
            Some(AccessType::Mount(mount)) => Some(mount.clone()),
            Some(AccessType::Block(_)) => None,
            None => return Err(missing(".access_type")),
        };
        let mode = capability.access_mode.as_ref().ok_or_else(|| missing(".access_mode"))?.mode();
        if mode == Mode::Unknown {
            return Err(Fault::invalid("volume_capability.access_mode is UNKNOWN"));
        }
        Ok(Self { mount, mode })
    }

    /// Whether the volume is a device.
    #[must_use]
    pub const fn is_block(&self) -> bool {
        self.mount.is_none()
    }

    /// Whether only reading is allowed.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        matches!(self.mode, Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly)
    }

    /// Whether one node can keep the mode. All volumes are on one node, so that several pods of
    /// it can share one; a mode that tells the writer among nodes has no meaning here.
    #[must_use]
    pub const fn is_of_one_node(&self) -> bool {
        !matches!(self.mode, Mode::MultiNodeSingleWriter)
    }

    /// Why a mode is refused.
    #[must_use]
    pub fn refusal(&self) -> String {
        let mode = self.mode.as_str_name();
        format!("access mode {mode} needs several nodes, and a volume is on one: use another mode")
    }

    /// Whether a second target on this node is refused.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        matches!(
            self.mode,
            Mode::SingleNodeWriter | Mode::SingleNodeSingleWriter | Mode::SingleNodeReaderOnly
        )
    }
}

/// Refuses a text that is missing.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn required(field: &str, text: &str) -> Outcome<()> {
    match text {
        "" => Err(Fault::invalid(format!("{field} is missing"))),
        _ => Ok(()),
    }
}

/// A name that an orchestrator gives.
///
/// # Errors
/// `INVALID_ARGUMENT` if it is empty, too long, or has characters that the specification forbids.
pub fn name<'a>(field: &str, text: &'a str) -> Outcome<&'a str> {
    required(field, text)?;
    if text.len() > STRING_MAX {
        let length = text.len();
        return Err(Fault::invalid(format!(
            "{field} has {length} bytes: use at most {STRING_MAX}"
        )));
    }
    let is_allowed = |letter: char| !letter.is_control() || matches!(letter, '\t' | '\n' | '\r');
    match text.chars().find(|letter| !is_allowed(*letter)) {
        Some(letter) => Err(Fault::invalid(format!("{field} has the character {letter:?}"))),
        None => Ok(text),
    }
}

/// An absolute path without `..`.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn path(field: &str, text: &str) -> Outcome<PathBuf> {
    let refuse = |why: &str| Err(Fault::invalid(format!("{field} {text:?} {why}")));
    required(field, text)?;
    if text.len() >= PATH_MAX || text.contains('\0') {
        return Err(Fault::invalid(format!("{field} is not a path")));
    }
    let path = Path::new(text);
    if !path.is_absolute() {
        return refuse("is not absolute");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return refuse("contains ..");
    }
    if path.components().count() < 2 {
        return refuse("is the root directory");
    }
    Ok(path.components().collect())
}

/// The bytes that are required, and the limit; `None` where there is none.
///
/// # Errors
/// `INVALID_ARGUMENT` for negative numbers, `OUT_OF_RANGE` for a limit below what is required.
pub fn range(range: Option<&CapacityRange>) -> Outcome<(Option<u64>, Option<u64>)> {
    let Some(range) = range else { return Ok((None, None)) };
    let bytes = |field: &str, bytes: i64| match u64::try_from(bytes) {
        Ok(0) => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) => Err(Fault::invalid(format!("capacity_range.{field} is negative: {bytes}"))),
    };
    let required = bytes("required_bytes", range.required_bytes)?;
    let limit = bytes("limit_bytes", range.limit_bytes)?;
    if let (Some(required), Some(limit)) = (required, limit)
        && limit < required
    {
        return Err(Fault::range(format!(
            "limit_bytes {limit} is less than required_bytes {required}"
        )));
    }
    Ok((required, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        let longest = "x".repeat(128);
        for good in ["a", "pvc-1", "tab\there", "ä ö/..", longest.as_str()] {
            assert_eq!(name("name", good).unwrap(), good);
        }
        for bad in ["", "nul\0", "\u{8}", "\u{7f}", "\u{9f}", &"x".repeat(129)] {
            assert_eq!(
                name("name", bad).unwrap_err().code(),
                tonic::Code::InvalidArgument,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn paths_are_absolute_and_stay_below() {
        assert_eq!(path("p", "/a//b c\n/").unwrap(), Path::new("/a/b c\n"));
        for bad in ["", "a", "/", "/a/../b", "/a\0", "//"] {
            assert_eq!(path("p", bad).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn ranges_are_ordered() {
        let of = |required_bytes, limit_bytes| {
            range(Some(&CapacityRange { required_bytes, limit_bytes }))
        };
        assert_eq!(of(1, 0).unwrap(), (Some(1), None));
        assert_eq!(of(0, 5).unwrap(), (None, Some(5)));
        assert_eq!(range(None).unwrap(), (None, None));
        assert_eq!(of(-1, 0).unwrap_err().code(), tonic::Code::InvalidArgument);
        assert_eq!(of(2, 1).unwrap_err().code(), tonic::Code::OutOfRange);
    }
}

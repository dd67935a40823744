//! What an image volume is made with.
//!
//! Words of `o=` become parameters of the file system one by one, so that no value can bring a
//! second one. Parameters that name another device or file, or stop the host, are refused; whether
//! the file system takes the others is decided by the kernel when the volume is created.

use super::refusal::{refused_option, unsupported};
use crate::sys::mount::AccessTimes;
use crate::types::BindFlags;
use crate::volume::driver::{Limits, Spec};
use crate::volume::error::{Result, VolumeError};

/// Blocks of the file systems and sectors of the loop device: a disk with sectors of 4096 bytes
/// can then be written past the page cache.
pub(super) const BLOCK_BYTES: u64 = 4096;
const MIB: u64 = 1 << 20;

/// Parameters of file systems that reach beyond the volume: another device, or the host.
const FORBIDDEN: [&str; 8] = [
    "source",
    "sb",
    "journal_dev",
    "journal_path",
    "logdev",
    "rtdev",
    "test_dummy_encryption",
    "dax",
];

/// A type of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The smallest size: ext4 has a journal from 2048 blocks on (`ext2fs_default_journal_size()`
    /// of e2fsprogs), mkfs.xfs takes no less than 300 MiB since xfsprogs 5.19.
    pub(super) const fn bytes_min(self) -> u64 {
        match self {
            Self::Ext4 => 8 * MIB,
            Self::Xfs => 300 * MIB,
        }
    }
}

/// A parameter of a file system; one without a value is a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) key: String,
    pub(super) value: Option<String>,
}

/// How an image is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MountOptions {
    pub(super) flags: BindFlags,
    pub(super) times: AccessTimes,
    pub(super) parameters: Vec<Parameter>,
}

/// The options of an image volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// The file system; `None` for a block device without one.
    pub(super) kind: Option<Kind>,
    pub(super) overcommit: bool,
    pub(super) mount: MountOptions,
}

impl Options {
    pub(super) fn new(spec: &Spec) -> Result<Self> {
        let mut options =
            Self { kind: Some(Kind::Ext4), overcommit: false, mount: MountOptions::default() };
        for (key, value) in &spec.options {
            let refuse = |reason: &str| refused_option(key, value, reason);
            match (key.as_str(), value.as_str()) {
                ("fs", "ext4") => options.kind = Some(Kind::Ext4),
                ("fs", "xfs") => options.kind = Some(Kind::Xfs),
                ("fs", "none") => options.kind = None,
                ("fs", _) => return Err(refuse("use ext4, xfs or none")),
                ("overcommit", "true") => options.overcommit = true,
                ("overcommit", "false") => options.overcommit = false,
                ("overcommit", _) => return Err(refuse("use true or false")),
                ("o", words) => options.mount = MountOptions::new(words)?,
                _ => return Err(refuse("unknown option: use fs, o or overcommit")),
            }
        }
        match spec.options.get("o") {
            Some(words) if options.kind.is_none() => {
                Err(refused_option("o", words, "a block device (fs=none) is not mounted"))
            }
            _ => Ok(options),
        }
    }
}

fn is_key(key: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !key.is_empty() && key.bytes().all(valid)
}

fn is_value(value: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    !value.is_empty() && value.bytes().all(valid)
}

impl MountOptions {
    fn new(words: &str) -> Result<Self> {
        let mut options = Self::default();
        for word in words.split(',') {
            if !options.set_flag(word) {
                options.parameters.push(parameter(words, word)?);
            }
        }
        Ok(options)
    }

    /// Whether the word is a flag of the mount, which it then sets. A later word overrides.
    fn set_flag(&mut self, word: &str) -> bool {
        let (flags, times) = (&mut self.flags, &mut self.times);
        match word {
            "defaults" => {}
            "ro" | "rw" => flags.read_only = word == "ro",
            "nosuid" | "suid" => flags.nosuid = word == "nosuid",
            "nodev" | "dev" => flags.nodev = word == "nodev",
            "noexec" | "exec" => flags.noexec = word == "noexec",
            "nodiratime" | "diratime" => times.no_dirs = word == "nodiratime",
            "relatime" | "atime" => (times.none, times.strict) = (false, false),
            "noatime" => (times.none, times.strict) = (true, false),
            "strictatime" => (times.none, times.strict) = (false, true),
            _ => return false,
        }
        true
    }
}

fn parameter(words: &str, word: &str) -> Result<Parameter> {
    let refuse = |reason: &str| refused_option("o", words, &format!("{word:?}: {reason}"));
    let (key, value) = match word.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (word, None),
    };
    if !is_key(key) || !value.is_none_or(is_value) {
        return Err(refuse("use words and key=value, separated by commas"));
    }
    if FORBIDDEN.contains(&key) {
        return Err(refuse("it reaches beyond the volume"));
    }
    if word == "errors=panic" {
        return Err(refuse("it stops the host: use errors=remount-ro"));
    }
    Ok(Parameter { key: key.to_owned(), value: value.map(str::to_owned) })
}

fn size_of(limits: Limits) -> Result<u64> {
    let none = || unsupported("volumes without a size", "add --opt size=SIZE");
    limits.size_bytes.ok_or_else(none)
}

/// Returns the bytes of a block device for these limits: whole blocks, no less than the size.
pub(super) fn device_bytes(limits: Limits) -> Result<u64> {
    if limits.inodes.is_some() {
        return Err(unsupported("inodes", "a block device (fs=none) has none"));
    }
    match size_of(limits)?.checked_next_multiple_of(BLOCK_BYTES) {
        None | Some(0) => {
            let what = "a block device has at least 1 byte, and less than 16 EiB".to_owned();
            Err(VolumeError::TooSmall { what })
        }
        Some(bytes) => Ok(bytes),
    }
}

/// Returns the bytes of the image for these limits: whole blocks, no more than the size.
pub(super) fn image_bytes(kind: Kind, limits: Limits) -> Result<u64> {
    let size = size_of(limits)?;
    if kind == Kind::Xfs && limits.inodes.is_some() {
        let reason = "xfs makes inodes as they are needed: use fs=ext4";
        return Err(unsupported("inodes", reason));
    }
    let (name, min) = (kind.name(), kind.bytes_min());
    if size < min {
        let what = format!("{size} bytes are too few for {name}: use at least {min}");
        return Err(VolumeError::TooSmall { what });
    }
    Ok(size - size % BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<Options> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let options = pairs.iter().map(own).collect();
        Options::new(&Spec { options, ..Spec::default() })
    }

    #[test]
    fn without_options_it_is_ext4_without_flags() {
        let options = options(&[]).unwrap();
        assert_eq!((options.kind, options.overcommit), (Some(Kind::Ext4), false));
        assert_eq!(options.mount, MountOptions::default());
    }

    #[test]
    fn words_become_flags_and_parameters() {
        let o = "ro,noatime,nosuid,nodev,noexec,commit=30,data=ordered,lazytime,rw";
        let options = options(&[("fs", "xfs"), ("overcommit", "true"), ("o", o)]).unwrap();
        assert_eq!((options.kind, options.overcommit), (Some(Kind::Xfs), true));
        let flags = BindFlags { read_only: false, nosuid: true, nodev: true, noexec: true };
        assert_eq!(options.mount.flags, flags);
        assert!(options.mount.times.none && !options.mount.times.strict);
        let pairs = options.mount.parameters.iter();
        let pairs: Vec<_> = pairs.map(|it| (it.key.as_str(), it.value.as_deref())).collect();
        let expected = [("commit", Some("30")), ("data", Some("ordered")), ("lazytime", None)];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn what_is_unknown_or_reaches_beyond_the_volume_is_refused() {
        for (key, value) in [
            ("fs", "btrfs"),
            ("mkfs", "-b 1024"),
            ("overcommit", "yes"),
            ("size", "1"),
            ("o", ""),
            ("o", "ro,,rw"),
            ("o", "commit=3 0"),
            ("o", "commit="),
            ("o", "Commit=3"),
            ("o", "source=/dev/vda"),
            ("o", "journal_path=x"),
            ("o", "logdev=x"),
            ("o", "errors=panic"),
            ("o", "a\0b"),
        ] {
            let error = options(&[(key, value)]).unwrap_err();
            assert!(matches!(error, VolumeError::Option { .. }), "{key}={value}: {error}");
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn a_block_device_has_no_file_system_and_whole_blocks() {
        let found = options(&[("fs", "none"), ("overcommit", "true")]).unwrap();
        assert_eq!((found.kind, found.overcommit), (None, true));
        let refused = options(&[("fs", "none"), ("o", "ro")]).unwrap_err().to_string();
        assert!(refused.contains("is not mounted"), "{refused}");
        let limits = |size| Limits { size_bytes: size, inodes: None };
        for (size, bytes) in [(1, 4096), (4096, 4096), (MIB + 1, MIB + 4096)] {
            assert_eq!(device_bytes(limits(Some(size))).unwrap(), bytes);
        }
        for bad in [Some(0), Some(u64::MAX), None] {
            device_bytes(limits(bad)).unwrap_err();
        }
        let inodes = Limits { inodes: Some(5), ..limits(Some(MIB)) };
        assert!(matches!(device_bytes(inodes), Err(VolumeError::Unsupported { .. })));
    }

    #[test]
    fn sizes_are_whole_blocks_and_have_a_minimum() {
        let limits = |size| Limits { size_bytes: size, inodes: None };
        assert_eq!(image_bytes(Kind::Ext4, limits(Some(64 * MIB + 5))).unwrap(), 64 * MIB);
        let none = image_bytes(Kind::Ext4, limits(None)).unwrap_err();
        assert!(none.to_string().contains("--opt size="), "{none}");
        for (kind, min) in [(Kind::Ext4, 8 * MIB), (Kind::Xfs, 300 * MIB)] {
            assert!(image_bytes(kind, limits(Some(min))).is_ok());
            let small = image_bytes(kind, limits(Some(min - 1))).unwrap_err();
            assert!(matches!(small, VolumeError::TooSmall { .. }), "{small}");
        }
        let inodes = Limits { size_bytes: Some(1 << 30), inodes: Some(5) };
        assert!(image_bytes(Kind::Ext4, inodes).is_ok());
        let refused = image_bytes(Kind::Xfs, inodes).unwrap_err();
        assert!(matches!(refused, VolumeError::Unsupported { verb: "inodes", .. }), "{refused}");
    }
}

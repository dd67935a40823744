//! Mounts of any file system by mount(2), with the words of mount(8).

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::MountFlags;

use crate::error::{Errno, Error, Result};
use crate::sys::{bind, file, refused};
use crate::types::BindFlags;

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountSource<'a> {
    /// A directory of the host, with or without the mounts beneath.
    Bind {
        /// The directory.
        path: &'a Path,
        /// Whether mounts beneath it are bound too.
        recursive: bool,
    },
    /// A file system.
    Device {
        /// Its type.
        kind: &'a str,
        /// Its device, or what its type takes in place of one.
        device: &'a str,
    },
}

/// A word of mount(8), the flag that it sets or clears, and whether it sets it.
const WORDS: [(&str, MountFlags, bool); 21] = [
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("dirsync", MountFlags::DIRSYNC, true),
    ("noatime", MountFlags::NOATIME, true),
    ("atime", MountFlags::NOATIME, false),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("diratime", MountFlags::NODIRATIME, false),
    ("relatime", MountFlags::RELATIME, true),
    ("norelatime", MountFlags::RELATIME, false),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("lazytime", MountFlags::LAZYTIME, true),
    ("nolazytime", MountFlags::LAZYTIME, false),
    ("defaults", MountFlags::empty(), true),
];

/// Splits words of mount(8) into flags of the VFS and options of the file system.
fn split(words: &[&str]) -> (MountFlags, String) {
    let (mut flags, mut data) = (MountFlags::empty(), Vec::new());
    for word in words {
        match WORDS.iter().find(|(known, _, _)| known == word) {
            Some((_, flag, sets)) => flags.set(*flag, *sets),
            None => data.push(*word),
        }
    }
    (flags, data.join(","))
}

/// Mounts on a directory.
///
/// # Errors
/// As mount(2); `EINVAL` for an option that the file system does not know. A bind whose flags are
/// refused is not left behind.
pub fn mount(target: &Path, source: MountSource<'_>, words: &[&str]) -> Result<()> {
    let (flags, data) = split(words);
    let call = "mount";
    match source {
        MountSource::Device { kind, device } => {
            let data = CString::new(data).map_err(|_| Error::os(call, Errno::INVAL))?;
            rustix::mount::mount(device, target, kind, flags, &*data).map_err(refused(call))
        }
        MountSource::Bind { .. } if !data.is_empty() => Err(Error::os(call, Errno::INVAL)),
        MountSource::Bind { path, recursive } => {
            let object = file::find_directory(path)?;
            let mount = bind::clone_tree(object.as_fd(), recursive)?;
            // Flags of the source stay. The copy is private: what is unmounted in it stays there.
            let flags = BindFlags {
                read_only: flags.contains(MountFlags::RDONLY),
                nosuid: flags.contains(MountFlags::NOSUID),
                nodev: flags.contains(MountFlags::NODEV),
                noexec: flags.contains(MountFlags::NOEXEC),
            };
            bind::restrict(mount.as_fd(), flags, true)?;
            bind::attach(mount.as_fd(), file::find_directory(target)?.as_fd())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_flags_or_options() {
        let (flags, data) = split(&["ro", "size=1m", "noexec", "exec", "defaults", "uid=1"]);
        assert_eq!((flags, data.as_str()), (MountFlags::RDONLY, "size=1m,uid=1"));
    }
}

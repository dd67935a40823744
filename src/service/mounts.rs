//! The mounts of a mount namespace, as listed in /proc (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Errno, Error, Result};
use crate::sys::fuse::VfsFlags;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The number of the mount.
    pub id: u64,
    /// The number of the parent mount.
    pub parent: u64,
    /// The root within the file system: `/` unless it is a bind mount of a part.
    pub root: PathBuf,
    /// The major and minor number of the file system, `MAJOR:MINOR`.
    pub device: String,
    /// The mount point.
    pub target: PathBuf,
    /// The options of the mount, then of the file system.
    pub options: String,
    /// The file system type, with subtype.
    pub kind: String,
    /// The source.
    pub source: Vec<u8>,
}

impl MountEntry {
    /// The mount, as a message shows it.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} from {}", self.kind, String::from_utf8_lossy(&self.source))
    }

    /// The VFS flags of the mount.
    #[must_use]
    pub fn flags(&self) -> VfsFlags {
        let has = |name: &str| self.options.split(',').any(|word| word == name);
        VfsFlags {
            read_only: has("ro"),
            nosuid: has("nosuid"),
            nodev: has("nodev"),
            noexec: has("noexec"),
            noatime: has("noatime"),
            relatime: has("relatime"),
            // Shown as the absence of the two others.
            strictatime: !has("noatime") && !has("relatime"),
            nodiratime: has("nodiratime"),
            sync: has("sync"),
            dirsync: has("dirsync"),
            lazytime: has("lazytime"),
            nosymfollow: has("nosymfollow"),
        }
    }

    /// Whether the mount itself maps ids (mount_setattr(2) with `MOUNT_ATTR_IDMAP`).
    #[must_use]
    pub fn is_idmapped(&self) -> bool {
        self.options.split(',').any(|word| word == "idmapped")
    }
}

/// Reads the mounts of this process.
///
/// # Errors
/// As read(2) of /proc/self/mountinfo.
pub fn read() -> Result<Vec<MountEntry>> {
    read_of("self")
}

/// Reads the mounts that a process sees.
///
/// # Errors
/// As read(2) of /proc/PID/mountinfo.
pub fn read_of(pid: &str) -> Result<Vec<MountEntry>> {
    let table = std::fs::read(format!("/proc/{pid}/mountinfo")).map_err(|error| {
        Error::os("read mountinfo", Errno(error.raw_os_error().unwrap_or(Errno::IO.0)))
    })?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Returns the topmost mount on a path.
///
/// # Errors
/// As [`read`].
pub fn on(target: &Path) -> Result<Option<MountEntry>> {
    Ok(read()?.into_iter().rev().find(|entry| entry.target == target))
}

fn parse(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let id = text(fields.next()?).parse().ok()?;
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
    let parent = text(fields.next()?).parse().ok()?;
    let device = text(fields.next()?);
    let root = path(fields.next()?);
    let target = path(fields.next()?);
    let mut options = text(fields.next()?);
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = text(fields.next()?);
    let source = unescape(fields.next()?);
    if let Some(more) = fields.next() {
        options.push(',');
        options.push_str(&String::from_utf8_lossy(&unescape(more)));
    }
    Some(MountEntry { id, parent, root, device, target, options, kind, source })
}

// Blank, tab, newline and backslash are written as three octal digits.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| first == b'\\');
        let code =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = behind;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_escapes() {
        let line =
            b"36 35 98:0 / /mnt\\040two rw,noatime shared:1 - fuse.lamina my\\134src rw,user_id=0";
        let entry = parse(line).unwrap();
        assert_eq!((entry.id, entry.parent, entry.device.as_str()), (36, 35, "98:0"));
        assert_eq!(entry.root, Path::new("/"));
        assert_eq!(entry.target, Path::new("/mnt two"));
        assert_eq!((entry.kind.as_str(), &entry.source[..]), ("fuse.lamina", &b"my\\src"[..]));
        assert_eq!(entry.options, "rw,noatime,rw,user_id=0");
        assert_eq!(entry.flags(), VfsFlags { noatime: true, ..VfsFlags::default() });
    }

    #[test]
    fn a_line_without_optional_fields_is_read() {
        let entry = parse(b"1 0 0:5 / /a rw - tmpfs none rw").unwrap();
        assert_eq!((entry.kind.as_str(), entry.target.as_path()), ("tmpfs", Path::new("/a")));
        assert_eq!(parse(b""), None);
    }
}

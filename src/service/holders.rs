//! The users of a file system: processes, and its mounts in other places.
//!
//! Everything is read from /proc, without any request to the file system itself, since its daemon
//! may not respond. Processes that the caller may not inspect are left out.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::mounts::{self, MountEntry};
use crate::sys;

/// A process that uses a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// The command name.
    pub name: String,
    /// The kind of the reference to the file system.
    pub how: &'static str,
    /// The path of the reference.
    pub path: PathBuf,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, name, how, path } = self;
        write!(f, "process {pid} ({name}): {how} {}", path.display())
    }
}

/// The object to search for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The file system, `MAJOR:MINOR`.
    pub device: &'a str,
    /// Only this mount of the file system.
    pub mount: Option<u64>,
    /// Whether other programs mount the file system too.
    pub is_shared: bool,
}

/// Processes that use a file system as working directory, root, program, open file or mapped file;
/// one entry for each process.
#[must_use]
pub fn processes(wanted: Wanted<'_>) -> Vec<Holder> {
    pids().filter_map(|pid| process(pid, wanted)).collect()
}

/// Mounts of a file system in all mount namespaces. Each has a process that sees it; `None` for
/// those of this namespace.
#[must_use]
pub fn mounts_of(device: &str) -> Vec<(Option<u32>, MountEntry)> {
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    let of = |pid: &str| {
        let table = mounts::read_of(pid).unwrap_or_default();
        table.into_iter().filter(|entry| entry.device == device).collect::<Vec<_>>()
    };
    let mut found: Vec<_> = of("self").into_iter().map(|entry| (None, entry)).collect();
    let mut seen = HashSet::from([own]);
    for pid in pids() {
        let Ok(namespace) = std::fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
        if seen.insert(namespace) {
            found.extend(of(&pid.to_string()).into_iter().map(|entry| (Some(pid), entry)));
        }
    }
    found
}

/// A process and a mount, as a message shows them.
#[must_use]
pub fn mount_label((pid, entry): &(Option<u32>, MountEntry)) -> String {
    match pid {
        None => entry.target.display().to_string(),
        Some(pid) => {
            let target = entry.target.display();
            format!("{target} in the mount namespace of process {pid} ({})", name(*pid))
        }
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn name(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

fn process(pid: u32, wanted: Wanted<'_>) -> Option<Holder> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let held = |link: &Path| {
        let (device, mount) = sys::file::place_of(link).ok()?;
        let of_it = wanted.mount.is_none_or(|wanted| wanted == mount);
        (of_it && sys::file::device_label(device) == wanted.device)
            .then(|| std::fs::read_link(link).unwrap_or_default())
    };
    let holder = |how: &'static str, path: PathBuf| Holder { pid, name: name(pid), how, path };
    for (link, how) in [("cwd", "working directory"), ("root", "root"), ("exe", "program")] {
        if let Some(path) = held(&proc.join(link)) {
            return Some(holder(how, path));
        }
    }
    let files = std::fs::read_dir(proc.join("fd")).into_iter().flatten().flatten();
    if let Some(path) = files.into_iter().find_map(|entry| held(&entry.path())) {
        return Some(holder("open file", path));
    }
    // A mapped file has the number of its file system and not that of its mount. So it is no
    // evidence for a graft, which shows a part of a file system of the host.
    if wanted.is_shared {
        return None;
    }
    mapped(&std::fs::read(proc.join("maps")).ok()?, wanted.device)
        .map(|path| holder("mapped file", path))
}

/// The path of a mapped file of a file system (proc_pid_maps(5)).
fn mapped(maps: &[u8], device: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let place = std::str::from_utf8(fields.nth(3)?).ok()?;
        let (major, minor) = place.split_once(':')?;
        let number = |hex| u32::from_str_radix(hex, 16).ok();
        let same = format!("{}:{}", number(major)?, number(minor)?) == device;
        let path = fields.nth(1)?;
        let start = path.iter().position(|byte| *byte != b' ')?;
        let path = path.get(start..)?.to_vec();
        same.then(|| PathBuf::from(std::ffi::OsString::from_vec(path)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_is_found_by_the_number_of_its_file_system() {
        let maps = b"7f00-7f01 r--p 00000000 fe:01 12    /usr/lib/a\n\
                     7f02-7f03 rw-s 00000000 00:2a 77                         /m/a b\n\
                     7f04-7f05 rw-p 00000000 00:00 0 \n";
        assert_eq!(mapped(maps, "0:42"), Some(PathBuf::from("/m/a b")));
        assert_eq!(mapped(maps, "254:1"), Some(PathBuf::from("/usr/lib/a")));
        assert_eq!(mapped(maps, "0:43"), None);
    }

    #[test]
    fn this_process_holds_what_it_has_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (device, _) = sys::file::place_of(file.path()).unwrap();
        let device = sys::file::device_label(device);
        let found = processes(Wanted { device: &device, mount: None, is_shared: false });
        let own = std::process::id();
        assert!(found.iter().any(|holder| holder.pid == own), "{found:?}");
        assert!(processes(Wanted { device: "0:999999", mount: None, is_shared: false }).is_empty());
    }
}

//! The abilities of this host for mounts, what each is good for, and what gives a missing one.
//!
//! Each ability is tried by itself, and one that cannot be tried is reported like the others:
//! nothing stops the examination. Nothing that other processes see is changed, but for a temporary
//! directory in the examined one. The FUSE mount that is tried has no place in the tree.

mod files;

use std::path::Path;

use serde::Serialize;

use super::{grafts, mounts};
use crate::error::Errno;
use crate::sys;

/// One ability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name.
    pub name: &'static str,
    /// Whether the host has the ability; `None` if it could not be tried.
    pub available: Option<bool>,
    /// Whether no mount is possible without it.
    pub needed: bool,
    /// The benefit of the ability, or the reason why it is missing.
    pub detail: String,
    /// What gives the ability, if it is missing and something does.
    pub remedy: Option<String>,
}

impl Finding {
    /// An ability that the host has.
    fn good(name: &'static str, detail: &str) -> Self {
        let (detail, available) = (detail.to_owned(), Some(true));
        Self { name, available, needed: false, detail, remedy: None }
    }

    /// An ability that the host does not have.
    fn bad(name: &'static str, detail: impl Into<String>, remedy: &str) -> Self {
        let remedy = Some(remedy.to_owned()).filter(|remedy| !remedy.is_empty());
        Self { name, available: Some(false), needed: false, detail: detail.into(), remedy }
    }

    /// An ability that could not be tried.
    fn unknown(name: &'static str, detail: impl Into<String>, remedy: &str) -> Self {
        Self { available: None, ..Self::bad(name, detail, remedy) }
    }

    /// Marks an ability without which no mount is possible.
    const fn needed(mut self) -> Self {
        self.needed = true;
        self
    }

    /// Whether no mount is possible for lack of this ability.
    #[must_use]
    pub fn prevents_mounts(&self) -> bool {
        self.needed && self.available == Some(false)
    }
}

/// Examines the host and, for abilities of a file system, `dir`, in which a temporary directory is
/// made and removed.
#[must_use]
pub fn examine(dir: &Path) -> Vec<Finding> {
    let device = sys::fuse::Device::open();
    let mut found = vec![proc(), fuse(device.as_ref().err()), mount(device.as_ref().ok())];
    found.extend([passthrough(), graft(), tmpfs(), descriptors(), loops()]);
    found.extend(files::examine(dir));
    found
}

/// The text of the operating system for an errno.
fn reason(errno: Errno) -> String {
    crate::error::Error::from(errno).to_string()
}

fn proc() -> Finding {
    match mounts::read() {
        Ok(_) => Finding::good("proc", "the table of mounts can be read"),
        Err(error) => {
            let (detail, remedy) =
                (format!("/proc: {error}"), "mount it: mount -t proc proc /proc");
            Finding::bad("proc", detail, remedy)
        }
    }
    .needed()
}

fn fuse(refused: Option<&Errno>) -> Finding {
    let Some(errno) = refused else {
        return Finding::good("fuse", "/dev/fuse can be opened").needed();
    };
    let remedy = match *errno {
        Errno::PERM | Errno::ACCESS => {
            "run as root, or let this user open it: chmod a+rw /dev/fuse; a container needs \
             --device /dev/fuse"
        }
        _ => "load the module: modprobe fuse; a container needs --device /dev/fuse",
    };
    Finding::bad("fuse", format!("/dev/fuse: {}", reason(*errno)), remedy).needed()
}

fn mount(device: Option<&sys::fuse::Device>) -> Finding {
    const NAME: &str = "mount";
    let install = "run as root, or install fusermount3: apt install fuse3";
    let Some(device) = device else {
        return Finding::unknown(NAME, "not tried: /dev/fuse cannot be opened", "").needed();
    };
    let found = match sys::fuse::try_mount(device) {
        Ok(()) => {
            Finding::good(NAME, "a FUSE file system was mounted, without a place in the tree")
        }
        Err(Errno::PERM | Errno::ACCESS) if has_helper() => {
            Finding::good(NAME, "through fusermount3, for this user alone")
        }
        Err(Errno::PERM | Errno::ACCESS) => {
            let detail = "needs CAP_SYS_ADMIN over the mount namespace, or fusermount3";
            Finding::bad(NAME, detail, install)
        }
        Err(Errno::NOSYS) => {
            Finding::unknown(NAME, "not tried: the kernel is older than Linux 5.2", "")
        }
        Err(errno) => {
            let detail = format!("mounting a FUSE file system: {}", reason(errno));
            Finding::bad(NAME, detail, "see the log of the kernel: dmesg | tail")
        }
    };
    found.needed()
}

/// Whether `fusermount3` can be run.
fn has_helper() -> bool {
    use std::process::{Command, Stdio};
    let mut helper = Command::new("fusermount3");
    helper.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    helper.status().is_ok_and(|status| status.success())
}

fn passthrough() -> Finding {
    const NAME: &str = "passthrough";
    match sys::fuse::may_pass_through() {
        true => Finding::good(NAME, "open files are read and written by the kernel"),
        false => Finding::bad(
            NAME,
            "needs CAP_SYS_ADMIN in the initial user namespace: files go through the daemon, and \
             a mount without upper and grafts opens them without asking it",
            "run as root of the host",
        ),
    }
}

fn graft() -> Finding {
    const NAME: &str = "graft";
    match grafts::can_bind() {
        true => Finding::good(NAME, "volumes and binds are bind mounts of the kernel"),
        false => Finding::bad(
            NAME,
            "needs CAP_SYS_ADMIN over the mount namespace: they are served by the daemon; sockets \
             and FIFOs do not meet across mounts, and shared mappings do not without passthrough",
            "run as root, or in a user and mount namespace: unshare -rm",
        ),
    }
}

fn tmpfs() -> Finding {
    match grafts::has_tmpfs() {
        true => Finding::good("tmpfs", "--tmpfs works"),
        false => {
            let remedy = "run as root, or in a user and mount namespace: unshare -rm";
            Finding::bad("tmpfs", "--tmpfs needs CAP_SYS_ADMIN", remedy)
        }
    }
}

fn descriptors() -> Finding {
    let limit = sys::process::open_files_max();
    let detail = format!("limit of open files: {limit}");
    match limit >= 1024 {
        true => Finding::good("descriptors", &detail),
        false => {
            let remedy = "raise it: ulimit -Hn 65536, or LimitNOFILE=65536 of the service";
            Finding::bad("descriptors", detail, remedy)
        }
    }
}

fn loops() -> Finding {
    const NAME: &str = "loop devices";
    let control = sys::file::open_path(Path::new("/dev/loop-control"), sys::file::OFlags::RDWR);
    match control {
        Ok(_) => Finding::good(NAME, "volumes of the driver image can be mounted"),
        Err(error) => Finding::bad(
            NAME,
            format!("volumes of the driver image cannot be mounted: /dev/loop-control: {error}"),
            match error.errno() {
                Errno::ACCESS | Errno::PERM => "run as root",
                _ => "load the module: modprobe loop",
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ability_has_a_line_whatever_fails() {
        let dir = tempfile::tempdir().unwrap();
        let names = |found: &[Finding]| found.iter().map(|one| one.name).collect::<Vec<_>>();
        let there = examine(dir.path());
        let missing = examine(&dir.path().join("none"));
        assert_eq!(names(&there), names(&missing));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        let directory = missing.iter().find(|one| one.name == "directory").unwrap();
        assert_eq!(directory.available, Some(false));
        let of_files = missing.iter().skip_while(|one| one.name != "directory").skip(1);
        assert!(of_files.clone().count() >= 6);
        for one in of_files {
            assert_eq!(one.available, None, "{one:?}");
        }
    }
}

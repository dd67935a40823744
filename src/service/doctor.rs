//! The features of this host for mounts, and the reasons for missing ones.

use std::path::Path;

use serde::Serialize;

use super::{grafts, probe};
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::error::{Errno, Result};
use crate::sys;
use crate::types::{Kind, Owner};
use crate::union::DirRef;

/// One feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name.
    pub name: &'static str,
    /// Whether the host has the feature.
    pub available: bool,
    /// The benefit of the feature, or the reason why it is missing.
    pub detail: String,
}

fn finding(name: &'static str, available: bool, good: &str, bad: &str) -> Finding {
    let detail = if available { good } else { bad };
    Finding { name, available, detail: detail.to_owned() }
}

/// Checks the host and, for features of a file system, `dir`, in which a temporary directory is
/// made and removed.
///
/// # Errors
/// Errors of making a directory in `dir`.
pub fn examine(dir: &Path) -> Result<Vec<Finding>> {
    let mut found = host();
    let cache = FdCache::new(32);
    let above = HostTree::open(dir, Submounts::Shown, &cache)?;
    let (uid, gid) = sys::process::effective_ids();
    let own = Owner { uid, gid };
    let name = format!(".lamina-doctor.{}", std::process::id());
    above.mkdir(name.as_bytes(), 0o700, own)?;
    let place = above.dir(name.as_bytes());
    let examined = file_system(&place, own);
    crate::union::empty_dir(&place)?;
    above.rmdir(name.as_bytes())?;
    found.extend(examined?);
    Ok(found)
}

fn host() -> Vec<Finding> {
    let device = sys::fuse::Device::open();
    let reason = match &device {
        Err(errno) => format!("/dev/fuse: {errno}"),
        Ok(_) => String::new(),
    };
    let limit = sys::process::open_files_max();
    vec![
        finding("fuse", device.is_ok(), "/dev/fuse can be opened", &reason),
        finding(
            "passthrough",
            device.is_ok() && sys::fuse::may_pass_through(),
            "open files are read and written by the kernel",
            "needs CAP_SYS_ADMIN in the initial user namespace: files go through the daemon, \
             and a mount without upper and grafts opens them without asking it",
        ),
        finding(
            "graft",
            grafts::can_bind(),
            "volumes and binds are bind mounts of the kernel",
            "needs CAP_SYS_ADMIN over the mount namespace: they are served by the daemon; sockets \
             and FIFOs do not meet across mounts, and shared mappings do not without passthrough",
        ),
        finding("tmpfs", grafts::has_tmpfs(), "--tmpfs works", "--tmpfs needs CAP_SYS_ADMIN"),
        Finding {
            name: "descriptors",
            available: limit >= 1024,
            detail: format!("limit of open files: {limit}"),
        },
    ]
}

fn file_system(place: &DirRef, own: Owner) -> Result<Vec<Finding>> {
    let can = probe::probe(place, own)?;
    let (a, b) = (place.create(b"a", 0o600, own)?, place.create(b"b", 0o600, own)?);
    a.write_at(&[1; 4096], 0)?;
    let reflink = a.clone_to(b.as_ref()).is_ok();
    let handles = place.handle(Some(b"a"))?.is_some();
    place.mknod(b"fifo", Kind::Fifo.mode_bits() | 0o600, 0, own)?;
    let exchange = crate::types::RenameFlags { exchange: true, ..Default::default() };
    let exchanged = match place.rename(b"a", place.as_ref(), b"b", exchange) {
        Err(error) if error.is(Errno::INVAL) => false,
        done => {
            done?;
            true
        }
    };
    Ok(vec![
        finding(
            "trusted xattrs",
            can.trusted,
            "marks as the kernel's overlayfs writes them for root",
            "needs CAP_SYS_ADMIN in the initial user namespace: marks are user.overlay.*",
        ),
        finding(
            "user xattrs",
            can.user,
            "marks work without root",
            "this file system keeps none: whiteouts are .wh. files, no redirects, no metacopy",
        ),
        finding(
            "whiteouts",
            can.whiteouts,
            "character devices 0:0 can be made",
            "device files cannot be made here: whiteouts are .wh. files",
        ),
        finding(
            "reflink",
            reflink,
            "copy-up shares extents within this file system",
            "this file system has none: copy-up copies",
        ),
        finding(
            "file handles",
            handles,
            "hard links of lower layers stay together",
            "this file system has none: hard links of lower layers break at copy-up",
        ),
        finding(
            "rename exchange",
            exchanged,
            "directories can replace whiteouts in one step",
            "this file system cannot be an upper",
        ),
    ])
}

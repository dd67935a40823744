//! The abilities of a file system for an upper directory.

use std::path::Path;

use super::super::probe;
use super::Finding;
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::types::{Kind, Owner, RenameFlags, XattrFlags};
use crate::union::DirRef;

/// One test: the name of the ability, its benefit, what is without it, and what gives it.
struct Test {
    name: &'static str,
    good: &'static str,
    bad: &'static str,
    remedy: &'static str,
    has: fn(&DirRef, Owner) -> Result<bool>,
}

const OTHER: &str = "put the upper on ext4, xfs or btrfs";

const TESTS: [Test; 6] = [
    Test {
        name: "trusted xattrs",
        good: "marks as the kernel's overlayfs writes them for root",
        bad: "needs CAP_SYS_ADMIN in the initial user namespace: marks are user.overlay.*",
        remedy: "run as root of the host",
        has: |place, own| attribute(place, own, b"trusted.overlay.probe"),
    },
    Test {
        name: "user xattrs",
        good: "marks work without root",
        bad: "this file system keeps none: whiteouts are .wh. files, no redirects, no metacopy",
        remedy: OTHER,
        has: |place, own| attribute(place, own, b"user.overlay.probe"),
    },
    Test {
        name: "whiteouts",
        good: "character devices 0:0 can be made",
        bad: "device files cannot be made here: whiteouts are .wh. files",
        remedy: "run as root, on a file system that is not mounted with nodev",
        has: whiteout,
    },
    Test {
        name: "reflink",
        good: "copy-up shares extents within this file system",
        bad: "this file system has none: copy-up copies",
        remedy: "put layers and upper on one xfs or btrfs",
        has: |place, own| Ok(probe::shares_extents(place, own)),
    },
    Test {
        name: "file handles",
        good: "hard links of lower layers stay together",
        bad: "this file system has none: hard links of lower layers break at copy-up",
        remedy: OTHER,
        has: |place, own| {
            drop(place.create(b"handle", 0o600, own)?);
            Ok(place.handle(Some(b"handle"))?.is_some())
        },
    },
    Test {
        name: "rename exchange",
        good: "directories can replace whiteouts in one step",
        bad: "this file system cannot be an upper",
        remedy: OTHER,
        has: exchange,
    },
];

/// Examines a directory: one finding for the directory and one for each test, whatever fails.
pub(super) fn examine(dir: &Path) -> Vec<Finding> {
    let shown = dir.display();
    let mut found = Vec::new();
    match in_place(dir) {
        Ok(tested) => {
            found.push(Finding::good("directory", &format!("{shown} can hold an upper")));
            found.extend(tested);
        }
        Err(error) => {
            let remedy = match error.errno() {
                Errno::NOENT => format!("create it: mkdir -p {shown}"),
                Errno::ROFS => "name one on a writable file system: lamina doctor DIR".to_owned(),
                Errno::ACCESS | Errno::PERM => {
                    "name one of your own: lamina doctor DIR, or run as root".to_owned()
                }
                _ => "name another one: lamina doctor DIR".to_owned(),
            };
            found.push(Finding::bad("directory", format!("{shown}: {error}"), &remedy));
            let untried = |test: &Test| {
                Finding::unknown(test.name, "not tried: nothing can be made in the directory", "")
            };
            found.extend(TESTS.iter().map(untried));
        }
    }
    found
}

/// Runs the tests in a temporary directory of a directory.
fn in_place(dir: &Path) -> Result<Vec<Finding>> {
    let cache = FdCache::new(32);
    let above = HostTree::open(dir, Submounts::Shown, &cache)?;
    let (uid, gid) = sys::process::effective_ids();
    let own = Owner { uid, gid };
    let name = format!(".lamina-doctor.{}", std::process::id());
    above.mkdir(name.as_bytes(), 0o700, own)?;
    let place = above.dir(name.as_bytes());
    let tested = TESTS.iter().map(|test| tried(test, &place, own)).collect();
    crate::union::empty_dir(&place)?;
    above.rmdir(name.as_bytes())?;
    Ok(tested)
}

fn tried(test: &Test, place: &DirRef, own: Owner) -> Finding {
    match (test.has)(place, own) {
        Ok(true) => Finding::good(test.name, test.good),
        Ok(false) => Finding::bad(test.name, test.bad, test.remedy),
        Err(error) => Finding::bad(test.name, format!("{} ({error})", test.bad), test.remedy),
    }
}

/// Whether the operation of a test worked; `false` where the host or the file system refuses it.
fn worked(done: Result<()>) -> Result<bool> {
    let refused = |error: &Error| {
        matches!(error.errno(), Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL)
    };
    match done {
        Err(error) if refused(&error) => Ok(false),
        done => done.map(|()| true),
    }
}

fn attribute(place: &DirRef, own: Owner, key: &[u8]) -> Result<bool> {
    let name = key;
    place.mknod(name, Kind::File.mode_bits() | 0o600, 0, own)?;
    worked(place.set_xattr(Some(name), key, b"y", XattrFlags::default()))
}

fn whiteout(place: &DirRef, own: Owner) -> Result<bool> {
    let name = b"device";
    let made = worked(place.mknod(name, Kind::Char.mode_bits(), 0, own))?;
    Ok(made && place.stat(Some(name))?.is_whiteout_device())
}

fn exchange(place: &DirRef, own: Owner) -> Result<bool> {
    drop(place.create(b"a", 0o600, own)?);
    drop(place.create(b"b", 0o600, own)?);
    let exchange = RenameFlags { exchange: true, ..Default::default() };
    worked(place.rename(b"a", place.as_ref(), b"b", exchange))
}

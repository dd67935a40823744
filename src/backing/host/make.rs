//! New objects with the requested owner.

use std::os::fd::BorrowedFd;

use crate::error::{Errno, Result};
use crate::sys;
use crate::types::{Kind, MODE_MASK, Owner, S_ISGID, S_ISUID};

use super::names::component;
use super::place::HostDir;

impl HostDir {
    /// Makes an object by `act` so that it belongs to `owner`, except that a set-group-ID directory
    /// passes its group on.
    pub(super) fn make<T>(
        &self,
        name: &[u8],
        owner: Owner,
        act: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let (dir, name) = (self.opened()?, component(name)?);
        let (made, in_force) = sys::cred::assume(owner, || act(dir.fd(), name));
        let made = made?;
        if !in_force && let Err(error) = give(dir.fd(), name, owner) {
            remove(dir.fd(), name)?;
            return Err(error);
        }
        Ok(made)
    }
}

/// Gives an object that belongs to the process to `owner`.
fn give(dir: BorrowedFd<'_>, name: &[u8], owner: Owner) -> Result<()> {
    let made = sys::file::statx(dir, name)?;
    let inherits = sys::file::statx(dir, b"")?.mode & S_ISGID != 0;
    let uid = (made.uid != owner.uid).then_some(owner.uid);
    let gid = (made.gid != owner.gid && !inherits).then_some(owner.gid);
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    sys::file::fchownat(dir, name, uid, gid)?;
    // A change of owner clears these bits on all but directories.
    let set_id = made.mode & (S_ISUID | S_ISGID) != 0;
    if set_id && !matches!(made.kind(), Kind::Dir | Kind::Symlink) {
        sys::file::set_mode(dir, name, made.mode & MODE_MASK)?;
    }
    Ok(())
}

fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match sys::dir::unlinkat(dir, name) {
        Err(error) if error.is(Errno::ISDIR) => sys::dir::rmdirat(dir, name),
        removed => removed,
    }
}

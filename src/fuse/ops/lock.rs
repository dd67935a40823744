//! GETLK, SETLK, SETLKW, FLUSH and INTERRUPT, for mounts that serve grafts. For other mounts the
//! kernel keeps locks by itself.

use super::call::Call;
use crate::error::Errno;
use crate::fuse::locks::{LockRequest, Locks, Owner};
use crate::fuse::wire::abi::{FileLock, LkIn, LkOut};
use crate::sys::lock::{LockKind, RangeLock};
use crate::types::NodeId;

/// `FUSE_LK_FLOCK` of [`LkIn::lk_flags`].
const FLOCK: u32 = 1 << 0;

fn wish(node: NodeId, arg: &LkIn) -> Option<LockRequest> {
    let kind = LockKind::from_raw(arg.lk.kind.cast_signed())?;
    let lock = RangeLock { kind, start: arg.lk.start, end: arg.lk.end, pid: 0 };
    let owner = Owner { id: arg.owner, is_whole: arg.lk_flags & FLOCK != 0 };
    Some(LockRequest { node, fh: arg.fh, owner, lock })
}

pub(super) fn set(call: &Call<'_>, locks: &Locks, arg: &LkIn, waits: bool) {
    match wish(call.node(), arg) {
        None => call.done(Err(Errno::INVAL.into())),
        Some(wish) if waits => {
            call.reply.replied_elsewhere();
            locks.set_waiting(call.header.unique, &wish);
        }
        Some(wish) => call.done(locks.set(&wish)),
    }
}

pub(super) fn find(call: &Call<'_>, locks: &Locks, arg: &LkIn) {
    let Some(wish) = wish(call.node(), arg) else {
        return call.done(Err(Errno::INVAL.into()));
    };
    match locks.find(&wish) {
        Ok(found) => {
            let lk = FileLock {
                start: found.start,
                end: found.end,
                kind: found.kind.raw().cast_unsigned(),
                pid: u32::try_from(found.pid).unwrap_or(0),
            };
            call.reply.body(&LkOut { lk });
        }
        Err(error) => call.done(Err(error)),
    }
}

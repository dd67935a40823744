//! SYMLINK, MKNOD, MKDIR, RENAME, LINK: operations that make or move names.

use super::call::Call;
use crate::error::Errno;
use crate::fuse::wire::abi::{MkdirIn, MknodIn};
use crate::types::{MODE_MASK, NodeId, RenameFlags};

/// `RENAME_NOREPLACE`, `RENAME_EXCHANGE` and `RENAME_WHITEOUT` of renameat2(2).
const NOREPLACE: u32 = 1;
const EXCHANGE: u32 = 2;
const WHITEOUT: u32 = 4;

pub(super) fn symlink(call: &Call<'_>, name: &[u8], target: &[u8]) {
    call.entry(call.union.symlink(&call.caller(0), call.node(), name, target));
}

pub(super) fn mknod(call: &Call<'_>, arg: &MknodIn, name: &[u8]) {
    let caller = call.caller(arg.umask);
    call.entry(call.union.mknod(&caller, call.node(), name, arg.mode, u64::from(arg.rdev)));
}

pub(super) fn mkdir(call: &Call<'_>, arg: &MkdirIn, name: &[u8]) {
    let caller = call.caller(arg.umask);
    call.entry(call.union.mkdir(&caller, call.node(), name, arg.mode & MODE_MASK));
}

pub(super) fn link(call: &Call<'_>, node: NodeId, name: &[u8]) {
    call.entry(call.union.link(node, call.node(), name));
}

pub(super) fn rename(call: &Call<'_>, name: &[u8], to: NodeId, to_name: &[u8], flags: u32) {
    if flags & !(NOREPLACE | EXCHANGE | WHITEOUT) != 0 {
        return call.done(Err(Errno::INVAL.into()));
    }
    let flags = RenameFlags {
        noreplace: flags & NOREPLACE != 0,
        exchange: flags & EXCHANGE != 0,
        whiteout: flags & WHITEOUT != 0,
    };
    call.done(call.union.rename(call.node(), name, to, to_name, flags));
}

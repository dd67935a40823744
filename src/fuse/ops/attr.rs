//! GETATTR, STATX, SETATTR.

use super::call::Call;
use crate::fuse::convert;
use crate::fuse::wire::abi::{FATTR_KILL_SUIDGID, SetAttrIn};

pub(super) fn getattr(call: &Call<'_>) {
    match call.union.getattr(call.node()) {
        Ok(stat) => call.reply.body(&call.attr_lifetime().attr(&stat)),
        Err(error) => call.reply.error(&error),
    };
}

pub(super) fn statx(call: &Call<'_>) {
    match call.union.getattr(call.node()) {
        Ok(stat) => call.reply.body(&call.attr_lifetime().statx(&stat)),
        Err(error) => call.reply.error(&error),
    };
}

pub(super) fn setattr(call: &Call<'_>, arg: &SetAttrIn) {
    let kill_priv = arg.valid & FATTR_KILL_SUIDGID != 0;
    match call.union.setattr(call.node(), &convert::change(arg), kill_priv) {
        Ok(stat) => call.reply.body(&call.attr_lifetime().attr(&stat)),
        Err(error) => call.reply.error(&error),
    };
}

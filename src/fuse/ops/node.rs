//! LOOKUP, FORGET, READLINK, STATFS.

use super::call::Call;
use crate::fuse::convert;
use crate::fuse::wire::request::forgets;
use crate::types::NodeId;

pub(super) fn lookup(call: &Call<'_>, name: &[u8]) {
    match call.union.lookup(call.node(), name) {
        Ok(Some(entry)) => call.entry(Ok(entry)),
        Ok(None) => {
            call.reply.body(&call.names_lifetime().absent());
        }
        Err(error) => call.entry(Err(error)),
    }
}

pub(super) fn forget(call: &Call<'_>, count: u64) {
    call.union.forget(call.node(), count);
}

pub(super) fn batch_forget(call: &Call<'_>, items: &[u8]) {
    for item in forgets(items) {
        call.union.forget(NodeId(item.nodeid), item.nlookup);
    }
}

pub(super) fn readlink(call: &Call<'_>) {
    match call.union.readlink(call.node()) {
        Ok(target) => call.reply.bytes(&target),
        Err(error) => call.reply.error(&error),
    };
}

pub(super) fn statfs(call: &Call<'_>) {
    match call.union.statfs(call.node()) {
        Ok(stat) => call.reply.body(&convert::statfs(&stat)),
        Err(error) => call.reply.error(&error),
    };
}

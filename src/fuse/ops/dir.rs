//! READDIR and READDIRPLUS. A position is enough to resume a listing, so there is no handle.
//! OPENDIR is served where others change what is grafted: its reply states which listings may be
//! kept.

use super::call::{Call, is_momentary};
use crate::fuse::convert::Lifetime;
use crate::fuse::wire::abi::{self, EntryOut, MAX_WRITE, OpenOut, ReadIn};
use crate::fuse::wire::dirent::DirentBuffer;
use crate::fuse::wire::reply::Reply;
use crate::types::{Kind, NodeId};
use crate::union::{Detail, DirSink, Entry, Union};

/// Fills a listing from the union.
struct Sink<'a> {
    list: DirentBuffer<'a>,
    union: &'a Union,
    reply: &'a Reply<'a>,
    lifetime: Lifetime,
}

impl DirSink for Sink<'_> {
    fn is_empty(&self) -> bool {
        self.list.bytes().is_empty()
    }

    fn has_room(&self, name_len: usize) -> bool {
        self.list.has_room(name_len)
    }

    fn push(&mut self, name: &[u8], ino: u64, kind: Kind, next: u64, entry: Option<&Entry>) {
        // The kernel ignores an entry without a node, and the times in it.
        let out = entry.map_or_else(EntryOut::default, |entry| {
            if is_momentary(self.union, self.reply, entry.node) {
                return self.lifetime.entry_live(entry);
            }
            self.lifetime.entry(entry)
        });
        if !self.list.push(name, ino, kind, next, out)
            && let Some(entry) = entry
        {
            self.union.forget(entry.node, 1);
        }
    }
}

pub(super) fn open(call: &Call<'_>) {
    let kept = abi::FOPEN_KEEP_CACHE | abi::FOPEN_CACHE_DIR;
    let open_flags = if call.union.is_shared(call.node()) { 0 } else { kept };
    call.reply.body(&OpenOut { fh: 0, open_flags, backing_id: 0 });
}

pub(super) fn readdir(call: &mut Call<'_>, arg: &ReadIn, plus: bool) {
    let limit = usize::try_from(arg.size.min(MAX_WRITE)).unwrap_or(0);
    let list = DirentBuffer::new(&mut call.scratch.list, limit, plus);
    let (union, reply, lifetime) = (call.union, call.reply, call.lifetime);
    let mut sink = Sink { list, union, reply, lifetime };
    let detail = match (plus, call.is_own) {
        // The attributes could not be kept.
        _ if call.union.is_shared(NodeId(call.header.nodeid)) => Detail::Names,
        (false, _) => Detail::Names,
        (true, false) => Detail::Likely,
        (true, true) => Detail::All,
    };
    let node = NodeId(call.header.nodeid);
    let result = call.union.readdir(node, arg.offset, detail, &mut sink);
    let sent = match &result {
        Ok(()) => call.reply.bytes(sink.list.bytes()),
        Err(error) => call.reply.error(error),
    };
    if result.is_err() || !sent {
        for node in sink.list.nodes() {
            call.union.forget(NodeId(node), 1);
        }
    }
    if detail == Detail::Likely
        && arg.offset == 0
        && let Some(ahead) = call.ahead
        && call.union.is_walked()
    {
        ahead.reached(node);
    }
}

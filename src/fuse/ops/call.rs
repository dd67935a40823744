//! One request on its way through an operation: its subject and its reply.

use std::sync::Arc;

use crate::error::Error;
use crate::fuse::ahead::Ahead;
use crate::fuse::convert::{self, Lifetime};
use crate::fuse::locks::Locks;
use crate::fuse::wire::abi::{EntryOut, InHeader};
use crate::fuse::wire::reply::Reply;
use crate::sys::process::{self, Capability};
use crate::types::{NodeId, S_ISGID, S_ISUID};
use crate::union::{Caller, Entry, Kill, Union};

/// Buffers of one thread that outlive a request.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) data: Vec<u8>,
    pub(super) list: Vec<u8>,
}

/// One request on its way through an operation.
pub(super) struct Call<'a> {
    pub(super) union: &'a Union,
    pub(super) lifetime: Lifetime,
    pub(super) ahead: Option<&'a Arc<Ahead>>,
    pub(super) locks: Option<&'a Arc<Locks>>,
    /// Whether the request comes from the thread that lists ahead.
    pub(super) is_own: bool,
    pub(super) header: &'a InHeader,
    pub(super) reply: &'a Reply<'a>,
    pub(super) scratch: &'a mut Scratch,
}

impl Call<'_> {
    /// The node that the request is about.
    pub(super) const fn node(&self) -> NodeId {
        NodeId(self.header.nodeid)
    }

    pub(super) const fn caller(&self, umask: u32) -> Caller {
        convert::caller(self.header, umask)
    }

    /// Replies without a body.
    pub(super) fn done(&self, result: Result<(), Error>) {
        match result {
            Ok(()) => self.reply.ok(),
            Err(error) => self.reply.error(&error),
        };
    }

    /// Replies with an object; the kernel counts a lookup when it takes the reply.
    pub(super) fn entry(&self, result: Result<Entry, Error>) {
        match result {
            Ok(entry) => {
                if !self.reply.body(&self.entry_out(&entry)) {
                    self.union.forget(entry.node, 1);
                }
            }
            Err(error) => {
                self.reply.error(&error);
            }
        }
    }

    /// An entry in the form of the protocol.
    pub(super) fn entry_out(&self, entry: &Entry) -> EntryOut {
        if is_momentary(self.union, self.reply, entry.node) {
            return self.names_lifetime().entry_live(entry);
        }
        self.lifetime.entry(entry)
    }

    /// How long the kernel may use names in the directory of the request.
    pub(super) fn names_lifetime(&self) -> Lifetime {
        if self.union.is_shared(self.node()) {
            return Lifetime::NONE.in_session(self.lifetime.session());
        }
        self.lifetime
    }

    /// How long the kernel may use attributes of the node.
    pub(super) fn attr_lifetime(&self) -> Lifetime {
        let is_momentary = is_momentary(self.union, self.reply, self.node());
        if is_momentary { Lifetime::NONE } else { self.lifetime }
    }

    /// The privilege bits that an operation without a flag of the protocol clears: none for a
    /// caller with CAP_FSETID over the host, and set-group-ID too for a caller outside the file's
    /// group (`setattr_should_drop_suidgid()` in the kernel's fs/attr.c).
    pub(super) fn kills(&self, node: NodeId) -> Kill {
        let Ok(stat) = self.union.getattr(node) else { return Kill::AllIds };
        // The file system below clears capabilities by itself, for root too.
        if self.header.uid == 0 && stat.mode & (S_ISUID | S_ISGID) == 0 {
            return Kill::Nothing;
        }
        if process::has_host_capability(self.header.pid, Capability::FSetId) {
            return Kill::Nothing;
        }
        if process::is_of_group(self.header.pid, stat.gid) { Kill::Privilege } else { Kill::AllIds }
    }
}

/// Whether the attributes of a node, which were just read, are for the caller alone. If the file
/// lost a name a moment ago, the kernel is notified that they changed before they are sent: see
/// `union/shed.rs`.
pub(super) fn is_momentary(union: &Union, reply: &Reply<'_>, node: NodeId) -> bool {
    if union.lost_name(node) {
        reply.forget_attributes(node);
        return true;
    }
    union.is_live(node) || union.is_shared(node)
}

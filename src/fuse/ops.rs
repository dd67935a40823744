//! The adapter: converts each operation, calls the union, and replies.
//!
//! [`Adapter::serve`] sends exactly one reply to every request that needs one, also when the union
//! panics. Lookups and handles in a reply that the kernel did not take (the request was
//! interrupted, or the mount ended) are returned to the union.
//!
//! The kernel remembers `ENOSYS` for the whole mount, so it is sent on purpose only:
//!
//! - for OPENDIR (directories need no handle, and their listings are then cached), unless others
//!   change what is grafted;
//! - for ACCESS, POLL, BMAP;
//! - for FLUSH, the lock operations and INTERRUPT, unless grafts are served (the kernel keeps locks
//!   by itself);
//! - for OPEN where nothing changes.

mod attr;
mod call;
mod dir;
mod file;
mod ioctl;
mod lock;
mod name;
mod node;
mod xattr;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::Errno;
use crate::fuse::ahead::Ahead;
use crate::fuse::convert::Lifetime;
use crate::fuse::counters::Counters;
use crate::fuse::gate::Gate;
use crate::fuse::locks::Locks;
use crate::fuse::wire::reply::Reply;
use crate::fuse::wire::request::{Operation, Request};
use crate::types::NodeId;

use call::Call;
pub use call::Scratch;

/// Serves requests from a union.
pub struct Adapter {
    pub(super) union: Arc<Gate>,
    pub(super) lifetime: Lifetime,
    /// Whether the kernel opens files without a request.
    pub(super) no_open: bool,
    pub(super) counters: Arc<Counters>,
    /// Lists directories ahead of a walk.
    pub(super) ahead: Option<Arc<Ahead>>,
    /// Locks, where the kernel forwards them.
    pub(super) locks: Option<Arc<Locks>>,
    /// The changes that are on the disk before the reply.
    pub(super) synchronous: Synchronous,
}

/// The changes that a mount makes durable before it replies. Data is not among them: for a mount
/// with `sync` the kernel sends FSYNC after each write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Synchronous {
    /// Changes of names (`dirsync`, `sync`).
    pub names: bool,
    /// Changes of attributes (`sync`).
    pub attributes: bool,
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl Adapter {
    /// Whether the change of an operation is on the disk before the reply.
    pub fn is_synchronous(&self, op: &Operation<'_>) -> bool {
        match op {
            Operation::Symlink { .. }
            | Operation::Mknod { .. }
            | Operation::Mkdir { .. }
            | Operation::Unlink { .. }
            | Operation::Rmdir { .. }
            | Operation::Rename { .. }
            | Operation::Link { .. }
            | Operation::Create { .. } => self.synchronous.names,
            Operation::SetAttr(_)
            | Operation::SetXattr { .. }
            | Operation::RemoveXattr { .. }
            | Operation::Fallocate(_)
            | Operation::CopyFileRange { .. }
            | Operation::Ioctl { .. } => self.synchronous.attributes,
            _ => false,
        }
    }

    /// Notes that the session has ended.
    pub fn end(&self) {
        if let Some(ahead) = &self.ahead {
            ahead.end();
        }
        if let Some(locks) = &self.locks {
            locks.end();
        }
    }

    /// Serves one request.
    pub fn serve(&self, request: &Request<'_>, reply: &Reply<'_>, scratch: &mut Scratch) {
        let header = &request.header;
        let union = self.union.enter();
        tracing::trace!(unique = header.unique, node = header.nodeid, op = ?request.op);
        let call = Call {
            union: &union,
            lifetime: self.lifetime,
            ahead: self.ahead.as_ref(),
            locks: self.locks.as_ref(),
            is_own: self.ahead.as_ref().is_some_and(|ahead| ahead.is_own(header.pid)),
            header,
            reply,
            scratch,
        };
        // The next use overwrites anything that a panic leaves in the scratch buffers.
        let outcome = catch_unwind(AssertUnwindSafe(|| match request.op {
            Operation::Open(_) if self.no_open => drop(reply.errno(Errno::NOSYS)),
            _ => dispatch(call, &request.op),
        }));
        if outcome.is_err() {
            self.counters.panic();
            tracing::error!(opcode = header.opcode, node = header.nodeid, "handler panicked");
            if !reply.is_sent() && !is_silent(&request.op) {
                reply.errno(Errno::IO);
            }
        }
    }
}

/// Whether the kernel expects no reply.
const fn is_silent(op: &Operation<'_>) -> bool {
    use Operation::{BatchForget, Forget, Interrupt};
    matches!(op, Forget { .. } | BatchForget { .. } | Interrupt { .. })
}

fn dispatch(mut call: Call<'_>, op: &Operation<'_>) {
    let call = &mut call;
    match *op {
        Operation::Lookup { name } => node::lookup(call, name),
        Operation::Forget { nlookup } => node::forget(call, nlookup),
        Operation::BatchForget { items } => node::batch_forget(call, items),
        Operation::ReadLink => node::readlink(call),
        Operation::StatFs => node::statfs(call),
        Operation::SyncFs => call.done(call.union.sync_fs()),
        Operation::GetAttr => attr::getattr(call),
        Operation::Statx => attr::statx(call),
        Operation::SetAttr(ref arg) => attr::setattr(call, arg),
        Operation::Symlink { name, target } => name::symlink(call, name, target),
        Operation::Mknod { ref arg, name } => name::mknod(call, arg, name),
        Operation::Mkdir { ref arg, name } => name::mkdir(call, arg, name),
        Operation::Unlink { name } => call.done(call.union.unlink(call.node(), name)),
        Operation::Rmdir { name } => call.done(call.union.rmdir(call.node(), name)),
        Operation::Rename { new_parent, flags, name, new_name } => {
            name::rename(call, name, NodeId(new_parent), new_name, flags);
        }
        Operation::Link { node, name } => name::link(call, NodeId(node), name),
        Operation::Open(ref arg) => file::open(call, arg),
        Operation::Create { ref arg, name } => file::create(call, arg, name),
        Operation::Tmpfile(ref arg) => file::tmpfile(call, arg),
        Operation::Release(ref arg) => file::release(call, arg),
        Operation::Read(ref arg) => file::read(call, arg),
        Operation::Write { ref arg, data } => file::write(call, arg, data),
        Operation::Fsync { data_only } => call.done(call.union.fsync(call.node(), data_only)),
        Operation::FsyncDir { data_only } => {
            call.done(call.union.fsync_dir(call.node(), data_only));
        }
        Operation::Fallocate(ref arg) => file::fallocate(call, arg),
        Operation::Lseek(ref arg) => file::lseek(call, arg),
        Operation::CopyFileRange { ref arg, wide } => file::copy_file_range(call, arg, wide),
        Operation::SetXattr { key, value, flags, kill_sgid } => {
            xattr::set(call, key, value, flags, kill_sgid);
        }
        Operation::GetXattr { key, size } => xattr::value(call, key, size),
        Operation::ListXattr { size } => xattr::list(call, size),
        Operation::RemoveXattr { key } => call.done(call.union.removexattr(call.node(), key)),
        Operation::ReadDir { ref arg, plus } => dir::readdir(call, arg, plus),
        Operation::Ioctl { ref arg, data } => ioctl::ioctl(call, arg, data),
        Operation::Destroy => call.done(Ok(())),
        Operation::OpenDir if call.union.has_grafts() => dir::open(call),
        Operation::ReleaseDir => call.done(Ok(())),
        Operation::OpenDir
        | Operation::Flush(_)
        | Operation::FindLock(_)
        | Operation::SetLock { .. }
        | Operation::Interrupt { .. } => lock_operation(call, op),
        Operation::Unsupported => {
            call.reply.errno(Errno::NOSYS);
        }
    }
}

fn lock_operation(call: &Call<'_>, op: &Operation<'_>) {
    match (op, call.locks) {
        (Operation::Flush(arg), Some(locks)) => {
            locks.flush(call.node(), arg.lock_owner);
            call.union.flush(call.node());
            call.done(Ok(()));
        }
        (Operation::FindLock(arg), Some(locks)) => lock::find(call, locks, arg),
        (Operation::SetLock { arg, waits }, Some(locks)) => lock::set(call, locks, arg, *waits),
        (Operation::Interrupt { unique }, Some(locks)) => locks.interrupt(*unique),
        _ => drop(call.reply.errno(Errno::NOSYS)),
    }
}

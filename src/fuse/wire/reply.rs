//! Writes replies.
//!
//! A [`Reply`] is sent once for one request, with one writev(2) of header and body and without an
//! allocation. The kernel refuses a reply (`ENOENT`) only when it no longer waits for it. The
//! methods return whether the reply was taken, since the caller must take back an entry or a handle
//! that the kernel did not take.

use std::cell::Cell;
use std::io::IoSlice;

use smallvec::SmallVec;
use zerocopy::{Immutable, IntoBytes};

use crate::error::{Errno, Error};
use crate::fuse::wire::abi::OutHeader;
use crate::fuse::wire::notify;
use crate::sys::fuse::Device;
use crate::types::NodeId;

/// The work to be done before a reply of success.
pub type Before<'d> = &'d dyn Fn() -> Result<(), Error>;

/// The reply to one request.
pub struct Reply<'d> {
    device: &'d Device,
    unique: u64,
    sent: Cell<bool>,
    before: Option<Before<'d>>,
}

impl std::fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("unique", &self.unique).finish_non_exhaustive()
    }
}

impl<'d> Reply<'d> {
    /// The reply to the request `unique` that was read from `device`.
    #[must_use]
    pub const fn new(device: &'d Device, unique: u64) -> Self {
        Self { device, unique, sent: Cell::new(false), before: None }
    }

    /// Runs `before` ahead of a reply of success, and replies its error if it fails.
    #[must_use]
    pub const fn after(mut self, before: Option<Before<'d>>) -> Self {
        self.before = before;
        self
    }

    /// Whether a reply was written.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.sent.get()
    }

    /// Notes that other code replies to the request.
    pub fn replied_elsewhere(&self) {
        self.sent.set(true);
    }

    /// Replies success without a body.
    pub fn ok(&self) -> bool {
        self.write(0, &[], &[])
    }

    /// Replies success with a structure.
    pub fn body<T: IntoBytes + Immutable>(&self, body: &T) -> bool {
        self.write(0, body.as_bytes(), &[])
    }

    /// Replies success with bytes.
    pub fn bytes(&self, bytes: &[u8]) -> bool {
        self.write(0, bytes, &[])
    }

    /// Replies success with bytes in several parts.
    pub fn parts(&self, parts: &[&[u8]]) -> bool {
        let len = parts.iter().map(|part| part.len()).sum();
        self.send(0, len, |head| {
            let all = [head].into_iter().chain(parts.iter().copied());
            self.device.write(&all.map(IoSlice::new).collect::<SmallVec<[_; 16]>>())
        })
    }

    /// Replies success with a structure and bytes behind it.
    pub fn body_and_bytes<T: IntoBytes + Immutable>(&self, body: &T, bytes: &[u8]) -> bool {
        self.write(0, body.as_bytes(), bytes)
    }

    /// Replies with an error of the union.
    ///
    /// `ENOSYS` becomes `EOPNOTSUPP`: the kernel takes the former as "this mount never serves the
    /// operation", but a call that one backing file system does not support may work on the others.
    pub fn error(&self, error: &Error) -> bool {
        // Only the disk is to blame for data that cannot be read: the log must show it.
        if error.is(Errno::IO) {
            tracing::error!(%error, "a request failed");
        }
        match error.errno() {
            Errno::NOSYS => self.errno(Errno::OPNOTSUPP),
            errno => self.errno(errno),
        }
    }

    /// Replies with an errno as it is; a value that the kernel would not accept becomes `EIO`.
    pub fn errno(&self, errno: Errno) -> bool {
        let errno = if (1..512).contains(&errno.0) { errno } else { Errno::IO };
        self.write(-errno.0, &[], &[])
    }

    /// Makes the kernel request the attributes of a node again, before the reply is written.
    pub fn forget_attributes(&self, node: NodeId) {
        match notify::forget_attributes(self.device, node) {
            // The kernel keeps no attributes of a node that it does not have in memory.
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(errno) => tracing::warn!(%errno, "attributes were not invalidated"),
        }
    }

    fn write(&self, error: i32, first: &[u8], second: &[u8]) -> bool {
        self.send(error, first.len() + second.len(), |head| {
            self.device.write(&[head, first, second].map(IoSlice::new))
        })
    }

    fn send(
        &self,
        error: i32,
        len: usize,
        write: impl FnOnce(&[u8]) -> Result<usize, Errno>,
    ) -> bool {
        if self.sent.replace(true) {
            tracing::error!(unique = self.unique, "a request was answered twice");
            return false;
        }
        if error == 0
            && let Some(Err(failure)) = self.before.map(|before| before())
        {
            self.sent.set(false);
            self.errno(failure.errno());
            return false;
        }
        let total = size_of::<OutHeader>() + len;
        let Ok(len) = u32::try_from(total) else {
            tracing::error!(unique = self.unique, total, "answer too long");
            return false;
        };
        let header = OutHeader { len, error, unique: self.unique };
        match write(header.as_bytes()) {
            Ok(_) => true,
            Err(Errno::NOENT | Errno::NODEV) => false, // interrupted, or unmounted meanwhile
            Err(errno) => {
                tracing::error!(unique = self.unique, error, total, %errno, "answer refused");
                false
            }
        }
    }
}

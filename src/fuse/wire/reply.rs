//! Writes answers.
//!
//! A [`Reply`] answers one request once, with one writev(2) of header and body and without an
//! allocation. The kernel refuses an answer (`ENOENT`) only when it no longer waits for it; the
//! methods say whether it was taken, since an entry or a handle that was not taken must be given
//! back by the caller.

use std::cell::Cell;
use std::io::IoSlice;

use smallvec::SmallVec;
use zerocopy::{Immutable, IntoBytes};

use crate::error::{Errno, Error};
use crate::fuse::wire::abi::OutHeader;
use crate::fuse::wire::notify;
use crate::sys::fuse::Device;
use crate::types::NodeId;

/// What has to be done before success is answered.
pub type Before<'d> = &'d dyn Fn() -> Result<(), Error>;

/// The answer to one request.
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
    /// The answer to the request `unique` that was read from `device`.
    #[must_use]
    pub const fn new(device: &'d Device, unique: u64) -> Self {
        Self { device, unique, sent: Cell::new(false), before: None }
    }

    /// The same, which answers success only when `before` has succeeded, and its failure else.
    #[must_use]
    pub const fn after(mut self, before: Option<Before<'d>>) -> Self {
        self.before = before;
        self
    }

    /// Whether an answer was written.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.sent.get()
    }

    /// Notes that the request is answered by another one.
    pub fn answered_elsewhere(&self) {
        self.sent.set(true);
    }

    /// Answers success without a body.
    pub fn ok(&self) -> bool {
        self.write(0, &[], &[])
    }

    /// Answers success with a structure.
    pub fn body<T: IntoBytes + Immutable>(&self, body: &T) -> bool {
        self.write(0, body.as_bytes(), &[])
    }

    /// Answers success with bytes.
    pub fn bytes(&self, bytes: &[u8]) -> bool {
        self.write(0, bytes, &[])
    }

    /// Answers success with bytes in several parts.
    pub fn parts(&self, parts: &[&[u8]]) -> bool {
        let len = parts.iter().map(|part| part.len()).sum();
        self.send(0, len, |head| {
            let all = [head].into_iter().chain(parts.iter().copied());
            self.device.write(&all.map(IoSlice::new).collect::<SmallVec<[_; 16]>>())
        })
    }

    /// Answers success with a structure and bytes behind it.
    pub fn body_and_bytes<T: IntoBytes + Immutable>(&self, body: &T, bytes: &[u8]) -> bool {
        self.write(0, body.as_bytes(), bytes)
    }

    /// Answers a failure of the union.
    ///
    /// `ENOSYS` becomes `EOPNOTSUPP`: the kernel takes the former as "this mount never serves the
    /// operation", and a backing file system that lacks a call says nothing about the others.
    pub fn error(&self, error: &Error) -> bool {
        // Data that cannot be had is nobody's mistake but the disk's: it is said aloud.
        if error.is(Errno::IO) {
            tracing::error!(%error, "a request failed");
        }
        match error.errno() {
            Errno::NOSYS => self.errno(Errno::OPNOTSUPP),
            errno => self.errno(errno),
        }
    }

    /// Answers an errno as it is; what the kernel would not accept as one becomes `EIO`.
    pub fn errno(&self, errno: Errno) -> bool {
        let errno = if (1..512).contains(&errno.0) { errno } else { Errno::IO };
        self.write(-errno.0, &[], &[])
    }

    /// Lets the kernel ask for the attributes of a node again, before the answer is written.
    pub fn forget_attributes(&self, node: NodeId) {
        match notify::forget_attributes(self.device, node) {
            // A node that the kernel does not have in memory has no attributes there.
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

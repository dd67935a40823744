//! The FUSE protocol of the kernel, bytes to values and back.
//!
//! [`abi`] holds the structures of `include/uapi/linux/fuse.h` (protocol 7.41 and what 7.45 adds),
//! [`request`] decodes what was read from `/dev/fuse`, [`reply`] writes answers, [`notify`] what
//! the kernel did not ask for, [`dirent`] packs listings. Nothing here knows the union. What the
//! kernel sends is checked as if anyone had sent it: every length, every terminator; a request
//! that contradicts itself is answered with an error and never with a panic.

pub mod abi;
pub mod dirent;
pub mod notify;
pub mod reply;
pub mod request;

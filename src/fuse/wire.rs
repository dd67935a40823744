//! The FUSE protocol of the kernel: bytes to values and back.
//!
//! [`abi`] holds the structures of `include/uapi/linux/fuse.h` (protocol 7.41 and the additions of
//! 7.45), [`request`] decodes what was read from `/dev/fuse`, [`reply`] writes replies, [`notify`]
//! writes notifications, [`dirent`] packs listings. Nothing here depends on the union. Data from
//! the kernel is checked like that of any sender: every length, every terminator. A request that
//! contradicts itself gets an error as its reply and never causes a panic.

pub mod abi;
pub mod dirent;
pub mod notify;
pub mod reply;
pub mod request;

//! Safe system calls: the only module with unsafe code, and the only one that names libc.
//!
//! One function is one system call, with owned or borrowed descriptors and names as bytes. A
//! refusal is [`Error::Os`] with the name of the call; the caller decides what it means. rustix
//! makes the calls that it supports, libc the others.
//!
//! - [`mod@file`]: attributes, opening, data; [`dir`]: entries of directories;
//! - [`xattr`], [`ioctl`]: their extended attributes, flags and handles; [`map`]: files as memory;
//! - [`pin`]: objects that only a descriptor leads to; [`lock`]: locks by open file;
//! - [`confine`]: the rights that a daemon gives up;
//! - [`cred`]: the identity under which a thread makes files;
//! - [`mount`], [`bind`]: mounts; [`process`], [`mod@signals`]: processes and their signals;
//! - [`fuse`]: the FUSE device;
//! - [`loops`], [`context`], [`disk`]: files as block devices, mounts of them, their file systems.
//!
//! No function here follows a symbolic link in the last component of a name unless its
//! documentation states it. No function here keeps state, except for the calls that the kernel was
//! found not to support, and for the mappings that the handler of SIGBUS looks up.

#![allow(unsafe_code)]

pub mod bind;
pub mod confine;
pub mod context;
pub mod cred;
pub mod dir;
pub mod disk;
pub mod extents;
pub mod file;
pub mod filesystem;
pub mod fuse;
pub mod ioctl;
pub mod lock;
pub mod loops;
pub mod map;
pub mod mount;
pub mod pin;
pub mod process;
pub mod remove;
pub mod signals;
pub mod socket;
pub mod xattr;

use crate::error::{Errno, Error};

/// Wraps a refusal of the system call `op`.
fn refused(op: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |errno| Error::os(op, Errno(errno.raw_os_error()))
}

/// Wraps the error that the C library left in `errno`.
fn last(op: &'static str) -> Error {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(Errno::IO.0);
    Error::os(op, Errno(errno))
}

/// Returns a NUL-terminated copy of a name. `EINVAL` for a name that holds a NUL itself.
fn c_name(op: &'static str, name: &[u8]) -> Result<std::ffi::CString, Error> {
    std::ffi::CString::new(name).map_err(|_| Error::os(op, Errno::INVAL))
}

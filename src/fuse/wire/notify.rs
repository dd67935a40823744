//! Notifications: messages to the kernel that reply to no request.

use std::io::IoSlice;

use zerocopy::{Immutable, IntoBytes};

use crate::error::Errno;
use crate::fuse::wire::abi::{
    NOTIFY_INVAL_INODE, NOTIFY_STORE, NotifyInvalInodeOut, NotifyStoreOut, OutHeader,
};
use crate::sys::fuse::Device;
use crate::types::NodeId;

/// Makes the kernel request the attributes of a node again (`FUSE_NOTIFY_INVAL_INODE`). Pages stay.
///
/// # Errors
/// `ENOENT` for a node that the kernel does not hold; `ENODEV` after the unmount.
pub fn forget_attributes(device: &Device, node: NodeId) -> Result<(), Errno> {
    let body = NotifyInvalInodeOut { ino: node.0, off: -1, len: 0 };
    notify(device, NOTIFY_INVAL_INODE, &body, &[])
}

/// Drops attributes and pages of a node; the pages of a directory are its cached listing.
///
/// # Errors
/// As [`forget_attributes`].
pub fn forget_pages(device: &Device, node: NodeId) -> Result<(), Errno> {
    let body = NotifyInvalInodeOut { ino: node.0, off: 0, len: 0 };
    notify(device, NOTIFY_INVAL_INODE, &body, &[])
}

/// Puts data into the page cache of a node, from its start (`FUSE_NOTIFY_STORE`). The last page
/// counts as read if the data ends where the file ends.
///
/// # Errors
/// As [`forget_attributes`]; `ENOMEM`.
pub fn store(device: &Device, node: NodeId, data: &[u8]) -> Result<(), Errno> {
    let size = u32::try_from(data.len()).map_err(|_| Errno::INVAL)?;
    let body = NotifyStoreOut { nodeid: node.0, offset: 0, size, padding: 0 };
    notify(device, NOTIFY_STORE, &body, data)
}

fn notify<T: IntoBytes + Immutable>(
    device: &Device,
    code: i32,
    body: &T,
    data: &[u8],
) -> Result<(), Errno> {
    let total = size_of::<OutHeader>() + size_of::<T>() + data.len();
    let len = u32::try_from(total).map_err(|_| Errno::INVAL)?;
    let header = OutHeader { len, error: code, unique: 0 };
    let parts =
        [IoSlice::new(header.as_bytes()), IoSlice::new(body.as_bytes()), IoSlice::new(data)];
    device.write(&parts).map(|_| ())
}

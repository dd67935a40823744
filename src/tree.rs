//! Trees of the host: reading one in order, making one, comparing two.
//!
//! - `walk`: the objects of a tree with all their attributes, in the order of their names;
//! - `make`: objects with all their attributes beneath a root, in any order;
//! - `copy`: a copy of a tree, of the two above;
//! - `diff`: the changes between two trees.
//!
//! All of them go from directory to directory by descriptors and follow no symbolic link, so nobody
//! who can write to a tree leads them out of it. Names from archives and repositories are checked
//! here once more: `..` and names with a slash reach no system call.

pub mod copy;
pub mod diff;
pub mod error;
pub mod make;
pub mod notes;
pub mod walk;

use std::collections::BTreeMap;

use crate::types::Time;

/// Extended attributes by name. Access lists are among them (`system.posix_acl_*`).
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Receives the bytes of data that are done, the sum of all so far.
pub type OnBytes<'a> = dyn FnMut(u64) + 'a;

/// The deepest directory that is entered: each level holds a descriptor.
pub const DEPTH_MAX: usize = 1024;

/// The attributes of an object to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-id and sticky bits; no format bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the data.
    pub mtime: Time,
    /// Last access; `None` leaves it.
    pub atime: Option<Time>,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

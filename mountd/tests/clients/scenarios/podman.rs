//! podman with the program as its `mount_program`, or in place of fuse-overlayfs.

pub mod force_mask;
pub mod named;
pub mod root;
pub mod rootless;
pub mod userns;

//! Limits on input from outside.

/// Limit of objects in one layer. A layer with all of Debian has some hundred thousand.
pub(super) const ENTRIES_MAX: u64 = 16 << 20;

/// Number of bytes in one read of a stream.
pub(super) const READ_BYTES: usize = 128 << 10;

/// The longest manifest or index, as in registries.
pub(super) const MANIFEST_MAX: u64 = 4 << 20;

/// Limit of bytes of manifests and configurations of one archive.
pub(super) const DOCUMENTS_MAX: usize = 64 << 20;

/// The longest configuration of an image.
pub(super) const CONFIG_MAX: u64 = 8 << 20;

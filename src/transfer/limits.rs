//! Limits of what is read from outside.

/// Most objects of one layer. A layer of all of Debian has some hundred thousand.
pub(super) const ENTRIES_MAX: u64 = 16 << 20;

/// Bytes that are read from a stream at once.
pub(super) const READ_BYTES: usize = 128 << 10;

/// Longest manifest or index, as registries limit them.
pub(super) const MANIFEST_MAX: u64 = 4 << 20;

/// Most bytes of manifests and configurations of one archive.
pub(super) const DOCUMENTS_MAX: usize = 64 << 20;

/// Longest configuration of an image.
pub(super) const CONFIG_MAX: u64 = 8 << 20;

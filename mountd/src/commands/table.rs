//! Formatting for the tables of several commands.

/// The number of digits of an id in a table.
pub const DIGITS: usize = 12;

/// The first digits of an id.
pub fn short(id: &str) -> &str {
    id.get(..DIGITS).unwrap_or(id)
}

/// Bytes, in MiB.
pub fn mib(bytes: u64) -> String {
    format!("{}.{:02} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 100) >> 20)
}

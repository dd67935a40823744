//! Formatting for the tables of several commands.

/// The number of digits of an id in a table.
pub const DIGITS: usize = 12;

/// The first digits of an id.
pub fn short(id: &str) -> &str {
    id.get(..DIGITS).unwrap_or(id)
}

/// A time (RFC 3339) without the parts of a second.
pub fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, parts)) => {
            let zone = parts.trim_start_matches(|one: char| one.is_ascii_digit());
            format!("{whole}{zone}")
        }
        None => time.to_owned(),
    }
}

/// Bytes, in MiB.
pub fn mib(bytes: u64) -> String {
    format!("{}.{:02} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 100) >> 20)
}

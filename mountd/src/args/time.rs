//! Times on the command line.

use std::time::{Duration, SystemTime};

/// A time (RFC 3339), or one as long ago as the text says.
///
/// # Errors
/// What is wrong with the text.
pub fn time(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let age: Duration = humantime::parse_duration(text).map_err(|_| {
        format!("invalid time {text:?}: use 2026-01-31T12:00:00Z or an age as 90s, 10m, 2h")
    })?;
    Ok(SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
}

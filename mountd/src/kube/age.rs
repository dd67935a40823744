//! Ages as kubectl prints them: two units at most, and one where the second says little.

use std::time::SystemTime;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// The age of a time in RFC 3339.
#[must_use]
pub fn since(time: &str) -> String {
    if time.is_empty() {
        return "<unknown>".to_owned();
    }
    let Ok(time) = humantime::parse_rfc3339_weak(time) else { return "<invalid>".to_owned() };
    match SystemTime::now().duration_since(time) {
        Ok(age) => shown(age.as_secs()),
        // Clocks differ a little.
        Err(ahead) if ahead.duration().as_secs() < 2 => "0s".to_owned(),
        Err(_) => "<invalid>".to_owned(),
    }
}

/// A number of seconds.
#[must_use]
pub fn shown(seconds: u64) -> String {
    let two = |unit: (u64, &str), part: (u64, &str)| {
        let (whole, rest) = (seconds / unit.0, seconds % unit.0 / part.0);
        match rest {
            0 => format!("{whole}{}", unit.1),
            rest => format!("{whole}{}{rest}{}", unit.1, part.1),
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two((MINUTE, "m"), (1, "s")),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two((HOUR, "h"), (MINUTE, "m")),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two((DAY, "d"), (HOUR, "h")),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two((YEAR, "y"), (DAY, "d")),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_the_form_of_kubectl() {
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 5 * MINUTE, "3h5m"),
            (8 * HOUR, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (3 * DAY + 4 * HOUR, "3d4h"),
            (8 * DAY + 4 * HOUR, "8d"),
            (400 * DAY, "400d"),
            (2 * YEAR + 3 * DAY, "2y3d"),
            (9 * YEAR, "9y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(shown(seconds), text);
        }
        assert_eq!(since(""), "<unknown>");
        assert_eq!(since("x"), "<invalid>");
    }
}

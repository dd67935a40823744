//! Numbers and times in tar headers and PAX records.

use crate::types::Time;

/// Parses a number of a header: octal digits, or base-256 if the first bit is set (GNU, star).
///
/// A field of blanks and NULs is 0, as in headers of members without the value.
pub(super) fn field(raw: &[u8]) -> Result<i64, &'static str> {
    match raw.first() {
        Some(first) if first & 0x80 != 0 => base256(raw),
        _ => octal(raw),
    }
}

fn octal(raw: &[u8]) -> Result<i64, &'static str> {
    let start = raw.iter().position(|byte| *byte != b' ').unwrap_or(raw.len());
    let rest = raw.get(start..).unwrap_or_default();
    let len = rest.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(rest.len());
    let (digits, tail) = rest.split_at_checked(len).unwrap_or_default();
    if tail.iter().any(|byte| !matches!(byte, b' ' | 0)) {
        return Err("a number of the header is malformed");
    }
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or("a number of the header is too large"),
        _ => Err("a number of the header is malformed"),
    })
}

// Two's complement, big endian; bit 6 of the first byte is the sign.
fn base256(raw: &[u8]) -> Result<i64, &'static str> {
    let (first, rest) = raw.split_first().ok_or("a number of the header is malformed")?;
    let low = i128::from(first & 0x3f);
    let start = if first & 0x40 == 0 { low } else { low - 0x40 };
    // At most 12 bytes, which fit into an i128.
    let value = rest.iter().fold(start, |value, byte| (value << 8) | i128::from(*byte));
    i64::try_from(value).map_err(|_| "a number of the header is too large")
}

/// Parses an unsigned decimal number, as in `size`, `uid` and `gid` of PAX.
pub(super) fn decimal(raw: &[u8]) -> Result<u64, &'static str> {
    const BAD: &str = "a number of a PAX record is malformed or too large";
    if raw.is_empty() {
        return Err(BAD);
    }
    raw.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit - b'0')))
            .ok_or(BAD),
        _ => Err(BAD),
    })
}

/// Parses a user or group number.
pub(super) fn owner(raw: &[u8]) -> Result<u32, &'static str> {
    u32::try_from(decimal(raw)?).map_err(|_| "an owner does not fit into 32 bits")
}

/// Parses seconds with an optional fraction and sign. Digits beyond nanoseconds are rounded down,
/// as in GNU tar.
pub(super) fn time(raw: &[u8]) -> Result<Time, &'static str> {
    const BAD: &str = "a time of a PAX record is malformed or too large";
    let (negative, digits) = match raw.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, raw),
    };
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let (whole, fraction) = digits.split_at_checked(point).ok_or(BAD)?;
    let secs = i64::try_from(decimal(whole)?).map_err(|_| BAD)?;
    let (nanos, more) = nanos(fraction.get(1..).unwrap_or_default()).ok_or(BAD)?;
    if !negative {
        return Ok(Time { secs, nanos });
    }
    // -1.5 is half a second after -2.
    let nanos = nanos + u32::from(more);
    if nanos == 0 {
        return Ok(Time { secs: -secs, nanos: 0 });
    }
    let secs = (-secs).checked_sub(1).ok_or(BAD)?;
    Ok(Time { secs, nanos: 1_000_000_000 - nanos })
}

// The nanoseconds of a fraction, and whether finer digits follow.
fn nanos(fraction: &[u8]) -> Option<(u32, bool)> {
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nine = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nine.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some((nanos, fraction.iter().skip(9).any(|digit| *digit != b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields_take_blanks_and_nothing_else() {
        assert_eq!(field(b"0000644\0"), Ok(0o644));
        assert_eq!(field(b"  644 \0 "), Ok(0o644));
        assert_eq!(field(b"77777777777"), Ok(0o77_777_777_777));
        assert_eq!(field(&[0; 8]), Ok(0));
        assert!(field(b"0000648\0").is_err());
        assert!(field(b"644\x00644\0").is_err());
        assert!(field(b"-644\0\0\0\0").is_err());
    }

    #[test]
    fn base_256_fields_are_signed() {
        assert_eq!(field(b"\x80\0\0\0\0\x20\0\0"), Ok(2_097_152));
        assert_eq!(field(&[0xff; 12]), Ok(-1));
        assert_eq!(field(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0"), Ok(-256));
        assert!(field(b"\x80\0\0\0\x80\0\0\0\0\0\0\0").is_err(), "2^63");
        assert!(field(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn decimals_do_not_wrap() {
        assert_eq!(decimal(b"18446744073709551615"), Ok(u64::MAX));
        assert!(decimal(b"18446744073709551616").is_err());
        assert!(decimal(b"-1").is_err() && decimal(b"").is_err() && decimal(b"+1").is_err());
        assert_eq!(owner(b"4294967295"), Ok(u32::MAX));
        assert!(owner(b"4294967296").is_err());
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        let at = |secs, nanos| Ok(Time { secs, nanos });
        assert_eq!(time(b"12.5"), at(12, 500_000_000));
        assert_eq!(time(b"12"), at(12, 0));
        assert_eq!(time(b"-1.5"), at(-2, 500_000_000));
        assert_eq!(time(b"-1"), at(-1, 0));
        assert_eq!(time(b"-0.000000001"), at(-1, 999_999_999));
        assert_eq!(time(b"0.1234567891"), at(0, 123_456_789));
        assert_eq!(time(b"-0.0000000001"), at(-1, 999_999_999));
        assert!(time(b"1e9").is_err() && time(b"--1").is_err() && time(b".5").is_err());
        assert!(time(b"9223372036854775808").is_err());
    }
}

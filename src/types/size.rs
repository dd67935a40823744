//! Sizes in bytes, as people write and read them.

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size {0:?}: use bytes, or a number with K, M, G or T, as 64M")]
pub struct BadSize(pub String);

/// The units, each 1024 times the one before.
const UNITS: [char; 4] = ['K', 'M', 'G', 'T'];

/// Reads bytes, or a number with a suffix for a power of 1024: `K`, `Ki` or `KiB`, and so on to
/// `T`, in either case. `KB` is refused: some read it as a power of 1000.
///
/// # Errors
/// [`BadSize`], also for 2^64 and above.
pub fn parse(text: &str) -> Result<u64, BadSize> {
    let wrong = || BadSize(text.to_owned());
    let digits = text.trim_end_matches(|byte: char| byte.is_ascii_alphabetic());
    let suffix = text.get(digits.len()..).unwrap_or_default().to_ascii_uppercase();
    let mut letters = suffix.chars();
    let power = match (letters.next(), letters.as_str()) {
        (None, _) => 0,
        (Some(letter), "" | "I" | "IB") => {
            1 + UNITS.iter().position(|unit| *unit == letter).ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << (10 * power)).ok_or_else(wrong)
}

/// A size for people: `512B`, `1.5G`.
#[must_use]
pub fn shown(bytes: u64) -> String {
    let (mut whole, mut rest, mut unit) = (bytes, 0, None);
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        rest = whole % 1024;
        whole /= 1024;
        unit = Some(next);
    }
    match unit {
        None => format!("{bytes}B"),
        Some(unit) if whole < 10 && rest * 10 / 1024 > 0 => {
            format!("{whole}.{}{unit}", rest * 10 / 1024)
        }
        Some(unit) => format!("{whole}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("1k", 1024),
            ("64M", 64 << 20),
            ("1G", 1 << 30),
            ("2GiB", 2 << 30),
            ("3Gi", 3 << 30),
            ("4gi", 4 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "M", "-1", "1.5G", "1X", "1GG", "1Gib2", "99999999999T", "1i", "1 G", "1B", "64MB"]
        {
            assert_eq!(parse(bad), Err(BadSize(bad.to_owned())));
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        let all = [0, 1023, 1024, 1536, 10 << 20, (1 << 30) * 3 / 2, 5 << 40];
        let shown: Vec<String> = all.into_iter().map(shown).collect();
        assert_eq!(shown, ["0B", "1023B", "1K", "1.5K", "10M", "1.5G", "5T"]);
    }
}

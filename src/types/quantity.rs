//! Quantities as Kubernetes writes them: `1Gi`, `500M`, `1.5`, `100m`, `12e6`.
//!
//! A [`Quantity`] is an exact number of billionths together with the family of its suffix, so
//! that it prints in the canonical form of the API server: no fraction, the largest suffix that
//! keeps the value. Nothing here goes through floating point.
//!
//! Limits, as in Kubernetes: a finer fraction than a billionth is rounded away from zero, and a
//! number with a binary suffix is at most 2^63 - 1. A larger decimal number than 10^27 is capped
//! there, where Kubernetes computes on.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Billionths in one.
const NANOS: i128 = 1_000_000_000;

/// The cap of decimal numbers, in billionths: far above every size, and far from an overflow.
const CAP: i128 = 1_000_000_000_000_000_000_000_000_000 * NANOS;

/// The decimal suffixes, and the powers of ten that they mean.
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// The binary suffixes, and the powers of two that they mean.
const BINARY: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// The family of suffixes in which a quantity is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary,
    Decimal,
    Exponent,
}

/// Why a text is not a quantity. The texts are those of Kubernetes, for which users search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantityError {
    /// A character that no quantity has, or an empty text.
    Format,
    /// A suffix that does not exist, such as `K` or `gi`.
    Suffix,
    /// A number without a value.
    Numeric,
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => {
                "quantities must match the regular expression \
                 '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            }
            Self::Suffix => "unable to parse quantity's suffix",
            Self::Numeric => "unable to parse numeric part of quantity",
        })
    }
}

impl std::error::Error for QuantityError {}

/// An amount of storage, processors or anything else that Kubernetes counts.
///
/// Two quantities are equal if their values are: `1Gi` equals `1024Mi`.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    form: Form,
}

impl Default for Quantity {
    fn default() -> Self {
        Self { nanos: 0, form: Form::Decimal }
    }
}

impl Quantity {
    /// A number of bytes, printed with binary suffixes.
    #[must_use]
    pub fn of_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANOS, form: Form::Binary }
    }

    /// The value in whole bytes (or units), rounded away from zero and capped at 64 bits.
    #[must_use]
    pub fn bytes(&self) -> i64 {
        let whole = round_away(self.nanos, NANOS);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }

    /// The value, rounded away from zero to thousandths: what the API server stores of the entries
    /// of `capacity`, `requests` and `limits`.
    #[must_use]
    pub fn rounded_to_milli(&self) -> Self {
        let milli = NANOS / 1000;
        Self { nanos: round_away(self.nanos, milli) * milli, form: self.form }
    }

    /// Whether the value is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether the value is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether the value has no fraction.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The quotient, rounded away from zero.
fn round_away(value: i128, by: i128) -> i128 {
    let rest = value % by;
    value / by + if rest == 0 { 0 } else { rest.signum() }
}

/// The parts of a quantity's text.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

/// Splits off the digits at the start.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = digits(rest);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    let tail = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if tail.contains(|c: char| !c.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, whole, fraction, suffix })
}

/// What a suffix means: two to a power, or ten to a power.
enum Scale {
    Two(u32),
    Ten(i32, Form),
}

fn scale(suffix: &str) -> Result<Scale, QuantityError> {
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok(Scale::Two(*power));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok(Scale::Ten(*power, Form::Decimal));
    }
    let power = suffix.strip_prefix(['e', 'E']).and_then(|rest| rest.parse::<i64>().ok());
    let power = power.ok_or(QuantityError::Suffix)?.clamp(-1000, 1000);
    Ok(Scale::Ten(i32::try_from(power).unwrap_or(0), Form::Exponent))
}

/// The digits times ten to the power, in billionths, rounded away from zero and capped.
fn decimal_nanos(whole: &str, fraction: &str, power: i32) -> i128 {
    let count = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let mut left = power.saturating_sub(count).saturating_add(9);
    let mut nanos: i128 = 0;
    let mut inexact = false;
    let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
    // A negative power drops digits at the end.
    let dropped = usize::try_from(left.min(0).unsigned_abs()).unwrap_or(usize::MAX);
    let kept = all.len().saturating_sub(dropped);
    for (at, digit) in all.iter().enumerate() {
        if at < kept {
            nanos = (nanos * 10 + i128::from(*digit)).min(CAP);
        } else {
            inexact |= *digit != 0;
        }
    }
    while left > 0 && nanos > 0 && nanos < CAP {
        nanos = (nanos * 10).min(CAP);
        left -= 1;
    }
    nanos + i128::from(inexact)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parts = split(text)?;
        let (magnitude, form) = match scale(parts.suffix)? {
            Scale::Ten(power, form) => (decimal_nanos(parts.whole, parts.fraction, power), form),
            Scale::Two(power) => {
                let nanos = binary_nanos(&parts, power);
                (nanos, if nanos > 0 && nanos < NANOS { Form::Decimal } else { Form::Binary })
            }
        };
        let nanos = if parts.negative { -magnitude } else { magnitude };
        Ok(Self { nanos, form })
    }
}

/// The value of a number with a binary suffix, capped at 2^63 - 1.
fn binary_nanos(parts: &Parts<'_>, power: u32) -> i128 {
    let cap = i128::from(i64::MAX) * NANOS;
    let whole = decimal_nanos(parts.whole, "", 0).min(cap);
    let nanos = whole.saturating_mul(1_i128.checked_shl(power).unwrap_or(i128::MAX)).min(cap);
    // The fraction has as many digits as matter: beyond 18 digits only rounding is at stake.
    let (mut numerator, mut denominator) = (0_i128, 1_i128);
    let mut inexact = false;
    for (at, digit) in parts.fraction.bytes().enumerate() {
        if at < 18 {
            numerator = numerator * 10 + i128::from(digit - b'0');
            denominator *= 10;
        } else {
            inexact |= digit != b'0';
        }
    }
    // numerator < 10^18 and 2^60 < 1.2 * 10^18: the product fits, its billionths may not.
    let scaled = numerator.saturating_mul(1_i128.checked_shl(power).unwrap_or(i128::MAX));
    let (units, rest) = (scaled / denominator, scaled % denominator);
    let below = rest.saturating_mul(NANOS);
    let up = i128::from(inexact);
    nanos.saturating_add(units * NANOS + round_away(below, denominator) + up).min(cap)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let is_small = self.nanos.abs() < 1024 * NANOS;
        if self.form == Form::Binary && self.is_whole() && !is_small {
            return self.fmt_binary(f);
        }
        let (mut mantissa, mut power) = (self.nanos, -9_i32);
        let limit = if self.form == Form::Exponent { i32::MAX } else { 18 };
        while mantissa % 1000 == 0 && power < limit {
            mantissa /= 1000;
            power += 3;
        }
        write!(f, "{mantissa}")?;
        match (self.form, power) {
            (Form::Exponent, 0) => Ok(()),
            (Form::Exponent, _) => write!(f, "e{power}"),
            _ => {
                let name = DECIMAL.iter().find(|(_, known)| *known == power);
                f.write_str(name.map_or("", |(name, _)| *name))
            }
        }
    }
}

impl Quantity {
    fn fmt_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut mantissa, mut name) = (self.nanos / NANOS, "");
        for (next, _) in BINARY {
            if mantissa % 1024 != 0 {
                break;
            }
            mantissa /= 1024;
            name = next;
        }
        write!(f, "{mantissa}{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn quantities_print_as_the_api_server_prints_them() {
        let rows = [
            ("0", "0"),
            ("-", "0"),
            (".", "0"),
            ("Gi", "0"),
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.1Gi", "107374182400m"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("500M", "500M"),
            ("1000M", "1G"),
            ("1500M", "1500M"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1.5G", "1500M"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("0.0001", "100u"),
            ("100n", "100n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("10e3", "10e3"),
            ("12e2", "1200"),
            ("1e-3", "1e-3"),
            ("5E", "5E"),
            ("5Ei", "5Ei"),
            ("9Ei", "9223372036854775807"),
            ("100Ei", "9223372036854775807"),
            ("+3Gi", "3Gi"),
            ("-3Gi", "-3Gi"),
            ("007", "7"),
            ("1.", "1"),
            (".5", "500m"),
            ("1.Gi", "1Gi"),
            ("123456789", "123456789"),
            ("1000000000000", "1T"),
        ];
        for (text, printed) in rows {
            assert_eq!(quantity(text).to_string(), printed, "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_quantities_are_refused_with_the_words_of_kubernetes() {
        use QuantityError::{Format, Suffix};
        let rows = [
            ("", Format),
            ("abc", Format),
            ("1GB", Format),
            ("1gi", Format),
            ("1 Gi", Format),
            (" 1Gi", Format),
            ("1.2.3", Format),
            ("--1", Suffix),
            ("1,5", Format),
            ("1e3x", Format),
            ("1K", Suffix),
            ("1Mi1", Suffix),
            ("1e", Suffix),
            ("1ki", Suffix),
            ("1KiB", Format),
            ("1MM", Suffix),
            ("1k3", Suffix),
            ("1e+", Suffix),
        ];
        for (text, error) in rows {
            assert_eq!(text.parse::<Quantity>().map(|q| q.to_string()), Err(error), "{text}");
        }
    }

    #[test]
    fn values_round_up_to_bytes_and_compare_exactly() {
        assert_eq!(quantity("1.5").bytes(), 2);
        assert_eq!(quantity("1n").bytes(), 1);
        assert_eq!(quantity("-1.5").bytes(), -2);
        assert_eq!(quantity("1e30").bytes(), i64::MAX);
        assert_eq!(quantity("0.1Gi").bytes(), 107_374_183);
        assert_eq!(quantity("1Gi"), quantity("1024Mi"));
        assert!(quantity("1G") < quantity("1Gi"));
        assert!(quantity("999999999999999999") < quantity("1E"));
        assert!(quantity("0.1") < quantity("101m"));
        assert_eq!(quantity("1234567n").rounded_to_milli().to_string(), "2m");
        assert!(!quantity("1500m").is_whole() && quantity("2000m").is_whole());
    }
}

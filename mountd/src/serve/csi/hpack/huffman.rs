//! The Huffman code of HPACK: RFC 7541, section 5.2 and appendix B.
//!
//! The code is canonical: sorted by length and then by symbol, the codes of one length are
//! consecutive numbers. So the lengths are all that the table has to hold.

use std::sync::LazyLock;

/// The length of the code of each byte, in bits, and of the end of a string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
/// The symbol of the end of a string, which no string contains.
const END: u16 = 256;
/// The longest padding, in bits.
const PADDING_MAX: u32 = 7;

/// The codes of one length.
struct Codes {
    /// The length, in bits.
    bits: u32,
    /// The first of the codes.
    first: u32,
    /// Their symbols, in the order of the codes.
    symbols: Vec<u16>,
}

/// The codes by length.
static CODES: LazyLock<Vec<Codes>> = LazyLock::new(codes);

fn codes() -> Vec<Codes> {
    let mut next = 0;
    let of = |bits: u32| {
        let symbols = (0..=END).zip(LENGTHS).filter(|(_, length)| u32::from(*length) == bits);
        let symbols: Vec<u16> = symbols.map(|(symbol, _)| symbol).collect();
        next <<= 1;
        let first = next;
        next += u32::try_from(symbols.len()).unwrap_or_default();
        Codes { bits, first, symbols }
    };
    (1..=30).map(of).collect()
}

/// Decodes a string; `None` if it is malformed, or longer than `most` bytes.
#[must_use]
pub fn decode(text: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(most.min(text.len().saturating_mul(2)));
    let (mut code, mut bits) = (0_u32, 0_u32);
    let mut lengths = CODES.iter();
    let all = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    for bit in all {
        (code, bits) = (code << 1 | u32::from(bit), bits + 1);
        let codes = lengths.next()?;
        debug_assert_eq!(codes.bits, bits);
        let position = code.checked_sub(codes.first).and_then(|at| usize::try_from(at).ok());
        let Some(symbol) = position.and_then(|at| codes.symbols.get(at)) else { continue };
        decoded.push(u8::try_from(*symbol).ok()?);
        if decoded.len() > most {
            return None;
        }
        (code, bits, lengths) = (0, 0, CODES.iter());
    }
    // The rest of the last byte is the beginning of the code of the end: ones.
    (bits <= PADDING_MAX && code == (1 << bits) - 1).then_some(decoded)
}

/// Encodes a string, for tests: the program sends none.
#[cfg(test)]
pub fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    for byte in text {
        let symbol = u16::from(*byte);
        let codes = CODES.iter().find(|codes| codes.symbols.contains(&symbol)).unwrap();
        let at = codes.symbols.iter().position(|found| *found == symbol).unwrap();
        let code = codes.first + u32::try_from(at).unwrap();
        bits.extend((0..codes.bits).rev().map(|bit| code >> bit & 1));
    }
    bits.resize(bits.len().next_multiple_of(8), 1);
    bits.chunks(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | *bit as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, appendix C.4 and C.6.
    const VECTORS: [(&[u8], &str); 6] = [
        (
            &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
            "www.example.com",
        ),
        (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
        (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
        (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
        (&[0x64, 0x02], "302"),
        (&[0x9b, 0xd9, 0xab], "gzip"),
    ];

    #[test]
    fn strings_are_those_of_the_rfc() {
        for (bytes, text) in VECTORS {
            assert_eq!(decode(bytes, 64).as_deref(), Some(text.as_bytes()));
            assert_eq!(encode(text.as_bytes()), bytes);
        }
    }

    #[test]
    fn every_byte_has_a_code() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all), 256), Some(all));
    }

    #[test]
    fn malformed_strings_are_refused() {
        assert_eq!(decode(&[], 0), Some(Vec::new()));
        assert_eq!(decode(&encode(b"abc"), 2), None, "too long");
        assert_eq!(decode(&[0xff], 9), None, "eight bits of padding");
        assert_eq!(decode(&[0b0001_1000], 9), None, "padding with zeroes");
        assert_eq!(decode(&[0xff; 4], 9), None, "the end of a string");
        assert_eq!(decode(&[0xff; 40], 9), None);
    }
}

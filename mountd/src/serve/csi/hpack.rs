//! Header blocks of HTTP/2: HPACK, RFC 7541.
//!
//! [`Decoder`] keeps the dynamic table of one direction of a connection. It accepts the size that a
//! server announces if it announces none, as h2 does. [`encode`] uses no table, so that what it
//! writes means the same to every decoder.

mod fixed;
pub mod huffman;

use std::collections::VecDeque;

/// The size of the dynamic table: SETTINGS_HEADER_TABLE_SIZE of a server that sends no other.
const TABLE_MAX: usize = 4096;
/// What an entry counts over the bytes of its name and value (section 4.1).
const ENTRY: usize = 32;

/// A header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The name, which begins with a colon for pseudo-headers.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Whether the sender wants it in no table (section 7.1.3).
    pub is_sensitive: bool,
}

impl Field {
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + ENTRY
    }
}

/// Decodes header blocks.
#[derive(Debug)]
pub struct Decoder {
    /// The newest entry first.
    table: VecDeque<Field>,
    size: usize,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, limit: TABLE_MAX }
    }
}

/// What is left of a block.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// An integer with a prefix of some bits (section 5.1).
    fn integer(&mut self, bits: u8) -> Option<usize> {
        let mask = usize::from(u8::MAX) >> (8 - bits);
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Some(value);
        }
        // More bits than these are no length of a block that fits.
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A string of at most so many bytes (section 5.2).
    fn string(&mut self, most: usize) -> Option<Vec<u8>> {
        let is_huffman = self.0.first()? & 0x80 != 0;
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        match is_huffman {
            true => huffman::decode(text, most),
            false => (length <= most).then(|| text.to_vec()),
        }
    }
}

impl Decoder {
    /// Decodes a block; `None` if it is malformed, or its fields have more than `most` bytes, each
    /// counted as in the dynamic table. Later blocks cannot be decoded then.
    pub fn decode(&mut self, block: &[u8], most: usize) -> Option<Vec<Field>> {
        let mut rest = Rest(block);
        let mut fields = Vec::new();
        let mut size = 0;
        while let Some(first) = rest.0.first() {
            let field = match first.leading_zeros() {
                0 => self.entry(rest.integer(7)?)?,
                1 => {
                    let field = self.literal(&mut rest, 6, most - size)?;
                    self.insert(field.clone());
                    field
                }
                2 => {
                    let limit = rest.integer(5)?;
                    // Only before the first field (section 4.2).
                    if limit > TABLE_MAX || !fields.is_empty() {
                        return None;
                    }
                    self.limit = limit;
                    self.evict(0);
                    continue;
                }
                zeros => {
                    let field = self.literal(&mut rest, 4, most - size)?;
                    Field { is_sensitive: zeros == 3, ..field }
                }
            };
            size += field.size();
            if size > most {
                return None;
            }
            fields.push(field);
        }
        Some(fields)
    }

    fn literal(&self, rest: &mut Rest<'_>, bits: u8, most: usize) -> Option<Field> {
        let name = match rest.integer(bits)? {
            0 => rest.string(most)?,
            index => self.entry(index)?.name,
        };
        let value = rest.string(most)?;
        Some(Field { name, value, is_sensitive: false })
    }

    /// The entry of an index of the static table, or behind it of the dynamic one.
    fn entry(&self, index: usize) -> Option<Field> {
        let index = index.checked_sub(1)?;
        if let Some((name, value)) = fixed::FIELDS.get(index) {
            let (name, value) = (name.as_bytes().to_vec(), value.as_bytes().to_vec());
            return Some(Field { name, value, is_sensitive: false });
        }
        self.table.get(index - fixed::FIELDS.len()).cloned()
    }

    /// Makes room for an entry, as far as there are others (section 4.4).
    fn evict(&mut self, size: usize) {
        while self.size + size > self.limit {
            let Some(oldest) = self.table.pop_back() else { return };
            self.size -= oldest.size();
        }
    }

    fn insert(&mut self, field: Field) {
        let size = field.size();
        self.evict(size);
        if size <= self.limit {
            self.size += size;
            self.table.push_front(field);
        }
    }
}

/// Encodes fields as literals that enter no table, without Huffman's code.
#[must_use]
pub fn encode(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for field in fields {
        block.push(if field.is_sensitive { 0x10 } else { 0 });
        for text in [&field.name, &field.value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// A length with a prefix of seven bits.
fn integer(block: &mut Vec<u8>, value: usize) {
    const MASK: usize = 0x7f;
    let Some(mut left) = value.checked_sub(MASK) else {
        block.extend(u8::try_from(value));
        return;
    };
    block.push(0x7f);
    while left > MASK {
        block.extend(u8::try_from(left & MASK).map(|low| low | 0x80));
        left >>= 7;
    }
    block.extend(u8::try_from(left));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1 << 16;

    fn field(name: &str, value: &str) -> Field {
        Field { name: name.into(), value: value.into(), is_sensitive: false }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().filter(|letter| !letter.is_whitespace()).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// The three requests of RFC 7541, appendices C.3 and C.4.
    fn requests() -> [Vec<Field>; 3] {
        let begin = |scheme, path| {
            let (scheme, path) = (field(":scheme", scheme), field(":path", path));
            vec![field(":method", "GET"), scheme, path, field(":authority", "www.example.com")]
        };
        let mut all = [begin("http", "/"), begin("http", "/"), begin("https", "/index.html")];
        all[1].push(field("cache-control", "no-cache"));
        all[2].push(field("custom-key", "custom-value"));
        all
    }

    #[test]
    fn requests_are_those_of_the_rfc() {
        let plain = [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ];
        let huffman = [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ];
        for blocks in [plain, huffman] {
            let mut decoder = Decoder::default();
            for (block, expected) in blocks.into_iter().zip(requests()) {
                assert_eq!(decoder.decode(&bytes(block), MOST), Some(expected));
            }
            assert_eq!((decoder.size, decoder.table.len()), (164, 3));
        }
    }

    /// RFC 7541, appendix C.5: a table of 256 bytes, from which entries are evicted.
    #[test]
    fn evicted_entries_are_those_of_the_rfc() {
        let blocks = [
            "3fe101 4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a\
             323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738\
             666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d33\
             3630303b2076657273696f6e3d31",
        ];
        let mut decoder = Decoder::default();
        let decoded = blocks.map(|block| decoder.decode(&bytes(block), MOST).unwrap());
        assert_eq!(decoded[0][0], field(":status", "302"));
        assert_eq!(decoded[1][0], field(":status", "307"));
        assert_eq!(decoded[1][1], field("cache-control", "private"));
        assert_eq!(decoded[1][3], field("location", "https://www.example.com"));
        assert_eq!(decoded[2][4], field("content-encoding", "gzip"));
        let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        assert_eq!(decoded[2][5], field("set-cookie", cookie));
        assert_eq!((decoder.size, decoder.table.len()), (215, 3));
    }

    #[test]
    fn single_fields_are_those_of_the_rfc() {
        let secret = Field { is_sensitive: true, ..field("password", "secret") };
        for (block, expected) in [
            ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", {
                field("custom-key", "custom-header")
            }),
            ("040c2f73616d706c652f70617468", field(":path", "/sample/path")),
            ("100870617373776f726406736563726574", secret),
            ("82", field(":method", "GET")),
        ] {
            assert_eq!(Decoder::default().decode(&bytes(block), MOST), Some(vec![expected]));
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_and_enters_no_table() {
        let mut all = requests().concat();
        all.push(field("long", &"x".repeat(40_000)));
        all.push(Field { is_sensitive: true, ..field("edge", &"y".repeat(127)) });
        all.push(field("empty", ""));
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&encode(&all), MOST), Some(all));
        assert_eq!(decoder.table.len(), 0);
    }

    #[test]
    fn malformed_blocks_are_refused() {
        for bad in [
            "80",             // the index 0
            "be",             // an empty table
            "ff808080808001", // an integer without end
            "40",             // no name
            "400161",         // no value
            "40016103ff",     // a string that is too long
            "828200 20",      // a size behind a field
            "3fe21f",         // a size of 4097
        ] {
            assert_eq!(Decoder::default().decode(&bytes(bad), MOST), None, "{bad}");
        }
        assert_eq!(Decoder::default().decode(&bytes("3fe11f"), MOST), Some(Vec::new()));
    }

    #[test]
    fn a_small_block_with_many_large_fields_is_refused() {
        let mut decoder = Decoder::default();
        let mut block = vec![0x40, 1, b'a'];
        integer(&mut block, 4000);
        block.extend([b'x'; 4000]);
        assert!(decoder.decode(&block, MOST).is_some());
        assert_eq!(decoder.decode(&[0xbe; 16], MOST).map(|fields| fields.len()), Some(16));
        assert_eq!(decoder.decode(&[0xbe; 17], MOST), None);
    }
}

//! What the rewriter makes of frames.

use super::super::hpack::Field;
use super::*;

/// The frames of a client.
#[derive(Default)]
struct Client(Vec<u8>);

impl Client {
    fn new() -> Self {
        Self(PREFACE.to_vec())
    }

    fn frame(mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Head { length: payload.len(), kind, flags, stream }.write(&mut self.0);
        self.0.extend_from_slice(payload);
        self
    }

    /// What h2 reads, if the bytes come in pieces.
    fn through(&self, rewriter: &mut Rewriter, piece: usize) -> Vec<u8> {
        let mut output = Vec::new();
        for mut piece in self.0.chunks(piece) {
            while !piece.is_empty() {
                rewriter.step(&mut piece, &mut output);
            }
        }
        output
    }
}

/// The header blocks that h2 reads behind the preface: stream, flags, fields.
fn blocks(bytes: &[u8]) -> Vec<(u32, u8, Vec<Field>)> {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap();
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    let mut open: Option<(u32, u8, Vec<u8>)> = None;
    while let Some((head, more)) = rest.split_first_chunk::<HEAD_LEN>() {
        let head = Head::parse(*head);
        let (payload, more) = more.split_at(head.length);
        rest = more;
        let mut block = match head.kind {
            HEADERS => {
                let (_, fragment) = parts(head, payload).unwrap();
                assert!(open.is_none());
                (head.stream, head.flags, fragment.to_vec())
            }
            CONTINUATION => {
                let mut block = open.take().unwrap();
                block.2.extend_from_slice(payload);
                block
            }
            _ => continue,
        };
        assert!(head.length <= FRAME_MAX);
        if head.flags & END_HEADERS == 0 {
            open = Some(block);
            continue;
        }
        let fields = decoder.decode(&std::mem::take(&mut block.2), BLOCK_MAX).unwrap();
        all.push((block.0, block.1, fields));
    }
    assert!(open.is_none() && rest.is_empty());
    all
}

fn authority(fields: &[Field]) -> &str {
    let field = fields.iter().find(|field| field.name == b":authority").unwrap();
    str::from_utf8(&field.value).unwrap()
}

/// A literal that enters the table.
fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    let length = |text: &[u8]| u8::try_from(text.len()).unwrap();
    let head = [&[0x40, length(name.as_bytes())], name.as_bytes(), &[length(value)]];
    [head.concat().as_slice(), value].concat()
}

fn huffman(name: &str, value: &str) -> Vec<u8> {
    let coded = |text: &str| {
        let text = hpack::huffman::encode(text.as_bytes());
        [&[0x80 | u8::try_from(text.len()).unwrap()], text.as_slice()].concat()
    };
    [&[0x40], coded(name).as_slice(), &coded(value)].concat()
}

const PATH: &str = "/var/lib/csi/csi.sock";

#[test]
fn a_path_is_replaced_and_later_blocks_follow_their_table() {
    for first in [literal(":authority", PATH.as_bytes()), huffman(":authority", PATH)] {
        let first = [&[0x83, 0x86], first.as_slice(), &literal("x", b"y")].concat();
        let data = [7; 20];
        let client = Client::new()
            .frame(4, 0, 0, &[])
            .frame(HEADERS, END_HEADERS, 1, &first)
            .frame(0, 1, 1, &data)
            // By the dynamic table: x, then the path.
            .frame(HEADERS, END_HEADERS, 3, &[0x83, 0xbe, 0xbf])
            .frame(HEADERS, END_HEADERS | 1, 1, &[0xbe]);
        for piece in [1, 2, 8, 4096] {
            let output = client.through(&mut Rewriter::default(), piece);
            let found = blocks(&output);
            let names = |(stream, flags, fields): &(u32, u8, Vec<Field>)| {
                let names = fields.iter().map(|field| String::from_utf8_lossy(&field.name));
                (*stream, *flags, names.collect::<Vec<_>>().join(" "))
            };
            let expected = [
                (1, END_HEADERS, ":method :scheme :authority x".to_owned()),
                (3, END_HEADERS, ":method x :authority".to_owned()),
                (1, END_HEADERS | 1, "x".to_owned()),
            ];
            assert_eq!(found.iter().map(names).collect::<Vec<_>>(), expected);
            assert_eq!(authority(&found[0].2), "localhost");
            assert_eq!(authority(&found[1].2), "localhost");
            assert!(output.windows(data.len()).any(|part| part == data));
        }
    }
}

#[test]
fn authorities_are_replaced_only_if_they_are_invalid() {
    for (sent, expected) in [
        ("localhost", "localhost"),
        ("example.com:443", "example.com:443"),
        ("[::1]:1", "[::1]:1"),
        ("/a", "localhost"),
        ("", "localhost"),
        ("%2Ftmp%2Fcsi.sock", "localhost"),
        ("unix:///csi.sock", "localhost"),
        ("a b", "localhost"),
    ] {
        let block = literal(":authority", sent.as_bytes());
        let client = Client::new().frame(HEADERS, END_HEADERS, 1, &block);
        let output = client.through(&mut Rewriter::default(), 4096);
        assert_eq!(authority(&blocks(&output)[0].2), expected, "{sent}");
    }
    let client = Client::new();
    let client = client.frame(HEADERS, END_HEADERS, 1, &literal(":authority", b"/\xff"));
    let output = client.through(&mut Rewriter::default(), 4096);
    assert_eq!(authority(&blocks(&output)[0].2), "localhost");
}

#[test]
fn a_connection_without_paths_passes_unchanged() {
    let client = Client::new()
        .frame(4, 0, 0, &[0, 3, 0, 0, 0, 9])
        .frame(HEADERS, END_HEADERS, 1, &huffman(":authority", "localhost"))
        .frame(0, 1, 1, &[0; 100])
        .frame(HEADERS, END_HEADERS | PRIORITY, 3, &[0, 0, 0, 0, 9, 0xbe])
        .frame(6, 0, 0, &[0; 8]);
    assert_eq!(client.through(&mut Rewriter::default(), 5), client.0);
    let other = Client(b"GET / HTTP/1.1\r\n\r\n".to_vec());
    assert_eq!(other.through(&mut Rewriter::default(), 3), other.0);
    let almost = Client([&PREFACE[..20], b"-----"].concat());
    assert_eq!(almost.through(&mut Rewriter::default(), 1), almost.0);
}

#[test]
fn padding_priority_and_continuations_are_parts_of_one_block() {
    let block = literal(":authority", PATH.as_bytes());
    let (first, rest) = block.split_at(4);
    let padded = [&[3, 0, 0, 0, 0, 9], first, &[0; 3]].concat();
    let client = Client::new()
        .frame(HEADERS, PADDED | PRIORITY | 1, 1, &padded)
        .frame(CONTINUATION, 0, 1, &rest[..7])
        .frame(CONTINUATION, 0, 1, &[])
        .frame(CONTINUATION, END_HEADERS, 1, &rest[7..]);
    let output = client.through(&mut Rewriter::default(), 1);
    let found = blocks(&output);
    assert_eq!((found[0].1, authority(&found[0].2)), (END_HEADERS | PRIORITY | 1, "localhost"));
}

#[test]
fn a_large_block_is_divided() {
    let mut client = Client::new();
    let long = Field { name: b"long".to_vec(), value: vec![b'x'; 40_000], is_sensitive: true };
    let block = [literal(":authority", b"/p"), hpack::encode(std::slice::from_ref(&long))].concat();
    let mut parts = block.chunks(FRAME_MAX).peekable();
    let mut kind = HEADERS;
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
        client = client.frame(kind, flags, 5, part);
        kind = CONTINUATION;
    }
    let found = blocks(&client.through(&mut Rewriter::default(), 1000));
    assert_eq!(found[0].2[1], long);
}

/// Whether h2 receives a malformed block, and nothing behind it.
#[track_caller]
fn refused(client: Client, stream: u32) {
    let client = client.frame(6, 0, 0, &[0; 8]);
    let mut expected = Vec::new();
    Head { length: 1, kind: HEADERS, flags: END_HEADERS, stream }.write(&mut expected);
    expected.extend_from_slice(MALFORMED);
    let mut rewriter = Rewriter::default();
    let output = client.through(&mut rewriter, 4096);
    assert!(output.ends_with(&expected));
    assert!(output.len() <= PREFACE.len() + expected.len());
    assert_eq!(rewriter.begun(), None);
}

#[test]
fn blocks_without_end_or_sense_are_refused() {
    refused(Client::new().frame(HEADERS, END_HEADERS, 7, &[0xff]), 7);
    let mut large = Client::new().frame(HEADERS, 0, 3, &[]);
    for _ in 0..5 {
        large = large.frame(CONTINUATION, 0, 3, &[0; FRAME_MAX]);
    }
    refused(large, 3);
    let mut endless = Client::new().frame(HEADERS, 0, 3, &[]);
    for _ in 0..100 {
        endless = endless.frame(CONTINUATION, 0, 3, &[]);
    }
    refused(endless, 3);
    // Few bytes that mean many.
    let mut bomb = [&[0x40, 1, b'a', 0x7f, 0x81, 0x1e], [b'x'; 3968].as_slice()].concat();
    bomb.extend([0xbe; 1000]);
    refused(Client::new().frame(HEADERS, END_HEADERS, 1, &bomb), 1);
}

#[test]
fn wrong_frames_are_left_to_h2() {
    let wrong = [
        Client::new().frame(CONTINUATION, END_HEADERS, 1, &[]),
        Client::new().frame(HEADERS, END_HEADERS, 0, &[0x83]),
        Client::new().frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0]),
        Client::new().frame(HEADERS, END_HEADERS | PADDED, 1, &[]),
        Client::new().frame(HEADERS, END_HEADERS | PRIORITY, 1, &[0, 0]),
        Client::new().frame(HEADERS, END_HEADERS, 1, &[0; FRAME_MAX + 1]),
        Client::new().frame(HEADERS, 0, 1, &[]).frame(0, 0, 1, &[1, 2]),
        Client::new().frame(HEADERS, 0, 1, &[]).frame(CONTINUATION, 0, 3, &[]),
        Client::new().frame(HEADERS, 0, 1, &[]).frame(HEADERS, 0, 3, &[]),
    ];
    for client in wrong {
        let client = client.frame(6, 0, 0, &[0; 8]);
        let mut rewriter = Rewriter::default();
        let output = client.through(&mut rewriter, 11);
        assert_eq!(output, client.0);
        assert!(matches!(rewriter.state, State::Open));
    }
}

#[test]
fn random_bytes_stop_nothing() {
    let mut seed = 0x9e37_79b9_u32;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed
    };
    for _ in 0..2000 {
        let mut client = Client::new();
        for _ in 0..6 {
            let payload: Vec<u8> = (0..next() % 60).map(|_| next().to_le_bytes()[1]).collect();
            let kind = [HEADERS, CONTINUATION, 0, 4][next() as usize % 4];
            let flags = next().to_le_bytes()[2];
            client = client.frame(kind, flags, next() % 3, &payload);
        }
        let output = client.through(&mut Rewriter::default(), 1 + next() as usize % 50);
        assert!(output.len() <= client.0.len() + BLOCK_MAX);
    }
}

//! A client of gRPC that writes HTTP/2 by hand, as old clients do.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// The path as `:authority`, with Huffman's code: `/tmp/x/csi.sock`.
pub const HUFFMAN: &[u8] =
    &[0x8b, 0x61, 0x34, 0xd6, 0xc7, 0x96, 0x08, 0x83, 0x2e, 0x83, 0x93, 0xaf];

/// A frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection.
pub struct Peer(pub UnixStream);

/// An answer: the bytes of its messages, and of its header blocks.
#[derive(Debug, Default)]
pub struct Answer {
    pub messages: Vec<u8>,
    pub blocks: Vec<u8>,
}

impl Answer {
    /// Whether the messages contain a text.
    pub fn says(&self, text: &str) -> bool {
        self.messages.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head.as_slice(), payload].concat()
}

/// A string without Huffman's code, of less than 127 bytes.
pub fn plain(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// The header block of a call whose authority is a string of HPACK. All fields enter the table.
pub fn head(call: &str, authority: &[u8]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x41];
    block.extend_from_slice(authority);
    block.push(0x44);
    block.extend(plain(call));
    block.push(0x5f);
    block.extend(plain("application/grpc"));
    block.push(0x40);
    block.extend(plain("te"));
    block.extend(plain("trailers"));
    block
}

/// A message of gRPC.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0], u32::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
}

impl Peer {
    /// A connection that has sent nothing.
    pub fn silent(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    pub fn new(path: &Path) -> Self {
        let mut peer = Self::silent(path);
        peer.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
        peer
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Reads a frame; `None` at the end of the connection.
    pub fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.fill(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.fill(&mut payload)?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read(&mut buffer[done..]) {
                Ok(0) => return None,
                Ok(len) => done += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
        Some(())
    }

    /// Reads the answer to a stream, and acknowledges what has to be.
    pub fn answer(&mut self, stream: u32) -> Option<Answer> {
        let mut answer = Answer::default();
        loop {
            let read = self.read()?;
            match read.kind {
                SETTINGS | PING if read.flags & ACK == 0 => {
                    let payload = if read.kind == PING { read.payload } else { Vec::new() };
                    self.write(&frame(read.kind, ACK, 0, &payload)).ok()?;
                }
                DATA if read.stream == stream => answer.messages.extend(read.payload),
                HEADERS if read.stream == stream => {
                    answer.blocks.extend(read.payload);
                    if read.flags & END_STREAM != 0 {
                        return Some(answer);
                    }
                }
                3 if read.stream == stream => panic!("the stream was reset: {read:?}"),
                GOAWAY if read.payload[4..8] != [0; 4] => panic!("{read:?}"),
                _ => {}
            }
        }
    }

    /// Calls with a header block and a message.
    pub fn call(&mut self, stream: u32, block: &[u8], bytes: &[u8]) -> Answer {
        let request = [
            frame(HEADERS, END_HEADERS, stream, block),
            frame(DATA, END_STREAM, stream, &message(bytes)),
        ];
        self.write(&request.concat()).unwrap();
        self.answer(stream).expect("an answer")
    }

    /// The error of the frame that ends the connection; `None` if it is just closed.
    pub fn error(&mut self) -> Option<u32> {
        let mut found = None;
        while let Some(read) = self.read() {
            if read.kind == GOAWAY {
                let code = read.payload[4..8].try_into().unwrap();
                found = Some(u32::from_be_bytes(code));
            }
        }
        found
    }
}

//! Requests whose `:authority` is the path of a socket.
//!
//! Old clients of gRPC send the path that they connect to. h2 answers such a request with
//! PROTOCOL_ERROR, and no setting changes that. So the frames of a client are read before h2: the
//! authority is replaced by [`AUTHORITY`] if it is invalid. A connection without such a request
//! passes unchanged, but for the division of header blocks into frames. Once a block was
//! changed, all later ones are encoded without the dynamic table, since that of h2 differs then.
//!
//! What is no HTTP/2, and what is wrong, is left to h2, which answers it. A header block that
//! cannot be decoded, or is too large, reaches h2 as a block that is malformed, so that h2 ends the
//! connection with an error.

use axum::http::uri::Authority;

use super::hpack::{self, Decoder};

/// What replaces an invalid authority.
const AUTHORITY: &[u8] = b"localhost";
/// What a client of HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest payload that a client may send: h2 announces no other.
const FRAME_MAX: usize = 16_384;
/// The largest header block, before and after it is decoded.
const BLOCK_MAX: usize = 64 << 10;
/// Frames that continue one header block.
const CONTINUATIONS_MAX: usize = 16;
/// An index that does not exist: a malformed block.
const MALFORMED: &[u8] = &[0x80];

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Of the fields of [`PRIORITY`], in bytes.
const PRIORITY_LEN: usize = 5;

/// The head of a frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// The length of [`Head`] on the wire.
const HEAD_LEN: usize = 9;

impl Head {
    fn parse(bytes: [u8; HEAD_LEN]) -> Self {
        let [high, middle, low, kind, flags, a, b, c, d] = bytes;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        Self { length, kind, flags, stream: u32::from_be_bytes([a & 0x7f, b, c, d]) }
    }

    fn write(self, output: &mut Vec<u8>) {
        let length = u32::try_from(self.length).unwrap_or_default().to_be_bytes();
        output.extend_from_slice(length.get(1..).unwrap_or_default());
        output.extend([self.kind, self.flags]);
        output.extend_from_slice(&self.stream.to_be_bytes());
    }
}

/// A header block that is not complete.
#[derive(Debug)]
struct Block {
    head: Head,
    priority: Vec<u8>,
    fragment: Vec<u8>,
    continuations: usize,
}

#[derive(Debug)]
enum State {
    /// So many bytes of the preface have come.
    Preface(usize),
    /// The head of a frame.
    Head(Vec<u8>),
    /// So many bytes pass.
    Passing(usize),
    /// The payload of a frame of a header block.
    Collecting(Head, Vec<u8>),
    /// All that follows passes.
    Open,
    /// Nothing passes any more: h2 ends the connection.
    Closed,
}

/// Changes what a client sends.
#[derive(Debug)]
pub struct Rewriter {
    state: State,
    block: Option<Block>,
    decoder: Decoder,
    /// Whether a block was changed.
    has_changed: bool,
    /// Frames that are complete, where all of a header block count as one.
    ended: u64,
}

impl Default for Rewriter {
    fn default() -> Self {
        let (state, decoder) = (State::Preface(0), Decoder::default());
        Self { state, block: None, decoder, has_changed: false, ended: 0 }
    }
}

/// Takes bytes from the front.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at_checked(most).unwrap_or((*input, &[]));
    *input = rest;
    taken
}

impl Rewriter {
    /// The number of the frame, or of the frame with a header block, that has begun and not ended.
    /// The preface has a number too.
    #[must_use]
    pub const fn begun(&self) -> Option<u64> {
        let is_within = match &self.state {
            State::Preface(_) | State::Passing(_) | State::Collecting(..) => true,
            State::Head(bytes) => !bytes.is_empty() || self.block.is_some(),
            State::Open | State::Closed => false,
        };
        if is_within { Some(self.ended) } else { None }
    }

    /// A frame, or the frames of a header block, are complete.
    fn end(&mut self) {
        self.state = State::Head(Vec::new());
        self.ended += 1;
    }

    /// Takes some of the input, at least one byte, and adds what h2 is to read: at most the input
    /// and one header block.
    pub fn step(&mut self, input: &mut &[u8], output: &mut Vec<u8>) {
        match &mut self.state {
            State::Preface(_) => self.preface(input, output),
            State::Head(bytes) => {
                bytes.extend_from_slice(take(input, HEAD_LEN - bytes.len()));
                if let Ok(bytes) = <[u8; HEAD_LEN]>::try_from(bytes.as_slice()) {
                    self.begin(Head::parse(bytes), output);
                }
            }
            State::Passing(left) => {
                let taken = take(input, *left);
                output.extend_from_slice(taken);
                *left -= taken.len();
                if *left == 0 {
                    self.end();
                }
            }
            State::Collecting(head, payload) => {
                payload.extend_from_slice(take(input, head.length - payload.len()));
                if payload.len() == head.length {
                    let (head, payload) = (*head, std::mem::take(payload));
                    self.collected(head, &payload, output);
                }
            }
            State::Open => output.extend_from_slice(take(input, usize::MAX)),
            State::Closed => *input = &[],
        }
    }

    fn preface(&mut self, input: &mut &[u8], output: &mut Vec<u8>) {
        let State::Preface(seen) = self.state else { return };
        let expected = PREFACE.get(seen..).unwrap_or_default();
        let found = take(input, expected.len());
        output.extend_from_slice(found);
        let seen = seen + found.len();
        match expected.starts_with(found) {
            false => self.state = State::Open,
            true if seen == PREFACE.len() => self.end(),
            true => self.state = State::Preface(seen),
        }
    }

    /// Decides what becomes of a frame.
    fn begin(&mut self, head: Head, output: &mut Vec<u8>) {
        let is_right = match (&self.block, head.kind) {
            (None, HEADERS) => head.stream != 0 && head.length <= FRAME_MAX,
            (Some(block), CONTINUATION) => {
                head.stream == block.head.stream && head.length <= FRAME_MAX
            }
            (Some(_), _) | (None, CONTINUATION) => false,
            (None, _) => {
                head.write(output);
                match head.length {
                    0 => self.end(),
                    length => self.state = State::Passing(length),
                }
                return;
            }
        };
        if !is_right {
            return self.leave(head, &[], output);
        }
        match head.length {
            0 => self.collected(head, &[], output),
            length => self.state = State::Collecting(head, Vec::with_capacity(length)),
        }
    }

    /// Leaves a wrong frame to h2.
    fn leave(&mut self, head: Head, payload: &[u8], output: &mut Vec<u8>) {
        if let Some(block) = self.block.take() {
            let flags = block.head.flags & !(END_HEADERS | PADDED | PRIORITY);
            Head { length: 0, flags, ..block.head }.write(output);
        }
        head.write(output);
        output.extend_from_slice(payload);
        self.state = State::Open;
    }

    /// Adds a frame to the header block.
    fn collected(&mut self, head: Head, payload: &[u8], output: &mut Vec<u8>) {
        self.state = State::Head(Vec::new());
        let block = match self.block.take() {
            None => {
                let Some((priority, fragment)) = parts(head, payload) else {
                    return self.leave(head, payload, output);
                };
                let (priority, fragment) = (priority.to_vec(), fragment.to_vec());
                Block { head, priority, fragment, continuations: 0 }
            }
            Some(mut block) => {
                block.fragment.extend_from_slice(payload);
                block.continuations += 1;
                block
            }
        };
        if block.fragment.len() > BLOCK_MAX || block.continuations > CONTINUATIONS_MAX {
            return self.refuse(block.head, output);
        }
        match head.flags & END_HEADERS {
            0 => self.block = Some(block),
            _ => self.complete(&block, output),
        }
    }

    fn complete(&mut self, block: &Block, output: &mut Vec<u8>) {
        self.end();
        let Some(mut fields) = self.decoder.decode(&block.fragment, BLOCK_MAX) else {
            return self.refuse(block.head, output);
        };
        for field in &mut fields {
            let is_authority = field.name == b":authority";
            if is_authority && Authority::try_from(field.value.as_slice()).is_err() {
                field.value = AUTHORITY.to_vec();
                self.has_changed = true;
            }
        }
        match self.has_changed {
            true => write(block, &hpack::encode(&fields), output),
            false => write(block, &block.fragment, output),
        }
    }

    /// Has h2 end the connection.
    fn refuse(&mut self, head: Head, output: &mut Vec<u8>) {
        Head { length: MALFORMED.len(), flags: END_HEADERS, ..head }.write(output);
        output.extend_from_slice(MALFORMED);
        self.state = State::Closed;
    }
}

/// The priority and the fragment of a HEADERS frame; `None` if its padding is wrong.
fn parts(head: Head, payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = match head.flags & PADDED {
        0 => payload,
        _ => {
            let (padding, rest) = payload.split_first()?;
            rest.get(..rest.len().checked_sub(usize::from(*padding))?)?
        }
    };
    let priority_len = if head.flags & PRIORITY == 0 { 0 } else { PRIORITY_LEN };
    rest.split_at_checked(priority_len)
}

/// Writes a header block in frames.
fn write(block: &Block, fragment: &[u8], output: &mut Vec<u8>) {
    let first_len = fragment.len().min(FRAME_MAX - block.priority.len());
    let (first, rest) = fragment.split_at_checked(first_len).unwrap_or((fragment, &[]));
    let end = |is_last: bool| if is_last { END_HEADERS } else { 0 };
    let length = block.priority.len() + first.len();
    let flags = block.head.flags & !(END_HEADERS | PADDED) | end(rest.is_empty());
    Head { length, flags, ..block.head }.write(output);
    output.extend_from_slice(&block.priority);
    output.extend_from_slice(first);
    let mut rest = rest.chunks(FRAME_MAX).peekable();
    while let Some(chunk) = rest.next() {
        let (length, flags) = (chunk.len(), end(rest.peek().is_none()));
        Head { length, kind: CONTINUATION, flags, stream: block.head.stream }.write(output);
        output.extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests;

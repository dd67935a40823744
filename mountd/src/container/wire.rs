//! Frames between the process that holds a container and its clients: a tag, the length of the data
//! (32 bits, little-endian), the data.

use std::io::{self, Read, Write};

/// The most data of a frame.
pub const DATA_MAX: usize = 64 << 10;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the process: the client wants the output, and may send input.
    Attach,
    /// To the process: input.
    Input(Vec<u8>),
    /// To the process: the end of the input.
    InputEnd,
    /// To the process: a signal for the program, by its number.
    Signal(i32),
    /// To the process: rows and columns of the terminal.
    Size(u16, u16),
    /// Output.
    Output(Vec<u8>),
    /// Output of the standard error.
    Errors(Vec<u8>),
    /// The program has ended with an exit code.
    Ended(u8),
    /// The program did not begin: the exit code, and why.
    Failed(u8, String),
}

fn parts(frame: &Frame) -> (u8, Vec<u8>) {
    match frame {
        Frame::Attach => (0, Vec::new()),
        Frame::Input(data) => (1, data.clone()),
        Frame::InputEnd => (2, Vec::new()),
        Frame::Signal(number) => (3, number.to_le_bytes().to_vec()),
        Frame::Size(rows, columns) => {
            (4, [rows.to_le_bytes(), columns.to_le_bytes()].concat().clone())
        }
        Frame::Output(data) => (5, data.clone()),
        Frame::Errors(data) => (6, data.clone()),
        Frame::Ended(code) => (7, vec![*code]),
        Frame::Failed(code, text) => {
            let text = text.as_bytes();
            let text = text.get(..DATA_MAX - 1).unwrap_or(text);
            (8, [&[*code], text].concat())
        }
    }
}

fn frame(tag: u8, data: Vec<u8>) -> Option<Frame> {
    Some(match tag {
        0 => Frame::Attach,
        1 => Frame::Input(data),
        2 => Frame::InputEnd,
        3 => Frame::Signal(i32::from_le_bytes(data.try_into().ok()?)),
        4 => match data[..] {
            [a, b, c, d] => Frame::Size(u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])),
            _ => return None,
        },
        5 => Frame::Output(data),
        6 => Frame::Errors(data),
        7 => Frame::Ended(*data.first()?),
        8 => {
            let (code, text) = data.split_first()?;
            Frame::Failed(*code, String::from_utf8_lossy(text).into_owned())
        }
        _ => return None,
    })
}

/// Sends a frame.
///
/// # Errors
/// As write(2).
pub fn send(to: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let (tag, data) = parts(frame);
    let len = u32::try_from(data.len()).map_err(io::Error::other)?;
    let mut bytes = vec![tag];
    bytes.extend(len.to_le_bytes());
    bytes.extend(data);
    to.write_all(&bytes)
}

/// Receives a frame; `None` at the end of the connection.
///
/// # Errors
/// As read(2); `InvalidData` for what is no frame.
pub fn receive(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let [tag, a, b, c, d] = head;
    let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "not a frame");
    if len > DATA_MAX {
        return Err(bad());
    }
    let mut data = vec![0; len];
    from.read_exact(&mut data)?;
    frame(tag, data).map(Some).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_is_received_as_it_was_sent() {
        let all = [
            Frame::Attach,
            Frame::Input(vec![0, 255]),
            Frame::InputEnd,
            Frame::Signal(15),
            Frame::Size(24, 300),
            Frame::Output(vec![7; DATA_MAX]),
            Frame::Errors(Vec::new()),
            Frame::Ended(137),
            Frame::Failed(127, "no".to_owned()),
        ];
        let mut bytes = Vec::new();
        all.iter().for_each(|frame| send(&mut bytes, frame).unwrap());
        let mut from = &bytes[..];
        for frame in all {
            assert_eq!(receive(&mut from).unwrap(), Some(frame));
        }
        assert_eq!(receive(&mut from).unwrap(), None);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [&[9, 0, 0, 0, 0][..], &[5, 1, 0, 1, 0], &[3, 1, 0, 0, 0, 1], &[7, 0, 0, 0, 0]]
        {
            receive(&mut &bytes[..]).unwrap_err();
        }
        receive(&mut &[5, 2, 0, 0, 0, 1][..]).unwrap_err();
    }
}

//! The tar of a layer, put together of its files and of a file in the form of tar-split: lines of
//! JSON, compressed with gzip, each a piece of the tar or the name of a file whose data comes next.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::Errno;
use crate::sys::file::{self, OFlags};
use crate::transfer::error::TransferError;
use crate::transfer::path::{components, joined, shown};
use crate::transfer::stream::{self, Packing};

/// The longest line. A piece of a tar is as long as the headers of one member, or its padding.
const LINE_MAX: u64 = 64 << 20;
/// The kinds of lines.
const FILE: u32 = 1;
const PIECE: u32 = 2;

/// A line. That of a file has a checksum as its payload, which the diff ID makes superfluous.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: u32,
    name: Option<String>,
    /// A name that is not UTF-8.
    name_raw: Option<String>,
    size: Option<u64>,
    payload: Option<String>,
}

/// What is to be read next.
enum Next {
    Nothing,
    Piece { bytes: Vec<u8>, at: usize },
    File { file: File, left: u64, name: String },
}

/// Reads the tar.
pub(super) struct SplitReader {
    lines: Lines,
    files: OwnedFd,
    next: Next,
}

impl SplitReader {
    /// A tar of a tar-split and the directory with the files.
    pub(super) fn new(split: File, files: OwnedFd) -> Result<Self, TransferError> {
        Ok(Self { lines: Lines::new(split)?, files, next: Next::Nothing })
    }

    fn open(&self, line: &Line, size: u64) -> io::Result<Next> {
        let raw = line.raw_name()?;
        let wrong = |what: &str| invalid(format!("{}: {what}", shown(&raw)));
        let path = joined(&components(&raw).map_err(wrong)?);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = match file::open_beneath(self.files.as_fd(), &path, flags) {
            Err(error) if error.is(Errno::NOENT) => return Err(wrong("its data is missing")),
            opened => opened.map_err(|error| wrong(&error.to_string()))?,
        };
        let file = File::from(opened);
        let found = file.metadata()?;
        if !found.is_file() || found.len() != size {
            return Err(wrong(&format!("its data is not a file of {size} bytes")));
        }
        Ok(Next::File { file, left: size, name: shown(&raw) })
    }
}

impl Read for SplitReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.next {
                Next::Piece { bytes, at } if *at < bytes.len() => {
                    let mut rest = bytes.get(*at..).unwrap_or_default();
                    let len = rest.read(buf)?;
                    *at += len;
                    return Ok(len);
                }
                Next::File { file, left, name } if *left > 0 => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                    let len = file.read(buf.get_mut(..most).unwrap_or_default())?;
                    if len == 0 {
                        return Err(invalid(format!("{name}: the file became shorter")));
                    }
                    *left -= len as u64;
                    return Ok(len);
                }
                _ => {}
            }
            let Some(line) = self.lines.next()? else { return Ok(0) };
            self.next = match line.data_bytes() {
                Some(size) => self.open(&line, size)?,
                None => Next::Piece { bytes: line.piece()?, at: 0 },
            };
        }
    }
}

/// The length of the tar.
pub(super) fn stream_bytes(split: File) -> io::Result<u64> {
    let mut lines = Lines::new(split).map_err(io::Error::other)?;
    let mut bytes = 0_u64;
    while let Some(line) = lines.next()? {
        let more = match line.data_bytes() {
            Some(size) => size,
            None => line.piece()?.len() as u64,
        };
        bytes = bytes.saturating_add(more);
    }
    Ok(bytes)
}

impl Line {
    /// The size of the file whose data comes next, if any does.
    fn data_bytes(&self) -> Option<u64> {
        self.size.filter(|size| self.kind == FILE && *size > 0)
    }

    fn piece(&self) -> io::Result<Vec<u8>> {
        match &self.payload {
            Some(text) if self.kind == PIECE => {
                STANDARD.decode(text).map_err(|error| invalid(format!("a piece: {error}")))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn raw_name(&self) -> io::Result<Vec<u8>> {
        match (&self.name_raw, &self.name) {
            (Some(raw), _) => {
                STANDARD.decode(raw).map_err(|error| invalid(format!("a name: {error}")))
            }
            (None, Some(name)) => Ok(name.clone().into_bytes()),
            (None, None) => Err(invalid("a file has no name".to_owned())),
        }
    }
}

struct Lines {
    from: BufReader<Box<dyn Read>>,
}

impl Lines {
    fn new(mut split: File) -> Result<Self, TransferError> {
        let failed = |error| stream::failed("tar-split", error);
        let head = stream::head(&mut split).map_err(failed)?;
        split.rewind().map_err(failed)?;
        Ok(Self { from: BufReader::new(stream::decoder(Packing::of(&head)?, split)?) })
    }

    fn next(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let read = self.from.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        let line: Line = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("a line of the tar-split is malformed: {error}")))?;
        if !matches!(line.kind, FILE | PIECE) {
            return Err(invalid(format!("a line of the tar-split has the type {}", line.kind)));
        }
        Ok(Some(line))
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::*;

    fn split(text: &str) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(&file, flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap();
        (&file).rewind().unwrap();
        file
    }

    fn read(text: &str, files: &Path) -> io::Result<Vec<u8>> {
        let files = file::open_path(files, OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        let mut bytes = Vec::new();
        let mut reader = SplitReader::new(split(text), files).unwrap();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn pieces_and_files_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/a"), "AAAA").unwrap();
        std::fs::write(dir.path().join("b"), "BB").unwrap();
        let text = r#"{"type":2,"payload":"aGVhZA==","position":0}
{"type":1,"name":"./d/","payload":null,"position":1}
{"type":1,"name":"./d/a","size":4,"payload":"YVMQAAAAAAA=","position":1}
{"type":2,"payload":"","position":2}
{"type":1,"name_raw":"L2I=","size":2,"payload":"YVMQAAAAAAA=","position":3}
{"type":2,"payload":"ZW5k","position":4}
"#;
        assert_eq!(read(text, dir.path()).unwrap(), b"headAAAABBend");
        assert_eq!(stream_bytes(split(text)).unwrap(), 13);
    }

    #[test]
    fn a_name_does_not_leave_the_layer() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "key").unwrap();
        let layer = dir.path().join("layer");
        std::fs::create_dir(&layer).unwrap();
        std::os::unix::fs::symlink("../secret", layer.join("l")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), layer.join("m")).unwrap();
        std::fs::write(layer.join("short"), "x").unwrap();
        let made = std::process::Command::new("mkfifo").arg(layer.join("fifo")).status().unwrap();
        assert!(made.success());
        for (name, word) in [
            ("../secret", "upwards"),
            ("l", "l: "),
            ("m", "m: "),
            ("fifo", "not a file"),
            ("short", "not a file of 3"),
            ("gone", "missing"),
            ("", "empty"),
        ] {
            let line = format!("{{\"type\":1,\"name\":\"{name}\",\"size\":3}}\n");
            let error = read(&line, &layer).unwrap_err().to_string();
            assert!(error.contains(word), "{name}: {error}");
        }
    }

    #[test]
    fn what_is_no_tar_split_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "x\n",
            "{\"type\":3}\n",
            "{\"type\":2,\"payload\":\"!\"}\n",
            "{\"type\":1,\"size\":1}\n",
        ] {
            assert!(read(text, dir.path()).is_err(), "{text}");
        }
    }
}

//! The parts of an image archive, which can be read by name and in any order.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Errno, FromHost};
use crate::sys::file::{self, OFlags};
use crate::transfer::error::TransferError;
use crate::transfer::path::{self, joined, refused};
use crate::transfer::stream;
use crate::transfer::tar::members::{Members, Source};
use crate::types::{Name, name};

/// Limits of the number of parts of an archive and of the total length of their names.
const PARTS_MAX: usize = 1 << 18;
const NAMES_BYTES_MAX: usize = 32 << 20;

/// Limit of links from a name to its part.
const LINKS_MAX: usize = 16;

/// The source of the parts.
pub(super) enum Parts {
    Tar { file: Arc<File>, table: BTreeMap<Vec<u8>, Item> },
    Directory { root: OwnedFd, path: PathBuf },
}

/// The meaning of a name in a tar.
pub(super) enum Item {
    Bytes { offset: u64, len: u64 },
    Link(Vec<u8>),
}

impl Parts {
    /// The files of a directory.
    pub(super) fn directory(path: &Path) -> Result<Self, TransferError> {
        let root = file::open_path(path, OFlags::RDONLY | OFlags::DIRECTORY);
        let root = root.map_err(|error| refused_by_host(path, error.errno()))?;
        Ok(Self::Directory { root, path: path.to_owned() })
    }

    /// The members of a plain tar.
    pub(super) fn tar(file: File) -> Result<Self, TransferError> {
        let mut table = BTreeMap::new();
        let mut names_bytes = 0;
        let mut members = Members::new(Seekable::new(&file)?);
        while let Some(member) = members.next()? {
            let refuse = refused(&member.name);
            let place = path::components(&member.name).map_err(&refuse)?;
            let key = joined(&place);
            names_bytes += key.len() + member.link.len();
            if table.len() == PARTS_MAX || names_bytes > NAMES_BYTES_MAX {
                return Err(TransferError::malformed(
                    "the archive has too many members for one of images",
                ));
            }
            let item = match member.kind {
                b'0' if !member.is_sparse => {
                    Some(Item::Bytes { offset: member.offset, len: member.size })
                }
                b'1' => path::link_target(&member.link).ok().map(|to| Item::Link(joined(&to))),
                b'2' => resolved(&place, &member.link).map(Item::Link),
                _ => None,
            };
            // As when a tar is unpacked, the last member of a name counts.
            match item {
                Some(item) => drop(table.insert(key, item)),
                None => drop(table.remove(&key)),
            }
        }
        Ok(Self::Tar { file: Arc::new(file), table })
    }

    /// Opens the part with a name.
    pub(super) fn find(&self, part: &str) -> Result<Option<Part>, TransferError> {
        let wanted = path::components(part.as_bytes()).map_err(refused(part.as_bytes()))?;
        match self {
            Self::Tar { file, table } => Ok(find(file, table, joined(&wanted))),
            Self::Directory { root, path } => open(root, path, &joined(&wanted)),
        }
    }

    /// Reads a short part into memory.
    pub(super) fn read(&self, part: &str, longest: u64) -> Result<Option<Vec<u8>>, TransferError> {
        let Some(mut found) = self.find(part)? else { return Ok(None) };
        if found.len() > longest {
            let (part, len) = (path::shown(part.as_bytes()), found.len());
            let what = format!("{part} is {len} bytes long; {longest} is the limit");
            return Err(TransferError::TooLarge { what });
        }
        let mut bytes = Vec::new();
        found.read_to_end(&mut bytes).map_err(|error| stream::failed(part, error))?;
        Ok(Some(bytes))
    }
}

fn refused_by_host(path: &Path, errno: Errno) -> TransferError {
    TransferError::io(path)(io::Error::from_raw_os_error(errno.0))
}

// Resolves a symbolic link in an archive of images; podman and old versions of Docker write them
// for repeated layers. A link that leads out of the archive resolves to nothing.
fn resolved(place: &[Name], target: &[u8]) -> Option<Vec<u8>> {
    let mut at = match target.first()? {
        b'/' => Vec::new(),
        _ => place.get(..place.len().checked_sub(1)?)?.to_vec(),
    };
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(at.pop()?),
            _ => at.push(name(part)),
        }
    }
    Some(joined(&at))
}

fn find(file: &Arc<File>, table: &BTreeMap<Vec<u8>, Item>, mut name: Vec<u8>) -> Option<Part> {
    for _ in 0..LINKS_MAX {
        match table.get(&name)? {
            Item::Link(to) => name.clone_from(to),
            Item::Bytes { offset, len } => {
                let (at, end) = (*offset, offset.checked_add(*len)?);
                return Some(Part { file: Arc::clone(file), at, end });
            }
        }
    }
    None
}

fn open(root: &OwnedFd, path: &Path, part: &[u8]) -> Result<Option<Part>, TransferError> {
    let whole = path.join(OsStr::from_bytes(part));
    // Without O_NONBLOCK, opening a FIFO would block the import.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let opened = match file::open_beneath(root.as_fd(), part, flags) {
        Err(error) if error.is(Errno::NOENT) => return Ok(None),
        opened => opened.map_err(|error| refused_by_host(&whole, error.errno()))?,
    };
    let file = File::from(opened);
    let found = file.metadata().map_err(TransferError::io(&whole))?;
    if !found.is_file() {
        return Err(TransferError::Malformed {
            what: format!("{} is not a file", whole.display()),
        });
    }
    Ok(Some(Part { file: Arc::new(file), at: 0, end: found.len() }))
}

/// A part of an archive, read from its start to its end.
pub(super) struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Part {
    /// The number of bytes still to be read.
    pub(super) const fn len(&self) -> u64 {
        self.end - self.at
    }
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.len()).unwrap_or(usize::MAX).min(buf.len());
        let Some(part) = buf.get_mut(..len).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        let len = self.file.read_at(part, self.at)?;
        if len == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        self.at = self.at.saturating_add(len as u64).min(self.end);
        Ok(len)
    }
}

/// A tar in a file: data is skipped without reading it.
pub(super) struct Seekable<'a> {
    reader: BufReader<&'a File>,
    left: u64,
}

impl<'a> Seekable<'a> {
    pub(super) fn new(file: &'a File) -> Result<Self, TransferError> {
        let stream = |source| TransferError::Stream { what: "archive".to_owned(), source };
        let left = file.metadata().map_err(stream)?.len();
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(0)).map_err(stream)?;
        Ok(Self { reader, left })
    }
}

impl Read for Seekable<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(buf)?;
        self.left = self.left.saturating_sub(len as u64);
        Ok(len)
    }
}

impl Source for Seekable<'_> {
    fn skip(&mut self, len: u64) -> io::Result<()> {
        // A seek beyond the end of a file succeeds, so the length is checked first.
        let left = self.left.checked_sub(len).ok_or_else(|| {
            io::Error::new(ErrorKind::UnexpectedEof, "it ends within the data of a member")
        })?;
        let len = i64::try_from(len).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        self.reader.seek_relative(len)?;
        self.left = left;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::testing::Tar;

    fn tar(tar: &[u8]) -> Result<Parts, TransferError> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(tar, 0).unwrap();
        Parts::tar(file)
    }

    fn text(parts: &Parts, name: &str) -> Option<String> {
        let raw = parts.read(name, 100).unwrap()?;
        Some(String::from_utf8(raw).unwrap())
    }

    #[test]
    fn parts_are_found_through_links() {
        let all = Tar::default()
            .file("./a/layer.tar", b"old")
            .file("a/layer.tar", b"new")
            .file("first", &[7; 3000])
            .link(b'2', "b/layer.tar", "../a/layer.tar")
            .link(b'2', "c", "/b/layer.tar")
            .link(b'1', "d", "a/layer.tar")
            .link(b'2', "out", "../../etc/passwd")
            .link(b'2', "loop", "loop")
            .end();
        let parts = tar(&all).unwrap();
        for name in ["a/layer.tar", "b/layer.tar", "c", "/d", "./d"] {
            assert_eq!(text(&parts, name).as_deref(), Some("new"), "{name}");
        }
        for name in ["out", "loop", "missing", "a"] {
            assert_eq!(text(&parts, name), None, "{name}");
        }
        assert!(parts.find("../x").is_err());
        assert!(parts.read("first", 100).unwrap_err().to_string().contains("limit"));
    }

    #[test]
    fn a_cut_archive_is_no_archive() {
        let all = Tar::default().file("a", &[7; 3000]).end();
        for len in [300, 512, 2000, 512 + 3001] {
            let error = tar(all.get(..len).unwrap()).map(drop).unwrap_err();
            assert!(error.to_string().contains("truncated"), "{len}: {error}");
        }
    }

    #[test]
    fn parts_of_a_directory_do_not_leave_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "text").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("in")).unwrap();
        let parts = Parts::directory(dir.path()).unwrap();
        assert_eq!(text(&parts, "a").as_deref(), Some("text"));
        assert_eq!(text(&parts, "in").as_deref(), Some("text"));
        assert_eq!(text(&parts, "b"), None);
        assert!(parts.find("out").is_err());
    }
}

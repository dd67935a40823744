//! The directory of a storage.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::FromHost;
use crate::sys::file::{self, OFlags};
use crate::sys::process::effective_ids;
use crate::transfer::error::TransferError;
use crate::transfer::stream;

/// The longest document of a storage.
const DOCUMENT_MAX: u64 = 64 << 20;

/// An open storage.
pub(super) struct Storage {
    root: OwnedFd,
    path: PathBuf,
    /// Whether it belongs to root or to this user, who may have put links there.
    is_trusted: bool,
}

impl Storage {
    pub(super) fn open(path: &Path) -> Result<Self, TransferError> {
        let failed = TransferError::host(path);
        let root = file::open_path(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(&failed)?;
        let owner = file::statx(root.as_fd(), b"").map_err(&failed)?.uid;
        let is_trusted = owner == 0 || owner == effective_ids().0;
        Ok(Self { root, path: path.to_owned(), is_trusted })
    }

    fn opened(&self, part: &str, flags: OFlags) -> Result<OwnedFd, TransferError> {
        let path = self.path.join(part);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | flags;
        let opened = match self.is_trusted {
            true => file::open_path(&path, flags),
            false => file::open_beneath_no_links(self.root.as_fd(), part.as_bytes(), flags),
        };
        opened.map_err(TransferError::host(&path))
    }

    /// Opens a file.
    pub(super) fn file(&self, part: &str) -> Result<File, TransferError> {
        let opened = File::from(self.opened(part, OFlags::empty())?);
        let failed = TransferError::io(&self.path);
        if opened.metadata().map_err(failed)?.is_file() {
            return Ok(opened);
        }
        let what = format!("{} is not a file", self.path.join(part).display());
        Err(TransferError::Malformed { what })
    }

    /// Opens a directory.
    pub(super) fn directory(&self, part: &str) -> Result<OwnedFd, TransferError> {
        self.opened(part, OFlags::DIRECTORY)
    }

    /// Reads a document.
    pub(super) fn read(&self, part: &str) -> Result<Vec<u8>, TransferError> {
        let mut bytes = Vec::new();
        let mut from = self.file(part)?.take(DOCUMENT_MAX + 1);
        from.read_to_end(&mut bytes).map_err(|error| stream::failed(part, error))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            let what = format!("{part} is longer than {DOCUMENT_MAX} bytes");
            return Err(TransferError::TooLarge { what });
        }
        Ok(bytes)
    }

    /// Reads a short text that may be missing.
    pub(super) fn text(&self, part: &str) -> Result<Option<String>, TransferError> {
        match self.read(part) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
            Err(TransferError::Host(error)) if is_missing(&error.source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names in a directory; none where it is missing.
    pub(super) fn names(&self, part: &str) -> Result<Vec<String>, TransferError> {
        let opened = match self.directory(part) {
            Err(TransferError::Host(error)) if is_missing(&error.source) => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut names = Vec::new();
        let listed = crate::sys::dir::getdents(opened.as_fd(), &mut |entry| {
            names.extend(String::from_utf8(entry.name.to_vec()));
            true
        });
        listed.map_err(TransferError::host(&self.path.join(part)))?;
        names.sort_unstable();
        Ok(names)
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

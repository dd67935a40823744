//! A copy of a stream that can be read only once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::FromHost;
use crate::store::room::Room;
use crate::sys::file::{self, OFlags};
use crate::transfer::error::TransferError;
use crate::transfer::stream;
use crate::types::hashing::drain;

/// A reader that copies the bytes it reads to a file without a name.
pub(super) struct Spool<R> {
    from: R,
    copy: File,
    room: Room,
}

impl<R: Read> Spool<R> {
    /// Creates the copy in the directory `dir`.
    pub(super) fn new(from: R, dir: &Path) -> Result<Self, TransferError> {
        Ok(Self { from, copy: nameless(dir)?, room: Room::new(dir)? })
    }

    /// Reads to the end and returns the copy of the whole stream.
    pub(super) fn finish(mut self) -> Result<File, TransferError> {
        drain(&mut self).map_err(|error| stream::failed("archive", error))?;
        Ok(self.copy)
    }
}

impl<R: Read> Read for Spool<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(buf)?;
        self.room.take(len as u64)?;
        self.copy.write_all(buf.get(..len).unwrap_or_default())?;
        Ok(len)
    }
}

fn nameless(dir: &Path) -> Result<File, TransferError> {
    let opened = file::open_path(dir, OFlags::RDONLY | OFlags::DIRECTORY).and_then(|opened| {
        file::openat_with_mode(opened.as_fd(), b".", OFlags::TMPFILE | OFlags::RDWR, 0o600)
    });
    match opened {
        Ok(opened) => Ok(File::from(opened)),
        // NFS and some other file systems have no nameless files; a crash between the two calls
        // leaves an empty file.
        Err(_) => removed(dir),
    }
}

fn removed(dir: &Path) -> Result<File, TransferError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut number = 0u32;
    loop {
        let path = dir.join(format!(".spool-{}-{number}", std::process::id()));
        match options.open(&path) {
            Ok(file) => {
                fs::remove_file(&path).map_err(TransferError::io(&path))?;
                return Ok(file);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 1000 => number += 1,
            Err(error) => return Err(TransferError::io(&path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_copy_leaves_no_name() {
        let dir = tempfile::tempdir().unwrap();
        removed(dir.path()).unwrap().write_all_at(b"x", 0).unwrap();
        let mut spool = Spool::new(b"abcdef".as_slice(), dir.path()).unwrap();
        // Bytes read before `finish` are part of the copy.
        spool.read_exact(&mut [0; 2]).unwrap();
        let copy = spool.finish().unwrap();
        let mut content = [0; 6];
        copy.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(&content, b"abcdef");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let spool = Spool::new(b"".as_slice(), Path::new("/nonexistent/spool"));
        let error = spool.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/spool"), "{error}");
    }
}

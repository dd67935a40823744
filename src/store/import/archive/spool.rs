//! A copy of what can be read only once.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::super::{READ_BYTES, stream};
use crate::store::StoreError;
use crate::sys::file::{self, OFlags};

/// Copies a stream to a file without a name in `dir`.
pub(super) fn spool(from: &mut dyn Read, dir: &Path) -> Result<File, StoreError> {
    let mut file = nameless(dir)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(stream::failed("archive", error)),
        };
        let part = buffer.get(..len).unwrap_or_default();
        file.write_all(part).map_err(StoreError::io(dir))?;
    }
}

fn nameless(dir: &Path) -> Result<File, StoreError> {
    let opened = file::open_path(dir, OFlags::RDONLY | OFlags::DIRECTORY).and_then(|opened| {
        file::openat_with_mode(opened.as_fd(), b".", OFlags::TMPFILE | OFlags::RDWR, 0o600)
    });
    match opened {
        Ok(opened) => Ok(File::from(opened)),
        // NFS among others makes no nameless files; a crash between the two calls leaves an
        // empty one.
        Err(_) => removed(dir),
    }
}

fn removed(dir: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut number = 0u32;
    loop {
        let path = dir.join(format!(".spool-{}-{number}", std::process::id()));
        match options.open(&path) {
            Ok(file) => {
                fs::remove_file(&path).map_err(StoreError::io(&path))?;
                return Ok(file);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 1000 => number += 1,
            Err(error) => return Err(StoreError::io(&path)(error)),
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
        for file in [spool(&mut b"abc".as_slice(), dir.path()), removed(dir.path())] {
            file.unwrap().write_all_at(b"x", 0).unwrap();
        }
        let file = spool(&mut b"abc".as_slice(), dir.path()).unwrap();
        let mut content = [0; 3];
        file.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(&content, b"abc");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = spool(&mut b"".as_slice(), Path::new("/nonexistent/spool")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/spool"), "{error}");
    }
}

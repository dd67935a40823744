//! Destinations of an image: files by name, each written as a whole.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ::tar::{EntryType, Header};

use super::compression::Compression;
use super::file::{FileTarget, beside, removing, sync_parent};
use crate::error::FromHost;
use crate::store::recipe::written;
use crate::transfer::error::{Result, TransferError};

/// Receives files.
pub trait Target {
    /// Whether the target already has a file of this name, which then need not be written.
    ///
    /// # Errors
    /// Errors of a request to a registry.
    fn has(&mut self, name: &str) -> Result<bool> {
        let _ = name;
        Ok(false)
    }

    /// Writes a file of `len` bytes, read from its start.
    ///
    /// # Errors
    /// Errors of writing.
    fn file(&mut self, name: &str, content: File, size: u64) -> Result<()>;

    /// Writes a short file.
    ///
    /// # Errors
    /// Errors of writing.
    fn bytes(&mut self, name: &str, content: &[u8]) -> Result<()>;

    /// Ends the target: what was written gets its final name.
    ///
    /// # Errors
    /// Errors of writing and renaming.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A directory that appears as a whole.
pub struct DirTarget {
    path: PathBuf,
    new: PathBuf,
    done: bool,
}

impl DirTarget {
    /// Creates a directory at a path that does not exist or is an empty directory.
    ///
    /// # Errors
    /// As mkdir(2); a directory that is not empty is refused.
    pub fn new(path: &Path) -> Result<Self> {
        let refuse = |kind: io::ErrorKind| Err(TransferError::io(path)(io::Error::from(kind)));
        match fs::symlink_metadata(path) {
            Ok(found) if !found.is_dir() => return refuse(io::ErrorKind::AlreadyExists),
            Ok(_) if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) => {
                return refuse(io::ErrorKind::DirectoryNotEmpty);
            }
            _ => {}
        }
        let new = beside(path)?;
        fs::create_dir(&new).map_err(TransferError::io(path))?;
        Ok(Self { path: path.to_owned(), new, done: false })
    }

    /// Returns a function that removes the unfinished directory when a signal ends the process.
    pub fn leaving(&self) -> impl FnOnce() + Send + use<> {
        removing(self.new.clone())
    }

    fn create(&self, name: &str) -> Result<(PathBuf, File)> {
        let path = self.new.join(name);
        let open = || -> io::Result<File> {
            // Never the directory itself, which a signal may be removing.
            let below = path.parent().and_then(|parent| parent.strip_prefix(&self.new).ok());
            let mut parent = self.new.clone();
            for part in below.into_iter().flatten() {
                parent.push(part);
                match fs::create_dir(&parent) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made?,
                }
            }
            File::create(&path)
        };
        let file = open().map_err(TransferError::io(&path))?;
        Ok((path, file))
    }
}

impl Target for DirTarget {
    fn file(&mut self, name: &str, mut content: File, size: u64) -> Result<()> {
        let (path, mut file) = self.create(name)?;
        let copy = || -> io::Result<u64> {
            content.seek(SeekFrom::Start(0))?;
            io::copy(&mut content.take(size), &mut file)
        };
        copy().map(drop).map_err(TransferError::io(&path))
    }

    fn bytes(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let (path, mut file) = self.create(name)?;
        file.write_all(content).map_err(TransferError::io(&path))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let fd = crate::sys::file::open_path(&self.new, crate::sys::file::OFlags::RDONLY);
        let synced = fd.and_then(|fd| crate::sys::file::syncfs(std::os::fd::AsFd::as_fd(&fd)));
        synced.map_err(TransferError::host(&self.new))?;
        fs::rename(&self.new, &self.path).map_err(TransferError::io(&self.path))?;
        self.done = true;
        sync_parent(&self.path)
    }
}

impl Drop for DirTarget {
    fn drop(&mut self) {
        if !self.done {
            drop(fs::remove_dir_all(&self.new));
        }
    }
}

/// A tar, to a file that appears as a whole or to a pipe.
pub struct TarTarget {
    out: ::tar::Builder<FileTarget>,
}

impl TarTarget {
    /// Opens a file, as [`FileTarget::new`] does.
    ///
    /// # Errors
    /// As open(2).
    pub fn new(path: &Path) -> Result<Self> {
        Ok(Self { out: ::tar::Builder::new(FileTarget::new(path, Compression::None)?) })
    }

    /// Returns a function that removes the unfinished file when a signal ends the process.
    pub fn leaving(&self) -> impl FnOnce() + Send + use<> {
        self.out.get_ref().leaving()
    }

    /// Writes to a pipe.
    ///
    /// # Errors
    /// None without compression.
    pub fn pipe(out: Box<dyn Write>) -> Result<Self> {
        Ok(Self { out: ::tar::Builder::new(FileTarget::pipe(out, Compression::None)?) })
    }

    fn append(&mut self, name: &str, size: u64, content: impl Read) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_mtime(0);
        Ok(self.out.append_data(&mut header, name, content).map_err(written)?)
    }
}

impl Target for TarTarget {
    fn file(&mut self, name: &str, mut content: File, size: u64) -> Result<()> {
        content.seek(SeekFrom::Start(0)).map_err(written)?;
        self.append(name, size, content.take(size))
    }

    fn bytes(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.append(name, content.len() as u64, content)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.out.into_inner().map_err(written)?.finish()
    }
}

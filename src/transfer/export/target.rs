//! Destinations of an image: files by name, each written as a whole.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ::tar::{EntryType, Header};

use crate::error::FromHost;
use crate::store::recipe::written;
use crate::transfer::error::{Result, TransferError};
use crate::types::hex;

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

/// Attempts to remove a directory while another thread may still write to it.
const ATTEMPTS: u32 = 100;

/// An unpredictable path next to another one, for a new file that will replace it.
pub(super) fn beside(path: &Path) -> Result<PathBuf> {
    let random = crate::sys::process::random().map_err(TransferError::host(path))?;
    let what = || TransferError::Unwritable { what: format!("{}: no name for it", path.display()) };
    let name = path.file_name().ok_or_else(what)?;
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(format!(".new-{}", hex::encode(random.get(..8).unwrap_or_default())));
    Ok(path.with_file_name(new))
}

pub(super) fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(TransferError::io(parent))
}

/// Returns a function that removes a file or directory that is being written. It is called when a
/// signal ends the process.
pub(super) fn removing(path: PathBuf) -> impl FnOnce() + Send + use<> {
    move || {
        for _ in 0..ATTEMPTS {
            let removed = match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(_) => return,
            };
            if removed.is_ok() {
                return;
            }
        }
    }
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
        fs::create_dir(&new).map_err(TransferError::io(&new))?;
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
    out: Option<::tar::Builder<Box<dyn Write>>>,
    /// The file, and its temporary name.
    file: Option<(PathBuf, PathBuf, File)>,
}

impl TarTarget {
    /// Opens a file; an existing one is replaced at the end. A device or pipe is written to
    /// directly, and a symbolic link is followed.
    ///
    /// # Errors
    /// As open(2).
    pub fn new(path: &Path) -> Result<Self> {
        let path = &match fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                let file =
                    File::options().write(true).open(path).map_err(TransferError::io(path))?;
                return Ok(Self::pipe(Box::new(file)));
            }
            Ok(_) => fs::canonicalize(path).map_err(TransferError::io(path))?,
            Err(_) => path.to_owned(),
        };
        let new = beside(path)?;
        let open = || -> io::Result<_> {
            let file = File::create_new(&new)?;
            Ok((file.try_clone()?, file))
        };
        let (out, file) = open().map_err(TransferError::io(&new))?;
        let out: Box<dyn Write> = Box::new(io::BufWriter::with_capacity(1 << 20, out));
        let file = Some((path.to_owned(), new, file));
        Ok(Self { out: Some(::tar::Builder::new(out)), file })
    }

    /// Returns a function that removes the unfinished file when a signal ends the process.
    pub fn leaving(&self) -> impl FnOnce() + Send + use<> {
        let new = self.file.as_ref().map(|(_, new, _)| new.clone());
        move || new.into_iter().for_each(|new| removing(new)())
    }

    /// Writes to a pipe.
    #[must_use]
    pub fn pipe(out: Box<dyn Write>) -> Self {
        Self { out: Some(::tar::Builder::new(out)), file: None }
    }

    fn append(&mut self, name: &str, size: u64, content: impl Read) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_mtime(0);
        let Some(out) = &mut self.out else { return Ok(()) };
        Ok(out.append_data(&mut header, name, content).map_err(written)?)
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

    fn finish(mut self: Box<Self>) -> Result<()> {
        if let Some(out) = self.out.take() {
            out.into_inner().and_then(|mut out| out.flush()).map_err(written)?;
        }
        if let Some((path, new, file)) = &self.file {
            let end = || -> io::Result<()> {
                file.sync_all()?;
                fs::rename(new, path)
            };
            end().map_err(TransferError::io(path))?;
            let path = path.clone();
            self.file = None;
            return sync_parent(&path);
        }
        Ok(())
    }
}

impl Drop for TarTarget {
    fn drop(&mut self) {
        if let Some((_, new, _)) = &self.file {
            drop(fs::remove_file(new));
        }
    }
}

//! A file that appears as a whole, compressed where that is requested.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::compression::Compression;
use crate::error::FromHost;
use crate::store::recipe::written;
use crate::transfer::error::{Result, TransferError};
use crate::types::hex;

const BUFFER_BYTES: usize = 1 << 20;
const ZSTD_LEVEL: i32 = 3;

/// Attempts to remove a directory while another thread may still write to it.
const ATTEMPTS: u32 = 100;

/// A file under a temporary name until it is whole, or a pipe.
pub struct FileTarget {
    out: Packer,
    /// The file, its name and its temporary name.
    file: Option<(PathBuf, PathBuf, File)>,
}

enum Packer {
    Plain(Box<dyn Write>),
    Gzip(flate2::write::GzEncoder<Box<dyn Write>>),
    Zstd(zstd::stream::write::Encoder<'static, Box<dyn Write>>),
    Ended,
}

impl Packer {
    fn new(out: Box<dyn Write>, compression: Compression) -> Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(out),
            Compression::Gzip => {
                let level = flate2::Compression::default();
                Self::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            Compression::Zstd => {
                let encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL);
                Self::Zstd(encoder.map_err(written)?)
            }
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        match std::mem::replace(self, Self::Ended) {
            Self::Plain(mut out) => out.flush(),
            Self::Gzip(encoder) => encoder.finish().and_then(|mut out| out.flush()),
            Self::Zstd(encoder) => encoder.finish().and_then(|mut out| out.flush()),
            Self::Ended => Ok(()),
        }
    }
}

impl FileTarget {
    /// Opens a file; an existing one is replaced at the end. A device or a pipe is written to
    /// directly, and a symbolic link is followed.
    ///
    /// # Errors
    /// As open(2).
    pub fn new(path: &Path, compression: Compression) -> Result<Self> {
        let path = &match fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                let file =
                    File::options().write(true).open(path).map_err(TransferError::io(path))?;
                return Self::pipe(Box::new(file), compression);
            }
            Ok(_) => fs::canonicalize(path).map_err(TransferError::io(path))?,
            Err(_) => path.to_owned(),
        };
        let new = beside(path)?;
        let open = || -> io::Result<_> {
            let file = File::create_new(&new)?;
            Ok((file.try_clone()?, file))
        };
        // The temporary name says nothing to the user.
        let (out, file) = open().map_err(TransferError::io(path))?;
        let out = Box::new(BufWriter::with_capacity(BUFFER_BYTES, out));
        let file = Some((path.to_owned(), new, file));
        Ok(Self { out: Packer::new(out, compression)?, file })
    }

    /// Writes to a pipe.
    ///
    /// # Errors
    /// Those of the compression.
    pub fn pipe(out: Box<dyn Write>, compression: Compression) -> Result<Self> {
        let out = Box::new(BufWriter::with_capacity(BUFFER_BYTES, out));
        Ok(Self { out: Packer::new(out, compression)?, file: None })
    }

    /// Returns a function that removes the unfinished file when a signal ends the process.
    pub fn leaving(&self) -> impl FnOnce() + Send + use<> {
        let new = self.file.as_ref().map(|(_, new, _)| new.clone());
        move || new.into_iter().for_each(|new| removing(new)())
    }

    /// Ends the file: it is durable and has its name.
    ///
    /// # Errors
    /// As write(2), fsync(2) and rename(2).
    pub fn finish(mut self) -> Result<()> {
        self.out.finish().map_err(written)?;
        let Some((path, new, file)) = &self.file else { return Ok(()) };
        let end = || -> io::Result<()> {
            file.sync_all()?;
            fs::rename(new, path)
        };
        end().map_err(TransferError::io(path))?;
        let path = path.clone();
        self.file = None;
        sync_parent(&path)
    }
}

impl Write for FileTarget {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Packer::Plain(out) => out.write(buf),
            Packer::Gzip(out) => out.write(buf),
            Packer::Zstd(out) => out.write(buf),
            Packer::Ended => Err(io::Error::other("the file has ended")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Packer::Plain(out) => out.flush(),
            Packer::Gzip(out) => out.flush(),
            Packer::Zstd(out) => out.flush(),
            Packer::Ended => Ok(()),
        }
    }
}

impl Drop for FileTarget {
    fn drop(&mut self) {
        if let Some((_, new, _)) = &self.file {
            drop(fs::remove_file(new));
        }
    }
}

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

//! Detection of the kind of an input.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::ImageSource;
use super::parts::{Parts, Seekable};
use super::spool::Spool;
use crate::error::FromHost;
use crate::transfer::error::TransferError;
use crate::transfer::path::components;
use crate::transfer::stream::{self, Packing};
use crate::transfer::tar::members::{Members, Source, Streamed};
use crate::types::Name;
use crate::types::hex::is_hex;

/// Limit of members that are examined: an image has a few for each of its layers.
const MEMBERS_MAX: usize = 1 << 16;

/// The kind of an input.
pub enum Input {
    /// A directory that is not an OCI image layout: one layer.
    Directory,
    /// Images: an archive of `docker save` or `podman save`, or an OCI layout.
    Images(ImageSource),
    /// Any other tar, possibly compressed: one layer.
    Layer {
        /// The file, positioned at its start.
        file: File,
        /// The length of the file in bytes.
        size: u64,
    },
}

/// Opens an input and detects its kind.
///
/// A tar is read up to the first member that decides: the manifest of images, or a name that no
/// image archive has. A layer whose root holds only files that could be parts of an archive is read
/// to its end. A pipe, and a compressed archive of images, whose parts can be read in one order
/// only, are written to a nameless file in the directory `spool`. The file is gone when this value
/// is dropped or the process ends.
///
/// # Errors
/// [`TransferError::Host`] for an error of the host; [`TransferError::Malformed`] and
/// [`TransferError::Entry`] for a file that is not a tar.
pub fn open_input(path: &Path, spool: &Path) -> Result<Input, TransferError> {
    let found = fs::metadata(path).map_err(TransferError::io(path))?;
    if found.is_dir() {
        let layout = path.join("oci-layout").is_file() && path.join("index.json").is_file();
        if !layout {
            return Ok(Input::Directory);
        }
        return Ok(Input::Images(ImageSource { parts: Parts::directory(path)? }));
    }
    let from_pipe = found.file_type().is_fifo();
    if !found.is_file() && !from_pipe {
        let what = "it is neither a file nor a directory nor a pipe".to_owned();
        return Err(TransferError::Malformed { what });
    }
    let opened = File::open(path).map_err(TransferError::io(path))?;
    let file = if from_pipe { Spool::new(opened, spool)?.finish()? } else { opened };
    told(file, &path.display().to_string(), spool)
}

/// Reads a stream to its end, into a nameless file in the directory `spool`, and detects its kind.
///
/// # Errors
/// As [`open_input`].
pub fn open_stream(from: impl Read, what: &str, spool: &Path) -> Result<Input, TransferError> {
    told(Spool::new(from, spool)?.finish()?, what, spool)
}

fn told(mut file: File, what: &str, spool: &Path) -> Result<Input, TransferError> {
    let failed = |error| stream::failed(what, error);
    file.rewind().map_err(failed)?;
    let head = stream::head(&mut file).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if head.is_empty() {
        let what = "it is empty: not one byte was read".to_owned();
        return Err(TransferError::Malformed { what });
    }
    let images = match Packing::of(&head)? {
        Packing::Plain => match scan(Seekable::new(&file)?)? {
            true => return Ok(Input::Images(ImageSource { parts: Parts::tar(file)? })),
            false => None,
        },
        packing => {
            // The copy keeps the decompressed bytes, so that they are not decompressed again for
            // the parts.
            let mut plain = Spool::new(stream::decoder(packing, &file)?, spool)?;
            match scan(Streamed::new(&mut plain))? {
                true => Some(plain.finish()?),
                false => None,
            }
        }
    };
    if let Some(plain) = images {
        return Ok(Input::Images(ImageSource { parts: Parts::tar(plain)? }));
    }
    file.rewind().map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    Ok(Input::Layer { file, size })
}

// Whether a tar is an archive of images.
fn scan(source: impl Source) -> Result<bool, TransferError> {
    let mut members = Members::new(source);
    for _ in 0..MEMBERS_MAX {
        let Some(member) = members.next()? else { break };
        match components(&member.name).map(|name| part(&name)) {
            Ok(Part::Manifest) => return Ok(true),
            Ok(Part::Possible) => {}
            // The import of a layer reports an invalid name.
            Ok(Part::None) | Err(_) => break,
        }
    }
    Ok(false)
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Only an archive of images has this part.
    Manifest,
    /// An archive of images may have this part.
    Possible,
    /// No archive of images has this part.
    None,
}

fn part(path: &[Name]) -> Part {
    let Some((first, rest)) = path.split_first() else { return Part::Possible };
    let Ok(first) = std::str::from_utf8(first) else { return Part::None };
    let in_directory = !rest.is_empty();
    let possible = match first {
        "manifest.json" | "oci-layout" if !in_directory => return Part::Manifest,
        "blobs" => true,
        "index.json" | "repositories" | "VERSION" => !in_directory,
        _ if in_directory => is_hex(first, 64),
        _ => {
            let suffixes = [".json", ".tar", ".tar.gz", ".tgz"];
            let name = first.strip_prefix("sha256:").unwrap_or(first);
            is_hex(name, 64) || suffixes.iter().any(|suffix| name.ends_with(suffix))
        }
    };
    if possible { Part::Possible } else { Part::None }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::super::testing::*;
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Kind {
        Directory,
        Archive,
        LayerTar,
    }

    fn kind_of(path: &Path) -> Result<Kind, TransferError> {
        let spool = tempfile::tempdir().unwrap();
        let input = open_input(path, spool.path())?;
        assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
        Ok(match input {
            Input::Directory => Kind::Directory,
            Input::Images(_) => Kind::Archive,
            Input::Layer { mut file, size } => {
                assert_eq!(file.stream_position().unwrap(), 0);
                assert_eq!(file.metadata().unwrap().len(), size);
                Kind::LayerTar
            }
        })
    }

    fn kind(bytes: &[u8]) -> Result<Kind, TransferError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, bytes).unwrap();
        let of_file = kind_of(&path);
        let (reader, mut writer) = std::io::pipe().unwrap();
        let bytes = bytes.to_vec();
        let thread = std::thread::spawn(move || writer.write_all(&bytes));
        let of_pipe = kind_of(Path::new(&format!("/proc/self/fd/{}", reader.as_raw_fd())));
        thread.join().unwrap().unwrap();
        assert_eq!(of_file.as_ref().ok(), of_pipe.as_ref().ok());
        of_file
    }

    #[test]
    fn archives_are_told_from_layers() {
        let id = "0a".repeat(32);
        let docker = Tar::default()
            .member(b'5', &format!("{id}/"), b"")
            .file(&format!("{id}/layer.tar"), &[1; 5000])
            .file(&format!("{id}.json"), b"{}")
            .file("manifest.json", b"[]")
            .end();
        let layer = Tar::default()
            .member(b'5', "./", b"")
            .file("./etc/passwd", b"")
            .file("manifest.json", b"an application has this")
            .end();
        for (plain, expected) in [(&docker, Kind::Archive), (&layer, Kind::LayerTar)] {
            for packed in [plain.clone(), gzip(plain), zstd(plain)] {
                assert_eq!(kind(&packed).unwrap(), expected);
            }
        }
        let json = Tar::default().file("package.json", b"").file(".wh.a", b"").end();
        assert_eq!(kind(&json).unwrap(), Kind::LayerTar);
        assert_eq!(kind(&[0; 1024]).unwrap(), Kind::LayerTar);
        assert!(kind(&[b'x'; 1024]).is_err());
        assert!(kind(b"").is_err());
    }

    #[test]
    fn directories_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kind_of(dir.path()).unwrap(), Kind::Directory);
        assert!(kind_of(&dir.path().join("missing")).is_err());
        assert!(kind_of(Path::new("/dev/null")).is_err());
    }
}

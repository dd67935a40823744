//! What a path that is to be imported holds.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::super::path::components;
use super::super::stream::{self, Packing};
use super::super::tar::{Members, Source, Streamed};
use super::parts::Seekable;
use crate::store::StoreError;
use crate::store::hex::is_hex;
use crate::types::Name;

/// Most members that are looked at: an image has a few for each of its layers.
const MEMBERS_MAX: usize = 1 << 16;

/// What a path holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The directory of an OCI image layout.
    OciDirectory,
    /// Any other directory: one layer.
    Directory,
    /// A tar of images, of `docker save`, `podman save` or an OCI layout.
    Archive,
    /// Any other tar: one layer.
    LayerTar,
}

/// Tells what a path holds.
///
/// A tar is read until a member shows what it is: the manifest of images, or a name that no
/// image archive has. A layer whose root only holds files that could be parts of an archive is
/// read to its end.
///
/// # Errors
/// [`StoreError::Io`] where the host refuses; [`StoreError::Archive`] for what is no tar, and for
/// a pipe, which can be read only once.
pub fn kind_of(path: &Path) -> Result<Kind, StoreError> {
    let failed = StoreError::io(path);
    let found = std::fs::metadata(path).map_err(failed)?;
    if found.is_dir() {
        let layout = path.join("oci-layout").is_file() && path.join("index.json").is_file();
        return Ok(if layout { Kind::OciDirectory } else { Kind::Directory });
    }
    if !found.is_file() {
        let what = format!("{} is neither a file nor a directory: state its kind", path.display());
        return Err(StoreError::Archive { what });
    }
    let mut file = File::open(path).map_err(StoreError::io(path))?;
    let what = path.display().to_string();
    let head = stream::head(&mut file).map_err(|error| stream::failed(&what, error))?;
    match Packing::of(&head)? {
        Packing::Plain => scan(Seekable::new(&file)?),
        packing => {
            let whole = std::io::Cursor::new(head).chain(file);
            scan(Streamed::new(stream::decoder(packing, whole)?))
        }
    }
}

fn scan(source: impl Source) -> Result<Kind, StoreError> {
    let mut members = Members::new(source);
    for _ in 0..MEMBERS_MAX {
        let Some(member) = members.next()? else { break };
        match components(&member.name).map(|name| part(&name)) {
            Ok(Part::Manifest) => return Ok(Kind::Archive),
            Ok(Part::Possible) => {}
            // What is wrong with a name is said by the import of a layer.
            Ok(Part::None) | Err(_) => break,
        }
    }
    Ok(Kind::LayerTar)
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Only an archive of images has it.
    Manifest,
    /// An archive of images may have it.
    Possible,
    /// No archive of images has it.
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
    use super::super::testing::*;
    use super::*;

    fn kind(bytes: &[u8]) -> Result<Kind, StoreError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, bytes).unwrap();
        kind_of(&path)
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

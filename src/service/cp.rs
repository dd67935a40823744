//! Copies into a container and out of it, with all attributes.
//!
//! A path of a container is resolved as a process in the container does: the kernel keeps links and
//! `..` within its root. From there on both sides go from directory to directory by descriptors and
//! follow no link, so that no name in the container leads to the host, whatever is renamed
//! meanwhile. The rules for names are those of `cp -a`, as Docker and podman have them.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Errno, FromHost};
use crate::sys::file::{self, OFlags};
use crate::transfer::error::TransferError;
use crate::transfer::{export, tar};
use crate::tree::Meta;
use crate::tree::make::{Maker, Node};
use crate::tree::walk::{Found, Walk, next_data, one};
use crate::types::Kind;

pub use crate::tree::error::TreeError;

/// Data is copied in parts of this size.
const PART: usize = 256 << 10;

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// An object cannot be read or made.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A tar cannot be read or written.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The object is missing.
    #[error("{}: no such file or directory", .0.display())]
    Missing(PathBuf),
    /// The path names a directory, and the object is none.
    #[error("{}: not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// A directory does not replace what is there.
    #[error("{}: a directory cannot be copied to what is not a directory", .0.display())]
    OverFile(PathBuf),
}

type Result<T> = std::result::Result<T, CopyError>;

/// One side of a copy.
#[derive(Debug, Clone)]
pub struct Side {
    /// The path.
    pub path: PathBuf,
    /// The root in which it is resolved: that of a container. `None` for a path of the host.
    pub root: Option<PathBuf>,
}

/// The copied objects.
#[derive(Debug, Default)]
pub struct Copied {
    /// The number of objects.
    pub objects: u64,
    /// The bytes of their data.
    pub bytes: u64,
    /// What is left out or incomplete.
    pub notes: Vec<String>,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

impl Side {
    fn failed(&self) -> impl Fn(crate::error::Error) -> CopyError + use<> {
        let path = self.path.clone();
        move |error| match error {
            error if error.is(Errno::NOENT) => CopyError::Missing(path.clone()),
            error if error.is(Errno::NOTDIR) => CopyError::NotDirectory(path.clone()),
            error => CopyError::Tree(TreeError::host(&path)(error)),
        }
    }

    fn open(&self, path: &Path, flags: OFlags) -> crate::error::Result<OwnedFd> {
        let Some(root) = &self.root else { return file::open_path(path, flags) };
        let root = file::open_path(root, OFlags::PATH | OFlags::DIRECTORY)?;
        let path = path.as_os_str().as_bytes();
        file::open_in_root(root.as_fd(), if path.is_empty() { b"." } else { path }, flags)
    }

    /// Whether the path can only be that of a directory.
    fn is_of_directory(&self) -> bool {
        let bytes = self.path.as_os_str().as_bytes();
        bytes.ends_with(b"/")
            || bytes == b"."
            || self.is_content()
            || bytes == b".."
            || bytes.ends_with(b"/..")
    }

    /// Whether the path names what is in a directory: `DIR/.`.
    fn is_content(&self) -> bool {
        let bytes = self.path.as_os_str().as_bytes();
        bytes == b"." || bytes.ends_with(b"/.")
    }

    /// The parent directory, and the name in it; none for a path that ends with no name.
    fn parent(&self) -> Option<(PathBuf, Vec<u8>)> {
        let name = self.path.file_name()?.as_bytes().to_vec();
        let parent = self.path.parent().unwrap_or(Path::new(""));
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Some((parent.to_owned(), name))
    }

    fn directory(&self) -> Result<OwnedFd> {
        self.open(&self.path, DIRECTORY).map_err(self.failed())
    }
}

/// What is copied.
enum Source {
    /// A directory with its content.
    Dir(OwnedFd),
    /// Any other object.
    One(Box<Found>),
}

fn source(from: &Side) -> Result<Source> {
    if from.is_of_directory() {
        return from.directory().map(Source::Dir);
    }
    let Some((parent, name)) = from.parent() else {
        return from.directory().map(Source::Dir);
    };
    let dir = from.open(&parent, DIRECTORY).map_err(from.failed())?;
    let found = one(dir.as_fd(), &name, &from.path)?;
    let found = found.ok_or_else(|| CopyError::Missing(from.path.clone()))?;
    if found.kind() != Kind::Dir {
        return Ok(Source::One(Box::new(found)));
    }
    let opened = file::openat(dir.as_fd(), &name, DIRECTORY | OFlags::NOFOLLOW);
    Ok(Source::Dir(opened.map_err(from.failed())?))
}

/// The directory that gets the copy, and the name of the copy in it; empty for the content of a
/// directory that becomes that of this one.
fn target(from: &Side, to: &Side, is_dir: bool) -> Result<(OwnedFd, Vec<u8>)> {
    match to.open(&to.path, DIRECTORY) {
        Ok(dir) => {
            let name = match from.is_content() {
                true => Vec::new(),
                false => from.parent().map(|(_, name)| name).unwrap_or_default(),
            };
            return Ok((dir, name));
        }
        Err(error) if error.is(Errno::NOTDIR) && is_dir => {
            return Err(CopyError::OverFile(to.path.clone()));
        }
        Err(error) if error.is(Errno::NOENT) && (is_dir || !to.is_of_directory()) => {}
        Err(error) if error.is(Errno::NOTDIR) && !to.is_of_directory() => {}
        Err(error) => return Err(to.failed()(error)),
    }
    let Some((parent, name)) = to.parent() else {
        return Err(CopyError::Missing(to.path.clone()));
    };
    Ok((to.open(&parent, DIRECTORY).map_err(to.failed())?, name))
}

/// Copies an object: a directory with all in it, into a directory that exists, or as a new name. A
/// file takes the place of one of this name.
///
/// # Errors
/// [`CopyError`]; a part of the copy may be there then.
pub fn copy(from: &Side, to: &Side) -> Result<Copied> {
    let source = source(from)?;
    let (dir, name) = target(from, to, matches!(source, Source::Dir(_)))?;
    let maker = Maker::beneath(&to.path, dir)?;
    let mut copying = Copying { maker, name, done: Copied::default(), from: &from.path };
    match source {
        Source::One(mut found) => {
            found.path.clear();
            copying.object(&found)?;
        }
        Source::Dir(root) => {
            let mut walk = Walk::through(&from.path, root);
            while let Some(found) = walk.next()? {
                copying.object(&found)?;
            }
            copying.done.notes.append(&mut walk.into_notes().into_lines());
        }
    }
    let Copying { maker, mut done, .. } = copying;
    done.notes.append(&mut maker.finish()?.into_lines());
    Ok(done)
}

struct Copying<'a> {
    maker: Maker<'a>,
    /// The name of the copy.
    name: Vec<u8>,
    done: Copied,
    from: &'a Path,
}

impl Copying<'_> {
    /// The place of an object that is found below the source.
    fn place(&self, path: &[u8]) -> Vec<u8> {
        match (self.name.is_empty(), path.is_empty()) {
            (true, _) => path.to_vec(),
            (false, true) => self.name.clone(),
            (false, false) => [&self.name[..], b"/", path].concat(),
        }
    }

    fn object(&mut self, found: &Found) -> Result<()> {
        let place = self.place(&found.path);
        if place.is_empty() {
            return Ok(());
        }
        self.done.objects += 1;
        if let Some(first) = &found.link {
            return Ok(self.maker.link(&place, &self.place(first))?);
        }
        let stat = &found.stat;
        let meta = Meta {
            mode: stat.mode & crate::types::MODE_MASK,
            uid: stat.uid,
            gid: stat.gid,
            mtime: stat.mtime,
            atime: Some(stat.atime),
            xattrs: found.xattrs.clone(),
        };
        match (found.kind(), &found.file) {
            (Kind::Dir, _) => self.maker.put(&place, Node::Dir, &meta)?,
            (Kind::Symlink, _) => self.maker.put(&place, Node::Symlink(&found.target), &meta)?,
            (Kind::File, Some(file)) => self.file(&place, file.as_fd(), stat.size, &meta)?,
            (kind, _) => self.maker.put(&place, Node::Special(kind, stat.rdev), &meta)?,
        }
        Ok(())
    }

    fn file(&mut self, place: &[u8], from: BorrowedFd<'_>, size: u64, meta: &Meta) -> Result<()> {
        let failed = TreeError::host(self.from);
        let new = self.maker.begin_file(place)?;
        let mut buf = vec![0; PART];
        let mut at = 0;
        while let Some((start, end)) = next_data(from, at, size).map_err(&failed)? {
            at = start;
            while at < end {
                let len = usize::try_from(end - at).unwrap_or(PART).min(PART);
                let room = buf.get_mut(..len).unwrap_or_default();
                let read = file::pread(from, room, at).map_err(&failed)?;
                if read == 0 {
                    // It became shorter.
                    break;
                }
                self.maker.write(&new, buf.get(..read).unwrap_or_default(), at)?;
                at += read as u64;
                self.done.bytes += read as u64;
            }
            if at < end {
                break;
            }
        }
        Ok(self.maker.end_file(new, size, meta)?)
    }
}

/// Writes a directory as a tar.
///
/// # Errors
/// [`CopyError`].
pub fn to_tar(from: &Side, out: &mut dyn Write) -> Result<Vec<String>> {
    let dir = from.directory()?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
    let exported = export::export_tree(Path::new(&path), out, &mut |_| {})?;
    Ok(exported.notes.into_lines())
}

/// Makes the members of a tar in a directory.
///
/// # Errors
/// [`CopyError`]; a part of them may be there then.
pub fn from_tar(archive: impl Read, to: &Side) -> Result<Vec<String>> {
    let dir = to.directory()?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
    let done = tar::unpack(archive, Path::new(&path))?;
    Ok(done.notes.into_lines())
}

//! Import of a directory of the host as a layer.
//!
//! The tree is walked by descriptors, which the kernel resolves beneath its root without following
//! links, so nobody with write access to the tree can lead the walk out of it. A directory comes
//! before its content, and names are in byte order, so equal trees give equal sequences. The tree
//! should not change during the walk; a file that shrinks is an error.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::limits::ENTRIES_MAX;
use super::marks::{self, Marks, Xattrs};
use super::path::{self, Place, joined, refused};
use super::stream;
use crate::error::{Errno, Error, FromHost};
use crate::store::sink::{Body, Meta, Sink};
use crate::sys::file::{self, OFlags};
use crate::sys::{dir, xattr};
use crate::transfer::error::TransferError;
use crate::types::{Kind, MODE_MASK, Name, Stat, name};

/// Adds the objects of a directory of the host to `sink`. Returns the number of entries.
///
/// Whiteouts and opaque directories are recognised in every form that overlayfs, fuse-overlayfs and
/// AUFS leave in an upper directory. Mounts inside the directory are entered.
///
/// # Errors
/// [`TransferError::Host`] for an error of the host or a file that changes during the walk;
/// [`TransferError::Entry`] for an object that no layer can have; errors of `sink`.
pub fn layer_from_directory(path: &Path, sink: &mut dyn Sink) -> Result<u64, TransferError> {
    let root = file::open_path(path, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(TransferError::host(path))?;
    let mut walk =
        Walk { root, base: path, sink, links: HashMap::new(), pending: Vec::new(), entries: 0 };
    walk.root()?;
    while let Some(next) = walk.pending.pop() {
        walk.directory(&next)?;
    }
    Ok(walk.entries)
}

/// A directory that is still to be listed.
struct Pending {
    path: Vec<Name>,
    /// Whether empty files in the directory may be whiteouts.
    holds_whiteouts: bool,
}

struct Walk<'a> {
    root: OwnedFd,
    base: &'a Path,
    sink: &'a mut dyn Sink,
    /// The first name of every object with several names.
    links: HashMap<(u64, u64), Vec<Name>>,
    /// The directories still to be listed, in reverse order.
    pending: Vec<Pending>,
    entries: u64,
}

/// An entry that is about to be added to the sink.
struct Entry<'a> {
    dir: BorrowedFd<'a>,
    path: Vec<Name>,
    stat: Stat,
    in_marked: bool,
}

impl Entry<'_> {
    fn name(&self) -> &[u8] {
        self.path.last().map_or(b".", |name| name.as_slice())
    }
}

impl Walk<'_> {
    fn on_host(&self, path: &[Name]) -> PathBuf {
        self.base.join(OsStr::from_bytes(&joined(path)))
    }

    fn failed(&self, path: &[Name]) -> impl Fn(Error) -> TransferError + use<> {
        TransferError::host(&self.on_host(path))
    }

    fn root(&mut self) -> Result<(), TransferError> {
        let root = file::duplicate(self.root.as_fd()).map_err(self.failed(&[]))?;
        let stat = file::statx(root.as_fd(), b"").map_err(self.failed(&[]))?;
        let root = Entry { dir: root.as_fd(), path: Vec::new(), stat, in_marked: false };
        self.put(root)
    }

    fn directory(&mut self, pending: &Pending) -> Result<(), TransferError> {
        let failed = self.failed(&pending.path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let whole = if pending.path.is_empty() { b".".to_vec() } else { joined(&pending.path) };
        let opened = file::open_beneath_no_links(self.root.as_fd(), &whole, flags);
        let opened = opened.map_err(&failed)?;
        let mut names = Vec::new();
        let mut take = |entry: crate::types::RawEntry<'_>| {
            names.push(name(entry.name));
            names.len() as u64 <= ENTRIES_MAX
        };
        dir::getdents(opened.as_fd(), &mut take).map_err(&failed)?;
        names.sort_unstable();
        let first = self.pending.len();
        for name in names {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                let what = format!("{}: more than {ENTRIES_MAX} entries", self.base.display());
                return Err(TransferError::TooLarge { what });
            }
            let mut path = pending.path.clone();
            path.push(name);
            self.entry(opened.as_fd(), path, pending.holds_whiteouts)?;
        }
        if let Some(added) = self.pending.get_mut(first..) {
            added.reverse();
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        path: Vec<Name>,
        in_marked: bool,
    ) -> Result<(), TransferError> {
        let raw = joined(&path);
        let place = path::place(&raw).map_err(refused(&raw))?;
        let last = path.last().map_or(b".".as_slice(), |name| name.as_slice());
        let stat = file::statx(dir, last).map_err(self.failed(&path))?;
        match place {
            Place::Nothing => Ok(()),
            Place::Whiteout(_) | Place::Opaque(_) if stat.kind() != Kind::File => {
                Err(refused(&raw)("it has the name of a whiteout, but is not a file"))
            }
            Place::Whiteout(hidden) => Ok(self.sink.whiteout(&hidden)?),
            Place::Opaque(dir) => Ok(self.sink.opaque(&dir)?),
            Place::Object(path) if stat.is_whiteout_device() => Ok(self.sink.whiteout(&path)?),
            Place::Object(path) => {
                if stat.nlink > 1
                    && stat.kind() != Kind::Dir
                    && let Some(first) = self.links.get(&(stat.dev, stat.ino))
                {
                    return Ok(self.sink.link(&path, first)?);
                }
                self.put(Entry { dir, path, stat, in_marked })
            }
        }
    }

    fn put(&mut self, entry: Entry<'_>) -> Result<(), TransferError> {
        let refuse = |what| refused(&joined(&entry.path))(what);
        let body = match entry.stat.kind() {
            Kind::File => return self.put_file(entry),
            Kind::Dir => Body::Dir,
            Kind::Symlink => {
                let target = dir::readlinkat(entry.dir, entry.name());
                Body::Symlink { target: target.map_err(self.failed(&entry.path))? }
            }
            Kind::Char => {
                let (major, minor) = numbers(&entry.stat);
                Body::Char { major, minor }
            }
            Kind::Block => {
                let (major, minor) = numbers(&entry.stat);
                Body::Block { major, minor }
            }
            Kind::Fifo => Body::Fifo,
            Kind::Socket => Body::Socket,
            Kind::Unknown => return Err(refuse("its type is unknown")),
        };
        let mut xattrs = self.xattrs(entry.dir, entry.name(), &entry.path)?;
        let marks = marks::take(&mut xattrs).map_err(refuse)?;
        let is_dir = matches!(body, Body::Dir);
        self.sink.put(&entry.path, meta(&entry.stat, xattrs), body)?;
        if is_dir {
            return self.enter(entry.path, marks);
        }
        self.remember(entry);
        Ok(())
    }

    fn enter(&mut self, path: Vec<Name>, marks: Marks) -> Result<(), TransferError> {
        if marks.opaque {
            self.sink.opaque(&path)?;
        }
        self.pending.push(Pending { path, holds_whiteouts: marks.holds_whiteouts });
        Ok(())
    }

    fn remember(&mut self, entry: Entry<'_>) {
        if entry.stat.nlink > 1 {
            self.links.insert((entry.stat.dev, entry.stat.ino), entry.path);
        }
    }

    fn put_file(&mut self, mut entry: Entry<'_>) -> Result<(), TransferError> {
        let failed = self.failed(&entry.path);
        // Without O_NONBLOCK, a FIFO that replaced the file would block the import.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = file::openat(entry.dir, entry.name(), flags).map_err(&failed)?;
        let stat = file::statx(opened.as_fd(), b"").map_err(&failed)?;
        if (stat.dev, stat.ino, stat.kind()) != (entry.stat.dev, entry.stat.ino, Kind::File) {
            return Err(refused(&joined(&entry.path))("it was replaced while it was read"));
        }
        entry.stat = stat;
        let mut xattrs = self.xattrs(opened.as_fd(), b"", &entry.path)?;
        let marks = marks::take(&mut xattrs).map_err(refused(&joined(&entry.path)))?;
        if marks.whiteout && entry.in_marked && stat.size == 0 {
            return Ok(self.sink.whiteout(&entry.path)?);
        }
        let mut data = Exactly { file: File::from(opened), left: stat.size, failure: None };
        let body = Body::File { size: stat.size, data: &mut data };
        let put = self.sink.put(&entry.path, meta(&stat, xattrs), body);
        if let Some(source) = data.failure {
            return Err(TransferError::io(&self.on_host(&entry.path))(source));
        }
        put?;
        self.remember(entry);
        Ok(())
    }

    fn xattrs(
        &self,
        dir: BorrowedFd<'_>,
        entry: &[u8],
        path: &[Name],
    ) -> Result<Xattrs, TransferError> {
        let names = match xattr::list(dir, entry) {
            // A file system without extended attributes.
            Err(error) if error.is(Errno::OPNOTSUPP) => Vec::new(),
            listed => listed.map_err(self.failed(path))?,
        };
        let mut found = Xattrs::new();
        for key in names.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
            match xattr::get(dir, entry, key) {
                Ok(value) => drop(found.insert(key.to_vec(), value)),
                // A listed attribute that only other users may read, or that was removed.
                Err(error) if error.is(Errno::NODATA) => {}
                Err(error) => return Err(self.failed(path)(error)),
            }
        }
        Ok(found)
    }
}

fn numbers(stat: &Stat) -> (u32, u32) {
    (file::major(stat.rdev), file::minor(stat.rdev))
}

fn meta(stat: &Stat, xattrs: Xattrs) -> Meta {
    let (uid, gid, mtime) = (stat.uid, stat.gid, stat.mtime);
    Meta { mode: stat.mode & MODE_MASK, uid, gid, mtime, xattrs }
}

/// A reader that returns as many bytes as the file had when it was opened.
struct Exactly {
    file: File,
    left: u64,
    failure: Option<io::Error>,
}

impl Read for Exactly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let Some(part) = buf.get_mut(..len).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        let read = match self.file.read(part) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "it shrank while it was read")),
            read => read,
        };
        let len = read.map_err(|error| {
            let copy = stream::copied(&error);
            if error.kind() != ErrorKind::Interrupted {
                self.failure = Some(error);
            }
            copy
        })?;
        self.left = self.left.saturating_sub(len as u64);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::super::testing::Recorder;
    use super::*;
    use crate::types::XattrFlags;

    fn import(path: &Path) -> Result<Recorder, TransferError> {
        let mut recorder = Recorder::default();
        layer_from_directory(path, &mut recorder)?;
        Ok(recorder)
    }

    fn tree() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    // False if the file system of the tests has no user attributes.
    fn mark(path: &Path, key: &[u8], value: &[u8]) -> bool {
        let at = path.as_os_str().as_bytes();
        match xattr::set(file::CWD, at, key, value, XattrFlags::default()) {
            Err(error) if error.is(Errno::OPNOTSUPP) => {
                eprintln!("skipped: no user attributes on {}", path.display());
                false
            }
            set => set.map(|()| true).unwrap(),
        }
    }

    #[test]
    fn a_tree_comes_in_the_order_of_its_names() {
        let tree = tree();
        let at = |name: &str| tree.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/z"), "zz").unwrap();
        fs::write(at("c"), "").unwrap();
        fs::write(at("b/deep/f"), "f").unwrap();
        symlink("/etc", at("b/etc")).unwrap();
        file_mode(&at("c"), 0o4711);
        let seen = import(tree.path()).unwrap();
        assert_eq!(
            seen.lines,
            [
                "dir /",
                "dir /a",
                "dir /b",
                "file /c 0",
                "file /a/z 2",
                "dir /b/deep",
                "symlink /b/etc /etc",
                "file /b/deep/f 1",
            ]
        );
        let meta = seen.metas.get("/c").unwrap();
        let host = fs::metadata(at("c")).unwrap();
        assert_eq!((meta.mode, meta.uid), (0o4711, host.uid()));
        assert_eq!(
            (meta.mtime.secs, i64::from(meta.mtime.nanos)),
            (host.mtime(), host.mtime_nsec())
        );
        assert_eq!(seen.contents.get("/a/z").unwrap(), b"zz");
    }

    fn file_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn hard_links_and_special_files_are_kept() {
        let tree = tree();
        let at = |name: &str| tree.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/b"), "x").unwrap();
        fs::hard_link(at("d/b"), at("a")).unwrap();
        let bound = std::os::unix::net::UnixListener::bind(at("s")).unwrap();
        let root = file::open_path(tree.path(), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        dir::mknodat(root.as_fd(), b"p", Kind::Fifo.mode_bits() | 0o600, 0).unwrap();
        let seen = import(tree.path()).unwrap();
        drop(bound);
        let lines = ["dir /", "file /a 1", "dir /d", "fifo /p", "socket /s", "link /d/b /a"];
        assert_eq!(seen.lines, lines);
    }

    #[test]
    fn whiteouts_of_aufs_names_are_taken() {
        let tree = tree();
        let at = |name: &str| tree.path().join(name);
        fs::create_dir_all(at("d/.wh..wh.plnk")).unwrap();
        fs::write(at("d/.wh.gone"), "").unwrap();
        fs::write(at("d/.wh..wh..opq"), "").unwrap();
        let seen = import(tree.path()).unwrap();
        assert_eq!(seen.lines, ["dir /", "dir /d", "opaque /d", "whiteout /d/gone"]);
        fs::create_dir(at(".wh.dir")).unwrap();
        assert!(import(tree.path()).is_err());
    }

    #[test]
    fn marks_of_overlayfs_are_taken() {
        let tree = tree();
        let at = |name: &str| tree.path().join(name);
        for dir in ["marked", "opaque", "plain"] {
            fs::create_dir(at(dir)).unwrap();
        }
        for file in ["marked/gone", "marked/full", "plain/kept"] {
            fs::write(at(file), if file == "marked/full" { "x" } else { "" }).unwrap();
            if !mark(&at(file), b"user.overlay.whiteout", b"y") {
                return;
            }
        }
        mark(&at("marked"), b"user.overlay.opaque", b"x");
        mark(&at("opaque"), b"user.overlay.opaque", b"y");
        mark(&at("opaque"), b"user.kept", b"k\0k");
        let seen = import(tree.path()).unwrap();
        assert_eq!(
            seen.lines,
            [
                "dir /",
                "dir /marked",
                "dir /opaque",
                "opaque /opaque",
                "dir /plain",
                "file /marked/full 1",
                "whiteout /marked/gone",
                "file /plain/kept 0",
            ]
        );
        let xattrs = &seen.metas.get("/opaque").unwrap().xattrs;
        assert_eq!(xattrs.get(b"user.kept".as_slice()).unwrap(), b"k\0k");
        assert!(!xattrs.keys().any(|key| key.starts_with(b"user.overlay.")));
        mark(&at("plain/kept"), b"user.overlay.metacopy", b"");
        assert!(import(tree.path()).is_err());
    }

    #[test]
    fn a_device_of_zero_is_a_whiteout() {
        let tree = tree();
        let root = file::open_path(tree.path(), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        let made = dir::mknodat(root.as_fd(), b"gone", Kind::Char.mode_bits(), 0);
        if made.is_err_and(|error| error.is(Errno::PERM)) {
            eprintln!("skipped: devices cannot be made here");
            return;
        }
        // Overlayfs may make all whiteouts as hard links to one device.
        fs::hard_link(tree.path().join("gone"), tree.path().join("too")).unwrap();
        let seen = import(tree.path()).unwrap();
        assert_eq!(seen.lines, ["dir /", "whiteout /gone", "whiteout /too"]);
    }

    #[test]
    fn a_missing_directory_and_a_file_are_errors_with_the_path() {
        let tree = tree();
        let missing = tree.path().join("missing");
        let error = import(&missing).map(|seen| seen.lines).unwrap_err();
        assert!(matches!(&error, TransferError::Host(error) if error.path == missing), "{error}");
        fs::write(&missing, "").unwrap();
        assert!(import(&missing).is_err());
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let tree = tree();
        let path = tree.path().join("f");
        fs::write(&path, "ab").unwrap();
        let mut data = Exactly { file: File::open(&path).unwrap(), left: 3, failure: None };
        assert!(data.read_to_end(&mut Vec::new()).is_err());
        assert!(data.failure.is_some());
    }
}

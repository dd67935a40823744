//! A walk through a tree, by descriptors.
//!
//! A directory comes before its content, and names are in byte order, so equal trees give equal
//! sequences. Nothing is written, and access times stay where the owner of the process allows it
//! (`O_NOATIME`). The tree may change meanwhile: what vanishes is left out.
//!
//! Held at once: a descriptor and the names of each directory on the way to the current object,
//! and the first name of each object with further names.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::error::{Result, TreeError, on_host, shown};
use super::notes::Notes;
use super::{DEPTH_MAX, Xattrs};
use crate::error::{Errno, Error, FromHost};
use crate::sys::file::{self, OFlags};
use crate::sys::{dir, xattr};
use crate::types::{Kind, Name, Seek, Stat, name};

/// Attempts to open an object that is replaced meanwhile.
const TRIES: usize = 8;

/// An object of a tree.
#[derive(Debug)]
pub struct Found {
    /// The path below the root, without a slash at its ends; empty for the root.
    pub path: Vec<u8>,
    /// The attributes; for a file and a directory those of the opened object.
    pub stat: Stat,
    /// For a further name of an object that came before, the first name. The rest is empty then.
    pub link: Option<Vec<u8>>,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// The target of a symbolic link.
    pub target: Vec<u8>,
    /// The file, opened for reading.
    pub file: Option<OwnedFd>,
}

/// A directory on the way to the current object.
struct Level {
    dir: OwnedFd,
    names: std::vec::IntoIter<Name>,
    /// The length of its path.
    len: usize,
}

/// The walk.
pub struct Walk<'a> {
    base: &'a Path,
    root: Option<OwnedFd>,
    /// The mount that is not left; `None` for a walk through all mounts.
    mount: Option<u64>,
    stack: Vec<Level>,
    path: Vec<u8>,
    /// The first name of an object, and the number of names that are still to come.
    links: HashMap<(u64, u64), (Vec<u8>, u32)>,
    notes: Notes,
}

impl<'a> Walk<'a> {
    /// Opens a tree.
    ///
    /// # Errors
    /// As open(2).
    pub fn new(base: &'a Path) -> Result<Self> {
        Self::of(base, open_root(base).map_err(TreeError::host(base))?)
    }

    /// Takes a tree whose root is open for reading; errors name `base`.
    ///
    /// # Errors
    /// As statx(2).
    pub fn of(base: &'a Path, root: OwnedFd) -> Result<Self> {
        let failed = TreeError::host(base);
        let mount = file::mount_id(root.as_fd(), b"").map_err(&failed)?;
        Ok(Self { mount: Some(mount), ..Self::through(base, root) })
    }

    /// A walk from an open directory, which `base` names in errors, also into the mounts below it.
    #[must_use]
    pub fn through(base: &'a Path, root: OwnedFd) -> Self {
        Self {
            base,
            root: Some(root),
            mount: None,
            stack: Vec::new(),
            path: Vec::new(),
            links: HashMap::new(),
            notes: Notes::default(),
        }
    }

    /// What was left out.
    #[must_use]
    pub fn into_notes(self) -> Notes {
        self.notes
    }

    /// The next object.
    ///
    /// # Errors
    /// [`TreeError::Host`]; [`TreeError::Entry`] for an object that is replaced again and again,
    /// and for a tree that is too deep.
    #[allow(clippy::should_implement_trait)] // an iterator would hide the error
    pub fn next(&mut self) -> Result<Option<Found>> {
        if let Some(root) = self.root.take() {
            let failed = TreeError::host(self.base);
            let stat = file::statx(root.as_fd(), b"").map_err(&failed)?;
            let xattrs = xattrs(root.as_fd(), b"").map_err(&failed)?;
            self.push(root)?;
            return Ok(Some(Found::new(Vec::new(), stat, xattrs)));
        }
        loop {
            let Some(level) = self.stack.last_mut() else { return Ok(None) };
            let Some(name) = level.names.next() else {
                self.stack.pop();
                continue;
            };
            self.path.truncate(level.len);
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            if let Some(found) = self.object(&name)? {
                return Ok(Some(found));
            }
        }
    }

    fn failed(&self) -> impl Fn(Error) -> TreeError + use<> {
        TreeError::host(&on_host(self.base, &self.path))
    }

    fn push(&mut self, dir: OwnedFd) -> Result<()> {
        if self.stack.len() > DEPTH_MAX {
            let what = format!("more than {DEPTH_MAX} directories in each other");
            return Err(TreeError::entry(&self.path, what));
        }
        let names = names(dir.as_fd()).map_err(self.failed())?;
        self.stack.push(Level { dir, names: names.into_iter(), len: self.path.len() });
        Ok(())
    }

    fn object(&mut self, name: &[u8]) -> Result<Option<Found>> {
        let Some(level) = self.stack.last() else { return Ok(None) };
        match read(level.dir.as_fd(), name, &self.path) {
            Ok(Object { found: None, .. }) => Ok(None),
            Ok(Object { found: Some(found), dir }) => self.take(found, dir).map(Some),
            Err(Unread::Host(error)) => Err(self.failed()(error)),
            Err(Unread::Replaced) => {
                Err(TreeError::entry(&self.path, "it was replaced while it was read"))
            }
        }
    }

    fn take(&mut self, mut found: Found, dir: Option<OwnedFd>) -> Result<Found> {
        if let Some(dir) = dir {
            let id = file::mount_id(dir.as_fd(), b"").map_err(self.failed())?;
            if self.mount.is_none_or(|mount| mount == id) {
                self.push(dir)?;
            } else {
                let path = shown(&self.path);
                self.notes.add(format!("{path}: the content of a mount is left out"));
            }
            return Ok(found);
        }
        if found.stat.nlink < 2 {
            return Ok(found);
        }
        let key = (found.stat.dev, found.stat.ino);
        match self.links.get_mut(&key) {
            Some((first, left)) => {
                found.link = Some(first.clone());
                found.file = None;
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.links.remove(&key);
                }
            }
            None => {
                let left = found.stat.nlink - 1;
                self.links.insert(key, (found.path.clone(), left));
            }
        }
        Ok(found)
    }
}

impl Found {
    const fn new(path: Vec<u8>, stat: Stat, xattrs: Xattrs) -> Self {
        Self { path, stat, link: None, xattrs, target: Vec::new(), file: None }
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.stat.kind()
    }
}

/// The object of a name in an open directory, which is read as in a walk; nothing if there is none.
/// A directory is not entered.
///
/// # Errors
/// As [`Walk::next`].
pub fn one(parent: BorrowedFd<'_>, entry: &[u8], shown: &Path) -> Result<Option<Found>> {
    match read(parent, entry, entry) {
        Ok(object) => Ok(object.found),
        Err(Unread::Host(error)) => Err(TreeError::host(shown)(error)),
        Err(Unread::Replaced) => Err(TreeError::entry(entry, "it was replaced while it was read")),
    }
}

struct Object {
    found: Option<Found>,
    dir: Option<OwnedFd>,
}

enum Unread {
    Host(Error),
    Replaced,
}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

/// Reads the object of a name; nothing if it vanished.
fn read(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> std::result::Result<Object, Unread> {
    for _ in 0..TRIES {
        match attempt(parent, name, path) {
            Err(Unread::Host(error)) if error.is(Errno::NOENT) => {
                return Ok(Object { found: None, dir: None });
            }
            // A link or a device took its place.
            Err(Unread::Host(error))
                if error.is(Errno::LOOP) || error.is(Errno::NOTDIR) || error.is(Errno::NXIO) => {}
            Err(Unread::Replaced) => {}
            done => return done,
        }
    }
    Err(Unread::Replaced)
}

fn attempt(
    parent: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
) -> std::result::Result<Object, Unread> {
    let stat = file::statx(parent, name)?;
    let kind = stat.kind();
    if !matches!(kind, Kind::File | Kind::Dir) {
        let mut found = Found::new(path.to_vec(), stat, xattrs(parent, name)?);
        if kind == Kind::Symlink {
            found.target = dir::readlinkat(parent, name)?;
        }
        return Ok(Object { found: Some(found), dir: None });
    }
    let more = if kind == Kind::Dir { OFlags::DIRECTORY } else { OFlags::empty() };
    let opened = open(parent, name, more)?;
    let now = file::statx(opened.as_fd(), b"")?;
    if (now.dev, now.ino, now.kind()) != (stat.dev, stat.ino, kind) {
        return Err(Unread::Replaced);
    }
    let mut found = Found::new(path.to_vec(), now, xattrs(opened.as_fd(), b"")?);
    if kind == Kind::Dir {
        return Ok(Object { found: Some(found), dir: Some(opened) });
    }
    found.file = Some(opened);
    Ok(Object { found: Some(found), dir: None })
}

/// Opens the root of a tree, as [`open`] does.
pub(super) fn open_root(path: &Path) -> crate::error::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match file::open_path(path, flags | OFlags::NOATIME) {
        Err(error) if error.is(Errno::PERM) => file::open_path(path, flags),
        opened => opened,
    }
}

/// Opens an object for reading, without a change of its access time where that is allowed.
pub(super) fn open(
    parent: BorrowedFd<'_>,
    name: &[u8],
    more: OFlags,
) -> crate::error::Result<OwnedFd> {
    // Without O_NONBLOCK, a FIFO that replaced the file would block.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | more;
    match file::openat(parent, name, flags | OFlags::NOATIME) {
        Err(error) if error.is(Errno::PERM) => file::openat(parent, name, flags),
        opened => opened,
    }
}

/// The names in a directory, in byte order.
pub(super) fn names(dir: BorrowedFd<'_>) -> crate::error::Result<Vec<Name>> {
    let mut names = Vec::new();
    dir::getdents(dir, &mut |entry| {
        names.push(name(entry.name));
        true
    })?;
    names.sort_unstable();
    Ok(names)
}

/// The extended attributes of an object.
pub(super) fn xattrs(dir: BorrowedFd<'_>, entry: &[u8]) -> crate::error::Result<Xattrs> {
    let names = match xattr::list(dir, entry) {
        Err(error) if error.is(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        listed => listed?,
    };
    let mut found = Xattrs::new();
    for key in names.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
        match xattr::get(dir, entry, key) {
            Ok(value) => drop(found.insert(key.to_vec(), value)),
            // One that only other users may read, or that was removed.
            Err(error) if error.is(Errno::NODATA) || error.is(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The next data of a file at or behind an offset, and its end; `None` where only a hole follows.
///
/// # Errors
/// As lseek(2).
pub fn next_data(
    fd: BorrowedFd<'_>,
    at: u64,
    size: u64,
) -> crate::error::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let start = match file::seek_extent(fd, at, Seek::Data) {
        Err(error) if error.is(Errno::NXIO) => return Ok(None),
        // A file system without holes.
        Err(error) if error.is(Errno::INVAL) => return Ok(Some((at, size))),
        found => found?,
    };
    if start >= size {
        return Ok(None);
    }
    let end = match file::seek_extent(fd, start, Seek::Hole) {
        Err(error) if error.is(Errno::NXIO) => size,
        found => found?.min(size),
    };
    Ok(Some((start, end)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_walk_is_in_the_order_of_names_and_finds_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::write(at("b/deep/f"), "f").unwrap();
        fs::write(at("b.x"), "x").unwrap();
        fs::hard_link(at("b.x"), at("z")).unwrap();
        symlink("/etc", at("a")).unwrap();
        let mut walk = Walk::new(dir.path()).unwrap();
        let mut seen = Vec::new();
        while let Some(found) = walk.next().unwrap() {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            seen.push((text(&found.path), found.link.as_deref().map(text), text(&found.target)));
        }
        let plain = |path: &str| (path.to_owned(), None, String::new());
        let expected = [
            plain(""),
            ("a".to_owned(), None, "/etc".to_owned()),
            plain("b"),
            plain("b/deep"),
            plain("b/deep/f"),
            plain("b.x"),
            ("z".to_owned(), Some("b.x".to_owned()), String::new()),
        ];
        assert_eq!(seen, expected);
        assert!(walk.links.is_empty(), "all names of the file came");
    }

    #[test]
    fn holes_are_found() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(dir.path().join("f"))
            .unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        let found = next_data(file.as_fd(), 0, 8 << 20).unwrap();
        assert_eq!(found, Some((1 << 20, (1 << 20) + 4096)));
        assert_eq!(next_data(file.as_fd(), (1 << 20) + 4096, 8 << 20).unwrap(), None);
    }
}

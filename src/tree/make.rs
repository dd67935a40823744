//! Making a tree beneath a root, with all attributes.
//!
//! Objects may come in any order. A parent is opened component by component without following a
//! link, so a link in the tree leads nowhere. The directories on the way to the last object stay
//! open. The mode and the times of a directory are set when it is left, since each new entry
//! changes the times and a mode may forbid the next entry.
//!
//! Nobody else may see the tree before [`Maker::finish`]: an error leaves a part of it.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::error::{Result, TreeError, on_host, shown};
use super::notes::Notes;
use super::{DEPTH_MAX, Meta, Xattrs};
use crate::error::{Errno, Error, FromHost};
use crate::sys::file::{self, OFlags};
use crate::sys::{dir, xattr};
use crate::types::{AttrChange, Kind, MODE_MASK, NAME_MAX, Name, SetTime, XattrFlags, name};

const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// The kind of an object without data.
#[derive(Debug, Clone, Copy)]
pub enum Node<'a> {
    /// Directory. One that is there keeps its content.
    Dir,
    /// Symbolic link with its target.
    Symlink(&'a [u8]),
    /// Device, FIFO or socket with its device number.
    Special(Kind, u64),
}

/// An open directory.
struct Open {
    name: Name,
    fd: OwnedFd,
    mode: u32,
    times: AttrChange,
    gives_acl: bool,
}

/// A file that is being written.
pub struct NewFile {
    fd: OwnedFd,
    path: Vec<u8>,
}

impl NewFile {
    /// Lets the file share all blocks of another one. Returns whether the file system does that.
    #[must_use]
    pub fn share(&self, from: BorrowedFd<'_>) -> bool {
        crate::sys::ioctl::ficlone(self.fd.as_fd(), from).is_ok()
    }
}

/// Makes objects beneath a root.
pub struct Maker<'a> {
    base: &'a Path,
    root: OwnedFd,
    stack: Vec<Open>,
    /// Whether the process may give objects to other users.
    is_root: bool,
    notes: RefCell<Notes>,
}

impl<'a> Maker<'a> {
    /// Opens the root.
    ///
    /// # Errors
    /// As open(2).
    pub fn new(base: &'a Path) -> Result<Self> {
        let root = file::open_path(base, OFlags::RDONLY | OFlags::DIRECTORY);
        Self::beneath(base, root.map_err(TreeError::host(base))?)
    }

    /// Begins beneath an open directory, which `base` names in errors.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn beneath(base: &'a Path, root: OwnedFd) -> Result<Self> {
        let is_root = crate::sys::process::effective_ids().0 == 0;
        let mut maker = Self { base, root, stack: Vec::new(), is_root, notes: RefCell::default() };
        let again = file::duplicate(maker.root.as_fd()).map_err(maker.failed(b""))?;
        let root = maker.opened(again, Name::new()).map_err(maker.failed(b""))?;
        maker.stack.push(root);
        Ok(maker)
    }

    /// Leaves all directories, and returns what could not be set.
    ///
    /// # Errors
    /// As fchmodat2(2) and utimensat(2).
    pub fn finish(mut self) -> Result<Notes> {
        while self.leave()? {}
        file::fsync(self.root.as_fd()).map_err(TreeError::host(self.base))?;
        Ok(self.notes.into_inner())
    }

    /// Makes an object without data. One of this name is replaced.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn put(&mut self, path: &[u8], node: Node<'_>, meta: &Meta) -> Result<()> {
        let parts = parts(path)?;
        let Node::Dir = node else {
            let (parent, last) = self.parent(path, &parts)?;
            let make = |dir: BorrowedFd<'_>| match node {
                Node::Symlink(target) => dir::symlinkat(target, dir, last),
                Node::Special(kind, rdev) => {
                    dir::mknodat(dir, last, kind.mode_bits() | 0o600, rdev)
                }
                Node::Dir => Err(Error::os("mkdirat", Errno::INVAL)),
            };
            replacing(parent, path, last, make)?.map_err(self.failed(path))?;
            let is_link = matches!(node, Node::Symlink(_));
            self.disinherit(last, is_link, path)?;
            return self.attributes((self.top()?, last), path, meta, is_link);
        };
        self.enter(&parts, path)?;
        let fd = file::duplicate(self.top()?).map_err(self.failed(path))?;
        self.own((fd.as_fd(), b""), path, meta)?;
        self.set_xattrs((fd.as_fd(), b""), path, &meta.xattrs)?;
        if let Some(open) = self.stack.last_mut() {
            open.mode = meta.mode & MODE_MASK;
            open.times = times(meta);
            open.gives_acl = meta.xattrs.contains_key(DEFAULT_ACL);
        }
        Ok(())
    }

    /// Makes an empty file. One of this name is replaced.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn begin_file(&mut self, path: &[u8]) -> Result<NewFile> {
        let parts = parts(path)?;
        let (parent, last) = self.parent(path, &parts)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let make = |dir: BorrowedFd<'_>| file::openat_with_mode(dir, last, flags, 0o600);
        let fd = replacing(parent, path, last, make)?.map_err(self.failed(path))?;
        self.disinherit(last, false, path)?;
        Ok(NewFile { fd, path: path.to_vec() })
    }

    /// Writes to a file.
    ///
    /// # Errors
    /// As pwrite(2).
    pub fn write(&self, new: &NewFile, mut data: &[u8], mut at: u64) -> Result<()> {
        while !data.is_empty() {
            let written = file::pwrite(new.fd.as_fd(), data, at).map_err(self.failed(&new.path))?;
            data = data.get(written..).unwrap_or_default();
            at += written as u64;
        }
        Ok(())
    }

    /// Ends a file: its size, with a hole at the end where no data came, and its attributes.
    ///
    /// # Errors
    /// As ftruncate(2) and the calls for attributes.
    pub fn end_file(&mut self, new: NewFile, size: u64, meta: &Meta) -> Result<()> {
        file::ftruncate(new.fd.as_fd(), size).map_err(self.failed(&new.path))?;
        self.attributes((new.fd.as_fd(), b""), &new.path, meta, false)
    }

    /// Makes a further name of an object. One of this name is replaced.
    ///
    /// # Errors
    /// [`TreeError::Entry`] where the object does not exist or is a directory.
    pub fn link(&mut self, path: &[u8], to: &[u8]) -> Result<()> {
        let (parts, target) = (parts(path)?, parts(to)?);
        let (from_dir, from) = self.found(path, &target, to)?;
        let stat = match file::statx(from_dir.as_fd(), from) {
            Err(error) if error.is(Errno::NOENT) => {
                return Err(TreeError::entry(path, format!("{} does not exist", shown(to))));
            }
            found => found.map_err(self.failed(to))?,
        };
        if stat.kind() == Kind::Dir {
            return Err(TreeError::entry(path, "it is a hard link to a directory"));
        }
        if parts == target {
            return Err(TreeError::entry(path, "it is a hard link to itself"));
        }
        let (parent, last) = self.parent(path, &parts)?;
        let make = |dir: BorrowedFd<'_>| dir::linkat((from_dir.as_fd(), from), (dir, last));
        replacing(parent, path, last, make)?.map_err(self.failed(path))
    }

    fn failed(&self, path: &[u8]) -> impl Fn(Error) -> TreeError + use<> {
        TreeError::host(&on_host(self.base, path))
    }

    fn top(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.stack.last().map_or(self.root.as_fd(), |open| open.fd.as_fd()))
    }

    /// Enters the parent of an object.
    fn parent<'p>(
        &mut self,
        path: &[u8],
        parts: &[&'p [u8]],
    ) -> Result<(BorrowedFd<'_>, &'p [u8])> {
        let Some((last, above)) = parts.split_last() else {
            return Err(TreeError::entry(path, "the root is not a directory"));
        };
        self.enter(above, path)?;
        Ok((self.top()?, last))
    }

    /// Finds the parent of the target of a link, beside the open directories.
    fn found<'p>(
        &self,
        path: &[u8],
        target: &[&'p [u8]],
        to: &[u8],
    ) -> Result<(OwnedFd, &'p [u8])> {
        let Some((last, above)) = target.split_last() else {
            return Err(TreeError::entry(path, "it is a hard link to the root"));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut dir = file::duplicate(self.root.as_fd()).map_err(self.failed(to))?;
        for part in above {
            dir = match file::openat(dir.as_fd(), part, flags) {
                Err(error) if is_no_directory(&error) || error.is(Errno::NOENT) => {
                    return Err(TreeError::entry(path, format!("{} does not exist", shown(to))));
                }
                opened => opened.map_err(self.failed(to))?,
            };
        }
        Ok((dir, last))
    }

    /// Makes the directory of these components the open one, with those above it. Missing ones are
    /// made with mode 0755.
    fn enter(&mut self, parts: &[&[u8]], path: &[u8]) -> Result<()> {
        let open = self.stack.iter().skip(1);
        let shared = open.zip(parts).take_while(|(open, part)| open.name.as_slice() == **part);
        let shared = shared.count();
        while self.stack.len() > shared + 1 {
            self.leave()?;
        }
        for part in parts.get(shared..).unwrap_or_default() {
            let next = self.step(part).map_err(|error| match error {
                error if is_no_directory(&error) => {
                    TreeError::entry(path, "a part of its path is not a directory")
                }
                error => self.failed(path)(error),
            })?;
            self.stack.push(next);
        }
        Ok(())
    }

    fn step(&self, part: &[u8]) -> crate::error::Result<Open> {
        let parent = self.stack.last().map_or(self.root.as_fd(), |open| open.fd.as_fd());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match dir::mkdirat(parent, part, 0o700) {
            Err(error) if error.is(Errno::EXIST) => {}
            made => {
                made?;
                if self.stack.last().is_some_and(|open| open.gives_acl) {
                    drop_acl(parent, part)?;
                }
                let opened = self.opened(file::openat(parent, part, flags)?, name(part))?;
                return Ok(Open { mode: 0o755, gives_acl: false, ..opened });
            }
        }
        let stat = file::statx(parent, part)?;
        if stat.kind() != Kind::Dir {
            return Err(Error::os("openat", Errno::NOTDIR));
        }
        let is_closed = stat.mode & 0o700 != 0o700 && !self.is_root;
        if is_closed {
            file::set_mode(parent, part, 0o700)?;
        }
        let opened = self.opened(file::openat(parent, part, flags)?, name(part))?;
        Ok(Open { mode: stat.mode & MODE_MASK, ..opened })
    }

    /// An open directory that gets its present mode and times back when it is left.
    fn opened(&self, fd: OwnedFd, name: Name) -> crate::error::Result<Open> {
        let stat = file::statx(fd.as_fd(), b"")?;
        let gives_acl = match xattr::get(fd.as_fd(), b"", DEFAULT_ACL) {
            Ok(_) => true,
            Err(error) if error.is(Errno::NODATA) || error.is(Errno::OPNOTSUPP) => false,
            Err(error) => return Err(error),
        };
        let times = AttrChange {
            atime: Some(SetTime::At(stat.atime)),
            mtime: Some(SetTime::At(stat.mtime)),
            ..AttrChange::default()
        };
        Ok(Open { name, fd, mode: stat.mode & MODE_MASK, times, gives_acl })
    }

    fn leave(&mut self) -> Result<bool> {
        let Some(open) = self.stack.pop() else { return Ok(false) };
        let path: Vec<&[u8]> = self
            .stack
            .iter()
            .skip(1)
            .map(|open| open.name.as_slice())
            .chain([&*open.name])
            .collect();
        let failed = self.failed(&path.join(&b'/'));
        file::set_mode(open.fd.as_fd(), b"", open.mode).map_err(&failed)?;
        file::utimensat(open.fd.as_fd(), b"", &open.times).map_err(&failed)?;
        Ok(true)
    }

    /// Removes what a new object inherited from a default access list.
    fn disinherit(&self, last: &[u8], is_link: bool, path: &[u8]) -> Result<()> {
        if is_link || !self.stack.last().is_some_and(|open| open.gives_acl) {
            return Ok(());
        }
        drop_acl(self.top()?, last).map_err(self.failed(path))
    }

    /// Sets the attributes of an object: owner, extended attributes, mode, times. A later one in
    /// this order would be changed by an earlier one.
    fn attributes(
        &self,
        at: (BorrowedFd<'_>, &[u8]),
        path: &[u8],
        meta: &Meta,
        is_link: bool,
    ) -> Result<()> {
        self.own(at, path, meta)?;
        self.set_xattrs(at, path, &meta.xattrs)?;
        let (dir, name) = at;
        if !is_link {
            file::set_mode(dir, name, meta.mode & MODE_MASK).map_err(self.failed(path))?;
        }
        file::utimensat(dir, name, &times(meta)).map_err(self.failed(path))
    }

    fn own(&self, (dir, name): (BorrowedFd<'_>, &[u8]), path: &[u8], meta: &Meta) -> Result<()> {
        match file::fchownat(dir, name, Some(meta.uid), Some(meta.gid)) {
            Err(error) if !self.is_root && error.is(Errno::PERM) => {
                let (uid, gid) = (meta.uid, meta.gid);
                self.note(format!("{}: owner {uid}:{gid} needs root", shown(path)));
                Ok(())
            }
            done => done.map_err(self.failed(path)),
        }
    }

    fn set_xattrs(
        &self,
        (dir, name): (BorrowedFd<'_>, &[u8]),
        path: &[u8],
        xattrs: &Xattrs,
    ) -> Result<()> {
        for (key, value) in xattrs {
            match xattr::set(dir, name, key, value, XattrFlags::default()) {
                Err(error) if error.is(Errno::OPNOTSUPP) || error.is(Errno::PERM) => {
                    let key = shown(key);
                    self.note(format!("{}: attribute {key} not set: {error}", shown(path)));
                }
                done => done.map_err(self.failed(path))?,
            }
        }
        Ok(())
    }

    fn note(&self, line: String) {
        self.notes.borrow_mut().add(line);
    }
}

fn times(meta: &Meta) -> AttrChange {
    let (atime, mtime) = (meta.atime.map(SetTime::At), Some(SetTime::At(meta.mtime)));
    AttrChange { atime, mtime, ..AttrChange::default() }
}

fn is_no_directory(error: &Error) -> bool {
    error.is(Errno::NOTDIR) || error.is(Errno::LOOP)
}

/// Makes an object, after the removal of one that has its name.
fn replacing<T>(
    dir: BorrowedFd<'_>,
    path: &[u8],
    last: &[u8],
    make: impl Fn(BorrowedFd<'_>) -> crate::error::Result<T>,
) -> Result<crate::error::Result<T>> {
    let made = make(dir);
    if !made.as_ref().is_err_and(|error| error.is(Errno::EXIST)) {
        return Ok(made);
    }
    let removed = match file::statx(dir, last) {
        Ok(stat) if stat.kind() == Kind::Dir => dir::rmdirat(dir, last),
        Ok(_) => dir::unlinkat(dir, last),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.is(Errno::NOTEMPTY) => {
            Err(TreeError::entry(path, "it would replace a directory that is not empty"))
        }
        Err(error) => Ok(Err(error)),
        Ok(()) => Ok(make(dir)),
    }
}

/// Removes the access lists of a new object.
fn drop_acl(dir: BorrowedFd<'_>, name: &[u8]) -> crate::error::Result<()> {
    for key in [ACCESS_ACL, DEFAULT_ACL] {
        match xattr::remove(dir, name, key) {
            Err(error)
                if error.is(Errno::NODATA)
                    || error.is(Errno::OPNOTSUPP)
                    || error.is(Errno::ACCESS) => {}
            done => done?,
        }
    }
    Ok(())
}

/// The components of a path below the root; none for the root.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let is_bad = |part: &[u8]| {
        matches!(part, b"" | b"." | b"..") || part.len() > NAME_MAX || part.contains(&0)
    };
    if parts.iter().any(|part| is_bad(part)) {
        return Err(TreeError::entry(path, "its name is invalid"));
    }
    if parts.len() > DEPTH_MAX {
        let what = format!("more than {DEPTH_MAX} directories in each other");
        return Err(TreeError::entry(path, what));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::types::Time;

    fn meta(mode: u32, secs: i64) -> Meta {
        let (uid, gid) = crate::sys::process::effective_ids();
        Meta { mode, uid, gid, mtime: Time { secs, nanos: 5 }, ..Meta::default() }
    }

    #[test]
    fn directories_keep_mode_and_time_whatever_the_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut maker = Maker::new(dir.path()).unwrap();
        maker.put(b"a", Node::Dir, &meta(0o555, 1000)).unwrap();
        for name in ["a/f", "b/g", "a/h"] {
            let new = maker.begin_file(name.as_bytes()).unwrap();
            maker.write(&new, b"data", 2).unwrap();
            maker.end_file(new, 9, &meta(0o640, 2000)).unwrap();
        }
        maker.put(b"b", Node::Dir, &meta(0o1777, 3000)).unwrap();
        maker.finish().unwrap();
        for (name, mode, secs) in [("a", 0o555, 1000), ("b", 0o1777, 3000), ("a/h", 0o640, 2000)] {
            let found = fs::metadata(dir.path().join(name)).unwrap();
            let seen = (found.permissions().mode() & 0o7777, found.mtime(), found.mtime_nsec());
            assert_eq!(seen, (mode, secs, 5), "{name}");
        }
        assert_eq!(fs::read(dir.path().join("b/g")).unwrap(), b"\0\0data\0\0\0");
    }

    #[test]
    fn no_name_and_no_link_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "kept").unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        let mut maker = Maker::new(dir.path()).unwrap();
        for path in ["out/x", "../x", "/x", "a//x", "a/./x", "out/kept"] {
            assert!(maker.begin_file(path.as_bytes()).is_err(), "{path}");
            assert!(maker.put(path.as_bytes(), Node::Dir, &meta(0o755, 0)).is_err(), "{path}");
            assert!(maker.link(b"l", path.as_bytes()).is_err(), "{path}");
        }
        // A link of this name is replaced, not followed.
        let new = maker.begin_file(b"out").unwrap();
        maker.end_file(new, 0, &meta(0o600, 0)).unwrap();
        maker.finish().unwrap();
        assert!(dir.path().join("out").symlink_metadata().unwrap().is_file());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_default_access_list_is_not_inherited() {
        let dir = tempfile::tempdir().unwrap();
        // u::rwx u:1234:rwx g::r-x m::rwx o::---
        let entries: [(u16, u16, u32); 5] = [
            (1, 7, u32::MAX),
            (2, 7, 1234),
            (4, 5, u32::MAX),
            (16, 7, u32::MAX),
            (32, 0, u32::MAX),
        ];
        let mut acl = 2_u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            acl.extend(tag.to_le_bytes().into_iter().chain(perm.to_le_bytes()));
            acl.extend(id.to_le_bytes());
        }
        let xattrs = Xattrs::from([(DEFAULT_ACL.to_vec(), acl)]);
        let mut maker = Maker::new(dir.path()).unwrap();
        maker.put(b"d", Node::Dir, &Meta { xattrs, ..meta(0o750, 0) }).unwrap();
        maker.put(b"d/sub", Node::Dir, &meta(0o700, 0)).unwrap();
        let new = maker.begin_file(b"d/f").unwrap();
        maker.end_file(new, 0, &meta(0o600, 0)).unwrap();
        let notes = maker.finish().unwrap();
        if !notes.into_lines().is_empty() {
            eprintln!("skipped: no access lists on {}", dir.path().display());
            return;
        }
        for (name, key, is_there) in
            [("d", DEFAULT_ACL, true), ("d/sub", DEFAULT_ACL, false), ("d/f", ACCESS_ACL, false)]
        {
            let at = dir.path().join(name);
            let found = xattr::get(file::CWD, at.as_os_str().as_encoded_bytes(), key);
            assert_eq!(found.is_ok(), is_there, "{name}");
        }
    }
}

//! A copy of a tree of the host, with all attributes.
//!
//! Owners, modes, times, extended attributes with access lists, hard links, devices, FIFOs, sockets
//! and the holes of files are kept. A file shares the blocks of its source where the file system
//! can do that (`FICLONE`). The source may change meanwhile: what vanishes is left out, a file has
//! the length that it had when it was opened, and [`changed_since`] finds what was written.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::Meta;
use super::error::{Result, TreeError, on_host, shown};
use super::make::{Maker, NewFile, Node};
use super::notes::Notes;
use super::walk::{Found, Walk, next_data};
use crate::error::FromHost;
use crate::sys::file;
use crate::types::{Kind, MODE_MASK, Time};

/// Bytes that one step of a copy takes.
const STEP_BYTES: usize = 256 << 10;

/// The extent of a tree.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The number of objects; one with several names counts once.
    pub objects: u64,
    /// The bytes of data of files, holes left out.
    pub data_bytes: u64,
    /// The allocated bytes of all objects.
    pub allocated_bytes: u64,
}

/// The result of a copy.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Copied {
    /// What was copied. `allocated_bytes` is that of the source.
    pub extent: Extent,
    /// The bytes of data that share the blocks of their source.
    pub shared_bytes: u64,
    /// What is left out or incomplete.
    pub notes: Notes,
}

/// The root of a tree to be read: opened, with the path that errors name.
#[derive(Debug)]
pub struct Source<'a> {
    /// The path.
    pub path: &'a Path,
    /// The directory, opened for reading.
    pub root: OwnedFd,
}

impl Source<'_> {
    fn walk(&self) -> Result<Walk<'_>> {
        let again = file::duplicate(self.root.as_fd()).map_err(TreeError::host(self.path))?;
        Walk::of(self.path, again)
    }
}

/// Measures a tree without reading its data.
///
/// # Errors
/// As [`Walk::next`].
pub fn measure(source: &Source<'_>) -> Result<Extent> {
    let (mut walk, mut extent) = (source.walk()?, Extent::default());
    while let Some(found) = walk.next()? {
        if found.link.is_none() {
            extent.add(&found, data_of(source.path, &found)?);
        }
    }
    Ok(extent)
}

/// The paths of objects whose inode changed at or after a time, `most` of them, and their number.
///
/// # Errors
/// As [`Walk::next`].
pub fn changed_since(source: &Source<'_>, time: Time, most: usize) -> Result<(Vec<String>, u64)> {
    let (mut walk, mut paths, mut count) = (source.walk()?, Vec::new(), 0);
    while let Some(found) = walk.next()? {
        if found.link.is_none() && found.stat.ctime >= time {
            count += 1;
            if paths.len() < most {
                let path = shown(&found.path);
                paths.push(if path.is_empty() { ".".to_owned() } else { path });
            }
        }
    }
    Ok((paths, count))
}

/// Copies a tree into an empty directory that nobody else sees yet. `progress` receives the bytes
/// of data that are done; its error ends the copy.
///
/// # Errors
/// [`TreeError`]; a part of the copy is left then.
pub fn copy_tree(
    source: &Source<'_>,
    to: &Path,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Copied> {
    let mut walk = source.walk()?;
    let (maker, done) = (Maker::new(to)?, Copied::default());
    let mut copy = Copy { base: source.path, maker, shares: true, copied: 0, done, progress };
    while let Some(found) = walk.next()? {
        copy.object(&found)?;
    }
    let Copy { maker, mut done, .. } = copy;
    done.notes.append(walk.into_notes());
    done.notes.append(maker.finish()?);
    Ok(done)
}

impl Extent {
    fn add(&mut self, found: &Found, data: Vec<(u64, u64)>) {
        self.objects += 1;
        self.allocated_bytes += found.stat.blocks.saturating_mul(512);
        self.data_bytes += data.iter().map(|(start, end)| end - start).sum::<u64>();
    }
}

struct Copy<'a, 'p> {
    base: &'a Path,
    maker: Maker<'a>,
    /// Whether the file system may share blocks; false after the first refusal.
    shares: bool,
    copied: u64,
    done: Copied,
    progress: &'p mut dyn FnMut(u64) -> Result<()>,
}

impl Copy<'_, '_> {
    fn object(&mut self, found: &Found) -> Result<()> {
        let (path, stat) = (&found.path[..], &found.stat);
        if let Some(first) = &found.link {
            return self.maker.link(path, first);
        }
        let meta = Meta {
            mode: stat.mode & MODE_MASK,
            uid: stat.uid,
            gid: stat.gid,
            mtime: stat.mtime,
            atime: Some(stat.atime),
            xattrs: found.xattrs.clone(),
        };
        let data = data_of(self.base, found)?;
        match found.kind() {
            Kind::File => self.file(found, &data, &meta)?,
            Kind::Dir => self.maker.put(path, Node::Dir, &meta)?,
            Kind::Symlink => self.maker.put(path, Node::Symlink(&found.target), &meta)?,
            kind @ (Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket) => {
                self.maker.put(path, Node::Special(kind, stat.rdev), &meta)?;
            }
            Kind::Unknown => return Err(TreeError::entry(path, "its kind is unknown")),
        }
        self.done.extent.add(found, data);
        Ok(())
    }

    fn file(&mut self, found: &Found, data: &[(u64, u64)], meta: &Meta) -> Result<()> {
        let new = self.maker.begin_file(&found.path)?;
        if self.share(&new, found, data)? {
            return self.maker.end_file(new, found.stat.size, meta);
        }
        for (start, end) in data {
            self.data(&new, found, *start, *end)?;
        }
        self.maker.end_file(new, found.stat.size, meta)
    }

    /// Lets a file share the blocks of its source. Returns whether it does.
    fn share(&mut self, new: &NewFile, found: &Found, data: &[(u64, u64)]) -> Result<bool> {
        let Some(from) = found.file.as_ref().filter(|_| self.shares && !data.is_empty()) else {
            return Ok(false);
        };
        self.shares = new.share(from.as_fd());
        if self.shares {
            let bytes: u64 = data.iter().map(|(start, end)| end - start).sum();
            self.done.shared_bytes += bytes;
            self.copied += bytes;
            (self.progress)(self.copied)?;
        }
        Ok(self.shares)
    }

    fn data(&mut self, new: &NewFile, found: &Found, start: u64, end: u64) -> Result<()> {
        let Some(from) = &found.file else { return Ok(()) };
        let mut buffer =
            vec![0; STEP_BYTES.min(usize::try_from(end - start).unwrap_or(STEP_BYTES))];
        let mut at = start;
        while at < end {
            let rest = usize::try_from(end - at).unwrap_or(STEP_BYTES).min(buffer.len());
            let part = buffer.get_mut(..rest).unwrap_or_default();
            let read = file::pread(from.as_fd(), part, at)
                .map_err(TreeError::host(&on_host(self.base, &found.path)))?;
            if read == 0 {
                let path = shown(&found.path);
                self.done.notes.add(format!("{path}: it shrank while it was read"));
                return Ok(());
            }
            self.maker.write(new, part.get(..read).unwrap_or_default(), at)?;
            at += read as u64;
            self.copied += read as u64;
            (self.progress)(self.copied)?;
        }
        Ok(())
    }
}

/// The parts of a file with data: start and end.
fn data_of(base: &Path, found: &Found) -> Result<Vec<(u64, u64)>> {
    let size = found.stat.size;
    let Some(file) = found.file.as_ref().filter(|_| size > 0) else { return Ok(Vec::new()) };
    if found.stat.blocks.saturating_mul(512) >= size {
        return Ok(vec![(0, size)]);
    }
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some((start, end)) =
        next_data(file.as_fd(), at, size).map_err(TreeError::host(&on_host(base, &found.path)))?
    {
        parts.push((start, end));
        at = end;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::sys::file::OFlags;

    fn source(path: &Path) -> Source<'_> {
        Source { path, root: file::open_path(path, OFlags::RDONLY | OFlags::DIRECTORY).unwrap() }
    }

    fn copy(from: &Path, to: &Path) -> Copied {
        fs::create_dir(to).unwrap();
        copy_tree(&source(from), to, &mut |_| Ok(())).unwrap()
    }

    #[test]
    fn a_copy_has_holes_links_and_times() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("d/closed")).unwrap();
        let sparse = fs::File::create(from.join("d/sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        sparse.write_all_at(&[7; 4096], 32 << 20).unwrap();
        fs::write(from.join("a"), "text").unwrap();
        fs::hard_link(from.join("a"), from.join("d/b")).unwrap();
        symlink("../a", from.join("d/l")).unwrap();
        fs::set_permissions(from.join("d/closed"), fs::Permissions::from_mode(0o1500)).unwrap();
        let expected = measure(&source(&from)).unwrap();
        assert_eq!(expected.data_bytes, 4096 + 4);
        let to = dir.path().join("to");
        let done = copy(&from, &to);
        assert_eq!(done.extent, expected);
        assert_eq!(done.notes.into_lines(), [""; 0]);
        let (one, two) =
            (fs::metadata(to.join("a")).unwrap(), fs::metadata(to.join("d/b")).unwrap());
        assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
        let copied = fs::metadata(to.join("d/sparse")).unwrap();
        assert_eq!(copied.size(), 64 << 20);
        assert!(copied.blocks() * 512 < 1 << 20, "{}", copied.blocks());
        assert_eq!(fs::metadata(to.join("d/closed")).unwrap().mode() & 0o7777, 0o1500);
        for name in ["", "a", "d", "d/closed", "d/sparse"] {
            let (old, new) = (from.join(name), to.join(name));
            let times = |path: &Path| {
                let found = fs::metadata(path).unwrap();
                (found.mtime(), found.mtime_nsec())
            };
            assert_eq!(times(&old), times(&new), "{name}");
        }
        assert_eq!(fs::read_link(to.join("d/l")).unwrap(), Path::new("../a"));
    }

    #[test]
    fn a_write_during_a_copy_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, mark) = (dir.path().join("tree"), dir.path().join("mark"));
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("old"), "1").unwrap();
        let ctime = |path: &Path| {
            let found = fs::metadata(path).unwrap();
            Time { secs: found.ctime(), nanos: u32::try_from(found.ctime_nsec()).unwrap() }
        };
        // The kernel's clock of files advances in steps of some milliseconds.
        while !mark.exists() || ctime(&mark) <= ctime(&tree) {
            fs::write(&mark, "").unwrap();
        }
        let after = ctime(&mark);
        assert_eq!(changed_since(&source(&tree), after, 9).unwrap(), (Vec::new(), 0));
        fs::write(tree.join("new"), "2").unwrap();
        let (paths, count) = changed_since(&source(&tree), after, 9).unwrap();
        assert!(paths.contains(&"new".to_owned()) && count == 2, "{paths:?}");
    }

    #[test]
    fn an_error_of_the_progress_ends_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a"), "text").unwrap();
        let stop = |_| Err(TreeError::entry(b"", "stop"));
        let error = copy_tree(&source(&from), &to, &mut { stop }).unwrap_err();
        assert!(error.to_string().contains("stop"), "{error}");
    }
}

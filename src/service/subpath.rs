//! The subpath of a volume: one directory or file of it, in place of the whole content.
//!
//! The kernel resolves the path beneath the root of the content, in one call: neither a link nor a
//! name that is exchanged meanwhile leads out of it. From then on the object is held by a
//! descriptor, for the union as well as for the bind mount, and no name is resolved again. The
//! object is opened as a place only (`O_PATH`), so that no FIFO or device is opened.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backing::host::{FdCache, HostTree};
use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{Kind, Stat, Subpath, name};
use crate::union::{DirRef, GraftRoot};

/// How often a file is looked for whose names change meanwhile.
const TRIES: usize = 64;
/// What the kernel answers for a name whose object was moved.
const MOVED: [Errno; 5] = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::XDEV, Errno::STALE];
/// The name of a file for the union. The descriptor leads to the file under any name; this one is
/// that of no place, since the union looks for an object with the name of its place there.
const ANY_NAME: &[u8] = b"/";

/// A directory or file of a volume.
pub(super) struct Part {
    /// The object (`O_PATH`).
    pub(super) object: OwnedFd,
    /// The object for the union.
    pub(super) root: GraftRoot,
}

impl Part {
    /// Finds the object at a path beneath the content of a volume.
    ///
    /// # Errors
    /// As openat2(2); `EXDEV` for a path that leads out, `ENXIO` for an object that is neither a
    /// directory nor a file, `EAGAIN` for a file whose names change all the time.
    pub(super) fn find(data: &Path, subpath: &Subpath, cache: &Arc<FdCache>) -> Result<Self> {
        let content = sys::file::find_directory(data)?;
        for _ in 0..TRIES {
            let path = subpath.as_bytes();
            let object = sys::file::open_beneath(content.as_fd(), path, OFlags::PATH)?;
            let stat = sys::file::statx(object.as_fd(), b"")?;
            let root = match stat.kind() {
                Kind::Dir => {
                    let tree = sys::file::duplicate(object.as_fd())?;
                    GraftRoot::Dir(HostTree::from_fd(tree, cache)?)
                }
                Kind::File => match pinned(content.as_fd(), object.as_fd(), &stat, cache)? {
                    Some(dir) => GraftRoot::Entry { dir, name: name(ANY_NAME) },
                    None => continue,
                },
                _ => return Err(Error::os("openat2", Errno::NXIO)),
            };
            return Ok(Self { object, root });
        }
        Err(Error::os("openat2", Errno::AGAIN))
    }

    /// Whether the object is a directory.
    pub(super) const fn is_dir(&self) -> bool {
        matches!(self.root, GraftRoot::Dir(_))
    }
}

/// A place that leads to a file by a descriptor, whatever its names become. `None` if the name that
/// the kernel gives for the file leads to another object by now.
fn pinned(
    content: BorrowedFd<'_>,
    object: BorrowedFd<'_>,
    stat: &Stat,
    cache: &Arc<FdCache>,
) -> Result<Option<DirRef>> {
    let shown = |fd| sys::file::path_of(fd).map(|path| PathBuf::from(OsString::from_vec(path)));
    let (above, path) = (shown(content)?, shown(object)?);
    let Ok(beneath) = path.strip_prefix(&above) else { return Ok(None) };
    let (Some(parent), Some(entry)) = (beneath.parent(), beneath.file_name()) else {
        return Ok(None);
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let parent = parent.as_os_str().as_bytes();
    let found = sys::file::open_beneath_no_links(content, parent, flags)
        .and_then(|dir| HostTree::from_fd(dir, cache)?.pin(entry.as_bytes()))
        .and_then(|dir| Ok((dir.stat(None)?, dir)));
    match found {
        Ok((found, dir)) if (found.dev, found.ino) == (stat.dev, stat.ino) => Ok(Some(dir)),
        Ok(_) => Ok(None),
        Err(error) if MOVED.contains(&error.errno()) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::sys::dir::renameat2;
    use crate::types::RenameFlags;

    fn found(data: &Path, subpath: &str) -> Result<Part> {
        Part::find(data, &subpath.parse().unwrap(), &FdCache::new(32))
    }

    /// The inode number of the object; 0 if the union and the bind mount would show two.
    fn ino(part: &Part) -> u64 {
        let ino = sys::file::statx(part.object.as_fd(), b"").unwrap().ino;
        let seen = match &part.root {
            GraftRoot::Dir(dir) => dir.stat(None).unwrap().ino,
            GraftRoot::Entry { dir, name } => dir.stat(Some(name)).unwrap().ino,
        };
        if ino == seen { ino } else { 0 }
    }

    #[test]
    fn a_fifo_and_a_device_are_not_opened() {
        let site = tempfile::tempdir().unwrap();
        let name = |text: &str| site.path().join(text).into_os_string().into_vec();
        let fifo = Kind::Fifo.mode_bits() | 0o600;
        sys::dir::mknodat(sys::file::CWD, &name("fifo"), fifo, 0).unwrap();
        symlink("/dev/null", site.path().join("device")).unwrap();
        assert!(found(site.path(), "fifo").is_err_and(|error| error.is(Errno::NXIO)));
        assert!(found(site.path(), "device").is_err_and(|error| error.is(Errno::XDEV)));
    }

    #[test]
    fn an_exchange_with_a_link_leads_to_the_object_inside_or_to_nothing() {
        use std::os::unix::fs::MetadataExt;
        let site = tempfile::tempdir().unwrap();
        let data = site.path().join("data");
        for dir in [data.join("d"), site.path().join("outside")] {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("f"), "").unwrap();
        }
        symlink(site.path().join("outside"), data.join("link")).unwrap();
        let inside = ["d", "d/f"].map(|path| fs::metadata(data.join(path)).unwrap().ino());
        let name = |text: &str| data.join(text).into_os_string().into_vec();
        let ends = AtomicBool::new(false);
        let all: Vec<Result<u64>> = std::thread::scope(|scope| {
            scope.spawn(|| {
                let cwd = sys::file::CWD;
                let flags = RenameFlags { exchange: true, ..RenameFlags::default() };
                while !ends.load(Ordering::Relaxed) {
                    drop(renameat2((cwd, &name("d")), (cwd, &name("link")), flags));
                }
            });
            let find = |round| found(&data, ["d", "d/f"][round % 2]).map(|part| ino(&part));
            let all = (0..20_000_usize).map(find).collect();
            ends.store(true, Ordering::Relaxed);
            all
        });
        let (mut seen, mut refused) = (0, 0);
        for (round, found) in all.into_iter().enumerate() {
            match found {
                Ok(ino) if ino == inside[round % 2] => seen += 1,
                Ok(ino) => panic!("the object {ino} is outside"),
                Err(error) if [Errno::XDEV, Errno::AGAIN].contains(&error.errno()) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(seen > 100 && refused > 100, "{seen} inside, {refused} refused");
    }
}

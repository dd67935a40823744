//! The changes between two trees.
//!
//! Objects are compared by kind, mode, owner, size, time of the last change of the data, device
//! number, target and extended attributes. Where the inode number and the time of the last change
//! of the inode are equal too, as between snapshots of one file system, nothing else is read.
//! Where only that time differs, the data of a file is compared.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::DEPTH_MAX;
use super::error::{Result, TreeError, on_host};
use super::walk::{names, open, open_root, xattrs};
use crate::error::{Errno, Error, FromHost};
use crate::sys::dir::readlinkat;
use crate::sys::file::{self, OFlags};
use crate::types::{Kind, Name, Stat};

/// Bytes that one step of a comparison of data takes.
const STEP_BYTES: usize = 256 << 10;

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The object is new.
    Added,
    /// The object has other attributes, other data, or another kind.
    Changed,
    /// The object is gone, with all that was in it.
    Deleted,
}

/// A change of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The path below the root, without a slash at its ends.
    pub path: &'a [u8],
    /// Whether the object is a directory now, or was one before it was deleted.
    pub is_dir: bool,
    /// Whether it is a directory without entries.
    pub is_empty: bool,
}

/// Takes the changes, in the order of their names.
pub type Report<'a> = dyn FnMut(&Change<'_>) -> Result<()> + 'a;

/// Knows the changes between two states of a tree. [`Compared`] walks through both; a driver of
/// volumes that keeps changes apart can answer without a walk.
pub trait ChangeSource {
    /// Reports all changes.
    ///
    /// # Errors
    /// [`TreeError`]; errors of `report`.
    fn changes(&self, report: &mut Report<'_>) -> Result<()>;
}

/// Knows which names may differ, so that a comparison looks at no others.
pub trait Narrow {
    /// The names in a directory that may differ, sorted. `None` if all may, there and in all
    /// directories below.
    ///
    /// # Errors
    /// [`TreeError`].
    fn names(&self, path: &[u8]) -> Result<Option<Vec<Name>>>;
}

/// Two directories that are compared.
pub struct Compared<'a> {
    /// The old state.
    pub old: PathBuf,
    /// The new state.
    pub new: PathBuf,
    /// Where changes can be; everywhere if it is `None`.
    pub narrow: Option<&'a dyn Narrow>,
}

impl ChangeSource for Compared<'_> {
    fn changes(&self, report: &mut Report<'_>) -> Result<()> {
        let root = |path: &Path| open_root(path).map_err(TreeError::host(path));
        let (old, new) = (root(&self.old)?, root(&self.new)?);
        let (path, narrow) = (Vec::new(), self.narrow);
        let mut walk = Pairs { places: self, path, depth: 0, narrow, report };
        let pair = [&old, &new].map(|dir| file::statx(dir.as_fd(), b""));
        let [old_stat, new_stat] = pair.map(|stat| stat.map_err(TreeError::host(&self.new)));
        let (before, after) =
            (Object::new(&old, b"", old_stat?), Object::new(&new, b"", new_stat?));
        if !walk.is_equal(&before, &after)? {
            walk.say(ChangeKind::Changed, true, false)?;
        }
        walk.pair(&old, &new)
    }
}

struct Pairs<'a, 'r> {
    places: &'a Compared<'a>,
    path: Vec<u8>,
    depth: usize,
    /// `None` below a directory in which all names may differ.
    narrow: Option<&'a dyn Narrow>,
    report: &'a mut Report<'r>,
}

/// An entry of a directory.
struct Object<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    stat: Stat,
}

impl<'a> Object<'a> {
    fn new(dir: &'a OwnedFd, name: &'a [u8], stat: Stat) -> Self {
        Self { dir: dir.as_fd(), name, stat }
    }
}

impl Pairs<'_, '_> {
    fn failed(&self) -> impl Fn(Error) -> TreeError + use<> {
        TreeError::host(&on_host(&self.places.new, &self.path))
    }

    fn say(&mut self, kind: ChangeKind, is_dir: bool, is_empty: bool) -> Result<()> {
        (self.report)(&Change { kind, path: &self.path, is_dir, is_empty })
    }

    /// Compares the entries of two directories.
    fn pair(&mut self, old: &OwnedFd, new: &OwnedFd) -> Result<()> {
        let Some(narrow) = self.narrow else { return self.pair_all(old, new) };
        let Some(names) = narrow.names(&self.path)? else {
            self.narrow = None;
            let done = self.pair_all(old, new);
            self.narrow = Some(narrow);
            return done;
        };
        for name in &names {
            self.named(Some(old), Some(new), name)?;
        }
        Ok(())
    }

    fn pair_all(&mut self, old: &OwnedFd, new: &OwnedFd) -> Result<()> {
        let before = names(old.as_fd()).map_err(self.failed())?;
        let after = names(new.as_fd()).map_err(self.failed())?;
        let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
        loop {
            let (left, right) = match (before.peek(), after.peek()) {
                (None, None) => return Ok(()),
                (Some(left), Some(right)) => (*left <= *right, *right <= *left),
                (left, right) => (left.is_some(), right.is_some()),
            };
            let left = if left { before.next() } else { None };
            let right = if right { after.next() } else { None };
            let Some(name) = left.or(right) else { return Ok(()) };
            self.named(left.map(|_| old), right.map(|_| new), name)?;
        }
    }

    fn named(&mut self, old: Option<&OwnedFd>, new: Option<&OwnedFd>, name: &Name) -> Result<()> {
        let len = self.path.len();
        if len > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.entry(old, new, name)?;
        self.path.truncate(len);
        Ok(())
    }

    fn entry(&mut self, old: Option<&OwnedFd>, new: Option<&OwnedFd>, name: &Name) -> Result<()> {
        let old = self.found(old, name)?;
        let new = self.found(new, name)?;
        let is_dir = |one: &Object<'_>| one.stat.kind() == Kind::Dir;
        match (old, new) {
            (None, None) => Ok(()),
            (Some(old), None) => self.say(ChangeKind::Deleted, is_dir(&old), false),
            (None, Some(new)) => self.added(&new, ChangeKind::Added),
            (Some(old), Some(new)) if is_dir(&old) && is_dir(&new) => {
                let (before, after) = (self.enter(&old)?, self.enter(&new)?);
                if !self.is_equal(&old, &new)? {
                    self.say(ChangeKind::Changed, true, false)?;
                }
                self.deeper(|walk| walk.pair(&before, &after))
            }
            (Some(old), Some(new)) => match self.is_equal(&old, &new)? {
                true => Ok(()),
                false => self.added(&new, ChangeKind::Changed),
            },
        }
    }

    fn found<'o>(&self, dir: Option<&'o OwnedFd>, name: &'o [u8]) -> Result<Option<Object<'o>>> {
        let Some(dir) = dir else { return Ok(None) };
        match file::statx(dir.as_fd(), name) {
            // It vanished since the directory was listed.
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            found => Ok(Some(Object::new(dir, name, found.map_err(self.failed())?))),
        }
    }

    fn enter(&self, object: &Object<'_>) -> Result<OwnedFd> {
        open(object.dir, object.name, OFlags::DIRECTORY).map_err(self.failed())
    }

    fn deeper(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.depth >= DEPTH_MAX {
            let what = format!("more than {DEPTH_MAX} directories in each other");
            return Err(TreeError::entry(&self.path, what));
        }
        self.depth += 1;
        let done = act(self);
        self.depth -= 1;
        done
    }

    /// Reports an object and all that is in it.
    fn added(&mut self, object: &Object<'_>, kind: ChangeKind) -> Result<()> {
        if object.stat.kind() != Kind::Dir {
            return self.say(kind, false, false);
        }
        let dir = self.enter(object)?;
        let names = names(dir.as_fd()).map_err(self.failed())?;
        self.say(kind, true, names.is_empty())?;
        self.deeper(|walk| {
            for name in names {
                let Some(below) = walk.found(Some(&dir), &name)? else { continue };
                let len = walk.path.len();
                walk.path.push(b'/');
                walk.path.extend_from_slice(&name);
                walk.added(&below, ChangeKind::Added)?;
                walk.path.truncate(len);
            }
            Ok(())
        })
    }

    fn is_equal(&self, old: &Object<'_>, new: &Object<'_>) -> Result<bool> {
        let (a, b) = (&old.stat, &new.stat);
        let is_dir = b.kind() == Kind::Dir;
        // The size of a directory depends on its file system.
        let size = |stat: &Stat| if is_dir { 0 } else { stat.size };
        let rdev = |stat: &Stat| match stat.kind() {
            Kind::Char | Kind::Block => stat.rdev,
            _ => 0,
        };
        let fields =
            |stat: &Stat| (stat.mode, stat.uid, stat.gid, stat.mtime, size(stat), rdev(stat));
        if fields(a) != fields(b) {
            return Ok(false);
        }
        if (a.ino, a.ctime) == (b.ino, b.ctime) {
            return Ok(true);
        }
        let xattrs = |one: &Object<'_>| xattrs(one.dir, one.readable()).map_err(self.failed());
        if xattrs(old)? != xattrs(new)? {
            return Ok(false);
        }
        match b.kind() {
            Kind::Symlink => {
                let target = |one: &Object<'_>| readlinkat(one.dir, one.name);
                let equal = target(old).and_then(|old| Ok(old == target(new)?));
                equal.map_err(self.failed())
            }
            Kind::File => self.has_equal_data(old, new),
            _ => Ok(true),
        }
    }

    fn has_equal_data(&self, old: &Object<'_>, new: &Object<'_>) -> Result<bool> {
        let file = |one: &Object<'_>| {
            open(one.dir, one.name, OFlags::empty()).map(File::from).map_err(self.failed())
        };
        let (old_file, new_file) = (file(old)?, file(new)?);
        let path = on_host(&self.places.new, &self.path);
        let (mut left, mut right) = (vec![0; STEP_BYTES], vec![0; STEP_BYTES]);
        let mut at = 0;
        while at < new.stat.size {
            let rest = usize::try_from(new.stat.size - at).unwrap_or(STEP_BYTES);
            let len = rest.min(STEP_BYTES);
            let (Some(left), Some(right)) = (left.get_mut(..len), right.get_mut(..len)) else {
                return Ok(false);
            };
            for (file, part) in [(&old_file, &mut *left), (&new_file, &mut *right)] {
                match file.read_exact_at(part, at) {
                    // It shrank meanwhile.
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        return Ok(false);
                    }
                    read => read.map_err(TreeError::io(&path))?,
                }
            }
            if left != right {
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    }
}

impl Object<'_> {
    fn readable(&self) -> &[u8] {
        if self.name.is_empty() { b"." } else { self.name }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;
    use crate::types::name;

    fn changes(compared: &Compared<'_>) -> Vec<String> {
        let mut seen = Vec::new();
        let mut report = |change: &Change<'_>| {
            let kind = format!("{:?}", change.kind);
            seen.push(format!("{} {}", &kind[..1], String::from_utf8_lossy(change.path)));
            Ok(())
        };
        compared.changes(&mut report).unwrap();
        seen
    }

    #[test]
    fn each_kind_of_change_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("old/d/gone")).unwrap();
        fs::create_dir_all(at("old/kept")).unwrap();
        for name in ["data", "mode", "same", "d/gone/f", "kind", "time"] {
            fs::write(at("old").join(name), name).unwrap();
        }
        let copied = Command::new("cp").args(["-a"]).args([at("old"), at("new")]).status();
        assert!(copied.unwrap().success());
        let compared = compared_at(dir.path());
        assert_eq!(changes(&compared), Vec::<String>::new(), "a copy has other inode numbers");
        // Data alone: size and time are those of before.
        let time = fs::metadata(at("new/data")).unwrap().modified().unwrap();
        fs::write(at("new/data"), "atad").unwrap();
        File::options().append(true).open(at("new/data")).unwrap().set_modified(time).unwrap();
        fs::set_permissions(at("new/mode"), fs::Permissions::from_mode(0o4600)).unwrap();
        fs::remove_dir_all(at("new/d/gone")).unwrap();
        fs::create_dir_all(at("new/kept/new")).unwrap();
        fs::write(at("new/kept/new/f"), "").unwrap();
        fs::remove_file(at("new/kind")).unwrap();
        fs::create_dir(at("new/kind")).unwrap();
        let seen = changes(&compared);
        let expected = [
            "C ",
            "C d",
            "D d/gone",
            "C data",
            "C kept",
            "A kept/new",
            "A kept/new/f",
            "C kind",
            "C mode",
        ];
        assert_eq!(seen, expected);
        struct Names(&'static [(&'static [u8], &'static [&'static [u8]])]);
        impl Narrow for Names {
            fn names(&self, path: &[u8]) -> Result<Option<Vec<Name>>> {
                let found = self.0.iter().find(|(of, _)| *of == path);
                Ok(found.map(|(_, names)| names.iter().map(|one| name(one)).collect()))
            }
        }
        let narrow = |names| Compared { narrow: Some(names), ..compared_at(dir.path()) };
        let looked = Names(&[(b"", &[b"data", b"none", b"same"])]);
        assert_eq!(changes(&narrow(&looked)), ["C ", "C data"], "no other name is looked at");
        let looked = Names(&[(b"", &[b"d", b"kept"]), (b"d", &[])]);
        let seen = changes(&narrow(&looked));
        assert_eq!(seen, ["C ", "C d", "C kept", "A kept/new", "A kept/new/f"]);
    }

    fn compared_at(dir: &Path) -> Compared<'static> {
        Compared { old: dir.join("old"), new: dir.join("new"), narrow: None }
    }
}

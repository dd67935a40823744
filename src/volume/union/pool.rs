//! The layers of all volumes of a data root: `volumes/.layers/ID`, each with its content in `diff`
//! and, while it is an upper, its work directory in `work`.
//!
//! A layer lives while a stack names it. Whoever makes a layer, or copies the name of one to
//! another stack, shares the lock of the pool until the stack is written; whoever removes layers
//! holds it alone.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::super::error::{Result, VolumeError};
use super::super::tree;
use super::stack::{self, Stack};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::new_id;
use crate::error::FromHost;
use crate::store::files::{make_dir, open_dir, sync_file_system};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::Time;

/// The directory of the pool, beside the volumes.
const POOL: &str = ".layers";
const LOCK: &str = ".lock";

/// The layers of a data root.
#[derive(Debug, Clone)]
pub struct Pool {
    directory: PathBuf,
}

/// While this lives, no layer is removed.
#[derive(Debug)]
pub struct Shared(#[allow(dead_code)] File);

/// While this lives, no stack gets the layers of another one.
#[derive(Debug)]
pub struct Alone(#[allow(dead_code)] File);

impl Pool {
    /// The pool beside the directory of a volume.
    #[must_use]
    pub fn of(volume: &Path) -> Self {
        Self::beside(volume.parent().unwrap_or(volume))
    }

    /// The pool in the directory of all volumes.
    #[must_use]
    pub fn beside(volumes: &Path) -> Self {
        Self { directory: volumes.join(POOL) }
    }

    /// The content of a layer.
    #[must_use]
    pub fn content(&self, layer: &str) -> PathBuf {
        self.directory.join(layer).join("diff")
    }

    /// The work directory of an upper.
    #[must_use]
    pub fn work(&self, layer: &str) -> PathBuf {
        self.directory.join(layer).join("work")
    }

    fn lock(&self) -> Result<File> {
        make_dir(&self.directory).map_err(CatalogError::from)?;
        let path = self.directory.join(LOCK);
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        opened.map_err(VolumeError::io(&path))
    }

    /// Keeps all layers until the value is dropped.
    ///
    /// # Errors
    /// As open(2).
    pub fn share(&self) -> Result<Shared> {
        let lock = self.lock()?;
        sys::file::flock_shared(lock.as_fd()).map_err(VolumeError::host(&self.directory))?;
        Ok(Shared(lock))
    }

    /// Makes an empty layer, and returns its id. The caller shares the lock.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn make(&self) -> Result<String> {
        let id = new_id()?;
        let directory = self.directory.join(&id);
        let dir = |path: &Path, mode| {
            fs::DirBuilder::new().mode(mode).create(path).map_err(VolumeError::io(path))
        };
        dir(&directory, 0o700)?;
        dir(&self.content(&id), 0o755)?;
        // Whatever the umask is: users see this mode.
        let shown = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.content(&id), shown).map_err(VolumeError::io(&directory))?;
        dir(&self.work(&id), 0o700)?;
        sync_dir(&directory)?;
        sync_dir(&self.directory)?;
        Ok(id)
    }

    /// Waits until the content of all layers is on disk.
    ///
    /// # Errors
    /// As syncfs(2).
    pub fn sync(&self) -> Result<()> {
        Ok(sync_file_system(&self.directory).map_err(CatalogError::from)?)
    }

    /// The bytes that a layer takes on the host.
    ///
    /// # Errors
    /// As reading it.
    pub fn taken_bytes(&self, layer: &str) -> Result<u64> {
        tree::usage(&self.content(layer)).map(|usage| usage.host_bytes)
    }

    /// Removes a layer that no stack names.
    pub fn discard(&self, layer: &str) {
        if let Err(error) = sys::remove::remove_dir_all(&self.directory.join(layer)) {
            tracing::debug!(%error, layer, "a layer stays until the next collection");
        }
    }

    /// Whether nothing was written to the upper of a stack since it was made: it has no entry, and
    /// its root looks as that of the layer below.
    ///
    /// # Errors
    /// As open(2) and getxattr(2).
    pub fn is_unwritten(&self, stack: &Stack) -> Result<bool> {
        let (Some(upper), Some(below)) = (&stack.upper, stack.layers.first()) else {
            return Ok(false);
        };
        self.is_empty_like(&self.content(upper), below)
    }

    /// Whether a directory has no entry, and looks as the root of a layer.
    ///
    /// # Errors
    /// As open(2) and getxattr(2).
    pub fn is_empty_like(&self, upper: &Path, below: &str) -> Result<bool> {
        Ok(is_empty(upper)? && look_of(upper)? == look_of(&self.content(below))?)
    }

    /// All stacks. None of them is copied to another one while the first value lives. `None` where
    /// no stack ever named a layer.
    ///
    /// # Errors
    /// Errors of reading a stack.
    pub fn stacks(&self) -> Result<Option<(Alone, Vec<Stack>)>> {
        if !self.directory.exists() {
            return Ok(None);
        }
        let lock = self.lock()?;
        sys::file::flock(lock.as_fd()).map_err(VolumeError::host(&self.directory))?;
        let volumes = self.directory.parent().unwrap_or(&self.directory);
        let mut places = entries(volumes)?;
        let containers = volumes.with_file_name("containers");
        if containers.is_dir() {
            places.extend(entries(&containers)?);
        }
        let mut stacks = Vec::new();
        for volume in places {
            match stack::read(&volume) {
                Ok(stack) => stacks.push(stack),
                // Neither a volume nor a container, or one without layers.
                Err(VolumeError::Host(error)) if is_missing(&error.source) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some((Alone(lock), stacks)))
    }

    /// Removes the layers that no stack names, and returns how many there were.
    ///
    /// # Errors
    /// Errors of reading a stack: then nothing is removed.
    pub fn collect(&self) -> Result<usize> {
        let Some((_alone, stacks)) = self.stacks()? else { return Ok(0) };
        let named: HashSet<String> = stacks
            .into_iter()
            .flat_map(|stack| stack.upper.into_iter().chain(stack.layers))
            .collect();
        let mut removed = 0;
        for layer in entries(&self.directory)? {
            let name = layer.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == LOCK || named.contains(&name) {
                continue;
            }
            match sys::remove::remove_dir_all(&layer) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(VolumeError::io(&layer)(error));
                }
                _ => removed += 1,
            }
        }
        Ok(removed)
    }
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(fs::read_dir(dir).map_err(VolumeError::io(dir))?.next().is_none())
}

/// What users see of a directory without its entries.
type Look = ((u32, u32, u32, Time), BTreeMap<Vec<u8>, Vec<u8>>);

fn look_of(path: &Path) -> Result<Look> {
    let look = || -> crate::error::Result<Look> {
        let dir = sys::file::open_path(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let stat = sys::file::statx(dir.as_fd(), b"")?;
        let mut xattrs = BTreeMap::new();
        let keys = sys::xattr::list(dir.as_fd(), b"")?;
        for key in keys.split(|byte| *byte == 0).filter(|key| !key.is_empty() && !is_mark(key)) {
            xattrs.insert(key.to_vec(), sys::xattr::get(dir.as_fd(), b"", key)?);
        }
        Ok(((stat.mode, stat.uid, stat.gid, stat.mtime), xattrs))
    };
    look().map_err(VolumeError::host(path))
}

/// Whether an attribute is a mark of the union, and not one of a user, which is stored escaped.
fn is_mark(key: &[u8]) -> bool {
    let marks: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
    let rest = marks.into_iter().find_map(|prefix| key.strip_prefix(prefix));
    rest.is_some_and(|rest| !rest.starts_with(b"overlay."))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>();
    read().map_err(VolumeError::io(dir))
}

fn sync_dir(path: &Path) -> Result<()> {
    let opened = open_dir(path).map_err(CatalogError::from)?;
    sys::file::fsync(opened.as_fd()).map_err(VolumeError::host(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::XattrFlags;

    #[test]
    fn a_layer_lives_while_a_stack_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::beside(dir.path());
        assert_eq!(pool.collect().unwrap(), 0);
        let volume = dir.path().join("v");
        fs::create_dir(&volume).unwrap();
        let shared = pool.share().unwrap();
        let (kept, lost) = (pool.make().unwrap(), pool.make().unwrap());
        let stack = Stack { layers: vec![kept.clone()], ..Stack::default() };
        stack::write(&volume, &stack).unwrap();
        drop(shared);
        assert_eq!(pool.collect().unwrap(), 1);
        assert!(pool.content(&kept).is_dir() && !pool.content(&lost).exists());
        fs::write(volume.join("stack.json"), "{").unwrap();
        pool.collect().unwrap_err();
        assert!(pool.content(&kept).is_dir(), "a damaged stack must remove nothing");
    }

    #[test]
    fn an_upper_is_written_by_each_change_that_users_see() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::beside(dir.path());
        let _shared = pool.share().unwrap();
        let (upper, below) = (pool.make().unwrap(), pool.make().unwrap());
        let root = pool.content(&upper);
        let dress = || {
            let time = fs::metadata(pool.content(&below)).unwrap().modified().unwrap();
            File::open(&root).unwrap().set_modified(time).unwrap();
        };
        let alone = Stack { upper: Some(upper.clone()), ..Stack::default() };
        assert!(!pool.is_unwritten(&alone).unwrap(), "a volume without a layer");
        let stack = Stack { layers: vec![below.clone()], ..alone };
        dress();
        assert!(pool.is_unwritten(&stack).unwrap());
        fs::write(root.join("f"), "").unwrap();
        dress();
        assert!(!pool.is_unwritten(&stack).unwrap());
        fs::remove_file(root.join("f")).unwrap();
        assert!(!pool.is_unwritten(&stack).unwrap(), "another time of change");
        dress();
        let opened = File::open(&root).unwrap();
        let set = |key: &[u8]| {
            sys::xattr::set(opened.as_fd(), b"", key, b"x", XattrFlags::default()).unwrap();
        };
        set(b"user.overlay.impure");
        assert!(pool.is_unwritten(&stack).unwrap(), "a mark");
        set(b"user.overlay.overlay.impure");
        assert!(!pool.is_unwritten(&stack).unwrap(), "an attribute of a user");
    }
}

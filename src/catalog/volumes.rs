//! Named volumes: directories below the data root that outlive containers and mounts.
//!
//! A volume is `volumes/NAME/`, with its content in `_data` and what is known of it in
//! `volume.json`. It appears whole: it grows under a name that no volume can have, and is renamed.
//!
//! Locks (flock(2)): each user of a volume holds a shared one on its directory. Removing a volume
//! and filling it take an exclusive one, so that `_data` is replaced while nobody uses it, and the
//! second of two first users waits until the volume is full. Names of `volumes/` change under a
//! lock on that directory, held for short; what a crash left there is swept under it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::error::{CatalogError, Result, User};
use crate::error::{Errno, FromHost};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::VolumeName;

const DATA: &str = "_data";
const RECORD: &str = "volume.json";
/// Where a volume is filled from an image before it takes the place of the empty one.
const FILLING: &str = ".filling";

/// What is known of a volume; the field names are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// Labels of its user.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its content on the host.
    #[serde(default)]
    pub mountpoint: PathBuf,
}

/// A volume in use: it cannot be removed while this lives.
#[derive(Debug)]
pub struct OpenVolume {
    directory: PathBuf,
    _lock: OwnedFd,
}

/// The volumes of a data root.
#[derive(Debug, Clone)]
pub struct Volumes {
    directory: PathBuf,
}

fn missing(name: &VolumeName) -> CatalogError {
    CatalogError::Missing { kind: "volume", name: name.to_string() }
}

fn in_use(name: &VolumeName) -> CatalogError {
    CatalogError::InUse { kind: "volume", name: name.to_string(), by: User::Mount }
}

fn sync(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(CatalogError::io(path))
}

impl Volumes {
    /// The volumes below a data root; nothing is made yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { directory: root.join("volumes") }
    }

    fn ensure(&self) -> Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(CatalogError::io(&self.directory))
    }

    /// Makes a volume, or finds the one of this name.
    ///
    /// # Errors
    /// [`CatalogError`]. A crash leaves no volume or a whole one.
    pub fn create(&self, name: &VolumeName, labels: BTreeMap<String, String>) -> Result<Volume> {
        match self.inspect(name) {
            Err(CatalogError::Missing { .. }) => {}
            found => return found,
        }
        self.ensure()?;
        let _alone = self.alone()?;
        self.sweep_alone()?;
        let growing = self.directory.join(format!(".{name}.{}", std::process::id()));
        fs::create_dir(&growing).map_err(CatalogError::io(&growing))?;
        let made = self.fill_new(name, &growing, labels);
        if made.is_err() {
            sys::remove::remove_dir_all(&growing).map_err(CatalogError::io(&growing))?;
        }
        made?;
        self.inspect(name)
    }

    /// Keeps others from making, removing and sweeping names for as long as it lives.
    fn alone(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let lock = sys::file::open_path(&self.directory, flags)
            .map_err(CatalogError::host(&self.directory))?;
        sys::file::flock(lock.as_fd()).map_err(CatalogError::host(&self.directory))?;
        Ok(lock)
    }

    /// Removes what crashes left; answers how many.
    ///
    /// # Errors
    /// [`CatalogError::Io`].
    pub fn sweep(&self) -> Result<usize> {
        if !self.directory.exists() {
            return Ok(0);
        }
        let _alone = self.alone()?;
        self.sweep_alone()
    }

    fn sweep_alone(&self) -> Result<usize> {
        let mut swept = 0;
        for entry in fs::read_dir(&self.directory).map_err(CatalogError::io(&self.directory))? {
            let entry = entry.map_err(CatalogError::io(&self.directory))?;
            if !is_leftover(&entry.file_name()) {
                continue;
            }
            let path = entry.path();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let Ok(lock) = sys::file::open_path(&path, flags) else { continue };
            // A volume that is being removed is locked by the process that removes it.
            if sys::file::try_flock(lock.as_fd()).is_ok() {
                remove_tree(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn fill_new(
        &self,
        name: &VolumeName,
        growing: &Path,
        labels: BTreeMap<String, String>,
    ) -> Result<()> {
        let mode = |path: &Path, bits| {
            fs::set_permissions(path, fs::Permissions::from_mode(bits))
                .map_err(CatalogError::io(path))
        };
        mode(growing, 0o700)?;
        let data = growing.join(DATA);
        fs::create_dir(&data).map_err(CatalogError::io(&data))?;
        mode(&data, 0o755)?;
        let created_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let volume = Volume { name: name.clone(), created_at, labels, mountpoint: PathBuf::new() };
        let record = growing.join(RECORD);
        let damaged = |error: serde_json::Error| CatalogError::Damaged {
            path: record.clone(),
            what: error.to_string(),
        };
        let text = serde_json::to_vec_pretty(&volume).map_err(damaged)?;
        fs::write(&record, text).map_err(CatalogError::io(&record))?;
        mode(&record, 0o600)?;
        sync(&record)?;
        sync(growing)?;
        let target = self.directory.join(name.as_str());
        match fs::rename(growing, &target) {
            // Somebody else made it meanwhile: that one is taken.
            Err(error) if matches!(error.raw_os_error(), Some(39 | 17)) => {
                sys::remove::remove_dir_all(growing).map_err(CatalogError::io(growing))
            }
            done => done.map_err(CatalogError::io(&target)).and_then(|()| sync(&self.directory)),
        }
    }

    /// What is known of a volume.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn inspect(&self, name: &VolumeName) -> Result<Volume> {
        let directory = self.directory.join(name.as_str());
        let record = directory.join(RECORD);
        let text = match fs::read(&record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(name));
            }
            read => read.map_err(CatalogError::io(&record))?,
        };
        let damaged = |error: serde_json::Error| CatalogError::Damaged {
            path: record.clone(),
            what: error.to_string(),
        };
        let mut volume: Volume = serde_json::from_slice(&text).map_err(damaged)?;
        volume.mountpoint = directory.join(DATA);
        Ok(volume)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn list(&self) -> Result<Vec<Volume>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(CatalogError::io(&self.directory))?,
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let entry = entry.map_err(CatalogError::io(&self.directory))?;
            let name = entry.file_name().into_string().ok().and_then(|name| name.try_into().ok());
            let Some(name) = name else { continue };
            match self.inspect(&name) {
                Ok(volume) => volumes.push(volume),
                Err(CatalogError::Missing { .. }) => {} // removed meanwhile, or no volume of ours
                Err(error) => return Err(error),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    fn directory_of(&self, name: &VolumeName) -> Result<(PathBuf, OwnedFd)> {
        let directory = self.directory.join(name.as_str());
        match sys::file::open_path(&directory, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => Ok((directory, fd)),
            Err(error) if error.is(Errno::NOENT) => Err(missing(name)),
            Err(error) => Err(CatalogError::host(&directory)(error)),
        }
    }

    /// Opens a volume for use.
    ///
    /// # Errors
    /// [`CatalogError`]; `InUse` while it is being filled or removed.
    pub fn open(&self, name: &VolumeName) -> Result<OpenVolume> {
        let (directory, lock) = self.directory_of(name)?;
        match sys::file::try_flock_shared(lock.as_fd()) {
            Ok(()) => self.opened(name, directory, lock),
            Err(error) if error.is(Errno::AGAIN) => Err(in_use(name)),
            Err(error) => Err(CatalogError::host(&directory)(error)),
        }
    }

    /// Opens a volume for use. If nobody else uses it and it is empty, `fill` gets a directory
    /// that becomes its content; others wait meanwhile, and none of them sees a part.
    ///
    /// # Errors
    /// [`CatalogError`], what `fill` answers. A crash or failure leaves the volume empty.
    pub fn open_filled<E: From<CatalogError>>(
        &self,
        name: &VolumeName,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<OpenVolume, E> {
        let (directory, lock) = self.directory_of(name)?;
        let is_first = match sys::file::try_flock(lock.as_fd()) {
            Ok(()) => true,
            Err(error) if error.is(Errno::AGAIN) => false,
            Err(error) => return Err(CatalogError::host(&directory)(error).into()),
        };
        if is_first && is_current(&directory, &lock)? && is_empty(&directory.join(DATA))? {
            fill_empty(&directory, fill)?;
        }
        // Nobody removes the volume while the lock is changed, which is not one step.
        let alone = if is_first { Some(self.alone()?) } else { None };
        sys::file::flock_shared(lock.as_fd()).map_err(CatalogError::host(&directory))?;
        drop(alone);
        Ok(self.opened(name, directory, lock)?)
    }

    fn opened(&self, name: &VolumeName, directory: PathBuf, lock: OwnedFd) -> Result<OpenVolume> {
        // It may have been removed before the lock was had, and made again.
        if is_current(&directory, &lock)? && directory.join(RECORD).exists() {
            return Ok(OpenVolume { directory, _lock: lock });
        }
        Err(missing(name))
    }

    /// Removes a volume with its content.
    ///
    /// # Errors
    /// [`CatalogError`]; `InUse` while a mount uses it. A crash leaves the volume, or nothing
    /// under its name.
    pub fn remove(&self, name: &VolumeName) -> Result<()> {
        self.directory_of(name)?;
        let alone = self.alone()?;
        self.sweep_alone()?;
        let (directory, lock) = self.directory_of(name)?;
        match sys::file::try_flock(lock.as_fd()) {
            Ok(()) => {}
            Err(error) if error.is(Errno::AGAIN) => {
                return Err(in_use(name));
            }
            Err(error) => return Err(CatalogError::host(&directory)(error)),
        }
        let going = self.directory.join(format!(".{name}.removed.{}", std::process::id()));
        fs::rename(&directory, &going).map_err(CatalogError::io(&directory))?;
        sync(&self.directory)?;
        drop(alone);
        remove_tree(&going)
    }
}

/// Whether a name of `volumes/` is one under which a volume grows or goes: `.NAME.PID` or
/// `.NAME.removed.PID`.
fn is_leftover(name: &std::ffi::OsStr) -> bool {
    let parts = name.to_str().and_then(|name| name.strip_prefix('.')?.rsplit_once('.'));
    let Some((name, pid)) = parts else { return false };
    let name = name.strip_suffix(".removed").unwrap_or(name);
    name.parse::<VolumeName>().is_ok()
        && !pid.is_empty()
        && pid.bytes().all(|byte| byte.is_ascii_digit())
}

/// Removes a tree that another process may be removing too.
fn remove_tree(path: &Path) -> Result<()> {
    match sys::remove::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(CatalogError::io(path)),
    }
}

/// Whether an open directory is still the one at a path.
fn is_current(path: &Path, open: &OwnedFd) -> Result<bool> {
    let of = |fd: &OwnedFd| {
        let stat = sys::file::statx(fd.as_fd(), b"").map_err(CatalogError::host(path))?;
        Ok::<_, CatalogError>((stat.dev, stat.ino))
    };
    match sys::file::open_path(path, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(there) => Ok(of(&there)? == of(open)?),
        Err(error) if error.is(Errno::NOENT) => Ok(false),
        Err(error) => Err(CatalogError::host(path)(error)),
    }
}

fn is_empty(data: &Path) -> Result<bool> {
    Ok(fs::read_dir(data).map_err(CatalogError::io(data))?.next().is_none())
}

/// Has the content of a volume made beside it, and puts it in the place of the empty one in one
/// step. Where a file system of its own is mounted on the content, it is filled in place.
fn fill_empty<E: From<CatalogError>>(
    directory: &Path,
    fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let (data, filling) = (directory.join(DATA), directory.join(FILLING));
    if is_mount_point(directory, &data)? {
        return fill(&data);
    }
    if filling.exists() {
        sys::remove::remove_dir_all(&filling).map_err(CatalogError::io(&filling))?;
    }
    fs::create_dir(&filling).map_err(CatalogError::io(&filling))?;
    let filled = fill(&filling).and_then(|()| Ok(publish(&filling, &data)?));
    if filled.is_err() {
        remove_tree(&filling)?;
    }
    filled?;
    Ok(sync(directory)?)
}

fn is_mount_point(above: &Path, path: &Path) -> Result<bool> {
    let mount = |path: &Path| {
        sys::file::open_path(path, OFlags::PATH)
            .and_then(|fd| sys::file::mount_id(fd.as_fd(), b""))
            .map_err(CatalogError::host(path))
    };
    Ok(mount(above)? != mount(path)?)
}

fn publish(filled: &Path, data: &Path) -> Result<()> {
    let fd = sys::file::open_path(filled, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(CatalogError::host(filled))?;
    sys::file::syncfs(fd.as_fd()).map_err(CatalogError::host(filled))?;
    fs::rename(filled, data).map_err(CatalogError::io(filled))
}

impl OpenVolume {
    /// The directory of its content.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join(DATA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes() -> (tempfile::TempDir, Volumes) {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(root.path());
        (root, volumes)
    }

    fn name(text: &str) -> VolumeName {
        text.parse().unwrap()
    }

    #[test]
    fn a_volume_is_made_once_listed_and_removed() {
        let (root, volumes) = volumes();
        assert_eq!(volumes.list().unwrap(), []);
        let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let made = volumes.create(&name("data"), labels.clone()).unwrap();
        assert_eq!((made.name.as_str(), &made.labels), ("data", &labels));
        assert_eq!(made.mountpoint, root.path().join("volumes/data/_data"));
        fs::write(made.mountpoint.join("f"), "kept").unwrap();
        assert_eq!(volumes.create(&name("data"), BTreeMap::new()).unwrap(), made);
        assert_eq!(volumes.list().unwrap(), std::slice::from_ref(&made));
        assert_eq!(fs::read(made.mountpoint.join("f")).unwrap(), b"kept");
        volumes.remove(&name("data")).unwrap();
        assert!(matches!(volumes.inspect(&name("data")), Err(CatalogError::Missing { .. })));
        assert_eq!(fs::read_dir(root.path().join("volumes")).unwrap().count(), 0);
    }

    #[test]
    fn a_volume_in_use_is_not_removed() {
        let (_root, volumes) = volumes();
        volumes.create(&name("data"), BTreeMap::new()).unwrap();
        let open = volumes.open(&name("data")).unwrap();
        let second = volumes.open(&name("data")).unwrap();
        assert!(matches!(volumes.remove(&name("data")), Err(CatalogError::InUse { .. })));
        drop(open);
        assert!(matches!(volumes.remove(&name("data")), Err(CatalogError::InUse { .. })));
        drop(second);
        volumes.remove(&name("data")).unwrap();
        assert!(matches!(volumes.open(&name("data")), Err(CatalogError::Missing { .. })));
    }

    fn fill_with(dir: &Path) -> Result<()> {
        fs::write(dir.join("f"), "image").map_err(CatalogError::io(dir))
    }

    #[test]
    fn filled_content_takes_the_place_of_the_empty_one() {
        let (_root, volumes) = volumes();
        volumes.create(&name("data"), BTreeMap::new()).unwrap();
        let mut empty_meanwhile = false;
        let open = volumes.open_filled(&name("data"), |dir| {
            empty_meanwhile = is_empty(&dir.with_file_name(DATA))?;
            fill_with(dir)
        });
        assert!(empty_meanwhile);
        let open = open.unwrap();
        assert_eq!(fs::read(open.data().join("f")).unwrap(), b"image");
        let again =
            volumes.open_filled(&name("data"), |_| -> Result<()> { panic!("filled twice") });
        drop((open, again.unwrap()));
    }

    #[test]
    fn a_volume_in_use_keeps_its_directory() {
        use std::os::unix::fs::MetadataExt;
        let (_root, volumes) = volumes();
        volumes.create(&name("data"), BTreeMap::new()).unwrap();
        let first = volumes.open_filled(&name("data"), |_| Ok::<_, CatalogError>(())).unwrap();
        let ino = fs::metadata(first.data()).unwrap().ino();
        let second = volumes.open_filled(&name("data"), fill_with).unwrap();
        assert_eq!(fs::metadata(second.data()).unwrap().ino(), ino);
        assert!(is_empty(&first.data()).unwrap(), "it was seen empty, and stays so");
    }

    #[test]
    fn of_two_first_users_one_fills_and_the_other_waits() {
        let (_root, volumes) = volumes();
        volumes.create(&name("data"), BTreeMap::new()).unwrap();
        let (fills, volumes) = (std::sync::atomic::AtomicU32::new(0), &volumes);
        std::thread::scope(|scope| {
            let use_it = || {
                let open = volumes.open_filled(&name("data"), |dir| {
                    fills.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    (0..200).try_for_each(|number| {
                        fs::write(dir.join(number.to_string()), "x").map_err(CatalogError::io(dir))
                    })
                });
                fs::read_dir(open.unwrap().data()).unwrap().count()
            };
            let users: Vec<_> = (0..8).map(|_| scope.spawn(use_it)).collect();
            for user in users {
                assert_eq!(user.join().unwrap(), 200);
            }
        });
        assert_eq!(fills.load(std::sync::atomic::Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failure_to_fill_leaves_an_empty_volume() {
        let (_root, volumes) = volumes();
        let made = volumes.create(&name("data"), BTreeMap::new()).unwrap();
        let failed = volumes.open_filled(&name("data"), |dir| {
            fill_with(dir)?;
            Err(missing(&name("x")))
        });
        assert!(failed.is_err());
        assert!(is_empty(&made.mountpoint).unwrap());
        let names = fs::read_dir(made.mountpoint.parent().unwrap()).unwrap().count();
        assert_eq!(names, 2, "the content and the record");
    }

    #[test]
    fn leftovers_are_swept_and_what_is_not_ours_stays() {
        let (root, volumes) = volumes();
        volumes.create(&name("data"), BTreeMap::new()).unwrap();
        let path = |name: &str| root.path().join("volumes").join(name);
        for name in [".data.12", ".data.removed.13", ".snapshot", ".a.b"] {
            fs::create_dir_all(path(name).join("_data")).unwrap();
        }
        let lock = fs::File::open(path(".data.removed.13")).unwrap();
        sys::file::try_flock(lock.as_fd()).unwrap();
        volumes.create(&name("other"), BTreeMap::new()).unwrap();
        assert!(!path(".data.12").exists() && path(".data.removed.13").exists());
        drop(lock);
        assert_eq!(volumes.sweep().unwrap(), 1);
        assert!(path(".snapshot").exists() && path(".a.b").exists());
        assert_eq!(volumes.list().unwrap().len(), 2);
    }
}

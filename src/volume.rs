//! Named volumes: directories below the data root that outlive containers and mounts.
//!
//! A volume is `volumes/NAME/`, with its content in `_data` and what is known of it in
//! `volume.json`. It appears whole: it grows under a name that no volume can have, and is renamed.
//! Whoever uses a volume holds a shared lock on its directory; removing takes an exclusive one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::Errno;
use crate::sys;
use crate::sys::file::OFlags;

/// The longest name of a volume, in bytes.
pub const NAME_MAX: usize = 128;

const DATA: &str = "_data";
const RECORD: &str = "volume.json";
/// Where a volume is filled from an image before it takes the place of the empty one.
const FILLING: &str = ".filling";

/// Why a request for a volume failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The name is none.
    #[error("{0:?} is no volume name: 1 to 128 of A-Z a-z 0-9 _ . -, the first a letter or digit")]
    BadName(String),
    /// There is no volume of this name.
    #[error("volume {0:?} does not exist")]
    Missing(String),
    /// A mount or another command uses the volume.
    #[error("volume {0:?} is in use")]
    InUse(String),
    /// The host refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which object.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// The record of a volume cannot be read.
    #[error("{}: {source}", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

type Result<T> = std::result::Result<T, VolumeError>;

/// What is known of a volume; the field names are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Its name.
    pub name: String,
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

fn at(path: &Path) -> impl FnOnce(io::Error) -> VolumeError + use<> {
    let path = path.to_owned();
    move |source| VolumeError::Io { path, source }
}

fn refused(path: &Path, error: &crate::error::Error) -> VolumeError {
    let source = io::Error::from_raw_os_error(error.errno().0);
    VolumeError::Io { path: path.to_owned(), source }
}

/// States whether a name may be one of a volume.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.len() <= NAME_MAX
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

fn checked(name: &str) -> Result<&str> {
    if is_name(name) { Ok(name) } else { Err(VolumeError::BadName(name.to_owned())) }
}

fn sync(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(at(path))
}

impl Volumes {
    /// The volumes below a data root; nothing is made yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { directory: root.join("volumes") }
    }

    fn ensure(&self) -> Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o711).create(&self.directory).map_err(at(&self.directory))
    }

    /// Makes a volume, or finds the one of this name.
    ///
    /// # Errors
    /// [`VolumeError`]. A crash leaves no volume or a whole one.
    pub fn create(&self, name: &str, labels: BTreeMap<String, String>) -> Result<Volume> {
        match self.inspect(name) {
            Err(VolumeError::Missing(_)) => {}
            found => return found,
        }
        self.ensure()?;
        let growing = self.directory.join(format!(".{name}.{}", std::process::id()));
        if growing.exists() {
            fs::remove_dir_all(&growing).map_err(at(&growing))?;
        }
        fs::create_dir(&growing).map_err(at(&growing))?;
        let made = self.fill_new(name, &growing, labels);
        if made.is_err() {
            fs::remove_dir_all(&growing).map_err(at(&growing))?;
        }
        made?;
        self.inspect(name)
    }

    fn fill_new(&self, name: &str, growing: &Path, labels: BTreeMap<String, String>) -> Result<()> {
        let mode = |path: &Path, bits| {
            fs::set_permissions(path, fs::Permissions::from_mode(bits)).map_err(at(path))
        };
        mode(growing, 0o711)?;
        let data = growing.join(DATA);
        fs::create_dir(&data).map_err(at(&data))?;
        mode(&data, 0o755)?;
        let created_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let volume =
            Volume { name: name.to_owned(), created_at, labels, mountpoint: PathBuf::new() };
        let record = growing.join(RECORD);
        let wrap = |source| VolumeError::Record { path: record.clone(), source };
        let text = serde_json::to_vec_pretty(&volume).map_err(wrap)?;
        fs::write(&record, text).map_err(at(&record))?;
        sync(&record)?;
        sync(growing)?;
        let target = self.directory.join(name);
        match fs::rename(growing, &target) {
            // Somebody else made it meanwhile: that one is taken.
            Err(error) if matches!(error.raw_os_error(), Some(39 | 17)) => {
                fs::remove_dir_all(growing).map_err(at(growing))
            }
            done => done.map_err(at(&target)).and_then(|()| sync(&self.directory)),
        }
    }

    /// What is known of a volume.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn inspect(&self, name: &str) -> Result<Volume> {
        let directory = self.directory.join(checked(name)?);
        let record = directory.join(RECORD);
        let text = match fs::read(&record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeError::Missing(name.to_owned()));
            }
            read => read.map_err(at(&record))?,
        };
        let wrap = |source| VolumeError::Record { path: record.clone(), source };
        let mut volume: Volume = serde_json::from_slice(&text).map_err(wrap)?;
        volume.mountpoint = directory.join(DATA);
        Ok(volume)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn list(&self) -> Result<Vec<Volume>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(at(&self.directory))?,
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let entry = entry.map_err(at(&self.directory))?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if !is_name(&name) {
                continue;
            }
            match self.inspect(&name) {
                Ok(volume) => volumes.push(volume),
                Err(VolumeError::Missing(_)) => {} // removed meanwhile, or no volume of ours
                Err(error) => return Err(error),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    fn directory_of(&self, name: &str) -> Result<(PathBuf, OwnedFd)> {
        let directory = self.directory.join(checked(name)?);
        match sys::file::open_path(&directory, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => Ok((directory, fd)),
            Err(error) if error.is(Errno::NOENT) => Err(VolumeError::Missing(name.to_owned())),
            Err(error) => Err(refused(&directory, &error)),
        }
    }

    /// Opens a volume for use.
    ///
    /// # Errors
    /// [`VolumeError`]; `InUse` while it is being removed.
    pub fn open(&self, name: &str) -> Result<OpenVolume> {
        let (directory, lock) = self.directory_of(name)?;
        match sys::file::try_flock_shared(lock.as_fd()) {
            Ok(()) if directory.join(RECORD).exists() => Ok(OpenVolume { directory, _lock: lock }),
            Ok(()) => Err(VolumeError::Missing(name.to_owned())),
            Err(error) if error.is(Errno::AGAIN) => Err(VolumeError::InUse(name.to_owned())),
            Err(error) => Err(refused(&directory, &error)),
        }
    }

    /// Removes a volume with its content.
    ///
    /// # Errors
    /// [`VolumeError`]; `InUse` while a mount uses it. A crash leaves the volume, or nothing
    /// under its name.
    pub fn remove(&self, name: &str) -> Result<()> {
        let (directory, lock) = self.directory_of(name)?;
        match sys::file::try_flock(lock.as_fd()) {
            Ok(()) => {}
            Err(error) if error.is(Errno::AGAIN) => {
                return Err(VolumeError::InUse(name.to_owned()));
            }
            Err(error) => return Err(refused(&directory, &error)),
        }
        let going = self.directory.join(format!(".{name}.removed.{}", std::process::id()));
        fs::rename(&directory, &going).map_err(at(&directory))?;
        sync(&self.directory)?;
        fs::remove_dir_all(&going).map_err(at(&going))
    }
}

impl OpenVolume {
    /// The directory of its content.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join(DATA)
    }

    /// States whether nothing is in it.
    ///
    /// # Errors
    /// [`VolumeError::Io`].
    pub fn is_empty(&self) -> Result<bool> {
        let data = self.data();
        Ok(fs::read_dir(&data).map_err(at(&data))?.next().is_none())
    }

    /// An empty directory to be filled, for [`OpenVolume::publish`].
    ///
    /// # Errors
    /// [`VolumeError::Io`].
    pub fn start_filling(&self) -> Result<PathBuf> {
        let filling = self.directory.join(FILLING);
        if filling.exists() {
            fs::remove_dir_all(&filling).map_err(at(&filling))?;
        }
        fs::create_dir(&filling).map_err(at(&filling))?;
        Ok(filling)
    }

    /// Puts what was filled in the place of the empty content, in one step.
    ///
    /// # Errors
    /// [`VolumeError::Io`].
    pub fn publish(&self, filled: &Path) -> Result<()> {
        let fd = sys::file::open_path(filled, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| refused(filled, &error))?;
        sys::file::syncfs(fd.as_fd()).map_err(|error| refused(filled, &error))?;
        fs::rename(filled, self.data()).map_err(at(filled))?;
        sync(&self.directory)
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

    #[test]
    fn names_are_those_of_docker_and_never_paths() {
        for good in ["a", "A-b_c.d", "0", &"x".repeat(128)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "ä", "a\n", &"x".repeat(129)] {
            assert!(!is_name(bad), "{bad:?}");
        }
        let (_root, volumes) = volumes();
        assert!(matches!(volumes.create("../x", BTreeMap::new()), Err(VolumeError::BadName(_))));
    }

    #[test]
    fn a_volume_is_made_once_listed_and_removed() {
        let (root, volumes) = volumes();
        assert_eq!(volumes.list().unwrap(), []);
        let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let made = volumes.create("data", labels.clone()).unwrap();
        assert_eq!((made.name.as_str(), &made.labels), ("data", &labels));
        assert_eq!(made.mountpoint, root.path().join("volumes/data/_data"));
        fs::write(made.mountpoint.join("f"), "kept").unwrap();
        assert_eq!(volumes.create("data", BTreeMap::new()).unwrap(), made);
        assert_eq!(volumes.list().unwrap(), std::slice::from_ref(&made));
        assert_eq!(fs::read(made.mountpoint.join("f")).unwrap(), b"kept");
        volumes.remove("data").unwrap();
        assert!(matches!(volumes.inspect("data"), Err(VolumeError::Missing(_))));
        assert_eq!(fs::read_dir(root.path().join("volumes")).unwrap().count(), 0);
    }

    #[test]
    fn a_volume_in_use_is_not_removed() {
        let (_root, volumes) = volumes();
        volumes.create("data", BTreeMap::new()).unwrap();
        let open = volumes.open("data").unwrap();
        let second = volumes.open("data").unwrap();
        assert!(matches!(volumes.remove("data"), Err(VolumeError::InUse(_))));
        drop(open);
        assert!(matches!(volumes.remove("data"), Err(VolumeError::InUse(_))));
        drop(second);
        volumes.remove("data").unwrap();
        assert!(matches!(volumes.open("data"), Err(VolumeError::Missing(_))));
    }

    #[test]
    fn filled_content_takes_the_place_of_the_empty_one() {
        let (_root, volumes) = volumes();
        volumes.create("data", BTreeMap::new()).unwrap();
        let open = volumes.open("data").unwrap();
        assert!(open.is_empty().unwrap());
        let filling = open.start_filling().unwrap();
        fs::write(filling.join("f"), "image").unwrap();
        assert!(open.is_empty().unwrap());
        open.publish(&filling).unwrap();
        assert_eq!(fs::read(open.data().join("f")).unwrap(), b"image");
    }
}

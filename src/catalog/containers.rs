//! Containers: a writable layer over an image, under a name, until it is removed.
//!
//! `containers/ID/` of the data root holds `record`, `limits.json` if it has limits,
//! `program.json` and `run.json` if it is run, and `upper` and `work` of the mount. It grows as
//! `.new-…` and is renamed; it loses its name before it is removed. The record has all that the
//! image was, so that a container outlives the names of its image. A writable layer that ends with
//! its mount is `.ephemeral-…`, locked while it is in use.

mod notes;
mod record;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub use self::notes::{
    read_limits, read_program, read_run, write_limits, write_program, write_run,
};
use self::record::Record;
use super::error::{CatalogError, Result, User};
use super::image::Image;
use crate::error::{Errno, FromHost};
use crate::format::codec;
use crate::store::files::{listed, make_dir, open_dir, write_whole};
use crate::sys;
use crate::types::{ContainerName, Graft, Limits, hex};

const VERSION: u16 = 1;
const RECORD: &str = "record";
/// The name of the snapshot that a container is being rolled back to.
const ROLLBACK: &str = "rollback";
const KIND: &str = "container";

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits, by chance.
    pub id: String,
    /// Its name.
    pub name: ContainerName,
    /// The image as it was asked for.
    pub image_name: String,
    /// What that was.
    pub image: Image,
    /// Seconds since 1970.
    pub created: i64,
    /// What appears in it from elsewhere.
    pub grafts: Vec<Graft>,
}

/// The containers of a data root.
pub struct Containers {
    dir: PathBuf,
}

/// Upper and work directory that go with their last user.
pub struct Ephemeral {
    dir: PathBuf,
    _lock: OwnedFd,
}

impl Ephemeral {
    /// The upper directory.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// The work directory.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        if let Err(error) = sys::remove::remove_dir_all(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "stays until `lamina image gc`");
        }
    }
}

fn missing(name: &str) -> CatalogError {
    CatalogError::Missing { kind: KIND, name: name.to_owned() }
}

/// Refuses the container in a directory if it has the content of a snapshot in part.
///
/// # Errors
/// [`CatalogError::HalfRolledBack`], with the given name.
pub fn require_whole_at(dir: &Path, name: &str) -> Result<()> {
    let path = dir.join(ROLLBACK);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CatalogError::io(&path)(error)),
        Ok(snapshot) => Err(CatalogError::HalfRolledBack { name: name.to_owned(), snapshot, path }),
    }
}

fn layer_dirs(dir: &Path) -> Result<()> {
    for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
        let path = dir.join(name);
        let made = fs::DirBuilder::new().mode(mode).create(&path);
        made.map_err(CatalogError::io(&path))?;
        // Whatever the file mode creation mask took away.
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(&path, mode).map_err(CatalogError::io(&path))?;
    }
    Ok(())
}

impl Containers {
    /// The containers of a data root; what is missing is made.
    ///
    /// # Errors
    /// As mkdir(2), with the path.
    pub fn open(root: &Path) -> Result<Self> {
        let dir = std::path::absolute(root).map_err(CatalogError::io(root))?.join("containers");
        make_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Where a container is.
    #[must_use]
    pub fn path(&self, container: &Container) -> PathBuf {
        self.dir.join(&container.id)
    }

    /// Makes a container of an image, which the caller keeps from being collected meanwhile;
    /// `fill` gives its empty upper directory what it begins with. Without a name it is called by
    /// the first digits of its id.
    ///
    /// # Errors
    /// [`CatalogError::Exists`]; the errors of `fill` and of the host.
    pub fn create(
        &self,
        name: Option<ContainerName>,
        (image_name, image): (&str, Image),
        grafts: Vec<Graft>,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Container> {
        let random = sys::process::random().map_err(CatalogError::host(&self.dir))?;
        let id = hex::encode(&random);
        let name = match name {
            Some(name) => name,
            None => id.get(..12).unwrap_or(&id).parse()?,
        };
        let _alone = self.alone()?;
        if self.all()?.iter().any(|other| other.name == name) {
            return Err(CatalogError::Exists { kind: KIND, name: name.into() });
        }
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let container = Container {
            id,
            name,
            image_name: image_name.to_owned(),
            image,
            created: created.try_into().unwrap_or(0),
            grafts,
        };
        let new = self.dir.join(format!(".new-{}", container.id));
        let made = self.fill_new(&new, &container, fill);
        if made.is_err() {
            drop(sys::remove::remove_dir_all(&new));
        }
        made.map(|()| container)
    }

    fn fill_new(
        &self,
        new: &Path,
        container: &Container,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        make_dir(new)?;
        let lock = open_dir(new)?;
        sys::file::try_flock(lock.as_fd()).map_err(CatalogError::host(new))?;
        layer_dirs(new)?;
        fill(&new.join("upper"))?;
        let record = new.join(RECORD);
        let damaged = |error: crate::error::Error| CatalogError::Damaged {
            path: record.clone(),
            what: error.to_string(),
        };
        write_whole(&record, &codec::encode(VERSION, &Record::from(container)).map_err(damaged)?)?;
        let target = self.path(container);
        fs::rename(new, &target).map_err(CatalogError::io(&target))?;
        let parent = open_dir(&self.dir)?;
        sys::file::fsync(parent.as_fd()).map_err(CatalogError::host(&self.dir))
    }

    fn read(&self, id: &str) -> Result<Container> {
        let path = self.dir.join(id).join(RECORD);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(id)),
            read => read.map_err(CatalogError::io(&path))?,
        };
        let damaged = |what: String| CatalogError::Damaged { path: path.clone(), what };
        let found: Record =
            codec::decode(VERSION, &bytes).map_err(|error| damaged(error.to_string()))?;
        let found = Container::from(found);
        if found.id != id {
            return Err(damaged("the record of another container".to_owned()));
        }
        Ok(found)
    }

    /// All containers, by name.
    ///
    /// # Errors
    /// [`CatalogError::Damaged`] for a record that cannot be read.
    pub fn all(&self) -> Result<Vec<Container>> {
        let mut all = Vec::new();
        for id in listed(&self.dir)? {
            match self.read(&id) {
                Err(CatalogError::Missing { .. }) => {} // removed meanwhile
                found => all.push(found?),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Reads all records: the containers, and what is damaged.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn verify(&self) -> Result<(Vec<Container>, Vec<String>)> {
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for id in listed(&self.dir)? {
            match self.read(&id) {
                Err(CatalogError::Missing { .. }) => {} // removed meanwhile
                Ok(container) => found.push(container),
                Err(error) => damaged.push(format!("container {id}: {error}")),
            }
        }
        Ok((found, damaged))
    }

    #[cfg(test)]
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A container by its name, its id, or the first digits of its id (three at least).
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn find(&self, text: &str) -> Result<Container> {
        let all = self.all()?;
        if let Some(named) = all.iter().find(|container| container.name.as_str() == text) {
            return Ok(named.clone());
        }
        let mut like = all.iter().filter(|one| text.len() >= 3 && one.id.starts_with(text));
        match (like.next(), like.next()) {
            (Some(one), None) => Ok(one.clone()),
            _ => Err(missing(text)),
        }
    }

    /// Whether a mount holds the writable layer of a container.
    ///
    /// # Errors
    /// As open(2).
    pub fn is_mounted(&self, container: &Container) -> Result<bool> {
        let upper = self.path(container).join("upper");
        // Shared: two who look do not see each other.
        match sys::file::try_flock_shared(open_dir(&upper)?.as_fd()) {
            Ok(()) => Ok(false),
            Err(error) if error.is(Errno::AGAIN) => Ok(true),
            Err(error) => Err(CatalogError::host(&upper)(error)),
        }
    }

    /// Keeps a container from being mounted until the value is dropped.
    ///
    /// # Errors
    /// [`CatalogError::InUse`] while it is mounted; what the host answers.
    pub fn lock(&self, container: &Container) -> Result<OwnedFd> {
        let upper = self.path(container).join("upper");
        loop {
            let lock = open_dir(&upper)?;
            match sys::file::try_flock(lock.as_fd()) {
                Err(error) if error.is(Errno::AGAIN) => {
                    let (name, by) = (container.name.to_string(), User::Mount);
                    return Err(CatalogError::InUse { kind: KIND, name, by });
                }
                locked => locked.map_err(CatalogError::host(&upper))?,
            }
            // A snapshot may have exchanged it meanwhile.
            let id = |fd: &OwnedFd| -> Result<_> {
                let stat = sys::file::statx(fd.as_fd(), b"").map_err(CatalogError::host(&upper))?;
                Ok((stat.dev, stat.ino))
            };
            if id(&lock)? == id(&open_dir(&upper)?)? {
                return Ok(lock);
            }
        }
    }

    /// Notes that a container is being given the content of a snapshot.
    ///
    /// # Errors
    /// As write(2).
    pub fn begin_rollback(&self, container: &Container, snapshot: &str) -> Result<()> {
        Ok(write_whole(&self.path(container).join(ROLLBACK), snapshot.as_bytes())?)
    }

    /// Notes that a container has the content of the snapshot.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn end_rollback(&self, container: &Container) -> Result<()> {
        let (dir, path) = (self.path(container), self.path(container).join(ROLLBACK));
        fs::remove_file(&path).map_err(CatalogError::io(&path))?;
        sys::file::fsync(open_dir(&dir)?.as_fd()).map_err(CatalogError::host(&dir))
    }

    /// Refuses a container that has the content of a snapshot in part.
    ///
    /// # Errors
    /// [`CatalogError::HalfRolledBack`].
    pub fn require_whole(&self, container: &Container) -> Result<()> {
        require_whole_at(&self.path(container), container.name.as_str())
    }

    /// The limits of what is written to a container.
    ///
    /// # Errors
    /// [`CatalogError::Damaged`].
    pub fn limits(&self, container: &Container) -> Result<Limits> {
        read_limits(&self.path(container))
    }

    /// Removes a container and all that was written to it.
    ///
    /// # Errors
    /// [`CatalogError::InUse`] while it is mounted; what the host answers.
    pub fn remove(&self, container: &Container) -> Result<()> {
        let path = self.path(container);
        let _lock = self.lock(container)?;
        let dead = self.dir.join(format!(".dead-{}", container.id));
        fs::rename(&path, &dead).map_err(CatalogError::io(&path))?;
        match sys::remove::remove_dir_all(&dead) {
            // Swept meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(CatalogError::io(&dead)),
        }
    }

    /// A writable layer that goes with its mount. What others left is swept.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn ephemeral(&self) -> Result<Ephemeral> {
        self.sweep()?;
        // What is made and not locked yet would be swept.
        let _alone = self.alone()?;
        let random = sys::process::random().map_err(CatalogError::host(&self.dir))?;
        let dir = self.dir.join(format!(".ephemeral-{}", hex::encode(&random)));
        make_dir(&dir)?;
        let lock = open_dir(&dir)?;
        sys::file::try_flock(lock.as_fd()).map_err(CatalogError::host(&dir))?;
        let made = Ephemeral { dir, _lock: lock };
        layer_dirs(&made.dir)?;
        Ok(made)
    }

    /// Removes what crashes left; answers how many.
    ///
    /// # Errors
    /// What the host answers.
    pub fn sweep(&self) -> Result<usize> {
        let _alone = self.alone()?;
        let mut swept = 0;
        for entry in fs::read_dir(&self.dir).map_err(CatalogError::io(&self.dir))? {
            let entry = entry.map_err(CatalogError::io(&self.dir))?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let dir = entry.path();
            let Ok(lock) = open_dir(&dir) else { continue };
            if sys::file::try_flock(lock.as_fd()).is_ok() {
                match sys::remove::remove_dir_all(&dir) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    removed => removed.map_err(CatalogError::io(&dir))?,
                }
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// One at a time: a name is given once, and nothing is swept before it is locked.
    fn alone(&self) -> Result<OwnedFd> {
        let lock = open_dir(&self.dir)?;
        sys::file::flock(lock.as_fd()).map_err(CatalogError::host(&self.dir))?;
        Ok(lock)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::types::{BindFlags, GraftSource, Subpath, name};

    fn image() -> Image {
        Image { id: "0".repeat(64), layers: Vec::new(), config: b"{}".to_vec(), manifest: None }
    }

    fn place() -> (tempfile::TempDir, Containers) {
        let dir = tempfile::tempdir().unwrap();
        let containers = Containers::open(dir.path()).unwrap();
        (dir, containers)
    }

    fn named(name: &str) -> Option<ContainerName> {
        Some(name.parse().unwrap())
    }

    #[test]
    fn one_is_found_by_name_and_digits_until_it_is_removed() {
        let (_dir, containers) = place();
        let made = containers
            .create(named("web"), ("app", image()), Vec::new(), |upper| {
                fs::write(upper.join("f"), b"x").map_err(CatalogError::io(upper))
            })
            .unwrap();
        assert_eq!(containers.find("web").unwrap(), made);
        assert_eq!(containers.find(&made.id[..5]).unwrap(), made);
        assert!(containers.path(&made).join("upper/f").exists());
        let again = containers.create(named("web"), ("app", image()), Vec::new(), |_| Ok(()));
        assert!(matches!(again, Err(CatalogError::Exists { .. })));
        containers.remove(&made).unwrap();
        assert!(matches!(containers.find("web"), Err(CatalogError::Missing { .. })));
        assert_eq!(fs::read_dir(&containers.dir).unwrap().count(), 0);
    }

    #[test]
    fn each_graft_is_read_as_it_was_written() {
        let (_dir, containers) = place();
        let path = PathBuf::from(OsStr::from_bytes(b"/x\xff"));
        let volume =
            GraftSource::Volume { name: "data".parse().unwrap(), nocopy: true, subpath: None };
        let part = GraftSource::Volume {
            name: "data".parse().unwrap(),
            nocopy: false,
            subpath: Some(Subpath::try_from(&b"a/\xff"[..]).unwrap()),
        };
        let tmpfs = GraftSource::Tmpfs { size: Some("1m".to_owned()), mode: Some(0o700) };
        let mut grafts = Vec::new();
        for source in [GraftSource::Bind(path), volume, part, tmpfs] {
            for (recursive, nosuid, read_only) in
                [(true, false, false), (false, false, true), (true, true, true)]
            {
                let flags = BindFlags { nosuid, read_only, ..BindFlags::default() };
                let path = vec![name(b"a"), name(b"\xff")];
                grafts.push(Graft { source: source.clone(), path, flags, recursive });
            }
        }
        let made = containers.create(None, ("app", image()), grafts.clone(), |_| Ok(())).unwrap();
        assert_eq!(containers.find(&made.id).unwrap().grafts, grafts);
    }

    /// A record as versions wrote it that knew no parts of volumes.
    const EARLIER: &str = concat!(
        "4c4d4e52454331000100ae000000802d4b76942a3bf1fbaf39772d0e789eaea081d22dcda407ab400436b7",
        "415c9c40313131313131313131313131313131313131313131313131313131313131313131313131313131",
        "31313131313131313131313131313131313131313131313131037765620361707040303030303030303030",
        "30303030303030303030303030303030303030303030303030303030303030303030303030303030303030",
        "30303030303030303030303000027b7d000e02010464617461010201610162010301046461746100010100",
        "0001016300",
    );

    #[test]
    fn a_record_of_an_earlier_version_is_read_and_written_the_same() {
        let (_dir, containers) = place();
        let dir = containers.dir.join("1".repeat(64));
        fs::create_dir(&dir).unwrap();
        let digits = |at| u8::from_str_radix(&EARLIER[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..EARLIER.len()).step_by(2).map(digits).collect();
        fs::write(dir.join(RECORD), &bytes).unwrap();
        let found = containers.find("web").unwrap();
        let source =
            |nocopy| GraftSource::Volume { name: "data".parse().unwrap(), nocopy, subpath: None };
        let graft = |nocopy, path: &[&[u8]], flags| Graft {
            source: source(nocopy),
            path: path.iter().map(|part| name(part)).collect(),
            flags,
            recursive: true,
        };
        let read_only = BindFlags { read_only: true, ..BindFlags::default() };
        let nosuid = BindFlags { nosuid: true, ..BindFlags::default() };
        let all = [graft(true, &[b"a", b"b"], read_only), graft(false, &[b"c"], nosuid)];
        assert_eq!(found.grafts, all);
        assert_eq!(codec::encode(VERSION, &Record::from(&found)).unwrap(), bytes);
    }

    #[test]
    fn one_in_use_stays() {
        let (_dir, containers) = place();
        let made = containers.create(None, ("app", image()), Vec::new(), |_| Ok(())).unwrap();
        assert_eq!(made.name.as_str(), &made.id[..12]);
        let lock = open_dir(&containers.path(&made).join("upper")).unwrap();
        sys::file::try_flock(lock.as_fd()).unwrap();
        assert!(containers.is_mounted(&made).unwrap());
        assert!(matches!(containers.remove(&made), Err(CatalogError::InUse { .. })));
        drop(lock);
        assert!(!containers.is_mounted(&made).unwrap());
        containers.remove(&made).unwrap();
    }

    #[test]
    fn what_is_ephemeral_goes_by_itself_or_is_swept() {
        let (_dir, containers) = place();
        let one = containers.ephemeral().unwrap();
        fs::write(one.upper().join("f"), b"x").unwrap();
        assert_eq!(containers.sweep().unwrap(), 0, "in use");
        let left = containers.ephemeral().unwrap();
        let path = left.dir.clone();
        fs::rename(&path, path.with_file_name(".ephemeral-left")).unwrap();
        drop((one, left));
        assert_eq!(containers.sweep().unwrap(), 1);
        assert_eq!(fs::read_dir(&containers.dir).unwrap().count(), 0);
        assert!(containers.all().unwrap().is_empty());
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let (_dir, containers) = place();
        let made = containers.create(named("a"), ("app", image()), Vec::new(), |_| {
            Err(CatalogError::BadName("no".to_owned()))
        });
        assert!(made.is_err());
        assert_eq!(fs::read_dir(&containers.dir).unwrap().count(), 0);
    }
}

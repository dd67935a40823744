//! Views: processes that show a directory with a group, or with a context of SELinux.
//!
//! A view is a FUSE mount with the directory as a served graft, so that nothing is cached that
//! others change, and what is written through one view is read through every other one. Targets
//! are bind mounts of the graft. There is one view for each directory, group and context; it
//! outlives the process that started it, and ends with the last publication that names it.
//!
//! The directory of a view holds its record, the place of its mount (`merged`), the layer below
//! the graft (`base`), and a file whose lock its process holds (`serving`). The lock of a view is
//! a file beside its directory. A process that starts holds it too, until it serves.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::mounts::MountEntry;
use super::super::spec::{GraftDriver, MountSpec};
use super::Publication;
use super::error::{PublicationError, Result};
use super::place::{self, Place};
use super::record::{self, Lock};
use crate::error::{Errno, FromHost};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{BindFlags, Digest, Graft, GraftSource, name};
use crate::volume::union::holder::Asked;
use crate::volume::union::start_for;

/// The name of the graft.
const CONTENT: &str = "content";
/// The time limit of the end of a process whose mount is gone.
const ENDING: Duration = Duration::from_secs(20);

/// What a view shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Shows {
    source: PathBuf,
    group: Option<u32>,
    context: Option<String>,
    /// Device and inode of the source, and the start of the host.
    object: (u64, u64),
    boot: String,
}

/// The directory of a view, whose lock is held.
pub(super) struct View {
    directory: PathBuf,
    lock: Lock,
}

/// The key of the view that a publication needs; `None` if it needs none.
pub(super) fn key(publication: &Publication) -> Option<String> {
    let Publication { source, group, .. } = publication;
    let context = context(publication);
    if group.is_none() && context.is_none() {
        return None;
    }
    let group = group.map(|group| group.to_string()).unwrap_or_default();
    let mut text = source.as_os_str().as_encoded_bytes().to_vec();
    for part in [group.as_str(), context.unwrap_or_default()] {
        text.push(0);
        text.extend_from_slice(part.as_bytes());
    }
    Some(Digest::sha256(&text).hex().to_owned())
}

/// The context of a publication, where SELinux is in force. Elsewhere it has no effect, as with
/// mount(8).
fn context(publication: &Publication) -> Option<&str> {
    publication.context.as_deref().filter(|_| sys::fuse::has_selinux())
}

/// Refuses a context that would end its option.
///
/// # Errors
/// [`PublicationError::Invalid`].
pub(super) fn check_context(context: &str) -> Result<()> {
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '"' && c != '\\';
    match !context.is_empty() && context.chars().all(is_plain) {
        true => Ok(()),
        false => Err(PublicationError::Invalid {
            what: format!("{context:?} is not a context of SELinux: use USER:ROLE:TYPE:LEVEL"),
        }),
    }
}

impl View {
    /// Waits for the lock of a view, and takes it.
    ///
    /// # Errors
    /// As open(2) and flock(2).
    pub(super) fn lock(views: &Path, key: &str) -> Result<Self> {
        record::make_dir(views)?;
        let directory = views.join(key);
        let lock = Lock::take(directory.with_extension("lock"))?;
        Ok(Self { directory, lock })
    }

    fn merged(&self) -> PathBuf {
        self.directory.join("merged")
    }

    /// Starts the view unless it is there and shows the source as it is now. Returns the directory
    /// that it shows.
    ///
    /// # Errors
    /// [`PublicationError::View`].
    pub(super) fn ensure(&self, publication: &Publication, boot: &str) -> Result<OwnedFd> {
        let source = &publication.source;
        let opened = sys::file::find_directory(source).map_err(PublicationError::host(source))?;
        let stat = sys::file::statx(opened.as_fd(), b"").map_err(PublicationError::host(source))?;
        let wanted = Shows {
            source: source.clone(),
            group: publication.group,
            context: context(publication).map(str::to_owned),
            object: (stat.dev, stat.ino),
            boot: boot.to_owned(),
        };
        record::make_dir(&self.directory)?;
        let known: Option<Shows> = record::read(&record_of(&self.directory))?;
        if !(known.as_ref() == Some(&wanted) && self.is_served()?) {
            // One that shows what the source was ends with its users.
            self.detach()?;
            // A directory cannot be made where a mount of a dead process is.
            for path in [&self.merged(), &self.directory.join("base").join(CONTENT)] {
                record::make_dir(path)?;
            }
            record::write(&record_of(&self.directory), &wanted)?;
            self.start()?;
        }
        let content = self.merged().join(CONTENT);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        sys::file::open_path(&content, flags).map_err(PublicationError::host(&content))
    }

    fn is_served(&self) -> Result<bool> {
        let Some(place) = Place::open(&self.merged())? else { return Ok(false) };
        Ok(!place.mounts()?.is_empty() && !place.is_dead())
    }

    /// Takes the mounts of the view away. Returns the last one.
    fn detach(&self) -> Result<Option<MountEntry>> {
        let Some(place) = Place::open(&self.merged())? else { return Ok(None) };
        let mut last = None;
        while let Some(top) = place.mounts()?.into_iter().next() {
            place.detach()?;
            last = Some(top);
        }
        Ok(last)
    }

    fn start(&self) -> Result<()> {
        let failed = |reason: String| PublicationError::View { reason };
        // The data root, of which this is publications/views/KEY.
        let root = self.directory.ancestors().nth(3).unwrap_or(&self.directory);
        let words = ["volume".into(), "view".into(), self.directory.clone().into_os_string()];
        let asked = start_for(root, &words, self.lock.share()?);
        match asked.map_err(|error| failed(error.to_string()))? {
            Asked::Ran(ended) if ended.code == 0 => Ok(()),
            Asked::Ran(ended) => {
                let said = ended.stderr.trim().trim_start_matches("lamina: ");
                let code = format!("exit code {}", ended.code);
                Err(failed(if said.is_empty() { code } else { said.to_owned() }))
            }
            Asked::Nobody | Asked::Lost => {
                Err(failed("the holder ended before it answered: try again".to_owned()))
            }
        }
    }

    /// Ends the view, waits for its process, and removes its directory. Returns the lock, whose
    /// file is to be removed at last.
    ///
    /// # Errors
    /// [`PublicationError::Busy`] while something else shows its mount.
    pub(super) fn end(self) -> Result<Lock> {
        let last = self.detach()?;
        self.await_end(last)?;
        for file in [record_of(&self.directory), self.directory.join("record.new"), self.serving()]
        {
            record::remove_file(&file)?;
        }
        let base = self.directory.join("base");
        for directory in [&self.merged(), &base.join(CONTENT), &base, &self.directory] {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.map_err(PublicationError::io(directory))?,
            }
        }
        Ok(self.lock)
    }

    fn serving(&self) -> PathBuf {
        self.directory.join("serving")
    }

    fn await_end(&self, last: Option<MountEntry>) -> Result<()> {
        let path = self.serving();
        let serving = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            serving => serving.map_err(PublicationError::io(&path))?,
        };
        let deadline = Instant::now() + ENDING;
        loop {
            match sys::file::try_flock(serving.as_fd()) {
                Ok(()) => return Ok(()),
                Err(error) if !error.is(Errno::AGAIN) => {
                    return Err(PublicationError::host(&path)(error));
                }
                Err(_) if Instant::now() > deadline => {
                    let by = last.as_ref().map(place::users).unwrap_or_default();
                    return Err(PublicationError::Busy { target: self.merged(), by });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

fn record_of(directory: &Path) -> PathBuf {
    directory.join("record.json")
}

/// A view that this process serves: its mount, and the lock that shows that it is served.
pub struct Serving {
    /// The mount.
    pub spec: MountSpec,
    /// Held while the mount is served.
    pub lock: File,
}

/// Prepares to serve the view in a directory.
///
/// # Errors
/// [`PublicationError::Record`] without a record; as open(2) and flock(2).
pub fn serving(directory: &Path) -> Result<Serving> {
    let path = record_of(directory);
    let shows: Option<Shows> = record::read(&path)?;
    let missing = || PublicationError::Record { path, reason: "there is none".to_owned() };
    let shows = shows.ok_or_else(missing)?;
    let path = directory.join("serving");
    let mut options = File::options();
    let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = opened.map_err(PublicationError::io(&path))?;
    // One that ended without its users may still be there.
    sys::file::flock_shared(lock.as_fd()).map_err(PublicationError::host(&path))?;
    let graft = Graft {
        source: GraftSource::Bind(shows.source),
        path: vec![name(CONTENT.as_bytes())],
        flags: BindFlags::default(),
        recursive: false,
    };
    let mut spec = MountSpec {
        target: directory.join("merged"),
        source: Some(b"lamina".to_vec()),
        subtype: Some("lamina".to_owned()),
        lowers: vec![directory.join("base")],
        grafts: vec![graft],
        labels: shows.context.iter().map(|context| format!("context=\"{context}\"")).collect(),
        allow_other: true,
        default_permissions: true,
        ..MountSpec::default()
    };
    spec.rules.graft = Some(GraftDriver::Served);
    spec.rules.group = shows.group;
    // An ACL would decide about the group that is not shown.
    spec.rules.no_acl = shows.group.is_some();
    Ok(Serving { spec, lock })
}

//! The status of a mount: one socket for each mount, below a directory of the host.
//!
//! A client that connects receives one JSON object. A socket without a listener was left by a
//! process that was killed; the next client removes it.

use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mounts;
use crate::fuse::counters::CounterValues;
use crate::store::StoreStats;
use crate::types::BindFlags;
use crate::union::Stats;

/// The timeout of an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The status of a mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountStatus {
    /// The process id of the daemon.
    pub pid: u32,
    /// The mount point.
    pub target: PathBuf,
    /// First column of /proc/mounts.
    pub source: String,
    /// The lower directories, topmost first.
    pub lowers: Vec<String>,
    /// The upper directory.
    pub upper: Option<PathBuf>,
    /// The work directory.
    pub work: Option<PathBuf>,
    /// The grafts, `WHAT at PATH`.
    pub grafts: Vec<String>,
    /// The form of each graft.
    #[serde(default)]
    pub graft_mounts: Vec<GraftStatus>,
    /// The number of the file system, `MAJOR:MINOR`.
    pub device: Option<String>,
    /// The way in which files are served, and the effective rules.
    pub drivers: Drivers,
    /// Counters of the union.
    pub union: Stats,
    /// Counters of the front end.
    pub requests: CounterValues,
    /// The destination of warnings and errors: `journal`, `syslog`, `standard error`, or a file.
    #[serde(default)]
    pub log: Option<String>,
    /// Counters of the layers of images.
    #[serde(default)]
    pub store: Option<StoreStats>,
}

/// The form of a graft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraftStatus {
    /// The place, from the root of the mount.
    pub path: String,
    /// `bind` (a bind mount of the kernel) or `served` (by the daemon).
    pub driver: String,
    /// The number of the file system that it shows.
    pub device: u64,
    /// The inode number of its root.
    pub inode: u64,
    /// Whether mounts beneath the source are shown too.
    pub recursive: bool,
    /// The flags of the graft, without those of the mount.
    #[serde(default)]
    pub flags: BindFlags,
}

impl GraftStatus {
    /// Whether the daemon serves the graft.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.driver != super::spec::GraftDriver::Bind.name()
    }
}

/// The modes that were chosen at the mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drivers {
    /// `passthrough`, `cached` or `noopen`.
    pub io: String,
    /// The way in which a copy-up copies data: `reflink` or `data`.
    #[serde(default)]
    pub copy: String,
    /// The namespace of marks: `trusted` or `user`.
    pub marks: String,
    /// The form of whiteouts: `device` or `aufs`.
    pub whiteouts: String,
    /// Whether changes of attributes are copied up without data.
    pub metacopy: bool,
    /// Whether lower directories are renamed with a redirect.
    pub redirect: bool,
    /// Whether hard links of lower layers are kept.
    pub index: bool,
    /// Whether no call waits for the disk.
    pub volatile: bool,
}

impl MountStatus {
    /// Whether the file system is still mounted in the mount namespace of its daemon.
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        let Some(device) = &self.device else { return false };
        let table = mounts::read_of(&self.pid.to_string()).unwrap_or_default();
        table.iter().any(|entry| entry.device == *device)
    }
}

/// The socket of a mount, which is removed on drop.
#[derive(Debug)]
pub struct Answering {
    path: PathBuf,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "status socket stays");
        }
    }
}

fn directory(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let meta = std::fs::metadata(path)?;
    let (uid, _) = crate::sys::process::effective_ids();
    // In a directory that others own or may write to, our name could be taken.
    if meta.uid() != uid || meta.mode() & 0o022 != 0 {
        return Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
    }
    Ok(())
}

/// Serves `status` on a socket in `dir`, called for each client.
///
/// # Errors
/// As bind(2); a directory that others may write to is refused.
pub fn answer(
    dir: &Path,
    status: impl Fn() -> MountStatus + Send + 'static,
) -> std::io::Result<Answering> {
    directory(dir)?;
    let path = dir.join(format!("{}.sock", std::process::id()));
    // The socket gets its name only when it listens, since clients remove one without a listener.
    let new = path.with_extension("new");
    if new.exists() {
        std::fs::remove_file(&new)?;
    }
    let listener = UnixListener::from(crate::sys::process::listen(&new)?);
    std::fs::rename(&new, &path)?;
    std::thread::Builder::new().name("status".to_owned()).spawn(move || {
        for stream in listener.incoming() {
            let said = stream.and_then(|stream| say(stream, &status()));
            if let Err(error) = said {
                tracing::debug!(%error, "status was not told");
            }
        }
    })?;
    Ok(Answering { path })
}

fn say(mut stream: UnixStream, status: &MountStatus) -> std::io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&serde_json::to_vec(status)?)
}

fn ask(path: &Path) -> std::io::Result<MountStatus> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    stream.take(LONGEST).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Returns the status of all mounts with a socket in `dir`, sorted by process id.
///
/// # Errors
/// Errors of reading the directory; a missing directory is not an error.
pub fn list(dir: &Path) -> std::io::Result<Vec<MountStatus>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "sock") {
            continue;
        }
        match ask(&path) {
            Ok(status) => found.push(status),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                drop(Answering { path });
            }
            Err(error) => tracing::debug!(%error, path = %path.display(), "no answer"),
        }
    }
    found.sort_by_key(|status| status.pid);
    Ok(found)
}

/// Returns the mount that uses an upper or work directory.
#[must_use]
pub fn holder_of(dir: &Path, path: &Path) -> Option<MountStatus> {
    let holds = |status: &MountStatus| {
        [&status.upper, &status.work].into_iter().flatten().any(|held| held == path)
    };
    list(dir).ok()?.into_iter().find(holds)
}

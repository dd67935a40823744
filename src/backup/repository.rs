//! A repository: its configuration, chunks and manifests.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::chunker::CHUNK_MAX;
use super::error::{BackupError, Result};
use super::key::{Key, unhex};
use super::remote::{Remote, Traffic};
use super::seal::{Id, Kind, OVERHEAD_BYTES, Sealer};
use crate::error::FromHost;
use crate::types::hex;

const CONFIG: &str = "lamina-backup.json";
pub(super) const CHUNKS: &str = "chunks";
pub(super) const BACKUPS: &str = "backups";
pub(super) const LEASES: &str = "leases";
const VERSION: u32 = 1;
const CONFIG_MAX: usize = 64 << 10;
/// A manifest has 64 digits for each chunk of the list of objects: this is enough for a list of
/// some 60 GiB.
const MANIFEST_MAX: usize = 64 << 20;
/// Names of chunks that are listed before a backup. Others are looked up one by one.
const LISTED_MAX: usize = 200_000;

/// Where a repository is, and what gives access to it.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// The address: `s3://BUCKET/DIR`, `gs://`, `az://` or `file:///DIR`.
    pub url: String,
    /// Variables with credentials and settings, as `AWS_ACCESS_KEY_ID`; others have no effect.
    pub variables: Vec<(String, String)>,
    /// The key.
    pub key: Option<Key>,
}

#[derive(Serialize, Deserialize)]
struct Config {
    version: u32,
    id: String,
    /// Which key the repository has; empty without one.
    proof: String,
}

/// The volume of a backup, as a restore makes it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Subject {
    /// The id of the volume.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The name of the snapshot, if one was named.
    pub snapshot: Option<String>,
    /// The driver.
    pub driver: String,
    /// The options of the driver.
    pub options: BTreeMap<String, String>,
    /// The labels of the volume.
    pub labels: BTreeMap<String, String>,
    /// The limit of the size.
    pub size_bytes: Option<u64>,
    /// The limit of the inodes.
    pub inodes: Option<u64>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Manifest {
    /// The version of the format.
    pub version: u32,
    /// The id: the time and random digits.
    pub id: String,
    /// The volume.
    pub volume: Subject,
    /// Labels of the backup.
    pub labels: BTreeMap<String, String>,
    /// The time at which the reading of the content began (RFC 3339).
    pub started: String,
    /// The same in seconds since 1970, by the clock of the host.
    pub started_seconds: i64,
    /// Whether the content stayed as it was during the backup.
    pub still: bool,
    /// The number of objects.
    pub entries: u64,
    /// The bytes of data of files, holes left out.
    pub data_bytes: u64,
    /// The chunks of the list of objects.
    pub tree: Vec<String>,
}

impl Manifest {
    pub(super) fn tree(&self) -> Result<Vec<Id>> {
        let bad = || BackupError::Damaged {
            object: format!("{BACKUPS}/{}", self.id),
            what: "it names no chunk".to_owned(),
        };
        self.tree.iter().map(|id| unhex(id).map(Id).ok_or_else(bad)).collect()
    }
}

/// An open repository.
pub struct Repository {
    pub(super) remote: Remote,
    pub(super) sealer: Sealer,
    /// The leases of this process.
    pub(super) leases: Mutex<Vec<String>>,
}

/// The names of chunks in a repository.
pub(super) struct Known {
    pub(super) ids: HashSet<Id>,
    /// Whether all names are among them.
    pub(super) is_complete: bool,
}

impl Repository {
    /// Opens a repository.
    ///
    /// # Errors
    /// [`BackupError::NoRepository`], [`BackupError::WrongKey`], [`BackupError::Newer`]; errors of
    /// requests.
    pub fn open(site: &Site) -> Result<Self> {
        let remote = Remote::open(site, false)?;
        let config = match remote.get(CONFIG, CONFIG_MAX) {
            Err(BackupError::Missing { .. }) => {
                return Err(BackupError::NoRepository { url: remote.url().to_owned() });
            }
            config => config?,
        };
        Self::with(remote, &config, site.key.as_ref())
    }

    /// Opens a repository, which is made if there is none.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn open_or_create(site: &Site) -> Result<Self> {
        let remote = Remote::open(site, true)?;
        let config = match remote.get(CONFIG, CONFIG_MAX) {
            Err(BackupError::Missing { .. }) => {
                let proof = Sealer::new(site.key.as_ref()).proof().to_owned();
                let config = Config { version: VERSION, id: random_digits(32)?, proof };
                let bytes =
                    serde_json::to_vec(&config).map_err(|error| bad_json(CONFIG, &error))?;
                // Of several processes one makes it; all read what that one wrote.
                remote.put_new(CONFIG, bytes)?;
                remote.get(CONFIG, CONFIG_MAX)?
            }
            config => config?,
        };
        Self::with(remote, &config, site.key.as_ref())
    }

    fn with(remote: Remote, config: &[u8], key: Option<&Key>) -> Result<Self> {
        let config: Config =
            serde_json::from_slice(config).map_err(|error| bad_json(CONFIG, &error))?;
        let url = remote.url().to_owned();
        if config.version != VERSION {
            return Err(BackupError::Newer { url, found: config.version });
        }
        let sealer = Sealer::new(key);
        if sealer.proof() != config.proof {
            let what = match (key.is_some(), config.proof.is_empty()) {
                (false, _) => "is encrypted",
                (true, true) => "is not encrypted, so that the key would protect nothing",
                (true, false) => "has another key",
            };
            return Err(BackupError::WrongKey { url, what });
        }
        Ok(Self { remote, sealer, leases: Mutex::default() })
    }

    /// The address, without a password.
    #[must_use]
    pub fn url(&self) -> &str {
        self.remote.url()
    }

    /// Requests and bytes so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.remote.traffic()
    }

    /// All backups, the oldest first. Those that cannot be read are in the second list, with the
    /// reason.
    ///
    /// # Errors
    /// Errors of requests.
    pub fn manifests(&self) -> Result<(Vec<Manifest>, Vec<String>)> {
        let (mut found, mut bad) = (Vec::new(), Vec::new());
        for id in self.ids()? {
            match self.manifest(&id) {
                Ok(manifest) => found.push(manifest),
                // It was removed since it was listed.
                Err(BackupError::NoBackup { .. }) => {}
                Err(
                    error @ (BackupError::Damaged { .. }
                    | BackupError::TooLarge { .. }
                    | BackupError::Newer { .. }),
                ) => bad.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok((found, bad))
    }

    /// The ids of all backups, the oldest first.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        self.remote.list(BACKUPS, &mut |found| {
            ids.push(found.name);
            Ok(true)
        })?;
        ids.sort();
        Ok(ids)
    }

    /// Reads a backup by its id.
    ///
    /// # Errors
    /// [`BackupError::NoBackup`], [`BackupError::Damaged`]; errors of requests.
    pub fn manifest(&self, id: &str) -> Result<Manifest> {
        let none = || BackupError::NoBackup { url: self.url().to_owned(), wanted: id.to_owned() };
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') || id.is_empty() {
            return Err(none());
        }
        let name = format!("{BACKUPS}/{id}");
        let object = match self.remote.get(&name, MANIFEST_MAX) {
            Err(BackupError::Missing { .. }) => return Err(none()),
            object => object?,
        };
        let bytes = self.sealer.open(Kind::Manifest, &name, &object, MANIFEST_MAX)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| bad_json(&name, &error))?;
        if manifest.version != VERSION {
            let url = format!("{}/{name}", self.url());
            return Err(BackupError::Newer { url, found: manifest.version });
        }
        if manifest.id != id {
            let what = "it is another backup".to_owned();
            return Err(BackupError::Damaged { object: name, what });
        }
        Ok(manifest)
    }

    /// The last backup of a volume, by its name, or of a volume of any name where `name` is `None`.
    ///
    /// # Errors
    /// [`BackupError::NoBackup`]; errors of requests.
    pub fn last(&self, name: Option<&str>) -> Result<Manifest> {
        let wanted = |found: &Manifest| name.is_none_or(|name| found.volume.name == name);
        let last = self.manifests()?.0.into_iter().rfind(wanted);
        last.ok_or_else(|| {
            let wanted =
                name.map_or_else(|| "at all".to_owned(), |name| format!("of volume {name}"));
            BackupError::NoBackup { url: self.url().to_owned(), wanted }
        })
    }

    /// Removes a backup. Its chunks stay until they are pruned.
    ///
    /// # Errors
    /// [`BackupError::NoBackup`]; errors of requests.
    pub fn remove(&self, id: &str) -> Result<()> {
        // One that is damaged can be removed too.
        if let Err(error @ BackupError::NoBackup { .. }) = self.manifest(id) {
            return Err(error);
        }
        self.remote.remove(&format!("{BACKUPS}/{id}"))
    }

    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let name = format!("{BACKUPS}/{}", manifest.id);
        let bytes = serde_json::to_vec(manifest).map_err(|error| bad_json(&name, &error))?;
        if bytes.len() > MANIFEST_MAX - OVERHEAD_BYTES {
            let what = format!("the backup has too many objects: {MANIFEST_MAX} bytes of manifest");
            return Err(BackupError::TooLarge { what });
        }
        let object = self.sealer.seal(Kind::Manifest, &name, &bytes)?;
        self.remote.put(&name, object)
    }

    /// Returns a function that ends the writes and gives up the leases of this process. It is
    /// called when a signal ends the process.
    pub fn leaving(self: &Arc<Self>) -> impl FnOnce() + Send + use<> {
        let repository = Arc::clone(self);
        move || {
            repository.remote.end_writes();
            let leases = std::mem::take(&mut *repository.leases.lock());
            for name in leases {
                if let Err(error) = repository.remote.remove(&name) {
                    tracing::warn!(%error, "a lease stays until it ends by itself");
                }
            }
        }
    }

    pub(super) fn fetch(&self, id: Id) -> Result<Vec<u8>> {
        let name = chunk_name(id);
        let object = self.remote.get(&name, CHUNK_MAX + OVERHEAD_BYTES)?;
        self.sealer.open_chunk(id, &name, &object, CHUNK_MAX)
    }

    pub(super) fn has(&self, id: Id) -> Result<bool> {
        Ok(self.remote.modified(&chunk_name(id))?.is_some())
    }

    pub(super) fn send(&self, id: Id, content: &[u8]) -> Result<()> {
        let name = chunk_name(id);
        self.remote.put(&name, self.sealer.seal(Kind::Chunk, &name, content)?)
    }

    /// The names of chunks, up to a limit.
    pub(super) fn known(&self) -> Result<Known> {
        let mut known = Known { ids: HashSet::new(), is_complete: true };
        self.remote.list(CHUNKS, &mut |found| {
            if known.ids.len() == LISTED_MAX {
                known.is_complete = false;
                return Ok(false);
            }
            known.ids.extend(chunk_id(&found.name));
            Ok(true)
        })?;
        Ok(known)
    }
}

/// The name of the object of a chunk.
pub(super) fn chunk_name(id: Id) -> String {
    let digits = id.to_string();
    format!("{CHUNKS}/{}/{digits}", digits.get(..2).unwrap_or_default())
}

/// The chunk of a name below `chunks/`; `None` for what no version wrote.
pub(super) fn chunk_id(name: &str) -> Option<Id> {
    let (folder, digits) = name.split_once('/')?;
    digits.starts_with(folder).then(|| unhex(digits).map(Id)).flatten()
}

pub(super) fn random_digits(count: usize) -> Result<String> {
    let random = crate::sys::process::random();
    let random = random.map_err(BackupError::host(std::path::Path::new("getrandom")))?;
    Ok(hex::encode(&random).chars().take(count).collect())
}

fn bad_json(object: &str, error: &serde_json::Error) -> BackupError {
    BackupError::Damaged { object: object.to_owned(), what: error.to_string() }
}

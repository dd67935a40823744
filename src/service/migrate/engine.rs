//! What an engine is asked: where its storage is, its volumes, and which containers use them.
//!
//! Docker, and podman where a socket is named, are asked over the API of Docker; podman otherwise
//! by its program, which needs no service. With the storage alone nobody is asked.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::api::Api;
use super::error::MigrateError;
use super::program::Program;
use super::request::{EngineKind, Source};
use crate::transfer::engine::Listed;
use crate::types::Digest;

/// How an engine is asked.
pub(super) enum Client {
    Api(Api),
    Program(Program),
    /// Nobody is asked.
    Nobody,
}

/// Where an engine keeps its objects.
#[derive(Debug, Clone)]
pub(super) struct Info {
    pub storage: PathBuf,
    /// The storage driver, if the engine was asked.
    pub driver: Option<String>,
}

/// A volume of an engine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct EngineVolume {
    pub name: String,
    pub driver: String,
    pub mountpoint: PathBuf,
    pub labels: Option<BTreeMap<String, String>>,
    pub options: Option<BTreeMap<String, String>>,
}

/// A container that uses a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub container: String,
    pub state: String,
}

impl User {
    /// Whether the container may write now. One that is paused does not.
    pub(super) fn is_live(&self) -> bool {
        !matches!(
            self.state.as_str(),
            "created" | "configured" | "initialized" | "paused" | "exited" | "stopped" | "dead"
        )
    }
}

/// The containers that use volumes, by the name of the volume.
pub(super) type Users = HashMap<String, Vec<User>>;

/// An image that the engine is asked for: without its layers.
pub(super) struct SavedImage {
    pub listed: Listed,
    pub size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    names: Option<Vec<String>>,
    name: Option<String>,
    id: String,
    /// A word, or an object with one.
    state: Value,
    mounts: Option<Vec<Mount>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(rename = "Type")]
    kind: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApiInfo {
    docker_root_dir: PathBuf,
    driver: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApiVolumes {
    volumes: Option<Vec<EngineVolume>>,
}

#[derive(Deserialize)]
struct ProgramInfo {
    store: ProgramStore,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProgramStore {
    graph_root: PathBuf,
    graph_driver_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageRow {
    id: String,
    repo_tags: Option<Vec<String>>,
    names: Option<Vec<String>>,
    repo_digests: Option<Vec<String>>,
    size: Option<u64>,
}

impl Client {
    pub(super) fn new(source: &Source) -> Self {
        match (source.kind, &source.socket, &source.storage_root) {
            (kind, Some(socket), _) => Self::Api(Api { kind, socket: socket.clone() }),
            (_, None, Some(_)) => Self::Nobody,
            (EngineKind::Docker, None, None) => {
                let socket = PathBuf::from("/var/run/docker.sock");
                Self::Api(Api { kind: EngineKind::Docker, socket })
            }
            (EngineKind::Podman, None, None) => Self::Program(Program),
        }
    }

    /// Where the storage is. A root that was given counts.
    pub(super) fn info(&self, source: &Source) -> Result<Info, MigrateError> {
        let asked = match self {
            Self::Api(api) => {
                let info: ApiInfo = api.json("GET", "/info")?;
                Some((info.docker_root_dir, info.driver))
            }
            Self::Program(program) => {
                let info: ProgramInfo = program.json(&["info", "--format", "json"])?;
                Some((info.store.graph_root, info.store.graph_driver_name))
            }
            Self::Nobody => None,
        };
        let (root, driver) = asked.unzip();
        let storage = source.storage_root.clone().or(root);
        let storage = storage.unwrap_or_else(|| source.kind.default_storage().into());
        Ok(Info { storage, driver })
    }

    /// The volumes, by name; `None` where nobody is asked.
    pub(super) fn volumes(&self) -> Result<Option<Vec<EngineVolume>>, MigrateError> {
        let mut volumes = match self {
            Self::Api(api) => {
                api.json::<ApiVolumes>("GET", "/volumes")?.volumes.unwrap_or_default()
            }
            Self::Program(program) => program.list(&["volume", "ls", "--format", "json"])?,
            Self::Nobody => return Ok(None),
        };
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Some(volumes))
    }

    /// The containers that use volumes; `None` where nobody is asked.
    pub(super) fn users(&self) -> Result<Option<Users>, MigrateError> {
        let containers: Vec<Container> = match self {
            Self::Api(api) => api.json("GET", "/containers/json?all=1")?,
            Self::Program(program) => program.containers()?,
            Self::Nobody => return Ok(None),
        };
        let mut users = Users::new();
        for container in containers {
            let user = User { container: container.shown(), state: container.state_word() };
            for mount in container.mounts.unwrap_or_default() {
                if mount.kind.as_deref() == Some("volume")
                    && let Some(name) = mount.name
                {
                    users.entry(name).or_default().push(user.clone());
                }
            }
        }
        Ok(Some(users))
    }

    /// The images, as the engine lists them.
    pub(super) fn images(&self) -> Result<Vec<SavedImage>, MigrateError> {
        let rows: Vec<ImageRow> = match self {
            Self::Api(api) => api.json("GET", "/images/json")?,
            Self::Program(program) => program.list(&["images", "--format", "json"])?,
            Self::Nobody => Vec::new(),
        };
        Ok(rows.into_iter().filter_map(ImageRow::image).collect())
    }

    /// An archive with an image.
    pub(super) fn save(&self, id: &Digest) -> Result<Box<dyn Read>, MigrateError> {
        match self {
            Self::Api(api) => api.stream(&format!("/images/{id}/get")),
            Self::Program(program) => program.save(id),
            Self::Nobody => Ok(Box::new(std::io::empty())),
        }
    }

    /// Removes a volume whose content was taken away.
    pub(super) fn remove_volume(&self, name: &str) -> Result<(), MigrateError> {
        match self {
            Self::Api(api) => api.call("DELETE", &format!("/volumes/{name}")).map(drop),
            Self::Program(program) => program.call(&["volume", "rm", name]).map(drop),
            Self::Nobody => Ok(()),
        }
    }
}

impl Container {
    fn shown(&self) -> String {
        let first = self.names.as_ref().and_then(|names| names.first());
        let name = first.or(self.name.as_ref()).unwrap_or(&self.id);
        name.trim_start_matches('/').to_owned()
    }

    fn state_word(&self) -> String {
        let word = self.state.as_str().or_else(|| self.state.get("Status")?.as_str());
        word.unwrap_or("unknown").to_lowercase()
    }
}

impl ImageRow {
    fn image(self) -> Option<SavedImage> {
        let id = self.id.strip_prefix("sha256:").unwrap_or(&self.id);
        let id = Digest::parse(&format!("sha256:{id}")).ok()?;
        let is_name = |name: &String| !name.contains("<none>");
        let names = self.repo_tags.or(self.names).unwrap_or_default();
        let names = names.into_iter().filter(is_name).collect();
        let digest_names = self.repo_digests.unwrap_or_default();
        let digest_names = digest_names.into_iter().filter(is_name).collect();
        let listed = Listed { id, names, digest_names };
        Some(SavedImage { listed, size: self.size.unwrap_or(0) })
    }
}

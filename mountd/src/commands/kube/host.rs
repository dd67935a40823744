//! The objects of a data root, opened by a command.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use laminafs::service::volumes::VolumeService;

use crate::kube::controller::{Setup, Turn};
use crate::kube::objects::Store;
use crate::kube::status::Failure;
use crate::report::CliError;
use crate::run::{data_root, existing_root};
use crate::serve::config::{Flags, Kube};
use crate::serve::kube::node;

/// The namespace of objects for which none is named.
const NAMESPACE: &str = "default";

/// Where the objects are.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The configuration file, for `[kube]` [default: /etc/lamina/lamina.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// In which namespace a command looks.
#[derive(Debug, Clone, Args)]
pub struct Namespace {
    /// The namespace [default: default].
    #[arg(long, short = 'n', value_name = "NAME")]
    pub namespace: Option<String>,
}

impl Namespace {
    /// The one that was named, or the default.
    pub fn name(&self) -> &str {
        self.namespace.as_deref().unwrap_or(NAMESPACE)
    }
}

/// The objects.
pub struct Host {
    root: PathBuf,
    kube: Kube,
    /// The objects.
    pub store: Arc<Store>,
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        Self::Objects(failure.to_string())
    }
}

impl Host {
    /// Opens the objects of an existing data root, to read them.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn read(place: &Place) -> Result<Self, CliError> {
        Self::open(existing_root(place.root.clone())?, place)
    }

    /// Opens the objects of a data root, which is made if it is missing.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn write(place: &Place) -> Result<Self, CliError> {
        let host = Self::open(data_root(place.root.clone()), place)?;
        host.store.create_namespaces()?;
        Ok(host)
    }

    fn open(root: PathBuf, place: &Place) -> Result<Self, CliError> {
        let flags = Flags { config: place.config.clone(), ..Flags::default() };
        let kube = flags.resolve()?.kube;
        let store = Arc::new(Store::open(&root)?);
        Ok(Self { root, kube, store })
    }

    /// The name of the node of this host.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub fn node(&self) -> Result<String, CliError> {
        Ok(node::known(&self.store, &self.kube.node)?)
    }

    /// The volumes.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub fn volumes(&self) -> Result<VolumeService, CliError> {
        Ok(VolumeService::open(&self.root)?)
    }

    /// The provisioners that this host serves.
    pub fn served(&self) -> BTreeSet<String> {
        self.kube.map.served()
    }

    /// Has what is due carried out: by a daemon if one has the controller, else here and now.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn settle(&self) -> Result<(), CliError> {
        let dir = self.root.join("kube");
        let failed = |error| CliError::Io { what: dir.display().to_string(), error };
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let lock = dir.join("controller");
        let Some(turn) = Turn::wait(&lock)? else { return Ok(()) };
        let node = self.node()?;
        node::announce(&self.store, &node)?;
        let volumes = Arc::new(self.volumes()?);
        let (store, map) = (Arc::clone(&self.store), self.kube.map.clone());
        Ok(turn.settle(Setup { lock, store, volumes, node, map, pods: None, csi: None })?)
    }
}

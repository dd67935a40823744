//! Which driver of this host a class, or a volume of a cluster, asks for.
//!
//! The provisioner [`OWN`] takes its driver and the options of that driver from the parameters of
//! the class; that of the CSI driver gets its volumes by calls (`csi`). A provisioner of a cluster
//! takes them from `[kube.map]` of the configuration, since the parameters of its classes mean
//! nothing here. So does a source of volumes made by hand, which
//! this host cannot reach: its key is the name of the field, or `csi:` and a CSI driver.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use laminafs::claim::Provision;
use serde::Deserialize;

use crate::kube::convert::CSI;

/// The provisioner of this host.
pub const OWN: &str = "lamina.dev/volume";
/// The driver of a class that names none.
const DRIVER: &str = "union";
/// Parameters that are meant for sidecars of a cluster.
const SIDECAR: &str = "csi.storage.k8s.io/";
/// What the key of a CSI driver as a source begins with.
const CSI_SOURCE: &str = "csi:";
/// The sources of volumes that a driver can stand in for. `hostPath` and `local` are directories of
/// this host.
const SOURCES: [&str; 19] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// What stands in for a provisioner, or for a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Mapping {
    /// Parameters for classes by name, over the others.
    #[serde(default)]
    pub classes: BTreeMap<String, BTreeMap<String, String>>,
    /// `driver`, and the options of that driver.
    #[serde(flatten)]
    pub parameters: BTreeMap<String, String>,
}

/// `[kube.map]`: provisioners and sources by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Map(BTreeMap<String, Mapping>);

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

/// Whether a key names a source of volumes, not a provisioner.
fn is_source(key: &str) -> bool {
    match key.strip_prefix(CSI_SOURCE) {
        // Volumes of our own driver are those that they name.
        Some(driver) => driver != CSI,
        None => SOURCES.contains(&key),
    }
}

impl Mapping {
    /// The parameters of a class.
    fn options(&self, class: &str) -> BTreeMap<String, String> {
        let mut options = self.parameters.clone();
        options.extend(self.classes.get(class).cloned().unwrap_or_default());
        options
    }
}

impl Map {
    /// Whether the configuration says what a provisioner stands for.
    #[must_use]
    pub fn has(&self, provisioner: &str) -> bool {
        self.0.contains_key(provisioner)
    }

    /// The provisioners, and CSI drivers, that this host serves.
    #[must_use]
    pub fn served(&self) -> BTreeSet<String> {
        let provisioners = self.0.keys().filter(|key| !is_source(key));
        provisioners.cloned().chain([OWN.to_owned(), CSI.to_owned()]).collect()
    }

    /// The sources that drivers of this host stand in for.
    #[must_use]
    pub fn sources(&self) -> BTreeSet<String> {
        self.0.keys().filter(|key| is_source(key)).cloned().collect()
    }

    /// The driver that stands in for a source in a class, and its options but for the size. `None`
    /// for a source that is not mapped.
    #[must_use]
    pub fn stand_in(
        &self,
        source: &str,
        class: &str,
    ) -> Option<(String, BTreeMap<String, String>)> {
        let mut options = self.0.get(source).filter(|_| is_source(source))?.options(class);
        let driver = options.remove("driver").unwrap_or_else(|| DRIVER.to_owned());
        Some((driver, options))
    }

    /// The driver for an order, and its options but for the size.
    #[must_use]
    pub fn driver(&self, order: &Provision) -> (String, BTreeMap<String, String>) {
        let mut options = match self.0.get(&order.provisioner) {
            Some(mapping) => mapping.options(&order.volume.class_name),
            None => order.parameters.clone(),
        };
        options.retain(|key, _| !key.starts_with(SIDECAR));
        options.extend(order.attributes.clone());
        let driver = options.remove("driver").unwrap_or_else(|| DRIVER.to_owned());
        (driver, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(provisioner: &str, class: &str) -> Provision {
        let mut volume = laminafs::claim::Volume::default();
        class.clone_into(&mut volume.class_name);
        let own = [("fs", "xfs"), ("csi.storage.k8s.io/fstype", "ext4")];
        Provision {
            claim: laminafs::claim::object::Id::new("default", "a"),
            provisioner: provisioner.to_owned(),
            parameters: own.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            attributes: BTreeMap::new(),
            origin: None,
            node: None,
            volume,
        }
    }

    #[test]
    fn a_mapped_provisioner_takes_its_parameters_from_the_configuration() {
        let text = "\"kubernetes.io/gce-pd\" = { driver = \"image\", fs = \"ext4\", \
                    classes = { fast = { driver = \"local\" } } }";
        let map: Map = toml::from_str(text).unwrap();
        assert!(map.served().contains("kubernetes.io/gce-pd"));
        let options = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let image = map.driver(&order("kubernetes.io/gce-pd", "slow"));
        assert_eq!(image, ("image".to_owned(), options(&[("fs", "ext4")])));
        let local = map.driver(&order("kubernetes.io/gce-pd", "fast"));
        assert_eq!(local, ("local".to_owned(), options(&[("fs", "ext4")])));
        let own = map.driver(&order(OWN, "any"));
        assert_eq!(own, ("union".to_owned(), options(&[("fs", "xfs")])));
        assert_eq!(map.stand_in("kubernetes.io/gce-pd", "fast"), None);
    }

    #[test]
    fn a_mapped_source_is_no_provisioner() {
        let text = "gcePersistentDisk = { driver = \"image\", \
                    classes = { pd-ssd = { fs = \"xfs\" } } }\n\
                    \"csi:pd.csi.storage.gke.io\" = {}\n\"csi:csi.lamina.dev\" = {}";
        let map: Map = toml::from_str(text).unwrap();
        let keys: Vec<String> = map.sources().into_iter().collect();
        assert_eq!(keys, ["csi:pd.csi.storage.gke.io", "gcePersistentDisk"]);
        assert!(!map.served().contains("gcePersistentDisk"));
        let of = |class| map.stand_in("gcePersistentDisk", class).unwrap();
        assert_eq!(of("pd-ssd"), ("image".to_owned(), [("fs".into(), "xfs".into())].into()));
        assert_eq!(of("").1, BTreeMap::new());
        assert_eq!(map.stand_in("csi:pd.csi.storage.gke.io", "").unwrap().0, "union");
        assert_eq!(map.stand_in("nfs", ""), None);
    }
}

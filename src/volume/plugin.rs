//! The driver `plugin:NAME`: volumes of any volume plugin of Docker on this host.
//!
//! The plugin is found where dockerd finds it, and has the content. `_data` is a bind mount of the
//! directory that it names while the volume is in use; mounts beneath that directory are not shown.
//!
//! - `plugin.json` has the plugin, and the name that the volume has there. It is written before the
//!   plugin is asked, so that a removal knows of each volume that the plugin may have.
//! - `plugin.mounted` is there from the moment at which the plugin is asked to mount the volume
//!   until it has confirmed the end.
//!
//! The name at the plugin is `lamina-` and 128 random bits: it stays when a volume is renamed, and
//! no two data roots share one. It is the id of the mount too: one id for all users.

mod call;
pub(crate) mod http;
mod place;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use call::Patience;
use call::{Plugin, Scope};
pub use place::PluginPlaces;

use super::driver::{Driver, Limits, OnCopied, Place, SPEED_ELSEWHERE, Spec, Usage};
use super::error::{Result, VolumeError};
use super::{mounted, tree};
use crate::catalog::volumes::new_id;
use crate::error::FromHost;
use crate::store::files::write_whole;
use crate::sys;
use crate::types::BindFlags;

/// Begins the name of a driver that is a plugin.
pub(super) const PREFIX: &str = "plugin:";
/// The driver in errors of options.
const KIND: &str = "plugin";
const RECORD: &str = "plugin.json";
const MOUNTED: &str = "plugin.mounted";

/// The driver of one plugin.
#[derive(Debug, Clone)]
pub struct PluginDriver {
    /// `plugin:NAME`.
    name: String,
    places: PluginPlaces,
    patience: Patience,
}

/// The file [`RECORD`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    plugin: String,
    volume: String,
    scope: Scope,
}

impl PluginDriver {
    /// The driver of the plugin of a name, in the directories of dockerd.
    ///
    /// # Errors
    /// [`VolumeError::Option`] for a name that no plugin can have.
    pub fn new(plugin: &str) -> Result<Self> {
        Self::with(plugin, PluginPlaces::default(), Patience::default())
    }

    /// As [`PluginDriver::new`], with other directories and time limits.
    ///
    /// # Errors
    /// [`VolumeError::Option`].
    pub fn with(plugin: &str, places: PluginPlaces, patience: Patience) -> Result<Self> {
        if place::is_name(plugin) {
            return Ok(Self { name: format!("{PREFIX}{plugin}"), places, patience });
        }
        let reason = "it is not the name of a plugin: use letters, digits, and _.- after the first";
        let (key, value) = ("driver".to_owned(), format!("{PREFIX}{plugin}"));
        Err(VolumeError::Option { driver: KIND, key, value, reason: reason.to_owned() })
    }

    fn find(&self, name: &str) -> Result<Plugin> {
        let (name, patience) = (name.to_owned(), self.patience);
        self.places.find(&name).map(|socket| Plugin { name, socket, patience })
    }

    fn plugin(&self) -> &str {
        self.name.strip_prefix(PREFIX).unwrap_or(&self.name)
    }
}

impl Record {
    fn new(plugin: &Plugin) -> Result<Self> {
        let volume = format!("lamina-{}", new_id()?);
        Ok(Self { plugin: plugin.name.clone(), volume, scope: plugin.scope() })
    }

    fn write(&self, place: &Place) -> Result<()> {
        let path = place.directory().join(RECORD);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        let text = text.map_err(VolumeError::io(&path))?;
        write_whole(&path, &text).map_err(|error| VolumeError::Catalog(error.into()))
    }

    fn read(place: &Place) -> Result<Self> {
        let path = place.directory().join(RECORD);
        let text = fs::read(&path).map_err(VolumeError::io(&path))?;
        serde_json::from_slice(&text).map_err(io::Error::from).map_err(VolumeError::io(&path))
    }
}

fn mark(place: &Place) -> PathBuf {
    place.directory().join(MOUNTED)
}

fn forget_mount(place: &Place) -> Result<()> {
    let path = mark(place);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(VolumeError::io(&path)),
    }
}

/// Notes whether a plugin ended its mount. One that did not does not stop the end of ours: it
/// is asked again at the next call.
fn note_end(place: &Place, record: &Record, asked: Result<()>) -> Result<()> {
    match asked {
        Ok(()) => forget_mount(place),
        Err(error) => {
            tracing::warn!(%error, volume = record.volume, "stays mounted by its plugin");
            Ok(())
        }
    }
}

/// Shows the directory that a plugin names at `_data`. It is resolved once, by descriptor.
fn bind(plugin: &Plugin, from: &Path, place: &Place) -> Result<()> {
    let refused = |reason: String| {
        let reason = format!("it names the mountpoint {from:?}: {reason}");
        plugin.error("VolumeDriver.Mount", reason)
    };
    if !from.is_absolute() {
        return Err(refused("not an absolute path".to_owned()));
    }
    let wrap = |error: crate::error::Error| {
        refused(io::Error::from_raw_os_error(error.errno().0).to_string())
    };
    let opened = sys::file::find_directory(from).map_err(wrap)?;
    let real = sys::file::path_of(opened.as_fd()).map_err(wrap)?;
    let real = PathBuf::from(String::from_utf8_lossy(&real).into_owned());
    let own = place.directory();
    if own.starts_with(&real) || real.starts_with(own) {
        return Err(refused(format!("it holds {} or is in it", own.display())));
    }
    let clone = sys::bind::clone_tree(opened.as_fd(), false).map_err(wrap)?;
    sys::bind::restrict(clone.as_fd(), BindFlags::default(), true).map_err(wrap)?;
    let data = place.data();
    let target = sys::file::find_directory(&data).map_err(VolumeError::host(&data))?;
    sys::bind::attach(clone.as_fd(), target.as_fd()).map_err(VolumeError::host(&data))
}

fn unsupported(verb: &'static str, reason: &str) -> VolumeError {
    VolumeError::Unsupported { driver: KIND, verb, reason: reason.to_owned() }
}

impl Driver for PluginDriver {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, _: &Spec) -> Result<()> {
        self.find(self.plugin())?.activate()
    }

    fn create(&self, place: &Place, spec: &Spec) -> Result<()> {
        let plugin = self.find(self.plugin())?;
        let record = Record::new(&plugin)?;
        record.write(place)?;
        plugin.create(&record.volume, &options(spec))
    }

    fn mount(&self, place: &Place, _: &Spec) -> Result<()> {
        if mounted::is_mounted(place)? {
            return Ok(());
        }
        let record = Record::read(place)?;
        let plugin = self.find(&record.plugin)?;
        let path = mark(place);
        fs::write(&path, "").map_err(VolumeError::io(&path))?;
        let from = plugin.mount(&record.volume, &record.volume)?;
        bind(&plugin, &from, place).or_else(|error| {
            // The mark stays if the plugin does not answer.
            if plugin.unmount(&record.volume, &record.volume).is_ok() {
                forget_mount(place)?;
            }
            Err(error)
        })
    }

    fn unmount(&self, place: &Place, _: &Spec) -> Result<()> {
        mounted::unmount(place, false)?;
        if !mark(place).exists() {
            return Ok(());
        }
        let record = Record::read(place)?;
        let asked = self.find(&record.plugin);
        let asked = asked.and_then(|plugin| {
            plugin.activate()?;
            plugin.unmount(&record.volume, &record.volume)
        });
        note_end(place, &record, asked)
    }

    /// A plugin that is not installed any more does not stop a removal. One that is and does
    /// not remove the volume is an error.
    fn remove(&self, place: &Place, _: &Spec) -> Result<()> {
        if !place.directory().join(RECORD).exists() {
            return Ok(());
        }
        mounted::unmount(place, false)?;
        let record = Record::read(place)?;
        let plugin = match self.find(&record.plugin) {
            Err(error @ VolumeError::NoPlugin { .. }) => {
                tracing::warn!(%error, volume = record.volume, "not removed by its plugin");
                return Ok(());
            }
            found => found?,
        };
        // One that hangs is not waited for twice.
        plugin.activate()?;
        if mark(place).exists() {
            note_end(place, &record, plugin.unmount(&record.volume, &record.volume))?;
        }
        plugin.remove(&record.volume)
    }

    fn is_private(&self, _: &Spec) -> bool {
        false
    }

    fn usage(&self, place: &Place, _: &Spec) -> Result<Usage> {
        if !mounted::is_mounted(place)? {
            return Err(unsupported("the usage of a volume that is not mounted", "mount it first"));
        }
        match mounted::is_whole(place)? {
            true => mounted::usage(place),
            false => tree::usage(&place.data()),
        }
    }

    fn resize(&self, _: &Place, _: &Spec, _: Limits) -> Result<()> {
        Err(unsupported("resize", "the protocol of plugins has no such call"))
    }

    fn throttle(&self, _: &Place, _: &Spec) -> Result<()> {
        Err(unsupported("limits on speed", SPEED_ELSEWHERE))
    }

    fn copy(&self, _: &Place, _: &Spec, _: &Place, _: &OnCopied) -> Result<()> {
        Err(unsupported("snapshots", "the protocol of plugins has no such call"))
    }

    fn replace(&self, _: &Place, _: &Spec, _: &Place, _: &OnCopied) -> Result<()> {
        Err(unsupported("rollback", "the protocol of plugins has no such call"))
    }
}

/// The options for the plugin: those of the user, and the limits among them.
fn options(spec: &Spec) -> BTreeMap<String, String> {
    let mut options = spec.options.clone();
    for (key, limit) in [("size", spec.limits.size_bytes), ("inodes", spec.limits.inodes)] {
        options.extend(limit.map(|limit| (key.to_owned(), limit.to_string())));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_options_of_the_plugin() {
        let mut spec = Spec::default();
        spec.options.insert("share".to_owned(), "x".to_owned());
        spec.limits.size_bytes = Some(1 << 20);
        let found: Vec<_> = options(&spec).into_iter().collect();
        let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(found, [own("share", "x"), own("size", "1048576")]);
    }

    #[test]
    fn the_name_of_a_driver_is_no_path() {
        assert_eq!(PluginDriver::new("a").unwrap().name(), "plugin:a");
        let error = PluginDriver::new("../a").unwrap_err().to_string();
        assert!(error.contains("driver=plugin:../a"), "{error}");
    }
}

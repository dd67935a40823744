//! What a migration would do, or did.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::error::Reason;

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A run would take it over.
    Take,
    /// It was taken over.
    Taken,
    /// It was there already.
    Present,
    /// It cannot be taken over.
    Refused,
}

/// The way in which an object is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// An image, read from the storage of the engine.
    Storage,
    /// An image, from an archive that the engine makes.
    Archive,
    /// A volume, copied.
    Copy,
    /// A volume, moved.
    Adopt,
    /// A volume whose content is elsewhere: a volume with its options.
    Options,
}

/// An image.
#[derive(Debug, Clone, Serialize)]
pub struct ImageItem {
    /// The digits of the digest of its configuration.
    pub id: String,
    /// The names that it gets.
    pub names: Vec<String>,
    /// What happens.
    pub outcome: Outcome,
    /// In which way.
    pub how: How,
    /// The number of its layers that are not in the store yet.
    pub layers: usize,
    /// The bytes of the tars of these layers. Of an archive, what the engine says of the image.
    pub bytes: u64,
    /// Why it is refused.
    pub reason: Option<String>,
    /// The next thing to try.
    pub hint: Option<String>,
    /// What is different from the engine.
    pub notes: Vec<String>,
}

/// A volume.
#[derive(Debug, Clone, Serialize)]
pub struct VolumeItem {
    /// The name.
    pub name: String,
    /// What happens.
    pub outcome: Outcome,
    /// In which way.
    pub how: How,
    /// The number of its objects.
    pub objects: u64,
    /// The bytes of data in its files, holes left out.
    pub bytes: u64,
    /// Why it is refused.
    pub reason: Option<String>,
    /// The next thing to try.
    pub hint: Option<String>,
    /// What is different from the engine.
    pub notes: Vec<String>,
}

/// Sums over the objects that are taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Images.
    pub images: usize,
    /// Layers that were not in the store.
    pub layers: usize,
    /// Volumes.
    pub volumes: usize,
    /// Bytes of layers and of volumes.
    pub bytes: u64,
}

/// What a migration would do, or did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// `docker` or `podman`.
    pub engine: &'static str,
    /// The root of its storage.
    pub storage: PathBuf,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The images.
    pub images: Vec<ImageItem>,
    /// The volumes.
    pub volumes: Vec<VolumeItem>,
    /// Images without a name that are left out.
    pub left_out_images: usize,
    /// Volumes without a name that are left out.
    pub left_out_volumes: usize,
    /// The sums.
    pub totals: Totals,
    /// The most bytes that the objects need in the data root: layers are compressed there.
    pub needed_bytes: u64,
    /// The bytes that were free for the data root at the beginning.
    pub free_bytes: u64,
    /// The time of the run.
    pub seconds: Option<f64>,
}

impl Report {
    /// The number of objects that were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        let images = self.images.iter().map(|one| one.outcome);
        let all = images.chain(self.volumes.iter().map(|one| one.outcome));
        all.filter(|outcome| *outcome == Outcome::Refused).count()
    }

    /// Computes the sums.
    pub(super) fn count(&mut self) {
        let is_taken = |outcome| matches!(outcome, Outcome::Take | Outcome::Taken);
        let images: Vec<_> = self.images.iter().filter(|one| is_taken(one.outcome)).collect();
        let volumes: Vec<_> = self.volumes.iter().filter(|one| is_taken(one.outcome)).collect();
        let image_bytes: u64 = images.iter().map(|one| one.bytes).sum();
        let volume_bytes: u64 = volumes.iter().map(|one| one.bytes).sum();
        self.totals = Totals {
            images: images.len(),
            layers: images.iter().map(|one| one.layers).sum(),
            volumes: volumes.len(),
            bytes: image_bytes + volume_bytes,
        };
    }
}

impl ImageItem {
    pub(super) fn refuse(&mut self, reason: impl Into<Reason>) {
        let Reason { text, hint } = reason.into();
        (self.outcome, self.reason, self.hint) = (Outcome::Refused, Some(text), hint);
    }
}

impl VolumeItem {
    pub(super) fn refuse(&mut self, reason: impl Into<Reason>) {
        let Reason { text, hint } = reason.into();
        (self.outcome, self.reason, self.hint) = (Outcome::Refused, Some(text), hint);
    }
}

/// A step of a migration.
#[derive(Debug)]
pub enum Step<'a> {
    /// Another migration works on the data root, and is waited for.
    Waits,
    /// An object begins, with the bytes that it has.
    Begins {
        /// The object, for people.
        what: String,
        /// Its size, or 0.
        bytes: u64,
    },
    /// So many bytes of the object are done.
    Bytes(u64),
    /// An image is done, or refused.
    Image(&'a ImageItem),
    /// A volume is done, or refused.
    Volume(&'a VolumeItem),
}

/// Receives the steps.
pub type OnStep<'a> = dyn FnMut(&Step<'_>) + 'a;

/// Names that a user gave. Each must name an object.
pub(super) struct Names<'a> {
    all: &'a [String],
    used: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn new(all: &'a [String]) -> Self {
        Self { all, used: BTreeSet::new() }
    }

    /// Whether everything is wanted.
    pub(super) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.all.iter().map(String::as_str)
    }

    pub(super) fn found(&mut self, name: &'a str) {
        self.used.insert(name);
    }

    /// Whether a volume of this name is wanted by name.
    pub(super) fn has(&mut self, name: &str) -> bool {
        let found = self.iter().find(|one| *one == name);
        found.is_some_and(|found| {
            self.found(found);
            true
        })
    }

    /// A name that nothing has.
    pub(super) fn unused(&self) -> Option<String> {
        self.iter().find(|name| !self.used.contains(name)).map(str::to_owned)
    }
}

//! Snapshots of several volumes, taken at one moment.
//!
//! The volumes in use are prepared one after the other, then held together, and then frozen. So
//! there is a moment at which no request of any user was under way, and each member is as it was
//! then. Volumes that nobody uses do not change meanwhile, since their state locks are held.
//!
//! New snapshots are begun in the order of the ids of their volumes, before any state lock of a
//! volume is taken, and the state locks in that order too: two groups do not wait for each other.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::snapshot::{now, unowned};
use super::{Refusal, Result, Volume, VolumeService, parts, place};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::{Begun, Growing, Locked, NewVolume as NewRecord};
use crate::types::VolumeName;
use crate::volume::{Freezing, OnCopied, Place, VolumeError, Wait, union};

/// A volume of a group that can be frozen in use, and the place of its snapshot.
struct Live {
    freezing: Box<dyn Freezing>,
    to: Place,
}

/// The root of a container, which is taken together with volumes.
pub(in crate::service) struct Root<'a> {
    /// The name and the id of the container.
    pub(in crate::service) name: &'a str,
    pub(in crate::service) id: &'a str,
    pub(in crate::service) content: Content<'a>,
}

/// The content of the root of a container.
pub(in crate::service) enum Content<'a> {
    /// It does not change, and this gives it to a place.
    Still(&'a dyn Fn(&Place) -> Result<()>),
    /// It is frozen together with the volumes.
    Running(Box<dyn Freezing>),
}

/// What the snapshots of several volumes become.
pub(in crate::service) struct Taking<'a> {
    /// Their name.
    pub(in crate::service) name: &'a VolumeName,
    /// Their labels; `None` for those of their volumes.
    pub(in crate::service) labels: Option<&'a BTreeMap<String, String>>,
    /// The root of a container that is taken too.
    pub(in crate::service) root: Option<Root<'a>>,
}

impl<'a> Taking<'a> {
    /// Snapshots with the labels of their volumes, without a root.
    pub(in crate::service) const fn named(name: &'a VolumeName) -> Self {
        Self { name, labels: None, root: None }
    }

    fn labels_for(&self, volume: &Volume) -> BTreeMap<String, String> {
        self.labels.map_or_else(|| unowned(volume), Clone::clone)
    }
}

/// Before the name of a volume, the label of the snapshot of a root with the id of that of the
/// volume.
pub(in crate::service) const MEMBER: &str = "volume.";

impl VolumeService {
    /// Makes a snapshot of each of several volumes, all at one moment and under one name. Volumes
    /// may be in use where their driver can freeze them. Without a name the snapshots are called
    /// after the time.
    ///
    /// # Errors
    /// As [`VolumeService::snapshot`]; [`VolumeError::NotTogether`]. An error or a crash leaves
    /// none of the snapshots.
    pub fn snapshot_together(
        &self,
        names: &[VolumeName],
        snapshot: Option<VolumeName>,
    ) -> Result<Vec<Volume>> {
        let snapshot = snapshot.map_or_else(now, Ok)?;
        self.take_together(names, Taking::named(&snapshot))
    }

    /// As [`VolumeService::snapshot_together`], with these labels instead of those of the volumes.
    ///
    /// # Errors
    /// As [`VolumeService::snapshot_together`].
    pub fn snapshot_together_labelled(
        &self,
        names: &[VolumeName],
        snapshot: &VolumeName,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Volume>> {
        let labels = Some(labels);
        self.take_together(names, Taking { labels, ..Taking::named(snapshot) })
    }

    fn take_together(&self, names: &[VolumeName], taking: Taking<'_>) -> Result<Vec<Volume>> {
        let mut all = Vec::new();
        for name in names {
            all.push(self.volumes.find(name)?);
        }
        let taken = self.take_all(all, taking)?;
        let made = taken.iter().map(|one| one.volume().clone()).collect();
        self.volumes.finish_all(taken)?;
        Ok(made)
    }

    /// Takes snapshots of volumes, and of the root of a container, at one moment. Nobody sees them
    /// before they are finished. That of the root is the last one.
    pub(in crate::service) fn take_all(
        &self,
        mut all: Vec<Volume>,
        taking: Taking<'_>,
    ) -> Result<Vec<Growing>> {
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all.dedup_by(|one, other| one.id == other.id);
        let mut growing = Vec::new();
        let made = self.grow(&all, taking, &mut growing);
        if let Err(error) = made {
            growing.iter().for_each(|one| self.volumes.give_up(one));
            return Err(error);
        }
        Ok(growing)
    }

    /// Makes volumes of volumes or snapshots whose state locks the caller holds: all, or none.
    /// Nobody sees them before they are finished.
    pub(in crate::service) fn copy_all(
        &self,
        of: Vec<(&Volume, VolumeName)>,
    ) -> Result<Vec<Growing>> {
        let mut growing = Vec::new();
        let copy = || -> Result<()> {
            for (source, name) in of {
                growing.push(self.begin_copy(name, String::new(), source, unowned(source))?);
                let Some(new) = growing.last() else { continue };
                let (driver, spec) = parts(source)?;
                driver.copy(&place(source), &spec, &place(new.volume()), &*self.on_copied)?;
            }
            Ok(())
        };
        if let Err(error) = copy() {
            growing.iter().for_each(|one| self.volumes.give_up(one));
            return Err(error);
        }
        Ok(growing)
    }

    /// Begins the snapshots of volumes and gives them their content.
    fn grow(&self, of: &[Volume], taking: Taking<'_>, growing: &mut Vec<Growing>) -> Result<()> {
        for volume in of {
            let (name, labels) = (taking.name, taking.labels_for(volume));
            let begun = self.begin_copy(name.clone(), volume.id.clone(), volume, labels);
            growing.push(match (&taking.root, begun) {
                // Another container has a snapshot of this name with this volume.
                (Some(root), Err(Refusal::Catalog(CatalogError::Exists { .. }))) => {
                    let own =
                        format!("{}.{name}", root.name).parse().map_err(CatalogError::from)?;
                    self.begin_copy(own, volume.id.clone(), volume, unowned(volume))?
                }
                (_, begun) => begun?,
            });
        }
        let Taking { name, root, .. } = taking;
        if let Some(root) = &root {
            let id = |(volume, growing): (&Volume, &Growing)| {
                (format!("{MEMBER}{}", volume.name), growing.volume().id.clone())
            };
            let members = of.iter().zip(&*growing).map(id).collect();
            growing.push(self.begin_root(name, root, members)?);
        }
        let locked: Vec<Locked> =
            of.iter().map(|volume| self.lock_source(volume)).collect::<Result<_>>()?;
        let mut live = Vec::new();
        for (source, growing) in locked.iter().zip(&*growing) {
            let (driver, spec) = parts(source.volume())?;
            self.end_unheld_device(source)?;
            match driver.freezing(&place(source.volume()), &spec)? {
                Some(freezing) => {
                    if freezing.wait() == Wait::Never
                        && live.iter().any(|one: &Live| one.freezing.wait() == Wait::Never)
                    {
                        let reason = "it is in use, and so is another block device of them: the \
                                      users of two devices cannot be made to wait";
                        return Err(not_together(source.volume(), reason).into());
                    }
                    live.push(Live { freezing, to: place(growing.volume()) });
                }
                None => copy_unused(source, &place(growing.volume()), &*self.on_copied)?,
            }
        }
        // Those that can be held for a moment alone are held last.
        live.sort_by_key(|one| Reverse(one.freezing.wait()));
        let on_copied = &*self.on_copied;
        let (Some(root), Some(taken)) = (root, growing.last()) else {
            return freeze(&mut live, on_copied);
        };
        let to = place(taken.volume());
        match root.content {
            Content::Still(give) => freeze(&mut live, on_copied).and_then(|()| give(&to)),
            Content::Running(freezing) => {
                // It is held first: its requests may wait for those of a volume that it serves.
                live.insert(0, Live { freezing, to });
                freeze(&mut live, on_copied)
            }
        }
    }

    fn begin_root(
        &self,
        name: &VolumeName,
        root: &Root<'_>,
        labels: BTreeMap<String, String>,
    ) -> Result<Growing> {
        let record = NewRecord {
            name: name.clone(),
            driver: union::NAME.to_owned(),
            options: BTreeMap::new(),
            labels,
            size_bytes: None,
            inodes: None,
            origin: root.id.to_owned(),
        };
        match self.volumes.begin(&record)? {
            Begun::New(growing) => Ok(growing),
            Begun::Exists(found) => {
                let (kind, name) = ("snapshot", format!("{}@{}", root.name, found.name));
                Err(CatalogError::Exists { kind, name }.into())
            }
        }
    }
}

fn not_together(volume: &Volume, reason: &str) -> VolumeError {
    let (name, driver) = (volume.name.to_string(), volume.driver.clone());
    VolumeError::NotTogether { name, driver, reason: reason.to_owned() }
}

/// Copies a volume that nobody uses. It may take long, so nothing is prepared before.
fn copy_unused(source: &Locked, to: &Place, on_copied: &OnCopied) -> Result<()> {
    let volume = source.volume();
    let (driver, spec) = parts(volume)?;
    let refused = |reason: &str| not_together(volume, reason);
    let in_use = || refused("it is in use, and the driver cannot freeze it together with them");
    if !source.is_idle()? {
        return Err(in_use().into());
    }
    let copied = driver.unmount(&place(volume), &spec);
    Ok(copied.and_then(|()| driver.copy(&place(volume), &spec, to, on_copied)).map_err(
        |error| match error {
            VolumeError::Busy { .. } => in_use(),
            VolumeError::Unsupported { reason, .. } => refused(&format!("no snapshots: {reason}")),
            error => error,
        },
    )?)
}

/// Freezes what is prepared. Between the last hold and the end of the first freeze lies the one
/// moment. What can wait longest is frozen last.
fn freeze(live: &mut [Live], on_copied: &OnCopied) -> Result<()> {
    for one in &mut *live {
        one.freezing.prepare()?;
    }
    for one in &mut *live {
        one.freezing.hold()?;
    }
    live.sort_by_key(|one| one.freezing.wait());
    for one in &mut *live {
        one.freezing.freeze(&one.to, on_copied)?;
    }
    for one in live {
        one.freezing.give(&one.to)?;
    }
    Ok(())
}

//! Snapshots of one volume, and of several at one moment.
//!
//! The name of a snapshot in the catalogue follows from that of the request, so that a repetition
//! finds it. Snapshots of a group have one name, and the id of the group in a label.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use laminafs::service::volumes::{CONTENT_LABEL, Volume, random_name};

use super::check;
use super::driver::Driver;
use super::fault::{Fault, Outcome};
use super::wire::{
    CreateSnapshotResponse, GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    Snapshot, VolumeGroupSnapshot, list_snapshots_response,
};
use super::{KUBERNETES, page, record, shown};

/// The digits of the id of a group, which are random.
const ID_DIGITS: usize = 32;

/// Refuses a name or parameters.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn check(name: &str, parameters: &HashMap<String, String>) -> Outcome<()> {
    check::name("name", name)?;
    match parameters.keys().find(|key| !key.starts_with(KUBERNETES)) {
        Some(key) => Err(Fault::invalid(format!("unknown parameter {key:?}: there are none"))),
        None => Ok(()),
    }
}

/// The name of the content that a snapshot is taken for, if the sidecar gives it; else that of the
/// request.
#[must_use]
pub fn content(name: &str, parameters: &HashMap<String, String>) -> String {
    let content = parameters.get(&format!("{KUBERNETES}volumesnapshotcontent/name"));
    content.map_or(name, String::as_str).to_owned()
}

impl Driver {
    /// The snapshot of an id.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(super) fn snapshot(&self, id: &str) -> Outcome<Volume> {
        let missing = || Fault::missing(format!("snapshot {id:?} does not exist"));
        if id.is_empty() || id.contains('@') {
            return Err(missing());
        }
        match self.volumes.inspect_snapshot(id) {
            Err(refusal) if refusal.is_missing() => Err(missing()),
            found => Ok(found?),
        }
    }

    /// Takes a snapshot, or finds the one that the same request took.
    ///
    /// # Errors
    /// Those of CreateSnapshot.
    pub(super) fn take(
        &self,
        source: &str,
        name: &str,
        content: String,
    ) -> Outcome<CreateSnapshotResponse> {
        let own = record::snapshot_name(name)?;
        let all = self.volumes.snapshots(None)?;
        let is_it = |one: &&Volume| one.labels.get(record::NAME).is_some_and(|of| of == name);
        if let Some(found) = all.iter().filter(|one| one.name == own).find(is_it) {
            // The volume may be gone by now.
            let is_same = found.origin == source
                || self.volume(source).is_ok_and(|volume| volume.id == found.origin);
            return match is_same {
                true => Ok(CreateSnapshotResponse { snapshot: Some(self.shown(found)) }),
                false => Err(Fault::exists(format!(
                    "snapshot {name:?} exists, of volume {}",
                    found.origin
                ))),
            };
        }
        let volume = self.volume(source)?;
        let labels = [(record::NAME, name.to_owned()), (CONTENT_LABEL, content)];
        let labels = BTreeMap::from(labels.map(|(key, value)| (key.to_owned(), value)));
        let made = self.volumes.snapshot_labelled(&volume.name, own, labels)?;
        Ok(CreateSnapshotResponse { snapshot: Some(self.shown(&made)) })
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a member of a group.
    pub(super) fn delete_snapshot(&self, id: &str) -> Outcome<()> {
        let found = match self.snapshot(id) {
            Err(fault) if fault.code() == tonic::Code::NotFound => return Ok(()),
            found => found?,
        };
        if !record::is_requested(&found) {
            return Err(Fault::not_now(format!(
                "snapshot {id} was not made through this interface: use lamina volume snapshot rm"
            )));
        }
        if let Some(group) = record::group(&found) {
            return Err(Fault::invalid(format!(
                "snapshot {id} belongs to the group {group}: delete the group"
            )));
        }
        match self.volumes.remove_snapshot(&found.id) {
            Err(refusal) if refusal.is_missing() => Ok(()),
            done => Ok(done?),
        }
    }

    /// A snapshot.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(super) fn get_snapshot(&self, id: &str) -> Outcome<GetSnapshotResponse> {
        let found = self.snapshot(id)?;
        Ok(GetSnapshotResponse { snapshot: Some(self.shown(&found)) })
    }

    /// The snapshots that requests took, in pages.
    ///
    /// # Errors
    /// Those of [`page::of`].
    pub(super) fn list_snapshots(
        &self,
        request: &ListSnapshotsRequest,
    ) -> Outcome<ListSnapshotsResponse> {
        let mut all = self.volumes.snapshots(None)?;
        all.retain(record::is_requested);
        let ListSnapshotsRequest { source_volume_id, snapshot_id, .. } = request;
        if !source_volume_id.is_empty() {
            let id = self.volume(source_volume_id).map(|volume| volume.id);
            let id = id.unwrap_or_else(|_| source_volume_id.clone());
            all.retain(|one| one.origin == id);
        }
        if !snapshot_id.is_empty() {
            all.retain(|one| one.id == *snapshot_id);
        }
        let at = (request.max_entries, request.starting_token.as_str());
        let (page, next_token) = page::of(all, |one| one.id.as_str(), at)?;
        let entry =
            |one: &Volume| list_snapshots_response::Entry { snapshot: Some(self.shown(one)) };
        Ok(ListSnapshotsResponse { entries: page.iter().map(entry).collect(), next_token })
    }

    /// The snapshots of groups that a label has this value in, by id.
    fn members(&self, label: &str, value: &str) -> Outcome<Vec<Volume>> {
        let mut all = self.volumes.snapshots(None)?;
        all.retain(|one| record::group(one).is_some() && record::is_requested(one));
        all.retain(|one| one.labels.get(label).is_some_and(|has| has == value));
        all.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(all)
    }

    /// Takes snapshots of several volumes at one moment: all, or none.
    ///
    /// # Errors
    /// Those of CreateVolumeGroupSnapshot.
    pub(super) fn take_group(&self, name: &str, of: &[String]) -> Outcome<VolumeGroupSnapshot> {
        let found = self.members(record::NAME, name)?;
        let volumes: Vec<Volume> = match found.is_empty() {
            true => of.iter().map(|id| self.volume(id)).collect::<Outcome<_>>()?,
            // They may be gone by now.
            false => of.iter().filter_map(|id| self.volume(id).ok()).collect(),
        };
        let by_id = |id: &String| {
            let known = volumes.iter().find(|one| one.id == *id || one.name.as_str() == id);
            known.map_or_else(|| id.clone(), |one| one.id.clone())
        };
        let wanted: BTreeSet<String> = of.iter().map(by_id).collect();
        if !found.is_empty() {
            let has: BTreeSet<String> = found.iter().map(|one| one.origin.clone()).collect();
            return match has == wanted {
                true => Ok(self.group(&found)),
                false => Err(Fault::exists(format!("group snapshot {name:?} has other volumes"))),
            };
        }
        let names: Vec<_> = volumes.iter().map(|one| one.name.clone()).collect();
        let id = random_name()?.as_str().chars().take(ID_DIGITS).collect();
        let labels = [record::NAME, CONTENT_LABEL].map(|key| (key.to_owned(), name.to_owned()));
        let labels = labels.into_iter().chain([(record::GROUP.to_owned(), id)]).collect();
        let own = record::group_name(name)?;
        let mut made = self.volumes.snapshot_together_labelled(&names, &own, &labels)?;
        made.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(self.group(&made))
    }

    /// The members of a group, if the ids of a request are those.
    fn group_of(&self, id: &str, ids: &[String]) -> Outcome<Vec<Volume>> {
        let found = self.members(record::GROUP, id)?;
        let has: BTreeSet<&str> = found.iter().map(|one| one.id.as_str()).collect();
        let named: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        if !found.is_empty() && !named.is_empty() && has != named {
            return Err(Fault::invalid(format!("snapshot_ids are not those of the group {id}")));
        }
        Ok(found)
    }

    /// The snapshots of a group.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` for other snapshots.
    pub(super) fn get_group(&self, id: &str, ids: &[String]) -> Outcome<VolumeGroupSnapshot> {
        let found = self.group_of(id, ids)?;
        match found.is_empty() {
            true => Err(Fault::missing(format!("group snapshot {id:?} does not exist"))),
            false => Ok(self.group(&found)),
        }
    }

    /// Removes the snapshots of a group: all, or none.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for other snapshots.
    pub(super) fn delete_group(&self, id: &str, ids: &[String]) -> Outcome<()> {
        let found = self.group_of(id, ids)?;
        let ids: Vec<&str> = found.iter().map(|one| one.id.as_str()).collect();
        Ok(self.volumes.remove_snapshots(ids)?)
    }

    /// A snapshot as a message.
    fn shown(&self, record: &Volume) -> Snapshot {
        shown::snapshot(record, self.has_alpha.then_some(self.node.as_str()))
    }

    fn group(&self, members: &[Volume]) -> VolumeGroupSnapshot {
        let first = members.first();
        VolumeGroupSnapshot {
            group_snapshot_id: first.and_then(record::group).unwrap_or_default().to_owned(),
            creation_time: first.and_then(shown::created),
            ready_to_use: true,
            snapshots: members.iter().map(|one| self.shown(one)).collect(),
        }
    }
}

//! Volumes: which there are, and how each gets its content.
//!
//! A copy is of one moment only if nobody writes meanwhile. A volume of a running container is
//! refused unless the user wants it so; one of a paused container is copied. After each copy the
//! tree is looked through again for inodes that changed since its beginning, by whomever.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Migration;
use super::engine::{EngineVolume, User, Users};
use super::error::{Reason, Result};
use super::report::{How, Names, OnStep, Outcome, Step, VolumeItem};
use super::target::{ADOPTING_LABEL, SOURCE_LABEL, Target, free_bytes};
use crate::catalog::error::CatalogError;
use crate::error::{FromHost, HostError};
use crate::service::failure::Refusal;
use crate::service::volumes::{NewVolume, Volume, VolumeService};
use crate::store::room::Room;
use crate::sys::file::{self, OFlags};
use crate::tree::copy::{Copied, Source, changed_since, copy_tree, measure};
use crate::tree::error::TreeError;
use crate::types::hex::is_hex;
use crate::types::{Time, VolumeName, size};

/// The clock of files runs behind that of the host by up to one tick.
const TICK: Duration = Duration::from_millis(20);
/// Changed paths that a message names.
const NAMED_PATHS: usize = 3;
/// The options that say what is mounted; others are of the engine.
const MOUNT_OPTIONS: [&str; 3] = ["type", "device", "o"];
/// Labels with this prefix mean something here, and are not taken from elsewhere.
const OWN_LABELS: &str = "lamina.dev/";

/// A volume that is wanted.
pub(super) struct PlannedVolume {
    pub item: VolumeItem,
    volume: EngineVolume,
    needed_bytes: u64,
}

/// The volumes that are wanted.
#[derive(Default)]
pub(super) struct Planned {
    pub all: Vec<PlannedVolume>,
    pub left_out: usize,
}

impl Planned {
    pub(super) fn needed_bytes(&self) -> u64 {
        let taken = self.all.iter().filter(|one| one.item.outcome == Outcome::Take);
        taken.map(|one| one.needed_bytes).sum()
    }
}

/// A volume of the engine that can be taken over.
struct Candidate<'a> {
    name: VolumeName,
    volume: &'a EngineVolume,
    how: How,
    /// The record of where it comes from.
    origin: String,
}

type Maybe<T> = std::result::Result<T, Reason>;

impl Migration {
    pub(super) fn plan_volumes(&self, target: &Target, names: &mut Names<'_>) -> Result<Planned> {
        let mut planned = Planned::default();
        if self.selection.only_images {
            return Ok(planned);
        }
        let volumes = match self.client.volumes()? {
            Some(volumes) => volumes,
            None => self.volumes_of_storage()?,
        };
        let users = self.client.users()?;
        for volume in volumes {
            let is_anonymous = is_hex(&volume.name, 64);
            let is_wanted = match names.is_empty() {
                true => !is_anonymous || self.selection.all,
                false => names.has(&volume.name),
            };
            if is_wanted {
                planned.all.push(self.plan_volume(target, volume, users.as_ref()));
            } else if names.is_empty() {
                planned.left_out += 1;
            }
        }
        Ok(planned)
    }

    fn plan_volume(
        &self,
        target: &Target,
        volume: EngineVolume,
        users: Option<&Users>,
    ) -> PlannedVolume {
        let (name, how) = (crate::tree::error::shown(volume.name.as_bytes()), How::Copy);
        let (outcome, reason, hint, notes) = (Outcome::Take, None, None, Vec::new());
        let (objects, bytes) = (0, 0);
        let mut item = VolumeItem { name, outcome, how, objects, bytes, reason, hint, notes };
        let mut needed_bytes = 0;
        match self.candidate(&volume) {
            Err(reason) => item.refuse(reason),
            Ok(candidate) => {
                item.how = candidate.how;
                match self.plan_content(target, &candidate, users, &mut item) {
                    Err(reason) => item.refuse(reason),
                    Ok(needed) => needed_bytes = needed,
                }
            }
        }
        PlannedVolume { item, volume, needed_bytes }
    }

    /// Measures the content, and returns the bytes that it needs in the data root.
    fn plan_content(
        &self,
        target: &Target,
        candidate: &Candidate<'_>,
        users: Option<&Users>,
        item: &mut VolumeItem,
    ) -> Maybe<u64> {
        if let Some(there) = target.find(&candidate.name)? {
            candidate.require_same(&there)?;
            if !is_half(&there) && candidate.how != How::Adopt {
                item.outcome = Outcome::Present;
                return Ok(0);
            }
        }
        notes(candidate.volume, users.is_none(), &mut item.notes);
        if candidate.how == How::Options {
            return Ok(0);
        }
        self.require_unused(candidate, users, &mut item.notes)?;
        let path = &candidate.volume.mountpoint;
        if candidate.how == How::Adopt && !path.exists() {
            // Its content moved before an earlier run was interrupted.
            return Ok(0);
        }
        if candidate.how == How::Adopt {
            self.require_one_mount(path)?;
        }
        let extent = measure(&self.content(candidate)?)?;
        (item.objects, item.bytes) = (extent.objects, extent.data_bytes);
        Ok(if candidate.how == How::Adopt { 0 } else { extent.allocated_bytes })
    }

    /// Checks the name, the driver and the options of a volume.
    fn candidate<'a>(&self, volume: &'a EngineVolume) -> Maybe<Candidate<'a>> {
        let name: VolumeName = volume.name.parse().map_err(|error| {
            let error = Refusal::from(CatalogError::from(error));
            Reason::new(error.to_string(), "copy it to a volume of another name there")
        })?;
        if volume.driver == "lamina" {
            return Err(Reason::new(
                "it is a volume of Lamina already, which the engine has from its volume plugin",
                format!("lamina volume inspect {name}"),
            ));
        }
        if volume.driver != "local" {
            let driver = crate::tree::error::shown(volume.driver.as_bytes());
            return Err(Reason::new(
                format!("its driver {driver} keeps the content, not the engine"),
                format!("use the plugin: lamina volume create --driver plugin:{driver} {name}"),
            ));
        }
        let options = mount_options(volume);
        let how = match (options.contains_key("type") || options.contains_key("device"), self) {
            (true, _) => How::Options,
            (false, migration) if migration.selection.adopt => How::Adopt,
            (false, _) => How::Copy,
        };
        if !volume.mountpoint.is_absolute() {
            let path = volume.mountpoint.display();
            return Err(Reason::new(
                format!("the engine names no absolute path for it, but {path:?}"),
                "name the storage: --storage-root DIR",
            ));
        }
        let origin = self.origin(volume, how);
        Ok(Candidate { name, volume, how, origin })
    }

    /// The record of where a volume comes from: its place, and when it was made, since another
    /// volume may get its name.
    fn origin(&self, volume: &EngineVolume, how: How) -> String {
        let place = volume.mountpoint.parent().unwrap_or(&volume.mountpoint);
        let born = std::fs::metadata(place).and_then(|found| found.created()).ok();
        let born = born.filter(|_| how != How::Adopt);
        let born = born.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.map(|time| format!("@{}.{:09}", time.as_secs(), time.subsec_nanos()));
        let born = born.unwrap_or_default();
        format!("{}:{}{born}", self.kind.program(), volume.mountpoint.display())
    }

    /// Opens the content.
    fn content<'a>(&self, candidate: &'a Candidate<'_>) -> Maybe<Source<'a>> {
        let path = candidate.volume.mountpoint.as_path();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = if self.is_trusted {
            file::open_path(path, flags)
        } else {
            let part = format!("volumes/{}/_data", candidate.name);
            if path != self.info.storage.join(&part) {
                return Err(Reason::new(
                    format!("{} is not in the storage of its user", path.display()),
                    "run lamina as that user, in podman unshare",
                ));
            }
            let storage = file::open_path(&self.info.storage, flags)
                .map_err(TreeError::host(&self.info.storage))?;
            file::open_beneath_no_links(storage.as_fd(), part.as_bytes(), flags)
        };
        let root = opened.map_err(TreeError::host(path))?;
        Ok(Source { path, root })
    }

    /// Refuses to move a directory that is a mount point, or in another mount than the data root.
    fn require_one_mount(&self, content: &Path) -> Maybe<()> {
        let there = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let mount = |path: &Path| {
            let opened = file::find_directory(path);
            opened
                .and_then(|found| file::mount_id(found.as_fd(), b""))
                .map_err(TreeError::host(path))
        };
        let above = content.parent().unwrap_or(content);
        let places = [mount(there)?, mount(above)?, mount(content)?];
        if places.iter().all(|mount| Some(mount) == places.first()) {
            return Ok(());
        }
        let (content, root) = (content.display(), there.display());
        Err(Reason::new(
            format!("{content} cannot move: it is in another mount than {root}"),
            "copy it: without --adopt; or use a data root beside it: --root DIR",
        ))
    }

    /// Refuses a volume that may change while it is copied, unless the user wants it so.
    fn require_unused(
        &self,
        candidate: &Candidate<'_>,
        users: Option<&Users>,
        notes: &mut Vec<String>,
    ) -> Maybe<()> {
        let all = users.and_then(|users| users.get(candidate.name.as_str()));
        let all = all.map_or(&[][..], Vec::as_slice);
        let program = self.kind.program();
        if candidate.how == How::Adopt
            && let Some(User { container, .. }) = all.first()
        {
            return Err(Reason::new(
                format!("container {container} uses it, so its content cannot move"),
                format!(
                    "remove the container ({program} rm {container}), or copy: without --adopt"
                ),
            ));
        }
        let Some(User { container, .. }) = all.iter().find(|user| user.is_live()) else {
            return Ok(());
        };
        if self.selection.live {
            notes.push(format!(
                "container {container} runs: the copy is not of one moment, as after a crash"
            ));
            return Ok(());
        }
        Err(Reason::new(
            format!("container {container} is running and may write to it"),
            format!(
                "pause it meanwhile ({program} pause {container}), or copy it as it changes: --live"
            ),
        ))
    }

    pub(super) fn take_volume(
        &self,
        target: &Target,
        planned: PlannedVolume,
        step: &mut OnStep<'_>,
    ) -> VolumeItem {
        let PlannedVolume { mut item, volume, needed_bytes } = planned;
        let Some(service) = target.volumes.as_ref().filter(|_| item.outcome == Outcome::Take)
        else {
            return item;
        };
        step(&Step::Begins { what: format!("volume {}", item.name), bytes: item.bytes });
        let taken = self.candidate(&volume).and_then(|candidate| match candidate.how {
            How::Options => self.take_options(service, &candidate),
            How::Adopt => self.take_content(service, &candidate, &mut item),
            _ => {
                self.require_room(&candidate, needed_bytes)?;
                self.take_copy(service, &candidate, &mut item, step)
            }
        });
        match taken {
            Ok(()) => item.outcome = Outcome::Taken,
            Err(reason) => item.refuse(reason),
        }
        item
    }

    fn take_options(&self, service: &VolumeService, candidate: &Candidate<'_>) -> Maybe<()> {
        match service.ensure(candidate.new_volume(SOURCE_LABEL))? {
            (_, true) => Ok(()),
            (there, false) => candidate.require_same(&there),
        }
    }

    /// Refuses a copy that the host has no room for. On one file system a copy may need none.
    fn require_room(&self, candidate: &Candidate<'_>, needed_bytes: u64) -> Maybe<()> {
        let device = |path: &Path| file::place_of(path).map(|(device, _)| device).ok();
        let path = &candidate.volume.mountpoint;
        if device(path) == device(&self.root) {
            return Ok(());
        }
        let free = free_bytes(&self.root)?;
        if needed_bytes <= free {
            return Ok(());
        }
        let (root, needed, free) =
            (self.root.display(), size::shown(needed_bytes), size::shown(free));
        Err(Reason::new(
            format!("it needs {needed}, and {free} are free for {root}"),
            "free space there, or use another data root: --root DIR",
        ))
    }

    fn take_copy(
        &self,
        service: &VolumeService,
        candidate: &Candidate<'_>,
        item: &mut VolumeItem,
        step: &mut OnStep<'_>,
    ) -> Maybe<()> {
        // Under way, containers may have been started.
        let mut seen = Vec::new();
        self.require_unused(candidate, self.client.users()?.as_ref(), &mut seen)?;
        let source = self.content(candidate)?;
        let copy = |data: &Path| -> std::result::Result<Done, Stopped> {
            let start = begin();
            let copied = copy_into(&source, data, step)?;
            let changed = changed_since(&source, start, NAMED_PATHS)?;
            if changed.1 > 0 && !self.selection.live {
                return Err(Stopped::Changed(changed));
            }
            Ok(Done { copied, changed })
        };
        let new = candidate.new_volume(SOURCE_LABEL);
        let (_, Done { copied, changed }) = service.create_filled(new, copy)?;
        (item.objects, item.bytes) = (copied.extent.objects, copied.extent.data_bytes);
        item.notes.extend(copied.notes.into_lines());
        if let (paths, count @ 1..) = changed {
            let paths = paths.join(", ");
            item.notes.push(format!("{count} objects changed while they were copied: {paths}"));
        }
        Ok(())
    }

    /// Moves the content, and removes the volume of the engine, which has none then.
    fn take_content(
        &self,
        service: &VolumeService,
        candidate: &Candidate<'_>,
        item: &mut VolumeItem,
    ) -> Maybe<()> {
        let (name, directory) = (&candidate.name, &candidate.volume.mountpoint);
        if !self.is_trusted {
            return Err(Reason::new(
                "the storage belongs to another user",
                "copy: without --adopt",
            ));
        }
        self.require_unused(candidate, self.client.users()?.as_ref(), &mut item.notes)?;
        if directory.exists() {
            // A run was interrupted before the content moved: the volume is empty.
            if let Some(half) = service.find_named(name)?.filter(is_half) {
                service.erase_made(&half)?;
            }
            let labels = candidate.new_volume(ADOPTING_LABEL).labels;
            service.adopt_labelled(name, directory, labels)?;
        }
        let changes = BTreeMap::from([
            (SOURCE_LABEL.to_owned(), Some(candidate.origin.clone())),
            (ADOPTING_LABEL.to_owned(), None),
        ]);
        service.label(name, &changes)?;
        if let Err(error) = self.client.remove_volume(name.as_str()) {
            let program = self.kind.program();
            item.notes.push(format!("{error}; it is empty there: {program} volume rm {name}"));
        }
        Ok(())
    }

    /// The volumes of a storage whose engine is not asked.
    fn volumes_of_storage(&self) -> Result<Vec<EngineVolume>> {
        let base = self.info.storage.join("volumes");
        let entries = match std::fs::read_dir(&base) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(CatalogError::io(&base))?,
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let name = entry.map_err(CatalogError::io(&base))?.file_name();
            let Some(name) = name.to_str() else { continue };
            let mountpoint: PathBuf = base.join(name).join("_data");
            if std::fs::symlink_metadata(&mountpoint).is_ok_and(|found| found.is_dir()) {
                let (name, driver) = (name.to_owned(), "local".to_owned());
                let rest = EngineVolume::default();
                volumes.push(EngineVolume { name, driver, mountpoint, ..rest });
            }
        }
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(volumes)
    }
}

/// A copy that ended well.
struct Done {
    copied: Copied,
    changed: (Vec<String>, u64),
}

/// Why a copy ended.
enum Stopped {
    Refusal(Refusal),
    Changed((Vec<String>, u64)),
}

impl From<Refusal> for Stopped {
    fn from(error: Refusal) -> Self {
        Self::Refusal(error)
    }
}

impl From<TreeError> for Stopped {
    fn from(error: TreeError) -> Self {
        Self::Refusal(crate::transfer::error::TransferError::from(error).into())
    }
}

impl From<Stopped> for Reason {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Refusal(error) => error.into(),
            Stopped::Changed((paths, count)) => Self::new(
                format!("{count} objects changed while it was copied: {}", paths.join(", ")),
                "stop the programs that write to it, or copy it as it changes: --live",
            ),
        }
    }
}

/// Copies a tree, as long as the host has room.
fn copy_into(
    source: &Source<'_>,
    data: &Path,
    step: &mut OnStep<'_>,
) -> std::result::Result<Copied, Stopped> {
    let mut room = Room::new(data).map_err(Refusal::from)?;
    let mut before = 0;
    let mut progress = |bytes: u64| {
        let failed = |source| TreeError::Host(HostError { path: data.to_owned(), source });
        room.take(bytes - before).map_err(failed)?;
        before = bytes;
        step(&Step::Bytes(bytes));
        Ok(())
    };
    Ok(copy_tree(source, data, &mut progress)?)
}

impl Candidate<'_> {
    /// The volume to be made, whose origin is in a label.
    fn new_volume(&self, origin_label: &str) -> NewVolume {
        let labels = self.volume.labels.iter().flatten();
        let labels = labels.filter(|(key, _)| !key.starts_with(OWN_LABELS));
        let mut labels: BTreeMap<_, _> =
            labels.map(|(key, value)| (key.clone(), value.clone())).collect();
        labels.insert(origin_label.to_owned(), self.origin.clone());
        let options = match self.how {
            How::Options => mount_options(self.volume),
            _ => BTreeMap::new(),
        };
        let driver = Some("local".to_owned());
        NewVolume { name: self.name.clone(), driver, options, labels }
    }

    /// Refuses a volume of the name that comes from elsewhere.
    fn require_same(&self, there: &Volume) -> Maybe<()> {
        let origin = there.labels.get(SOURCE_LABEL).or_else(|| there.labels.get(ADOPTING_LABEL));
        let place = |text: &String| text.split('@').next().map(str::to_owned);
        let is_same = match self.how {
            // Content that moved is not there any more: what is there now is another volume.
            How::Adopt if !is_half(there) && self.volume.mountpoint.exists() => false,
            How::Adopt => origin.and_then(place) == place(&self.origin),
            _ => origin == Some(&self.origin),
        };
        if is_same {
            return Ok(());
        }
        let name = &self.name;
        let from = match origin {
            Some(origin) => format!("it was imported from {origin}"),
            None => "it was not imported from this engine".to_owned(),
        };
        Err(Reason::new(
            format!("Lamina has another volume of this name: {from}"),
            format!("give that one another name: lamina volume rename {name} NEW"),
        ))
    }
}

impl Target {
    fn find(&self, name: &VolumeName) -> Maybe<Option<Volume>> {
        match &self.volumes {
            Some(service) => Ok(service.find_named(name)?),
            None => Ok(None),
        }
    }
}

impl VolumeService {
    /// Finds a volume, if there is one.
    fn find_named(&self, name: &VolumeName) -> std::result::Result<Option<Volume>, Refusal> {
        match self.inspect(name) {
            Err(error) if error.is_missing() => Ok(None),
            found => found.map(Some),
        }
    }
}

/// Whether the content of a volume was to move, and no run confirmed that it did.
fn is_half(volume: &Volume) -> bool {
    volume.labels.contains_key(ADOPTING_LABEL)
}

/// The options that say what is mounted.
fn mount_options(volume: &EngineVolume) -> BTreeMap<String, String> {
    let options = volume.options.iter().flatten();
    let is_of_mount = |key: &str| MOUNT_OPTIONS.contains(&key);
    let options = options.filter(|(key, value)| is_of_mount(key) && !value.is_empty());
    options.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What will be different from the engine.
fn notes(volume: &EngineVolume, is_unasked: bool, notes: &mut Vec<String>) {
    let options = mount_options(volume);
    let is_mounted = options.contains_key("type") || options.contains_key("device");
    if options.get("type").is_some_and(|kind| kind == "tmpfs") {
        notes.push("it is a tmpfs, whose content is not taken over".to_owned());
    }
    // The owner of the directory is that of the options `uid` and `gid`.
    let is_limit = |word: &&str| !word.starts_with("uid=") && !word.starts_with("gid=");
    let words = options.get("o").filter(|_| !is_mounted).map_or("", String::as_str);
    let words: Vec<&str> = words.split(',').filter(|word| !word.is_empty()).collect();
    if words.iter().any(is_limit) {
        let words = words.join(",");
        notes.push(format!("without its option o={words}: a copy has no limit of its own"));
    }
    for key in volume.labels.iter().flatten().map(|(key, _)| key) {
        if key.starts_with(OWN_LABELS) {
            notes.push(format!("without its label {key}, which has a meaning here"));
        }
    }
    if is_unasked {
        notes.push("without labels and options, which only the engine knows".to_owned());
    }
}
/// Begins a copy: what changes from here on has this time or a later one, and what changed before
/// has an earlier one. The clock of files is behind by a tick at most, which is waited for.
fn begin() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    std::thread::sleep(TICK);
    Time { secs: i64::try_from(now.as_secs()).unwrap_or(i64::MAX), nanos: now.subsec_nanos() }
}

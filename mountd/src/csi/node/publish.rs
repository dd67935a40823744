//! Publications of volumes at target paths.
//!
//! A target is a holder of its volume, `csi:PATH`, from before its mount is made until after that
//! has ended. The record of the publication has the ids of the volume, so that the end of it is
//! found also for a volume that an administrator removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use laminafs::service::publication::{Publication, PublicationError, Publications};
use laminafs::service::volumes::Volume;

use super::super::Driver;
use super::super::check::{self, Access};
use super::super::fault::{Fault, Outcome};
use super::super::wire::volume_capability::access_mode::Mode;
use super::super::wire::{
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse,
};
use super::{find, group, inline, publications, require_fit, stage};

const PREFIX: &str = "csi:";
/// What a publication keeps: the id of its volume in the catalogue, the id that the orchestrator
/// uses, the access mode, and the digest of the parameters of an inline volume.
const VOLUME: &str = "volume";
const HANDLE: &str = "handle";
const MODE: &str = "mode";
const INLINE: &str = "inline";

fn holder(target: &Path) -> String {
    format!("{PREFIX}{}", target.display())
}

/// Whether a publication is one of a volume.
pub(super) fn is_of(publication: &Publication, id: &str, volume: Option<&Volume>) -> bool {
    let about = |key| publication.about.get(key).map(String::as_str);
    about(HANDLE) == Some(id) || volume.is_some_and(|volume| about(VOLUME) == Some(&volume.id))
}

/// A request whose fields are valid.
struct Wanted<'a> {
    request: &'a NodePublishVolumeRequest,
    access: Access,
    target: PathBuf,
    group: Option<u32>,
    is_inline: bool,
}

impl<'a> Wanted<'a> {
    fn new(request: &'a NodePublishVolumeRequest) -> Outcome<Self> {
        check::required("volume_id", &request.volume_id)?;
        let target = check::path("target_path", &request.target_path)?;
        let access = Access::new(request.volume_capability.as_ref())?;
        let group = group(&access)?;
        let is_inline = inline::is_asked(&request.volume_context);
        let wanted = Self { request, access, target, group, is_inline };
        if wanted.access.is_block() && is_inline {
            return Err(Fault::invalid("an inline volume has files: use a claim for a device"));
        }
        Ok(wanted)
    }

    /// Whether the target is read-only. A mount does not keep anyone from writing to a device: the
    /// runtime, which gives the device to a container, does that.
    const fn is_read_only(&self) -> bool {
        self.request.readonly || self.access.is_read_only()
    }

    /// The volume, which an inline one becomes now.
    fn volume(&self, driver: &Driver) -> Outcome<Volume> {
        if self.is_inline {
            return inline::ensure(driver, &self.request.volume_id, &self.request.volume_context);
        }
        let volume = driver.volume(&self.request.volume_id)?;
        let staging = &self.request.staging_target_path;
        if staging.is_empty() {
            return Err(Fault::not_now("staging_target_path is missing: stage the volume first"));
        }
        let staging = check::path("staging_target_path", staging)?;
        if !stage::is_staged(driver, &volume, &staging)? {
            let text = format!("volume {} is not staged at {staging:?}", volume.name);
            return Err(Fault::not_now(text));
        }
        Ok(volume)
    }

    fn publication(&self, volume: &Volume, source: PathBuf) -> Publication {
        let mount = self.access.mount.clone().unwrap_or_default();
        let (context, flags) = split(mount.mount_flags);
        let mut about = BTreeMap::from([
            (VOLUME.to_owned(), volume.id.clone()),
            (HANDLE.to_owned(), self.request.volume_id.clone()),
            (MODE.to_owned(), self.access.mode.as_str_name().to_owned()),
        ]);
        if self.is_inline {
            about.insert(INLINE.to_owned(), inline::arguments(&self.request.volume_context));
        }
        Publication {
            target: self.target.clone(),
            source,
            is_device: self.access.is_block(),
            read_only: self.is_read_only(),
            flags,
            group: self.group,
            context,
            about,
        }
    }
}

/// Takes the context of SELinux out of mount flags.
fn split(flags: Vec<String>) -> (Option<String>, Vec<String>) {
    let mut context = None;
    let mut others = Vec::new();
    for flag in flags {
        match flag.strip_prefix("context=") {
            Some(found) => {
                let bare = found.strip_prefix('"').and_then(|found| found.strip_suffix('"'));
                context = Some(bare.unwrap_or(found).to_owned());
            }
            None => others.push(flag),
        }
    }
    (context, others)
}

/// Refuses a second target of a volume where one of the two is to be alone. A target that is not
/// mounted has no user: a restart of the host left it.
fn require_alone(
    driver: &Driver,
    publications: &Publications,
    volume: &Volume,
    wanted: &Wanted<'_>,
) -> Outcome<()> {
    for holder in driver.volumes.holders(volume)? {
        let Some(target) = holder.strip_prefix(PREFIX).map(Path::new) else { continue };
        if target == wanted.target {
            continue;
        }
        let Some((other, true)) = publications.find(target)? else { continue };
        let mode = other.about.get(MODE).and_then(|mode| Mode::from_str_name(mode));
        let is_exclusive = |mode| Access { mount: None, mode }.is_exclusive();
        if wanted.access.is_exclusive() || mode.is_some_and(is_exclusive) {
            let name = &volume.name;
            let text = format!("volume {name} is published at {target:?}, for one user alone");
            return Err(Fault::not_now(text));
        }
    }
    Ok(())
}

/// Shows a volume at a target path.
///
/// # Errors
/// Those of the specification.
pub(super) fn publish(
    driver: &Driver,
    request: &NodePublishVolumeRequest,
) -> Outcome<NodePublishVolumeResponse> {
    let wanted = Wanted::new(request)?;
    let publications = publications(driver)?;
    let known = publications.find(&wanted.target)?.map(|(known, _)| known);
    let volume = wanted.volume(driver)?;
    // Also where one call has its id and another one its name.
    let _alone = driver.hold(format!("the targets of volume {}", volume.id))?;
    let published = publish_volume(driver, &publications, &wanted, &volume);
    if published.is_err()
        && let Err(fault) = give_up(driver, &publications, &wanted, &volume)
    {
        let name = &volume.name;
        tracing::warn!(error = %fault, %name, "what a failed publication left stays");
    }
    published
        .map_err(|fault| match known {
            Some(known) if fault.code() == tonic::Code::AlreadyExists => {
                match is_of(&known, &request.volume_id, Some(&volume)) {
                    true => fault,
                    false => fault.about("the target is one of another volume"),
                }
            }
            _ => fault,
        })
        .map(|()| NodePublishVolumeResponse {})
}

fn publish_volume(
    driver: &Driver,
    publications: &Publications,
    wanted: &Wanted<'_>,
    volume: &Volume,
) -> Outcome<()> {
    require_fit(volume, &wanted.access)?;
    let target = &wanted.target;
    if let Some((known, _)) = publications.find(target)?
        && !is_of(&known, &wanted.request.volume_id, Some(volume))
    {
        let text = format!("{target:?} is published for another volume: unpublish it first");
        return Err(Fault::exists(text));
    }
    require_alone(driver, publications, volume, wanted)?;
    let holder = holder(target);
    let source = match wanted.access.is_block() {
        true => driver.volumes.publish_device(&volume.name, &holder)?,
        false => driver.volumes.publish(&volume.name, &holder)?,
    };
    publications.publish(&wanted.publication(volume, source))?;
    Ok(())
}

/// Ends the use of a volume at a target that was not published for it.
fn give_up(
    driver: &Driver,
    publications: &Publications,
    wanted: &Wanted<'_>,
    volume: &Volume,
) -> Outcome<()> {
    let known = publications.find(&wanted.target)?.map(|(known, _)| known);
    if known.is_some_and(|known| is_of(&known, &wanted.request.volume_id, Some(volume))) {
        return Ok(());
    }
    driver.volumes.unpublish(&volume.name, &holder(&wanted.target))?;
    match wanted.is_inline {
        true => inline::end_unused(driver, volume),
        false => Ok(()),
    }
}

/// Ends the publication at a target path.
///
/// # Errors
/// Those of the specification.
pub(super) fn unpublish(
    driver: &Driver,
    request: &NodeUnpublishVolumeRequest,
) -> Outcome<NodeUnpublishVolumeResponse> {
    let id = request.volume_id.as_str();
    if id.is_empty() {
        return Err(Fault::invalid("volume_id is missing"));
    }
    let target = check::path("target_path", &request.target_path)?;
    let publications = publications(driver)?;
    let volume = find(driver, id)?;
    let made = inline::find(driver, id)?;
    let is_known = publications.find(&target)?.is_some();
    if !is_known && volume.is_none() && made.is_none() && !inline::is_handle(id) {
        return Err(Fault::missing(format!("volume {id:?} does not exist")));
    }
    let check = |publication: &Publication| match is_of(publication, id, volume.as_ref()) {
        true => Ok(()),
        false => {
            let owner = "another volume".to_owned();
            Err(PublicationError::Other { target: target.clone(), owner })
        }
    };
    let release = |publication: &Publication| {
        let released = release(driver, publication);
        released.map_err(|fault| PublicationError::Release(fault.to_string()))
    };
    publications.unpublish(&target, check, release)?;
    if is_known {
        return Ok(NodeUnpublishVolumeResponse {});
    }
    // What a call left that was killed before its record was there.
    if let Some(volume) = volume {
        driver.volumes.unpublish(&volume.name, &holder(&target))?;
    }
    if let Some(made) = made {
        driver.volumes.unpublish(&made.name, &holder(&target))?;
        inline::end_unused(driver, &made)?;
    }
    Ok(NodeUnpublishVolumeResponse {})
}

/// Ends the use of the volume of a publication, and the volume if it was made for it.
fn release(driver: &Driver, publication: &Publication) -> Outcome<()> {
    let Some(id) = publication.about.get(VOLUME) else { return Ok(()) };
    let volume = match driver.volumes.find_id(id) {
        Err(refusal) if refusal.is_missing() => return Ok(()),
        found => found?,
    };
    driver.volumes.unpublish(&volume.name, &holder(&publication.target))?;
    match publication.about.contains_key(INLINE) {
        true => inline::end_unused(driver, &volume),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_no_flag() {
        let flags = |flags: &[&str]| flags.iter().map(|&flag| flag.to_owned()).collect::<Vec<_>>();
        let found = split(flags(&["nosuid", "context=\"a:b:c:s0:c1,c2\"", "noexec"]));
        assert_eq!(found, (Some("a:b:c:s0:c1,c2".to_owned()), flags(&["nosuid", "noexec"])));
        assert_eq!(split(flags(&["context=a:b:c"])).0.as_deref(), Some("a:b:c"));
        assert_eq!(split(flags(&["ro"])), (None, flags(&["ro"])));
    }
}

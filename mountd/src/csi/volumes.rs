//! Volumes that exist: deletion, lists, capacity, growth, changes.

use std::collections::HashMap;

use laminafs::service::volumes::{Volume, is_device};
use laminafs::service::{CatalogError, Refusal, VolumeError};

use super::check;
use super::create::{self, is_here};
use super::driver::Driver;
use super::fault::{Fault, Outcome};
use super::record::Request;
use super::wire::validate_volume_capabilities_response::Confirmed;
use super::wire::{
    CapacityRange, ControllerExpandVolumeResponse, ControllerGetVolumeResponse, GetCapacityRequest,
    GetCapacityResponse, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse, VolumeCondition, controller_get_volume_response,
    list_volumes_response,
};
use super::{page, record, shown};

/// The size for a request of growth, or `None` if the volume has it already.
///
/// # Errors
/// `OUT_OF_RANGE`, `INVALID_ARGUMENT`.
pub fn growth(volume: &Volume, range: Option<&CapacityRange>) -> Outcome<Option<u64>> {
    let (required, limit) = check::range(range)?;
    let has = volume.size_bytes.unwrap_or(0);
    if required.is_none() && limit.is_none() {
        return Err(Fault::invalid("capacity_range is missing"));
    }
    if let Some(limit) = limit.filter(|limit| *limit < has) {
        return Err(Fault::range(format!(
            "the volume has {has} bytes and does not shrink to {limit}"
        )));
    }
    let wanted = required.unwrap_or(has).next_multiple_of(create::BLOCK);
    if wanted <= has {
        return Ok(None);
    }
    match limit.filter(|limit| *limit < wanted) {
        Some(limit) => Err(Fault::range(format!("limit_bytes {limit} is less than {wanted}"))),
        None => Ok(Some(wanted)),
    }
}

impl Driver {
    /// Removes a volume for good. Its snapshots stay.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` while it is published.
    pub(super) fn delete(&self, id: &str) -> Outcome<()> {
        let volume = match self.volume(id) {
            Err(fault) if fault.code() == tonic::Code::NotFound => return Ok(()),
            found => found?,
        };
        if !record::is_requested(&volume) {
            return Err(Fault::not_now(format!(
                "volume {} was not made through this interface: use lamina volume rm",
                volume.name
            )));
        }
        match self.volumes.erase_unheld(&volume) {
            Err(refusal) if refusal.is_missing() => Ok(()),
            Err(Refusal::Catalog(CatalogError::InUse { .. })) => Err(Fault::not_now(format!(
                "volume {id} is published or in use: unpublish and unstage it first"
            ))),
            done => Ok(done?),
        }
    }

    fn condition(volume: &Volume) -> VolumeCondition {
        let is_there = volume.directory().is_dir();
        let message = match is_there {
            true => "the volume is there".to_owned(),
            false => format!("the directory {} is gone", volume.directory().display()),
        };
        VolumeCondition { abnormal: !is_there, message }
    }

    /// The nodes that use a volume.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub(super) fn published(&self, volume: &Volume) -> Outcome<Vec<String>> {
        let is_held = self.volumes.is_held(volume)?;
        Ok(if is_held { vec![self.node.clone()] } else { Vec::new() })
    }

    /// The volumes that requests made, in pages.
    ///
    /// # Errors
    /// Those of [`page::of`].
    pub(super) fn list(&self, at: (i32, &str)) -> Outcome<ListVolumesResponse> {
        let mut all = self.volumes.list()?;
        all.retain(record::is_requested);
        let (page, next_token) = page::of(all, |volume| volume.id.as_str(), at)?;
        let entry = |volume: &Volume| {
            Ok(list_volumes_response::Entry {
                volume: Some(shown::volume(volume, &self.node)),
                status: Some(list_volumes_response::VolumeStatus {
                    published_node_ids: self.published(volume)?,
                    volume_condition: Some(Self::condition(volume)),
                }),
            })
        };
        let entries = page.iter().map(entry).collect::<Outcome<_>>()?;
        Ok(ListVolumesResponse { entries, next_token })
    }

    /// A volume, and whether it is well.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(super) fn get(&self, id: &str) -> Outcome<ControllerGetVolumeResponse> {
        let volume = self.volume(id)?;
        Ok(ControllerGetVolumeResponse {
            volume: Some(shown::volume(&volume, &self.node)),
            status: Some(controller_get_volume_response::VolumeStatus {
                published_node_ids: self.published(&volume)?,
                volume_condition: Some(Self::condition(&volume)),
            }),
        })
    }

    /// Whether a volume has capabilities.
    ///
    /// # Errors
    /// `NOT_FOUND`, `INVALID_ARGUMENT`.
    pub(super) fn validate(
        &self,
        request: ValidateVolumeCapabilitiesRequest,
    ) -> Outcome<ValidateVolumeCapabilitiesResponse> {
        let volume = self.volume(&request.volume_id)?;
        let (is_block, fs_type, all) = create::access(&request.volume_capabilities)?;
        let refused =
            |message: String| Ok(ValidateVolumeCapabilitiesResponse { confirmed: None, message });
        if is_block != is_device(&volume) {
            let has = if is_block { "a file system and is not a device" } else { "no file system" };
            return refused(format!("volume {} has {has}", request.volume_id));
        }
        if !is_block && !fs_type.is_empty() && fs_type != create::fs_of(&volume) {
            return refused(format!(
                "volume {} has the driver {} and no {fs_type}",
                request.volume_id, volume.driver
            ));
        }
        if let Some(one) = all.iter().find(|one| !one.is_of_one_node()) {
            return refused(one.refusal());
        }
        let parameters = create::own(request.parameters.clone());
        if let Some(made) = Request::of(&volume).filter(|_| !parameters.is_empty())
            && made.parameters != parameters
        {
            return refused(format!("volume {} was made with other parameters", request.volume_id));
        }
        let confirmed = Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            mutable_parameters: request.mutable_parameters,
        };
        Ok(ValidateVolumeCapabilitiesResponse {
            confirmed: Some(confirmed),
            message: String::new(),
        })
    }

    /// What new volumes can have: free bytes that no volume was promised, or all free bytes where
    /// sizes may be more than that.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub(super) fn capacity(&self, request: GetCapacityRequest) -> Outcome<GetCapacityResponse> {
        let GetCapacityRequest { volume_capabilities, parameters, accessible_topology } = request;
        let (is_block, fs_type, all) = match volume_capabilities.as_slice() {
            [] => (false, String::new(), Vec::new()),
            all => create::access(all)?,
        };
        let bounds = create::bounds(parameters, is_block, &fs_type)?;
        let is_elsewhere = accessible_topology.is_some_and(|at| !is_here(&at, &self.node));
        if is_elsewhere || all.iter().any(|one| !one.is_of_one_node()) {
            return Ok(GetCapacityResponse::default());
        }
        let room = if bounds.overcommits { self.volumes.free()? } else { self.volumes.room()? };
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let available = bytes(room - room % create::BLOCK);
        Ok(GetCapacityResponse {
            available_capacity: available,
            maximum_volume_size: Some(available),
            minimum_volume_size: Some(bytes(bounds.least)),
        })
    }

    /// Grows a volume, also while it is published. The node has nothing left to do.
    ///
    /// # Errors
    /// Those of ControllerExpandVolume.
    pub(super) fn expand(
        &self,
        id: &str,
        range: Option<&CapacityRange>,
    ) -> Outcome<ControllerExpandVolumeResponse> {
        let volume = self.grown(self.volume(id)?, range)?;
        let capacity_bytes = shown::volume(&volume, &self.node).capacity_bytes;
        Ok(ControllerExpandVolumeResponse { capacity_bytes, node_expansion_required: false })
    }

    /// A volume that has the size of a request. One that grew further meanwhile stays so.
    ///
    /// # Errors
    /// Those of ControllerExpandVolume.
    pub(super) fn grown(&self, volume: Volume, range: Option<&CapacityRange>) -> Outcome<Volume> {
        let Some(bytes) = growth(&volume, range)? else { return Ok(volume) };
        match self.volumes.enlarge(&volume, bytes) {
            Err(Refusal::Volume(error @ VolumeError::Unsupported { .. })) => {
                Err(Fault::not_now(error.to_string()))
            }
            grown => Ok(grown?),
        }
    }

    /// Changes the limits on speed. What is not named stays.
    ///
    /// # Errors
    /// Those of ControllerModifyVolume.
    pub(super) fn modify(&self, id: &str, parameters: HashMap<String, String>) -> Outcome<()> {
        let changes = create::mutable(parameters)?;
        let volume = self.volume(id)?;
        if changes.is_empty() {
            return Ok(());
        }
        let changes = changes.into_iter().map(|(key, value)| (key, Some(value))).collect();
        self.volumes.throttle(&volume.name, &changes)?;
        Ok(())
    }
}

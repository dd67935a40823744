//! Taking over images and volumes of Docker and podman, while they run.
//!
//! A [`Migration`] asks the engine (`engine`, over `api` or `program`), plans what there is to take
//! (`images`, `volumes`), and takes it. `request` has what is asked for, `target` the data root. A
//! dry run ends after the plan and writes nothing, so both report in one form (`report`).
//! docs/design/014-migration.md has the reasons.
//!
//! - An image is read from the storage of the engine, layer by layer; its digests prove it. Where
//!   the storage has another form, the engine is asked for an archive.
//! - A volume is copied by Lamina, or moves into the data root.
//! - One object that cannot be taken over does not stop the others. Nobody sees an object before it
//!   is whole, so a run that was interrupted is repeated.

mod api;
mod engine;
mod error;
mod images;
mod program;
mod report;
mod request;
mod target;
#[cfg(test)]
mod tests;
mod volumes;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::images::Images;
use super::volumes::VolumeService;
use crate::catalog::error::CatalogError;
use crate::error::FromHost;
use crate::sys::file;
use crate::sys::process::effective_ids;
use crate::transfer::engine::EngineImages;
use crate::transfer::error::TransferError;

pub use error::MigrateError;
pub use report::{How, ImageItem, OnStep, Outcome, Report, Step, Totals, VolumeItem};
pub use request::{EngineKind, Selection, Source};
pub use target::SOURCE_LABEL;

use engine::{Client, Info};
use error::Result;
use images::ImageAccess;
use target::{Target, free_bytes};

/// The file in the data root that lets one migration work at a time.
const LOCK: &str = "migrate.lock";

/// An engine whose objects are taken over into a data root.
pub struct Migration {
    root: PathBuf,
    kind: EngineKind,
    selection: Selection,
    client: Client,
    info: Info,
    images: ImageAccess,
    /// Whether root or this user told where the storage is.
    is_trusted: bool,
}

impl Migration {
    /// Finds an engine and its storage.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub fn open(root: &Path, source: &Source, selection: Selection) -> Result<Self> {
        let client = Client::new(source);
        let info = client.info(source)?;
        let kind = source.kind;
        let storage =
            |error| MigrateError::Storage { engine: kind, path: info.storage.clone(), error };
        let is_trusted =
            is_trusted(&client, &info, source.storage_root.is_some()).map_err(storage)?;
        let images = match selection.only_volumes {
            true => ImageAccess::Nowhere,
            false => {
                let driver = info.driver.as_deref();
                let opened = EngineImages::open(kind.form(), &info.storage, driver);
                ImageAccess::of(opened, &client).map_err(storage)?
            }
        };
        let root = root.to_owned();
        Ok(Self { root, kind, selection, client, info, images, is_trusted })
    }

    /// Finds out what there is to take over. Nothing is written.
    ///
    /// # Errors
    /// [`MigrateError`], where the engine or the data root cannot be read.
    pub fn plan(&self) -> Result<Report> {
        let target = Target::there(&self.root)?;
        let (images, volumes) = self.planned(&target)?;
        let mut report = self.report(true)?;
        report.needed_bytes = images.needed_bytes() + volumes.needed_bytes();
        report.left_out_images = images.left_out;
        report.left_out_volumes = volumes.left_out;
        report.images = images.all.into_iter().map(|one| one.item).collect();
        report.volumes = volumes.all.into_iter().map(|one| one.item).collect();
        report.count();
        Ok(report)
    }

    /// Takes over what there is. `images` are those of the data root.
    ///
    /// # Errors
    /// As [`Migration::plan`]. What was taken over before stays.
    pub fn run(&self, images: Images, step: &mut OnStep<'_>) -> Result<Report> {
        let start = Instant::now();
        let _alone = self.lock(step)?;
        let volumes = VolumeService::open(&self.root)?;
        let target = Target { images: Some(images), volumes: Some(volumes) };
        let (images, volumes) = self.planned(&target)?;
        let mut report = self.report(false)?;
        report.needed_bytes = images.needed_bytes() + volumes.needed_bytes();
        report.left_out_images = images.left_out;
        report.left_out_volumes = volumes.left_out;
        for one in images.all {
            let item = self.take_image(&target, one, step);
            step(&Step::Image(&item));
            report.images.push(item);
        }
        for one in volumes.all {
            let item = self.take_volume(&target, one, step);
            step(&Step::Volume(&item));
            report.volumes.push(item);
        }
        report.seconds = Some(start.elapsed().as_secs_f64());
        report.count();
        Ok(report)
    }

    fn planned(&self, target: &Target) -> Result<(images::Planned, volumes::Planned)> {
        let mut names = report::Names::new(&self.selection.names);
        let images = self.plan_images(target, &mut names)?;
        let volumes = self.plan_volumes(target, &mut names)?;
        let what = match (self.selection.only_images, self.selection.only_volumes) {
            (true, _) => "image",
            (_, true) => "volume",
            _ => "image or volume",
        };
        match names.unused() {
            None => Ok((images, volumes)),
            Some(name) => Err(MigrateError::Unknown { engine: self.kind, what, name }),
        }
    }

    fn report(&self, dry_run: bool) -> Result<Report> {
        Ok(Report {
            engine: self.kind.program(),
            storage: self.info.storage.clone(),
            dry_run,
            free_bytes: free_bytes(&self.root)?,
            ..Report::default()
        })
    }

    /// Waits for other migrations into the data root.
    fn lock(&self, step: &mut OnStep<'_>) -> Result<File> {
        let path = self.root.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(CatalogError::io(&path))?;
        if file::try_flock(file.as_fd()).is_err() {
            step(&Step::Waits);
            file::flock(file.as_fd()).map_err(CatalogError::host(&path))?;
        }
        Ok(file)
    }
}

/// Whether root or this user told where the storage is. Another user may only name a storage of
/// their own, which is then read without following a link.
fn is_trusted(
    client: &Client,
    info: &Info,
    is_given: bool,
) -> std::result::Result<bool, TransferError> {
    let owner = |path: &Path| {
        std::fs::metadata(path).map(|found| found.uid()).map_err(TransferError::io(path))
    };
    let trusts = |uid: u32| uid == 0 || uid == effective_ids().0;
    let teller = match client {
        Client::Api(api) => owner(&api.socket)?,
        Client::Program(_) => return Ok(true),
        Client::Nobody => return Ok(trusts(owner(&info.storage)?)),
    };
    if trusts(teller) {
        return Ok(true);
    }
    if !is_given && owner(&info.storage)? != teller {
        let what = format!("it does not belong to user {teller}, whose socket names it");
        return Err(TransferError::Unsupported { what });
    }
    Ok(false)
}

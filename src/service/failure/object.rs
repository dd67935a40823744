//! The object that an error is about.

use std::path::Path;

use super::{Failure, Refusal};
use crate::backup::BackupError;
use crate::catalog::error::CatalogError;
use crate::store::error::StoreError;
use crate::transfer::error::TransferError;
use crate::volume::VolumeError;

impl Refusal {
    /// The name or the path of the object that the error is about; `None` if it is about several,
    /// or about none.
    #[must_use]
    pub fn object(&self) -> Option<String> {
        match self {
            Self::Store(error) => of_store(error),
            Self::Catalog(error) => of_catalog(error),
            Self::Transfer(error) => of_transfer(error),
            Self::Volume(error) => of_volume(error),
            Self::Backup(error) => of_backup(error),
            Self::Full { error, .. } => error.object(),
        }
    }
}

fn shown(path: &Path) -> Option<String> {
    Some(path.display().to_string())
}

fn of_store(error: &StoreError) -> Option<String> {
    Some(match error {
        StoreError::Host(error) => return shown(&error.path),
        StoreError::Damaged { path, .. } => return shown(path),
        StoreError::Entry { name, .. }
        | StoreError::Missing { name, .. }
        | StoreError::InUse { name, .. } => name.clone(),
        StoreError::OtherBlob { digest, .. } => digest.to_string(),
        StoreError::Stream { .. }
        | StoreError::TooLarge { .. }
        | StoreError::Contradiction { .. }
        | StoreError::Elsewhere(_) => return None,
    })
}

fn of_catalog(error: &CatalogError) -> Option<String> {
    Some(match error {
        CatalogError::Store(error) => return of_store(error),
        CatalogError::Host(error) => return shown(&error.path),
        CatalogError::Damaged { path, .. }
        | CatalogError::Database { path, .. }
        | CatalogError::Locked { path }
        | CatalogError::Newer { path, .. } => return shown(path),
        CatalogError::Missing { name, .. }
        | CatalogError::InUse { name, .. }
        | CatalogError::Changed { name, .. }
        | CatalogError::HalfRolledBack { name, .. }
        | CatalogError::Content { name, .. }
        | CatalogError::Exists { name, .. }
        | CatalogError::BadName(name) => name.clone(),
        CatalogError::OtherLayers { id } => id.clone(),
        CatalogError::BadObjectName(error) => error.name.clone(),
    })
}

fn of_transfer(error: &TransferError) -> Option<String> {
    Some(match error {
        TransferError::Store(error) => return of_store(error),
        TransferError::Host(error) => return shown(&error.path),
        TransferError::Source { path, .. } | TransferError::Certificate { path, .. } => {
            return shown(path);
        }
        TransferError::Stream { what, .. }
        | TransferError::Truncated { what, .. }
        | TransferError::Damaged { what, .. } => what.clone(),
        TransferError::Entry { name, .. } | TransferError::BadReference(name) => name.clone(),
        TransferError::Lacks { part } => part.clone(),
        TransferError::Other { expected, .. } => expected.to_string(),
        TransferError::Proxy { place, .. } => place.clone(),
        TransferError::Registry { reference, .. } => reference.clone(),
        TransferError::Malformed { .. }
        | TransferError::Unsupported { .. }
        | TransferError::TooLarge { .. }
        | TransferError::OtherHost { .. }
        | TransferError::BadDigest(_)
        | TransferError::OtherDigest(_)
        | TransferError::Unwritable { .. } => return None,
    })
}

fn of_volume(error: &VolumeError) -> Option<String> {
    Some(match error {
        VolumeError::Catalog(error) => return of_catalog(error),
        VolumeError::Host(error) => return shown(&error.path),
        VolumeError::PluginAddress { path, .. }
        | VolumeError::Busy { path }
        | VolumeError::Attached { path, .. }
        | VolumeError::NoSpace { path, .. } => return shown(path),
        VolumeError::NoDriver { name, .. }
        | VolumeError::NoPlugin { name, .. }
        | VolumeError::Plugin { plugin: name, .. }
        | VolumeError::Option { key: name, .. }
        | VolumeError::IsDevice { name }
        | VolumeError::NotDevice { name }
        | VolumeError::NotTogether { name, .. }
        | VolumeError::Program { program: name, .. } => name.clone(),
        VolumeError::Unsupported { driver, .. } => (*driver).to_owned(),
        VolumeError::Unrelated { .. } | VolumeError::TooSmall { .. } => return None,
    })
}

fn of_backup(error: &BackupError) -> Option<String> {
    Some(match error {
        BackupError::Host(error) => return shown(&error.path),
        BackupError::Key { path, .. } => return shown(path),
        BackupError::Tree(_) | BackupError::TooLarge { .. } => return None,
        BackupError::Url { url, .. }
        | BackupError::NoRepository { url }
        | BackupError::NoBackup { url, .. }
        | BackupError::Newer { url, .. }
        | BackupError::WrongKey { url, .. }
        | BackupError::Busy { url, .. }
        | BackupError::LeaseLost { url } => url.clone(),
        BackupError::Remote { object, .. }
        | BackupError::Missing { object }
        | BackupError::Damaged { object, .. } => object.clone(),
        BackupError::File { path, .. } => path.clone(),
    })
}

impl Failure {
    /// The name or the path of the object that the error is about; `None` if it is about several,
    /// or about none.
    #[must_use]
    pub fn object(&self) -> Option<String> {
        Some(match self {
            Self::Path { path, .. }
            | Self::Work { path, .. }
            | Self::Inside { path, .. }
            | Self::InUse { path, .. }
            | Self::Unclean { path, .. }
            | Self::Target { path, .. }
            | Self::Mount { path, .. }
            | Self::Unmount { path, .. }
            | Self::NotMounted { path }
            | Self::Foreign { path, .. }
            | Self::Busy { path, .. }
            | Self::Late { path, .. }
            | Self::Layer { path, .. } => return shown(path),
            Self::Apart { upper, .. } | Self::Nested { upper, .. } => return shown(upper),
            Self::Ephemeral { root, .. } => return shown(root),
            Self::Device { .. } => "/dev/fuse".to_owned(),
            Self::Graft { path, .. } | Self::NoPlace { path, .. } => path.clone(),
            Self::Volume { name, .. }
            | Self::Container { name, .. }
            | Self::Fill { name, .. }
            | Self::NoVolume { name }
            | Self::Image { name, .. } => name.clone(),
            Self::Subpath { volume, .. } => volume.clone(),
            Self::Driver { option, .. } => option.clone(),
            Self::Overlap { .. } | Self::NoLayer | Self::System { .. } => return None,
        })
    }
}

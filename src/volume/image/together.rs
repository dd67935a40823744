//! A snapshot of an image in use together with other volumes.
//!
//! A file system is frozen until it is copied. A device cannot be made to wait: its copy is of the
//! moment at which the host shares its blocks.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::copy::{Frozen, copy_attached, copy_thawing, freeze};
use super::device::{Device, IMAGE, Image, open_root};
use super::options::MountOptions;
use crate::error::FromHost;
use crate::sys;
use crate::volume::driver::{Freezing, OnCopied, Place, Wait};
use crate::volume::error::{Result, VolumeError};

/// An attached image.
pub(super) struct Member {
    image: Image,
    /// Held open: it stays attached if its last user ends before the copy is made.
    device: Device,
    content: Content,
}

enum Content {
    Device,
    Files { root: Option<OwnedFd>, frozen: Option<Frozen> },
}

impl Member {
    /// The steps for an image; `None` if it is not attached, and so in use by nobody.
    pub(super) fn of(place: &Place, is_device: bool) -> Result<Option<Self>> {
        let image = Image::open(place)?;
        let Some(device) = image.find_device()? else { return Ok(None) };
        let content = match is_device {
            true => Content::Device,
            false => Content::Files { root: None, frozen: None },
        };
        Ok(Some(Self { image, device, content }))
    }

    fn path(to: &Place) -> PathBuf {
        to.directory().join(IMAGE)
    }
}

impl Freezing for Member {
    fn wait(&self) -> Wait {
        match self.content {
            Content::Device => Wait::Never,
            Content::Files { .. } => Wait::Long,
        }
    }

    /// Writes what is in memory, so that a freeze has little left to write.
    fn prepare(&mut self) -> Result<()> {
        let Content::Files { root, .. } = &mut self.content else { return self.device.flush() };
        let mount = self.image.mount_detached(&self.device, &MountOptions::default())?;
        let opened = open_root(&mount, &self.image.path)?;
        sys::file::syncfs(opened.as_fd()).map_err(VolumeError::host(&self.image.path))?;
        *root = Some(opened);
        Ok(())
    }

    fn hold(&mut self) -> Result<()> {
        if let Content::Files { root, frozen } = &mut self.content
            && let Some(root) = root.take()
        {
            *frozen = Some(freeze(root, &self.image.path)?);
        }
        Ok(())
    }

    fn freeze(&mut self, to: &Place, on_copied: &OnCopied) -> Result<()> {
        match &mut self.content {
            Content::Device => {
                copy_attached(&self.image, Some(&self.device), &Self::path(to), on_copied)
            }
            Content::Files { frozen, .. } => {
                copy_thawing(&self.image, frozen.take(), &Self::path(to), on_copied)
            }
        }
    }

    fn give(&self, _: &Place) -> Result<()> {
        Ok(())
    }
}

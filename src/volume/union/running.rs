//! The root of a running container, which is about to become a snapshot.

use std::path::{Path, PathBuf};

use super::super::driver::{Freezing, OnCopied, Place};
use super::super::error::Result;
use super::pool::Pool;
use super::served::Freeze;
use super::stack::{self, Stack};

/// The root of a container whose mount answers requests ([`is_answering`](super::is_answering)).
pub struct Running {
    directory: PathBuf,
    pool: Pool,
    image: Vec<String>,
    freeze: Option<Freeze>,
    layers: Vec<String>,
}

impl Running {
    /// The root in the directory of a container, above the layers of an image, the lowest first.
    #[must_use]
    pub fn new(directory: &Path, pool: Pool, image: Vec<String>) -> Self {
        Self { directory: directory.to_owned(), pool, image, freeze: None, layers: Vec::new() }
    }
}

impl Freezing for Running {
    fn prepare(&mut self) -> Result<()> {
        self.freeze = Some(Freeze::prepare(&self.directory, self.pool.clone())?);
        Ok(())
    }

    fn hold(&mut self) -> Result<()> {
        self.freeze.as_mut().map_or(Ok(()), Freeze::hold)
    }

    fn freeze(&mut self, _: &Place, _: &OnCopied) -> Result<()> {
        if let Some(freeze) = &mut self.freeze {
            self.layers = freeze.freeze()?;
        }
        Ok(())
    }

    /// The layers are those that the process named: the record may be another one by now, but the
    /// lock of the pool is shared since [`Freezing::prepare`].
    fn give(&self, to: &Place) -> Result<()> {
        self.pool.sync()?;
        let (layers, image) = (self.layers.clone(), self.image.clone());
        stack::write(to.directory(), &Stack { upper: None, layers, image })
    }
}

//! The root of a container that is mounted, frozen for one reader: a commit, or a list of changes.

use std::path::Path;

use super::failed;
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::Growing;
use crate::service::changes::UpperSpec;
use crate::service::failure::{Refusal, ServiceResult};
use crate::service::images::Images;
use crate::service::volumes::VolumeService;
use crate::volume::union;
use crate::volume::union::pool::Pool;
use crate::volume::union::stack;

/// Layers that stay while this lives. No other process sees them, and a crash leaves none.
pub(in crate::service) struct Passing<'a> {
    volumes: &'a VolumeService,
    taken: Vec<Growing>,
    /// The layers, over those of the image.
    pub(in crate::service) spec: UpperSpec,
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.taken.iter().for_each(|one| self.volumes.volumes.give_up(one));
    }
}

impl Images {
    /// Freezes the root of a container that is mounted: the upper becomes a layer, and its users go
    /// on. `None` if it is not mounted, or its mount cannot be frozen.
    ///
    /// # Errors
    /// As [`Images::snapshot_container`].
    pub(in crate::service) fn freeze_root<'a>(
        &self,
        volumes: &'a VolumeService,
        name: &str,
        runtime: Option<&Path>,
    ) -> ServiceResult<Option<Passing<'a>>> {
        let refused = failed(Path::new(name));
        let container = self.containers.find(name).map_err(|error| refused(error.into()))?;
        if !union::is_answering(&self.containers.path(&container)) {
            return Ok(None);
        }
        let passing = format!("lamina-commit-{}", container.name);
        let passing: String = passing.chars().take(100).collect();
        let passing = passing.parse().map_err(|error| refused(CatalogError::from(error).into()))?;
        let taken = self.take_with(volumes, (&container, Vec::new(), &passing), runtime)?;
        let mut held = Passing { volumes, taken, spec: UpperSpec::default() };
        let spec = || -> Result<UpperSpec, Refusal> {
            let Some(root) = held.taken.last() else { return Ok(UpperSpec::default()) };
            let directory = root.volume().directory();
            let stack = stack::read_any(directory)?;
            let pool = Pool::of(directory);
            let mut contents = stack.layers.iter().map(|layer| pool.content(layer));
            Ok(UpperSpec {
                upper: contents.next().unwrap_or_default(),
                former: contents.collect(),
                is_frozen: true,
                layers: stack.image.clone(),
                root: volumes.root().to_owned(),
                runtime: runtime.map(Path::to_owned),
                ..UpperSpec::default()
            })
        };
        held.spec = spec().map_err(&refused)?;
        Ok(Some(held))
    }
}

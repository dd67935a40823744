//! Containers as commands with their programs and their changes need them.

use std::path::Path;

use super::{Images, Refused};
use crate::catalog::containers::write_run;
use crate::service::changes::UpperSpec;
use crate::types::Run;

impl Images {
    /// The upper of a container with the layers below it, for a commit or a list of changes.
    ///
    /// # Errors
    /// `Missing` of [`Refusal::Catalog`](super::Refusal::Catalog).
    pub fn upper_of(&self, name: &str, runtime: Option<&Path>) -> Refused<UpperSpec> {
        let found = self.container(name, None)?;
        Ok(UpperSpec {
            work: Some(found.upper.with_file_name("work")),
            former: self.former_layers(&found.id)?,
            upper: found.upper,
            container: Some(found.id),
            root: self.volumes.parent().unwrap_or(&self.volumes).to_owned(),
            runtime: runtime.map(Path::to_owned),
            ..UpperSpec::default()
        })
    }

    /// Notes the state of the last run of a container. Only the process that has the right to run
    /// it may do so.
    ///
    /// # Errors
    /// `Missing` of [`Refusal::Catalog`](super::Refusal::Catalog); as write(2).
    pub fn note_run(&self, name: &str, run: &Run) -> Refused<()> {
        let container = self.containers.find(name)?;
        Ok(write_run(&self.containers.path(&container), run)?)
    }
}

//! Filters of volumes, with the keys of Docker.

use laminafs::service::volumes::{Volume, VolumeService};

use crate::report::CliError;

/// Conditions on volumes. Those of one key are alternatives, but for labels, which must all hold.
#[derive(Debug, Default)]
pub(super) struct Filter {
    drivers: Vec<String>,
    names: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    dangling: Option<bool>,
}

impl Filter {
    /// Parses words `KEY=VALUE`.
    ///
    /// # Errors
    /// [`CliError::Usage`] for an unknown key or value.
    pub(super) fn parse(words: &[String]) -> Result<Self, CliError> {
        let mut filter = Self::default();
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let value = value.to_owned();
            match (key, value.as_str()) {
                ("driver", _) => filter.drivers.push(value),
                ("name", _) => filter.names.push(value),
                ("label", "") => {
                    return Err(CliError::Usage(format!("filter {word:?} has no label")));
                }
                ("label", label) => filter.labels.push(match label.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (value, None),
                }),
                ("dangling", "true" | "1") => filter.dangling = Some(true),
                ("dangling", "false" | "0") => filter.dangling = Some(false),
                _ => {
                    return Err(CliError::Usage(format!(
                        "invalid filter {word:?}: use driver=NAME, label=KEY[=VALUE], name=PART or \
                         dangling=true|false"
                    )));
                }
            }
        }
        Ok(filter)
    }

    /// The volumes that match.
    ///
    /// # Errors
    /// [`CliError::Refusal`] where the users of a volume cannot be found.
    pub(super) fn apply(
        &self,
        service: &VolumeService,
        volumes: Vec<Volume>,
    ) -> Result<Vec<Volume>, CliError> {
        let mut kept = Vec::new();
        for volume in volumes {
            let is_wanted = match self.dangling {
                _ if !self.matches(&volume) => false,
                Some(dangling) => service.is_used(&volume)? != dangling,
                None => true,
            };
            if is_wanted {
                kept.push(volume);
            }
        }
        Ok(kept)
    }

    fn matches(&self, volume: &Volume) -> bool {
        let one_of = |all: &[String], test: &dyn Fn(&str) -> bool| {
            all.is_empty() || all.iter().any(|one| test(one))
        };
        let has = |(key, value): &(String, Option<String>)| {
            let found = volume.labels.get(key);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        one_of(&self.drivers, &|driver| volume.driver == driver)
            && one_of(&self.names, &|part| volume.name.as_str().contains(part))
            && self.labels.iter().all(has)
    }
}

//! `lamina volume create`.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use laminafs::service::volumes::Volumes;

use crate::report::{CliError, say};

/// Arguments of `lamina volume create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The name of the volume.
    name: String,
    /// A label.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: &CreateArgs) -> Result<(), CliError> {
    let volume = Volumes::new(root).create(&args.name.parse()?, labels(&args.labels)?)?;
    say(&format!("{}\n", volume.name))
}

fn labels(words: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut labels = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if key.is_empty() {
            return Err(CliError::Usage(format!(
                "label {word:?} has no key: use KEY or KEY=VALUE"
            )));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

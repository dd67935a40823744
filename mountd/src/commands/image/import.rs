//! `lamina image import`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Context;
use super::progress::Shown;
use crate::report::CliError;

/// Arguments of `lamina image import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A file, a directory, or `-` for the standard input.
    source: PathBuf,
    /// The name of the image, instead of the names in the archive.
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]")]
    tags: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &ImportArgs) -> Result<(), CliError> {
    let source = match args.source.to_str() {
        Some("-") => Path::new("/dev/stdin"),
        _ => &args.source,
    };
    let mut shown = Shown::new(context.json);
    let ids = shown.run(|progress| {
        laminafs::service::import::import(&context.images, source, &args.tags, progress)
    })?;
    shown.close(&format!("imported {}", args.source.display()));
    ids.iter().try_for_each(|id| context.show_id(id))
}

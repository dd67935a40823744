//! `lamina image prune`, and what is said of freed layers.

use std::time::SystemTime;

use clap::Args;
use laminafs::service::prune::{Freed, FreedLayer, PruneImages};
use laminafs::types::size;

use super::Context;
use crate::args::time;
use crate::report::{CliError, say, say_json};

/// Arguments of `lamina image prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Remove images with a name too, not only those without one.
    #[arg(short, long)]
    all: bool,
    /// Remove the images that match: until=TIME or until=AGE, as 2026-01-31T12:00:00Z or 24h.
    #[arg(long = "filter", value_name = "until=TIME|AGE", value_parser = until)]
    filter: Option<SystemTime>,
    /// Print what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
}

fn until(text: &str) -> Result<SystemTime, String> {
    match text.split_once('=') {
        Some(("until", value)) => time(value),
        _ => Err(format!("unknown filter {text:?}: use until=TIME or until=AGE")),
    }
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &PruneArgs) -> Result<(), CliError> {
    let which = PruneImages { all: args.all, until: args.filter, dry_run: args.dry_run };
    let freed = context.images.prune(&which)?;
    if context.json {
        return say_json(&freed);
    }
    say(&shown(&freed, args.dry_run))
}

/// A line for each image, and one for the sum.
pub(in crate::commands) fn shown(freed: &Freed, is_dry: bool) -> String {
    let lines: String = freed.images.iter().map(|name| format!("{name}\n")).collect();
    let images = if freed.images.len() == 1 { "image name" } else { "image names" };
    let count = freed.images.len();
    let verb = if is_dry { "would be removed" } else { "removed" };
    format!("{lines}{count} {images} and {} {verb}\n", layers(&freed.layers))
}

/// The number and the size of layers.
pub(super) fn layers(layers: &[FreedLayer]) -> String {
    let noun = if layers.len() == 1 { "layer" } else { "layers" };
    let bytes = layers.iter().map(|layer| layer.size).sum();
    format!("{} {noun} of {}", layers.len(), size::shown(bytes))
}

//! `lamina system df`.

use std::path::Path;

use clap::Args;
use laminafs::service::images::Images;
use laminafs::service::usage::KindUsage;
use laminafs::service::volumes::VolumeService;
use laminafs::types::size;

use crate::report::{CliError, say, say_json};
use crate::run;

/// Arguments of `lamina system df`.
#[derive(Debug, Args)]
pub struct DfArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: &DfArgs) -> Result<(), CliError> {
    let (images, volumes) = (Images::open(root)?, VolumeService::open(root)?);
    let all = images.usage(&volumes, run::runtime_dir().as_deref())?;
    if args.json { say_json(&all) } else { say(&table(&all)) }
}

fn table(all: &[KindUsage]) -> String {
    let mut text = format!(
        "{:<10}  {:>6}  {:>6}  {:>7}  {}\n",
        "TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"
    );
    for one in all {
        let part = (one.reclaimable * 100).checked_div(one.size).unwrap_or(0);
        let (kind, total, active) = (one.kind, one.total_count, one.active);
        let (size, free) = (size::shown(one.size), size::shown(one.reclaimable));
        text.push_str(&format!(
            "{kind:<10}  {total:>6}  {active:>6}  {size:>7}  {free} ({part}%)\n"
        ));
    }
    text
}

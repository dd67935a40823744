//! `lamina volume prune`.

use std::time::Duration;

use clap::Args;
use laminafs::service::volumes::{CLAIM_LABEL, TrashPolicy, Volume, VolumeService};
use laminafs::types::size;
use serde::Serialize;

use super::Context;
use super::create::is_anonymous;
use super::filter::Filter;
use super::trash::{self, TrashArgs};
use crate::report::{CliError, say, say_json, warn};

/// Arguments of `lamina volume prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Remove unused volumes that have a name too, not only those that were created without one.
    #[arg(short, long)]
    all: bool,
    /// Show what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    /// Remove the volumes that match: driver=NAME, label=KEY[=VALUE], name=PART.
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// Empty the trash, whatever its age.
    #[arg(long)]
    trash: bool,
    #[command(flatten)]
    settings: TrashArgs,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &PruneArgs) -> Result<(), CliError> {
    let policy = match args.trash {
        true => Some(TrashPolicy { age: Duration::ZERO, ..TrashPolicy::default() }),
        false => args.settings.policy()?,
    };
    let service = context.service()?;
    let filter = Filter::parse(&args.filters)?;
    let (mut names, mut bytes) = (Vec::new(), 0);
    let found = filter.apply(&service, service.list()?)?;
    for (name, used) in pruned(&service, found, (args.all, args.dry_run)) {
        bytes += used;
        if !context.json {
            say(&format!("{name}\n"))?;
        }
        names.push(name);
    }
    let shows_trash = args.dry_run && args.trash;
    let mut in_trash = 0;
    for trashed in if shows_trash { service.trashed()? } else { Vec::new() } {
        in_trash += 1;
        if !context.json {
            say(&format!("{} (in the trash)\n", trashed.volume.name))?;
        }
    }
    if !args.dry_run {
        service.settle()?;
        service.sweep()?;
        in_trash = trash::empty(&service, policy)?;
    }
    if context.json {
        return say_json(&Pruned { volumes: names, in_trash, bytes, dry_run: args.dry_run });
    }
    let count = names.len() + in_trash;
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    let volumes = if count == 1 { "volume" } else { "volumes" };
    context.note(|| format!("{count} {volumes} {verb}, {} on the host", size::shown(bytes)));
    Ok(())
}

/// What was removed, or would be, as JSON shows it.
#[derive(Serialize)]
struct Pruned {
    volumes: Vec<String>,
    in_trash: usize,
    bytes: u64,
    dry_run: bool,
}

/// Removes the volumes that nothing uses, and returns their names with the space that they took.
///
/// # Errors
/// [`CliError`].
pub(in crate::commands) fn unused(
    service: &VolumeService,
    all: bool,
    dry_run: bool,
) -> Result<Vec<(String, u64)>, CliError> {
    Ok(pruned(service, service.list()?, (all, dry_run)))
}

fn pruned(
    service: &VolumeService,
    volumes: Vec<Volume>,
    (all, dry_run): (bool, bool),
) -> Vec<(String, u64)> {
    let mut gone = Vec::new();
    for volume in volumes.into_iter().filter(|one| all || is_anonymous(&one.labels)) {
        match prune(service, &volume, dry_run) {
            Ok(used) => gone.extend(used.map(|used| (volume.name.to_string(), used))),
            Err(error) => warn(&format!("volume {:?}: {error}", volume.name.as_str())),
        }
    }
    gone
}

/// Removes a volume if nobody uses it, and returns the space that it took.
fn prune(service: &VolumeService, volume: &Volume, dry_run: bool) -> Result<Option<u64>, CliError> {
    if service.is_used(volume)? || volume.labels.contains_key(CLAIM_LABEL) {
        return Ok(None);
    }
    let used = service.usage(&volume.name).map_or(0, |usage| usage.host_bytes);
    if !dry_run {
        match service.erase_unheld(volume) {
            // Another process began to use it or removed it meanwhile.
            Err(error) if error.is_missing() || error.is_in_use() => return Ok(None),
            done => done?,
        }
    }
    Ok(Some(used))
}

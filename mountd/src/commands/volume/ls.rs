//! `lamina volume ls`.

use std::path::Path;

use clap::Args;
use laminafs::service::volumes::{Volume, VolumeService};
use laminafs::types::size;

use super::filter::Filter;
use crate::report::{CliError, say, say_json};

/// Arguments of `lamina volume ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print names alone.
    #[arg(short, long)]
    quiet: bool,
    /// Show the volumes that match: driver=NAME, label=KEY[=VALUE], name=PART, dangling=true|false.
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// Show the volumes in the trash.
    #[arg(long, conflicts_with = "filters")]
    trash: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: &LsArgs) -> Result<(), CliError> {
    let service = VolumeService::open(root)?;
    if args.trash {
        return trash(&service, args);
    }
    let filter = Filter::parse(&args.filters)?;
    let volumes = filter.apply(&service, service.list()?)?;
    if args.json { say_json(&volumes) } else { say(&table(&volumes, args.quiet)) }
}

fn table(volumes: &[Volume], quiet: bool) -> String {
    if quiet {
        return volumes.iter().map(|volume| format!("{}\n", volume.name)).collect();
    }
    let names = volumes.iter().map(|volume| volume.name.as_str().len()).max();
    let width = names.unwrap_or(0).max(4);
    let mut text = format!(
        "{:<width$}  {:<8}  {:<6}  {:<20}  MOUNTPOINT\n",
        "NAME", "DRIVER", "SIZE", "CREATED"
    );
    for volume in volumes {
        let (name, driver, created) = (volume.name.as_str(), &volume.driver, &volume.created_at);
        let limit = volume.size_bytes.map_or_else(|| "-".to_owned(), size::shown);
        let path = volume.mountpoint.display();
        let line = format!("{name:<width$}  {driver:<8}  {limit:<6}  {created:<20}  {path}\n");
        text.push_str(&line);
    }
    text
}

fn trash(service: &VolumeService, args: &LsArgs) -> Result<(), CliError> {
    let all = service.trashed()?;
    if args.json {
        return say_json(&all);
    }
    let names = all.iter().map(|one| one.volume.name.as_str().len()).max();
    let width = names.unwrap_or(0).max(4);
    let mut text = format!("{:<width$}  {:<32}  REMOVED\n", "NAME", "ID");
    for one in &all {
        let (name, id) = (one.volume.name.as_str(), &one.volume.id);
        text.push_str(&format!("{name:<width$}  {id:<32}  {}\n", one.removed_at));
    }
    say(&text)
}

//! `lamina volume ls`.

use clap::Args;
use laminafs::service::volumes::{Trashed, Volume, VolumeService};
use laminafs::types::size;

use super::Context;
use super::filter::Filter;
use crate::report::CliError;

/// Arguments of `lamina volume ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
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
pub(super) fn run(context: &Context, args: &LsArgs) -> Result<(), CliError> {
    let service = context.service()?;
    if args.trash {
        return trash(context, &service);
    }
    let filter = Filter::parse(&args.filters)?;
    let volumes = filter.apply(&service, service.list()?)?;
    context.show(&volumes, || table(&volumes, context.quiet))
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

fn trash(context: &Context, service: &VolumeService) -> Result<(), CliError> {
    let all = service.trashed()?;
    context.show(&all, || trashed(&all, context.quiet))
}

fn trashed(all: &[Trashed], quiet: bool) -> String {
    if quiet {
        return all.iter().map(|one| format!("{}\n", one.volume.name)).collect();
    }
    let names = all.iter().map(|one| one.volume.name.as_str().len()).max();
    let width = names.unwrap_or(0).max(4);
    let mut text = format!("{:<width$}  {:<32}  REMOVED\n", "NAME", "ID");
    for one in all {
        let (name, id) = (one.volume.name.as_str(), &one.volume.id);
        text.push_str(&format!("{name:<width$}  {id:<32}  {}\n", one.removed_at));
    }
    text
}

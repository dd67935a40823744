//! `lamina volume snapshot | rollback | clone`.

use std::path::Path;

use clap::{Args, Subcommand};
use laminafs::service::volumes::{Volume, VolumeService};
use laminafs::types::{VolumeName, size};

use crate::report::{CliError, say, say_json};

/// Arguments of `lamina volume snapshot`.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The command.
    #[command(subcommand)]
    command: SnapshotCommand,
}

/// Commands of `lamina volume snapshot`.
#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Make a snapshot of a volume, or of several at one moment; they may be in use.
    Create {
        /// The name of the volume.
        volume: String,
        /// A further volume that is taken at the same moment; its snapshot gets the same name.
        #[arg(long = "with", value_name = "VOLUME")]
        others: Vec<String>,
        /// The name of the snapshot [default: the time].
        name: Option<String>,
    },
    /// List snapshots, of one volume or of all.
    Ls {
        /// The name of the volume.
        volume: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove snapshots for good.
    Rm {
        /// Remove a snapshot that a VolumeSnapshot of Kubernetes shows too.
        #[arg(short, long)]
        force: bool,
        /// Snapshots, as VOLUME@SNAPSHOT or by id.
        #[arg(required = true)]
        snapshots: Vec<String>,
    },
}

/// Arguments of `lamina volume rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The name of the volume, which nobody may use.
    volume: String,
    /// The name of the snapshot.
    snapshot: String,
}

/// Arguments of `lamina volume clone`.
#[derive(Debug, Args)]
pub struct CloneArgs {
    /// A volume, which may be in use, or a snapshot as VOLUME@SNAPSHOT or by id.
    source: String,
    /// The name of the new volume.
    name: String,
}

/// Runs `lamina volume snapshot`.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: SnapshotArgs) -> Result<(), CliError> {
    let service = VolumeService::open(root)?;
    match args.command {
        SnapshotCommand::Create { volume, others, name } => {
            let name = name.map(VolumeName::try_from).transpose()?;
            if others.is_empty() {
                let made = service.snapshot(&volume.parse()?, name)?;
                return say(&format!("{volume}@{}\n", made.name));
            }
            create_together(&service, std::iter::once(volume).chain(others).collect(), name)
        }
        SnapshotCommand::Ls { volume, json } => {
            let volume = volume.map(VolumeName::try_from).transpose()?;
            let all = service.snapshots(volume.as_ref())?;
            if json { say_json(&all) } else { say(&table(&service, &all)?) }
        }
        SnapshotCommand::Rm { force, snapshots } => snapshots.iter().try_for_each(|snapshot| {
            if !force {
                service.require_unshown(snapshot)?;
            }
            service.remove_snapshot(snapshot)?;
            say(&format!("{snapshot}\n"))
        }),
    }
}

fn create_together(
    service: &VolumeService,
    mut volumes: Vec<String>,
    name: Option<VolumeName>,
) -> Result<(), CliError> {
    volumes.sort();
    volumes.dedup();
    let names: Vec<VolumeName> =
        volumes.iter().map(|volume| volume.parse()).collect::<Result<_, _>>()?;
    let made = service.snapshot_together(&names, name)?;
    let Some(first) = made.first() else { return Ok(()) };
    let line = |volume: &String| format!("{volume}@{}\n", first.name);
    say(&volumes.iter().map(line).collect::<String>())
}

fn table(service: &VolumeService, snapshots: &[Volume]) -> Result<String, CliError> {
    let volumes = service.list()?;
    let name_of = |id: &str| {
        let found = volumes.iter().find(|volume| volume.id == id);
        found.map_or("(removed)", |volume| volume.name.as_str())
    };
    let rows: Vec<(String, &Volume)> = snapshots
        .iter()
        .map(|one| (format!("{}@{}", name_of(&one.origin), one.name), one))
        .collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(8);
    let mut text = format!("{:<width$}  {:<6}  {:<20}  ID\n", "SNAPSHOT", "SIZE", "CREATED");
    for (name, one) in rows {
        let limit = one.size_bytes.map_or_else(|| "-".to_owned(), size::shown);
        let line = format!("{name:<width$}  {limit:<6}  {:<20}  {}\n", one.created_at, one.id);
        text.push_str(&line);
    }
    Ok(text)
}

/// Runs `lamina volume rollback`.
///
/// # Errors
/// [`CliError`].
pub(super) fn rollback(root: &Path, args: &RollbackArgs) -> Result<(), CliError> {
    let service = VolumeService::open(root)?;
    service.roll_back(&args.volume.parse()?, &args.snapshot.parse()?)?;
    say(&format!("{}@{}\n", args.volume, args.snapshot))
}

/// Runs `lamina volume clone`.
///
/// # Errors
/// [`CliError`].
pub(super) fn clone(root: &Path, args: CloneArgs) -> Result<(), CliError> {
    let made = VolumeService::open(root)?.clone_volume(&args.source, args.name.try_into()?)?;
    say(&format!("{}\n", made.name))
}

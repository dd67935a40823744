//! `lamina volume snapshot | rollback | clone`.

use clap::{Args, Subcommand};
use laminafs::service::volumes::{Volume, VolumeService};
use laminafs::types::{VolumeName, size};

use super::Context;
use crate::commands::bar::{Clock, Copies};
use crate::report::CliError;

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
    },
    /// Remove snapshots for good.
    Rm {
        /// Remove a snapshot that a VolumeSnapshot of Kubernetes shows too.
        #[arg(short, long)]
        force: bool,
        /// Show what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
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
pub(super) fn run(context: &Context, args: SnapshotArgs) -> Result<(), CliError> {
    let service = context.service()?;
    match args.command {
        SnapshotCommand::Create { volume, others, name } => {
            let copies = Copies::new(format!("snapshot of {volume}"));
            create(context, (&copies.of(service), copies), (volume, others), name)
        }
        SnapshotCommand::Ls { volume } => {
            let volume = volume.map(VolumeName::try_from).transpose()?;
            let all = service.snapshots(volume.as_ref())?;
            let text = table(&service, &all, context.quiet)?;
            context.show(&all, || text)
        }
        SnapshotCommand::Rm { force, dry_run, snapshots } => {
            context.show_each(&snapshots, |snapshot| {
                match (dry_run, force) {
                    (true, true) => drop(service.inspect_snapshot(snapshot)?),
                    (true, false) => service.require_unshown(snapshot)?,
                    (false, true) => service.remove_snapshot(snapshot)?,
                    (false, false) => service.remove_unshown_snapshot(snapshot)?,
                }
                Ok(true)
            })
        }
    }
}

/// Makes snapshots of volumes at one moment.
fn create(
    context: &Context,
    (service, copies): (&VolumeService, Copies),
    (volume, others): (String, Vec<String>),
    name: Option<String>,
) -> Result<(), CliError> {
    let clock = Clock::start();
    let name = name.map(VolumeName::try_from).transpose()?;
    let (volumes, made) = if others.is_empty() {
        let made = service.snapshot(&volume.parse()?, name)?;
        (vec![volume], vec![made])
    } else {
        create_together(service, std::iter::once(volume).chain(others).collect(), name)?
    };
    drop(copies);
    let name = made.first().map(|one| one.name.to_string()).unwrap_or_default();
    context.note(|| format!("snapshot {name} of {} in {clock}", volumes.join(", ")));
    let line = |volume: &String| format!("{volume}@{name}\n");
    context.show(&made, || volumes.iter().map(line).collect())
}

/// The names of the volumes, and their snapshots.
fn create_together(
    service: &VolumeService,
    mut volumes: Vec<String>,
    name: Option<VolumeName>,
) -> Result<(Vec<String>, Vec<Volume>), CliError> {
    volumes.sort();
    volumes.dedup();
    let names: Vec<VolumeName> =
        volumes.iter().map(|volume| volume.parse()).collect::<Result<_, _>>()?;
    let made = service.snapshot_together(&names, name)?;
    Ok((volumes, made))
}

fn table(service: &VolumeService, snapshots: &[Volume], quiet: bool) -> Result<String, CliError> {
    let volumes = service.list()?;
    let name_of = |id: &str| {
        let found = volumes.iter().find(|volume| volume.id == id);
        found.map_or("(removed)", |volume| volume.name.as_str())
    };
    let rows: Vec<(String, &Volume)> = snapshots
        .iter()
        .map(|one| (format!("{}@{}", name_of(&one.origin), one.name), one))
        .collect();
    if quiet {
        return Ok(rows.iter().map(|(name, _)| format!("{name}\n")).collect());
    }
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
pub(super) fn rollback(context: &Context, args: &RollbackArgs) -> Result<(), CliError> {
    let copies = Copies::new(format!("rollback of {}", args.volume));
    let service = copies.of(context.service()?);
    service.roll_back(&args.volume.parse()?, &args.snapshot.parse()?)?;
    drop(copies);
    let volume = service.inspect(&args.volume.parse()?)?;
    context.show(&volume, || format!("{}@{}\n", args.volume, args.snapshot))
}

/// Runs `lamina volume clone`.
///
/// # Errors
/// [`CliError`].
pub(super) fn clone(context: &Context, args: CloneArgs) -> Result<(), CliError> {
    let copies = Copies::new(format!("clone of {}", args.source));
    let made = copies.of(context.service()?).clone_volume(&args.source, args.name.try_into()?)?;
    drop(copies);
    context.show_name(&made)
}

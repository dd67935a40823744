//! `lamina container snapshot | rollback | fork`.

use clap::{Args, Subcommand};
use laminafs::service::snapshots::ContainerSnapshot;
use laminafs::service::volumes::VolumeService;
use laminafs::types::{ContainerName, VolumeName};

use super::Context;
use crate::commands::bar::{Clock, Copies};
use crate::report::{CliError, note, say, say_json};

/// Arguments of `lamina container snapshot`.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The command.
    #[command(subcommand)]
    command: SnapshotCommand,
}

/// Commands of `lamina container snapshot`.
#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Make a snapshot of a container and of its volumes, at one moment, also while they are used.
    Create {
        /// The name of the container, or the first digits of its id.
        container: String,
        /// The name of the snapshot [default: the time].
        name: Option<String>,
    },
    /// List snapshots, of one container or of all.
    Ls {
        /// The name of the container, or the first digits of its id.
        container: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove snapshots, with those of the volumes in them.
    Rm {
        /// Snapshots, as CONTAINER@SNAPSHOT or by id.
        #[arg(required = true)]
        snapshots: Vec<String>,
    },
}

/// Arguments of `lamina container rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The name of the container, which is stopped and whose volumes nobody uses.
    container: String,
    /// The name of the snapshot.
    snapshot: String,
}

/// Arguments of `lamina container fork`.
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// The name of the container.
    container: String,
    /// The name of the new container; its volumes are called NEW-VOLUME.
    new: String,
    /// The snapshot to begin with [default: the container as it is].
    #[arg(long, value_name = "SNAPSHOT")]
    from: Option<String>,
}

/// Runs `lamina container snapshot`.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: SnapshotArgs) -> Result<(), CliError> {
    let volumes = VolumeService::open(&context.root)?;
    match args.command {
        SnapshotCommand::Create { container, name } => {
            let (clock, copies) = (Clock::start(), Copies::new(format!("snapshot of {container}")));
            let volumes = copies.of(volumes);
            let name = name.map(VolumeName::try_from).transpose()?;
            let runtime = context.runtime.as_deref();
            let made = context.images.snapshot_container(&volumes, (&container, name), runtime)?;
            drop(copies);
            note(&format!("snapshot {made} of {container} in {clock}"));
            say(&format!("{container}@{made}\n"))
        }
        SnapshotCommand::Ls { container, json } => {
            let all = context.images.container_snapshots(&volumes, container.as_deref())?;
            if json { say_json(&all) } else { say(&table(&all)) }
        }
        SnapshotCommand::Rm { snapshots } => snapshots.iter().try_for_each(|snapshot| {
            context.images.remove_container_snapshot(&volumes, snapshot)?;
            say(&format!("{snapshot}\n"))
        }),
    }
}

fn table(snapshots: &[ContainerSnapshot]) -> String {
    let name = |one: &ContainerSnapshot| {
        format!("{}@{}", one.container.as_deref().unwrap_or("(removed)"), one.name)
    };
    let width = snapshots.iter().map(|one| name(one).len()).max().unwrap_or(0).max(8);
    let mut text = format!("{:<width$}  {:<20}  {:<32}  VOLUMES\n", "SNAPSHOT", "CREATED", "ID");
    for one in snapshots {
        let volumes = if one.volumes.is_empty() { "-".to_owned() } else { one.volumes.join(",") };
        let line = format!("{:<width$}  {:<20}  {}  {volumes}\n", name(one), one.created, one.id);
        text.push_str(&line);
    }
    text
}

/// Runs `lamina container rollback`.
///
/// # Errors
/// [`CliError`].
pub(super) fn rollback(context: &Context, args: &RollbackArgs) -> Result<(), CliError> {
    let copies = Copies::new(format!("rollback of {}", args.container));
    let volumes = copies.of(VolumeService::open(&context.root)?);
    let to = (&*args.container, &args.snapshot.parse()?);
    context.images.roll_back_container(&volumes, to, context.runtime.as_deref())?;
    drop(copies);
    say(&format!("{}@{}\n", args.container, args.snapshot))
}

/// Runs `lamina container fork`.
///
/// # Errors
/// [`CliError`].
pub(super) fn fork(context: &Context, args: ForkArgs) -> Result<(), CliError> {
    let copies = Copies::new(format!("fork of {}", args.container));
    let volumes = copies.of(VolumeService::open(&context.root)?);
    let (images, new) = (&context.images, ContainerName::try_from(args.new)?);
    let (name, runtime) = (args.container, context.runtime.as_deref());
    let from = (&*name, args.from.as_deref());
    let forked = images.fork_container(&volumes, from, &new, runtime)?;
    drop(copies);
    let lines = forked.iter().map(|volume| format!("volume {volume}\n")).collect::<String>();
    say(&format!("{new}\n{lines}"))
}

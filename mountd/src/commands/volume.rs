//! `lamina volume`: named volumes.

mod backup;
mod change;
mod create;
mod df;
mod diff;
mod export;
mod filter;
mod holder;
mod inspect;
mod ls;
pub(super) mod prune;
mod rm;
mod serve;
mod snapshot;
mod tidy;
mod trash;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use laminafs::service::volumes::{Volume, VolumeService};
use serde::Serialize;

use crate::report::{CliError, note, say, say_json};
use crate::run;

/// Arguments of `lamina volume`.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print names and ids alone, and no line about what was done.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// The command.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// Commands of `lamina volume`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume; an existing one of the same driver is left as it is.
    Create(create::CreateArgs),
    /// List the volumes.
    Ls(ls::LsArgs),
    /// Show the records of volumes, as JSON.
    Inspect(inspect::InspectArgs),
    /// Remove volumes; their content stays in the trash for a while.
    Rm(rm::RmArgs),
    /// Remove unused volumes.
    Prune(prune::PruneArgs),
    /// Give a volume another name; it may be in use.
    Rename(change::RenameArgs),
    /// Set and remove labels of a volume; it may be in use.
    Label(change::LabelArgs),
    /// Change the size of a volume; it may be in use.
    Resize(change::ResizeArgs),
    /// Change the limits on the speed of a volume; it may be in use.
    Limit(change::LimitArgs),
    /// Show the space that volumes use.
    Df(df::DfArgs),
    /// Make, list and remove snapshots.
    Snapshot(snapshot::SnapshotArgs),
    /// Give a volume the content of one of its snapshots.
    Rollback(snapshot::RollbackArgs),
    /// Make a volume of another one, or of a snapshot.
    #[command(visible_alias = "fork")]
    Clone(snapshot::CloneArgs),
    /// Write the content of a volume or a snapshot as a tar.
    Export(export::ExportArgs),
    /// Make a volume of a tar.
    Import(export::ImportArgs),
    /// List what changed between snapshots, or since one.
    Diff(diff::DiffArgs),
    /// Back a volume up to an object store or a directory; list, check and remove backups.
    Backup(backup::BackupArgs),
    /// Make a volume of a backup.
    Restore(backup::RestoreArgs),
    /// Make a volume of an existing directory, without a copy.
    Adopt(change::AdoptArgs),
    /// Bring a volume back from the trash.
    Undelete(change::UndeleteArgs),
    /// Build a lost catalogue again from the directories of the volumes.
    Recover,
    /// Start the processes that serve volumes for other processes, which may end before them.
    Holder(holder::HolderArgs),
    /// Serve a volume; its driver starts this.
    #[command(hide = true)]
    Serve(serve::ServeArgs),
    /// Show a directory with a group; a publication starts this.
    #[command(hide = true)]
    View(view::ViewArgs),
    /// Remove what an interrupted command left; the command becomes this.
    #[command(hide = true)]
    Tidy,
}

impl VolumeCommand {
    /// Whether the command serves something, and ends in a way of its own.
    const fn is_service(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::View(_) | Self::Holder(_) | Self::Tidy)
    }
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: VolumeArgs) -> Result<ExitCode, CliError> {
    let root = match args.command {
        VolumeCommand::Serve(_) | VolumeCommand::View(_) => PathBuf::new(),
        VolumeCommand::Create(_)
        | VolumeCommand::Adopt(_)
        | VolumeCommand::Holder(_)
        | VolumeCommand::Import(_)
        | VolumeCommand::Restore(_) => run::data_root(args.root),
        _ => run::existing_root(args.root)?,
    };
    if !args.command.is_service() {
        run::Ending::hold()?.tidy(&root)?;
    }
    let context = &Context { root, json: args.json, quiet: args.quiet };
    let done = match args.command {
        VolumeCommand::Create(args) => create::run(context, args),
        VolumeCommand::Ls(args) => ls::run(context, &args),
        VolumeCommand::Inspect(args) => inspect::run(context, &args),
        VolumeCommand::Rm(args) => rm::run(context, &args),
        VolumeCommand::Prune(args) => prune::run(context, &args),
        VolumeCommand::Rename(args) => change::rename(context, &args),
        VolumeCommand::Label(args) => change::label(context, &args),
        VolumeCommand::Resize(args) => change::resize(context, &args),
        VolumeCommand::Limit(args) => change::limit(context, args),
        VolumeCommand::Df(args) => df::run(context, &args),
        VolumeCommand::Snapshot(args) => snapshot::run(context, args),
        VolumeCommand::Rollback(args) => snapshot::rollback(context, &args),
        VolumeCommand::Clone(args) => snapshot::clone(context, args),
        VolumeCommand::Export(args) => export::export(context, &args),
        VolumeCommand::Import(args) => export::import(context, &args),
        VolumeCommand::Diff(args) => diff::run(context, &args),
        VolumeCommand::Backup(args) => backup::run(context, args),
        VolumeCommand::Restore(args) => backup::restore(context, &args),
        VolumeCommand::Adopt(args) => change::adopt(context, &args),
        VolumeCommand::Undelete(args) => change::undelete(context, &args),
        VolumeCommand::Recover => change::recover(context),
        VolumeCommand::Holder(args) => return holder::run(&context.root, &args),
        VolumeCommand::Serve(args) => return serve::run(&args),
        VolumeCommand::View(args) => return view::run(&args),
        VolumeCommand::Tidy => return tidy::run(&context.root),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// What all of the commands use.
struct Context {
    root: PathBuf,
    json: bool,
    quiet: bool,
}

impl Context {
    /// The volumes of the data root.
    fn service(&self) -> Result<VolumeService, CliError> {
        Ok(VolumeService::open(&self.root)?)
    }

    /// Prints a result as JSON or as text.
    fn show(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.json { say_json(value) } else { say(&text()) }
    }

    /// Prints a volume that was made or changed: its record as JSON, or its name.
    fn show_name(&self, volume: &Volume) -> Result<(), CliError> {
        self.show(volume, || format!("{}\n", volume.name))
    }

    /// Prints names of what was removed, one as soon as it is gone, or all as JSON.
    fn show_each(
        &self,
        names: &[String],
        mut each: impl FnMut(&str) -> Result<bool, CliError>,
    ) -> Result<(), CliError> {
        let mut done = Vec::new();
        for name in names {
            if !each(name)? {
                continue;
            }
            match self.json {
                true => done.push(name),
                false => say(&format!("{name}\n"))?,
            }
        }
        if self.json { say_json(&done) } else { Ok(()) }
    }

    /// Prints what was done, for people.
    fn note(&self, text: impl FnOnce() -> String) {
        if !self.quiet {
            note(&text());
        }
    }
}

/// Pairs `KEY=VALUE`; a word without `=` has an empty value.
fn pairs(what: &str, words: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut pairs = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if key.is_empty() {
            return Err(CliError::Usage(format!(
                "{what} {word:?} has no key: use KEY or KEY=VALUE"
            )));
        }
        pairs.insert(key.to_owned(), value.to_owned());
    }
    Ok(pairs)
}

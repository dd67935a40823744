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
mod prune;
mod rm;
mod serve;
mod snapshot;
mod trash;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::report::CliError;
use crate::run;

/// Arguments of `lamina volume`.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
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
    let done = match args.command {
        VolumeCommand::Create(args) => create::run(&root, args),
        VolumeCommand::Ls(args) => ls::run(&root, &args),
        VolumeCommand::Inspect(args) => inspect::run(&root, &args),
        VolumeCommand::Rm(args) => rm::run(&root, &args),
        VolumeCommand::Prune(args) => prune::run(&root, &args),
        VolumeCommand::Rename(args) => change::rename(&root, &args),
        VolumeCommand::Label(args) => change::label(&root, &args),
        VolumeCommand::Resize(args) => change::resize(&root, &args),
        VolumeCommand::Limit(args) => change::limit(&root, args),
        VolumeCommand::Df(args) => df::run(&root, &args),
        VolumeCommand::Snapshot(args) => snapshot::run(&root, args),
        VolumeCommand::Rollback(args) => snapshot::rollback(&root, &args),
        VolumeCommand::Clone(args) => snapshot::clone(&root, args),
        VolumeCommand::Export(args) => export::export(&root, &args),
        VolumeCommand::Import(args) => export::import(&root, &args),
        VolumeCommand::Diff(args) => diff::run(&root, &args),
        VolumeCommand::Backup(args) => backup::run(&root, args),
        VolumeCommand::Restore(args) => backup::restore(&root, &args),
        VolumeCommand::Adopt(args) => change::adopt(&root, &args),
        VolumeCommand::Undelete(args) => change::undelete(&root, &args),
        VolumeCommand::Recover => change::recover(&root),
        VolumeCommand::Holder(args) => return holder::run(&root, &args),
        VolumeCommand::Serve(args) => return serve::run(&args),
        VolumeCommand::View(args) => return view::run(&args),
    };
    done.map(|()| ExitCode::SUCCESS)
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

//! `lamina image`: images, and the layers they are made of.

mod base;
mod commit;
mod diff;
mod export;
mod gc;
mod history;
mod import;
mod inspect;
mod layers;
mod ls;
pub(super) mod progress;
pub(super) mod prune;
mod pull;
mod push;
mod rm;
mod tag;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use laminafs::service::images::Images;

use crate::report::{CliError, say, say_json};
use crate::run;

/// Arguments of `lamina image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// The command.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// Commands of `lamina image`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import images from a docker-archive or an OCI layout, or one layer from a tar or directory.
    Import(import::ImportArgs),
    /// Make an image of the changes in an upper directory or a container.
    Commit(commit::CommitArgs),
    /// List what an upper directory, a container or an image adds (A), changes (C), deletes (D).
    Diff(diff::DiffArgs),
    /// Write images as a docker-archive or an OCI layout, which other engines read.
    Export(export::ExportArgs),
    /// Pull an image from a registry. An interrupted pull continues where it stopped.
    Pull(pull::PullArgs),
    /// Push an image to a registry. Layers that the registry has are not sent.
    Push(push::PushArgs),
    /// Give an image further names.
    Tag(tag::TagArgs),
    /// List the images.
    Ls(ls::LsArgs),
    /// Show the records of images, as JSON.
    Inspect(inspect::InspectArgs),
    /// Show how an image was built.
    History(history::HistoryArgs),
    /// Remove names, and an image with its last name. `gc` frees the space.
    Rm(rm::RmArgs),
    /// Read all data again and report damage; exit code 1 if there is any.
    Verify(verify::VerifyArgs),
    /// Remove the images that no container uses, and the layers that nothing needs then.
    Prune(prune::PruneArgs),
    /// Remove the layers that no image and no mount needs.
    Gc(gc::GcArgs),
    /// List the layers.
    Layers,
}

/// The objects that all of the commands use.
struct Context {
    images: Images,
    root: PathBuf,
    json: bool,
}

impl Context {
    /// Prints a value as JSON or as text.
    fn show<T: serde::Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        if self.json { say_json(value) } else { say(&text(value)) }
    }

    /// Prints one result, unless events were printed as JSON.
    fn show_id(&self, id: &str) -> Result<(), CliError> {
        if self.json { Ok(()) } else { say(&format!("{id}\n")) }
    }

    /// Removes unfinished objects from the store when a signal ends the command.
    fn clean_at_signal(&self) -> Result<(), CliError> {
        run::Ending::hold()?.tidy(&self.root)
    }
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: ImageArgs) -> Result<ExitCode, CliError> {
    let makes = matches!(args.command, ImageCommand::Import(_) | ImageCommand::Pull(_));
    let root = if makes { run::data_root(args.root) } else { run::existing_root(args.root)? };
    let context = Context { images: Images::open(&root)?, root, json: args.json };
    context.clean_at_signal()?;
    let done = match args.command {
        ImageCommand::Import(args) => import::run(&context, &args),
        ImageCommand::Commit(args) => commit::run(&context, args),
        ImageCommand::Diff(args) => diff::run(&context, &args),
        ImageCommand::Export(args) => export::run(&context, &args),
        ImageCommand::Pull(args) => pull::run(&context, args),
        ImageCommand::Push(args) => push::run(&context, args),
        ImageCommand::Tag(args) => tag::run(&context, &args),
        ImageCommand::Ls(args) => ls::run(&context, &args),
        ImageCommand::Inspect(args) => inspect::run(&context, &args),
        ImageCommand::History(args) => history::run(&context, &args),
        ImageCommand::Rm(args) => rm::run(&context, &args),
        ImageCommand::Verify(args) => return verify::run(&context, &args),
        ImageCommand::Prune(args) => prune::run(&context, &args),
        ImageCommand::Gc(args) => gc::run(&context, &args),
        ImageCommand::Layers => layers::run(&context),
    };
    done.map(|()| ExitCode::SUCCESS)
}

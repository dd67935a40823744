//! `lamina image commit`.

use std::path::PathBuf;

use clap::Args;
use laminafs::service::commit::{Note, commit_container, commit_volume};
use laminafs::service::volumes::VolumeService;

use super::Context;
use super::base::{BaseArgs, Source, find};
use super::progress::Shown;
use crate::report::{CliError, say};

/// Arguments of `lamina image commit`.
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// An upper directory (with a `/` in it), or a container.
    #[arg(required_unless_present = "volume")]
    source: Option<PathBuf>,
    /// What was written to a volume of the driver union, also while it is used, or to one of its
    /// snapshots.
    #[arg(long, value_name = "NAME[@SNAPSHOT]", conflicts_with_all = ["source", "image", "work"])]
    volume: Option<String>,
    /// The name of the image.
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]", required = true)]
    tags: Vec<String>,
    /// What the changes lie on.
    #[command(flatten)]
    base: BaseArgs,
    /// The author of the image.
    #[arg(long)]
    author: Option<String>,
    /// A comment for the history of the image.
    #[arg(short, long)]
    message: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: CommitArgs) -> Result<(), CliError> {
    let CommitArgs { source, volume, tags, base, author, message } = args;
    let note = Note { author, message };
    let mut shown = Shown::new(context.json);
    let images = &context.images;
    let volumes = VolumeService::open(&context.root)?;
    if let Some(volume) = volume {
        let id = shown
            .run(|progress| commit_volume(images, &volumes, &volume, (&tags, &note), progress))?;
        shown.close(&format!("committed volume {volume}"));
        return show(context, &id);
    }
    let source = source.unwrap_or_default();
    let Source::Upper(upper) = find(context, &source, &base)? else {
        let what = format!(
            "no container {:?}: name one that `lamina container ls` lists, or an upper directory \
             by a path with a `/`",
            source.display()
        );
        return Err(CliError::Usage(what));
    };
    let id = shown
        .run(|progress| commit_container((images, &volumes), &upper, (&tags, &note), progress))?;
    shown.close(&format!("committed {}", source.display()));
    show(context, &id)
}

/// Prints the id; as JSON, the event of the image has it.
fn show(context: &Context, id: &str) -> Result<(), CliError> {
    if context.json { Ok(()) } else { say(&format!("{id}\n")) }
}

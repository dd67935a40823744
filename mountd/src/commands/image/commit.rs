//! `lamina image commit`.

use std::path::PathBuf;

use clap::Args;
use laminafs::service::commit::{Note, commit, commit_volume};
use laminafs::service::volumes::VolumeService;

use super::Context;
use super::base::{BaseArgs, Source, find};
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
    context.clean_at_signal()?;
    let note = Note { author, message };
    if let Some(volume) = volume {
        let volumes = VolumeService::open(&context.root)?;
        let id = commit_volume(&context.images, &volumes, &volume, (&tags, &note))?;
        return say(&format!("{id}\n"));
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
    let id = commit(&context.images, &upper, &tags, &note)?;
    say(&format!("{id}\n"))
}

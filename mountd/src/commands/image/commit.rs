//! `lamina image commit`.

use std::path::PathBuf;

use clap::Args;
use laminafs::service::commit::{Note, commit};

use super::Context;
use super::base::{BaseArgs, Source, find};
use crate::report::{CliError, say};

/// Arguments of `lamina image commit`.
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// An upper directory (with a `/` in it), or a container.
    source: PathBuf,
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
    let CommitArgs { source, tags, base, author, message } = args;
    context.clean_at_signal()?;
    let Source::Upper(upper) = find(context, &source, &base)? else {
        let what = format!(
            "no container {:?}: name one that `lamina container ls` lists, or an upper directory \
             by a path with a `/`",
            source.display()
        );
        return Err(CliError::Usage(what));
    };
    let id = commit(&context.images, &upper, &tags, &Note { author, message })?;
    say(&format!("{id}\n"))
}

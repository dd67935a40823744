//! `lamina container commit`.

use clap::Args;
use laminafs::service::commit::{Note, commit_container};
use laminafs::service::volumes::VolumeService;

use super::Context;
use crate::commands::image::progress::Shown;
use crate::report::{CliError, say};
use crate::run;

/// Arguments of `lamina container commit`.
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// The name of the container, or the first digits of its id.
    name: String,
    /// The name of the image.
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]", required_unless_present = "image")]
    tags: Vec<String>,
    /// The author of the image.
    #[arg(long)]
    author: Option<String>,
    /// A comment for the history of the image.
    #[arg(short, long)]
    message: Option<String>,
    /// The name of the image, as other engines take it.
    #[arg(value_name = "NAME[:TAG]")]
    image: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: CommitArgs) -> Result<(), CliError> {
    let CommitArgs { name, mut tags, author, message, image } = args;
    tags.extend(image);
    run::Ending::hold()?.clean(context.images.leaving())?;
    let volumes = VolumeService::open(&context.root)?;
    let upper = context.images.upper_of(&name, context.runtime.as_deref())?;
    let note = Note { author, message };
    let (images, mut shown) = (&context.images, Shown::new(false));
    let id = shown
        .run(|progress| commit_container((images, &volumes), &upper, (&tags, &note), progress))?;
    shown.close(&format!("committed container {name}"));
    say(&format!("{id}\n"))
}

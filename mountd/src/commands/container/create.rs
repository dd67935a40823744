//! `lamina container create`.

use clap::Args;
use laminafs::service::containers::NewContainer;
use laminafs::types::ContainerName;

use super::{Context, LimitArgs};
use crate::args::{GraftArgs, graft};
use crate::commands::resolved;
use crate::report::{CliError, say};

/// Arguments of `lamina container create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The name of the container [default: the first digits of its id].
    #[arg(long)]
    name: Option<String>,
    /// The limits of what is written to it.
    #[command(flatten)]
    limits: LimitArgs,
    /// What appears in the container from elsewhere.
    #[command(flatten)]
    grafts: GraftArgs,
    /// The image.
    image: String,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: CreateArgs) -> Result<(), CliError> {
    let grafts = graft::all(&args.grafts)?;
    let name = args.name.map(ContainerName::try_from).transpose()?;
    let limits = args.limits.limits()?;
    resolved::show(&context.images, &args.image);
    let new = NewContainer { name, image: args.image, grafts, limits, program: None };
    let name = context.images.create_container(new)?;
    say(&format!("{name}\n"))
}

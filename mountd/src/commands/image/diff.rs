//! `lamina image diff`.

use std::path::PathBuf;

use clap::Args;
use laminafs::service::diff::{Change, Differences, of_container, of_images};
use laminafs::service::spec::MountSpec;
use laminafs::service::volumes::VolumeService;

use super::Context;
use super::base::{BaseArgs, Source, find};
use crate::report::CliError;

/// Arguments of `lamina image diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// An upper directory (with a `/` in it), a container, or an image.
    source: PathBuf,
    /// What the changes lie on. An image without it is compared with itself less the topmost layer.
    #[command(flatten)]
    base: BaseArgs,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &DiffArgs) -> Result<(), CliError> {
    let found = match find(context, &args.source, &args.base)? {
        Source::Upper(upper) => {
            let volumes = VolumeService::open(&context.root)?;
            of_container((&context.images, &volumes), &upper)?
        }
        Source::Image(name) => between_images(context, &name, args.base.image.as_deref())?,
    };
    let line = |(path, change): (&String, &Change)| format!("{change:?} {path}\n");
    context.show(&found, |all| all.iter().map(line).collect())
}

fn between_images(
    context: &Context,
    name: &str,
    base: Option<&str>,
) -> Result<Differences, CliError> {
    let new = context.images.layer_ids(name)?;
    let old = match base {
        Some(base) => context.images.layer_ids(base)?,
        None => new.split_last().map(|(_, below)| below.to_vec()).unwrap_or_default(),
    };
    let spec = MountSpec { root: context.root.clone(), ..MountSpec::default() };
    Ok(of_images(&spec, &new, &old)?)
}

//! `lamina image ls`.

use clap::Args;
use laminafs::service::images::ImageInfo;

use super::Context;
use crate::commands::table::{DIGITS, mib, short};
use crate::report::CliError;

/// Arguments of `lamina image ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print ids alone.
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &LsArgs) -> Result<(), CliError> {
    let ids =
        |all: &[ImageInfo]| all.iter().map(|image| format!("{}\n", short(&image.id))).collect();
    context.show(&context.images.list()?, |all| if args.quiet { ids(all) } else { table(all) })
}

fn table(images: &[ImageInfo]) -> String {
    let none = || vec!["<none>".to_owned()];
    let named =
        |image: &ImageInfo| if image.names.is_empty() { none() } else { image.names.clone() };
    let names = images.iter().flat_map(named);
    let width = names.map(|name| name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:<width$}  {:<DIGITS$}  LAYERS  {:>12}\n", "NAME", "ID", "SIZE");
    for image in images {
        for name in named(image) {
            let (id, size) = (short(&image.id), mib(image.size));
            text.push_str(&format!("{name:<width$}  {id}  {:>6}  {size:>12}\n", image.layers));
        }
    }
    text
}

//! `lamina image push`.

use clap::Args;
use laminafs::service::pull::{Access, Reference};
use laminafs::service::push::{Push, push};

use super::Context;
use super::export::ExportCompression;
use super::progress::Shown;
use crate::args::RegistryArgs;
use crate::commands::resolved;
use crate::report::CliError;

/// Arguments of `lamina image push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// `NAME[:TAG]`, or the first digits of an id.
    name: String,
    /// The destination: `[HOST[:PORT]/]PATH[:TAG]` [default: the name].
    reference: Option<String>,
    /// The compression of the layers.
    #[arg(long, value_enum, default_value_t = ExportCompression::Gzip)]
    compress: ExportCompression,
    /// The registry.
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: PushArgs) -> Result<(), CliError> {
    resolved::show(&context.images, &args.name);
    let to = match args.reference {
        Some(reference) => reference,
        None => context.images.resolved_name(&args.name)?,
    };
    let reference = Reference::parse(&to)?;
    let access = Access::find(&reference, args.registry.into())?;
    let mut shown = Shown::new(context.json);
    let on_sent = shown.on_sent();
    let form = args.compress.into();
    let request = Push { name: args.name, reference, form, access, on_sent };
    let digest = shown.run(|progress| push(&context.images, &request, progress))?;
    shown.close(&format!("pushed {to}"));
    context.show_id(&digest)
}

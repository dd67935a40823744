//! `lamina image pull`.

use clap::{Args, ValueEnum};
use laminafs::service::pull::{Access, Lazy, Pull, Reference, pull};

use super::Context;
use super::progress::Shown;
use crate::args::RegistryArgs;
use crate::report::CliError;

/// Arguments of `lamina image pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`; the default host is docker.io.
    reference: String,
    /// The name of the image, instead of the name in the reference.
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]")]
    tags: Vec<String>,
    /// Leave the data of layers in the registry; they were pushed with `--compress native`.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true,
        default_missing_value = "background")]
    lazy: Option<LazyPull>,
    /// The registry.
    #[command(flatten)]
    registry: RegistryArgs,
}

/// When the data of a lazy pull is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LazyPull {
    /// Parts that are read at once, the rest while the image is mounted.
    Background,
    /// Parts that are read alone.
    Demand,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: PullArgs) -> Result<(), CliError> {
    let reference = Reference::parse(&args.reference)?;
    let access = Access::find(&reference, args.registry.into())?;
    let lazy = args.lazy.map(|lazy| match lazy {
        LazyPull::Background => Lazy::Background,
        LazyPull::Demand => Lazy::Demand,
    });
    let request = Pull { reference, names: args.tags, access, lazy };
    let mut shown = Shown::new(context.json);
    let id = shown.run(|progress| pull(&context.images, &context.root, &request, progress))?;
    shown.close(&format!("pulled {}", args.reference));
    context.show_id(&id)
}

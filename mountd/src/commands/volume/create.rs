//! `lamina volume create`.

use std::collections::BTreeMap;

use clap::Args;
use laminafs::service::volumes::NewVolume;
use laminafs::types::VolumeName;

use super::Context;
use super::change::SpeedArgs;
use super::pairs;
use crate::commands::resolved;
use crate::report::CliError;

/// Arguments of `lamina volume create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The name of the volume [default: 64 random digits].
    name: Option<String>,
    /// The driver: local, image, union, or plugin:NAME for a volume plugin of Docker.
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// An option of the driver. local: type, device, o. image: fs (ext4, xfs, or none for a block
    /// device), o.
    /// plugin:NAME: those of the plugin.
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// An image in the store whose content the volume begins with; needs --driver union.
    #[arg(long, value_name = "IMAGE")]
    from: Option<String>,
    /// A label.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,
    /// The size limit, as 512M or 10G; needs a driver that can hold it.
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// The limits on speed; they need the driver union, or local with a size.
    #[command(flatten)]
    speed: SpeedArgs,
    /// Allow a size that the host has no room for now.
    #[arg(long)]
    overcommit: bool,
    /// The limit of inodes.
    #[arg(long, value_name = "COUNT")]
    inodes: Option<String>,
}

/// Label of a volume that was created without a name, as Docker sets it.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: CreateArgs) -> Result<(), CliError> {
    let mut options = pairs("option", &args.options)?;
    for (key, value) in [("size", args.size), ("inodes", args.inodes)] {
        options.extend(value.map(|value| (key.to_owned(), value)));
    }
    options.extend(args.speed.pairs());
    if args.overcommit {
        options.insert("overcommit".to_owned(), "true".to_owned());
    }
    let mut labels = pairs("label", &args.labels)?;
    let name: VolumeName = match args.name {
        Some(name) => name.try_into()?,
        None => {
            labels.insert(ANONYMOUS.to_owned(), String::new());
            laminafs::service::volumes::random_name()?
        }
    };
    let new = NewVolume { name, driver: Some(args.driver), options, labels };
    if !context.quiet {
        resolved::show_in(&context.root, &args.from);
    }
    let service = context.service()?;
    let volume = match args.from {
        Some(image) => service.create_from(new, &image)?,
        None => service.create(new)?,
    };
    context.show_name(&volume)
}

/// Whether a volume was created without a name.
pub(super) fn is_anonymous(labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key(ANONYMOUS)
}

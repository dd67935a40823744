//! `lamina volume rename | label | resize | adopt | undelete | recover`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use laminafs::service::volumes::Limits;
use laminafs::types::{VolumeName, size};

use super::Context;
use crate::report::{CliError, say_json, warn};

/// Arguments of `lamina volume rename`.
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// The name of the volume.
    name: String,
    /// The new name.
    to: String,
}

/// Arguments of `lamina volume label`.
#[derive(Debug, Args)]
pub struct LabelArgs {
    /// The name of the volume.
    name: String,
    /// Labels to set, and with a dash behind the key, to remove.
    #[arg(required = true, value_name = "KEY[=VALUE]|KEY-")]
    labels: Vec<String>,
}

/// Arguments of `lamina volume resize`.
#[derive(Debug, Args)]
pub struct ResizeArgs {
    /// The name of the volume.
    name: String,
    /// The new size, as 512M or 10G.
    #[arg(required_unless_present = "inodes")]
    size: Option<String>,
    /// The new limit of inodes.
    #[arg(long, value_name = "COUNT")]
    inodes: Option<u64>,
}

/// Arguments of `lamina volume limit`.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// The name of the volume.
    name: String,
    /// The new limits.
    #[command(flatten)]
    speed: SpeedArgs,
}

/// Limits on speed.
#[derive(Debug, Args)]
pub(super) struct SpeedArgs {
    /// The most requests a second, as 500, or read=500,write=100.
    #[arg(long, value_name = "COUNT")]
    iops: Option<String>,
    /// The most bytes a second, as 10M, or read=50M,write=10M.
    #[arg(long, value_name = "SIZE")]
    bandwidth: Option<String>,
}

impl SpeedArgs {
    /// The options of the driver that are given.
    pub(super) fn pairs(self) -> impl Iterator<Item = (String, String)> {
        let all = [("iops", self.iops), ("bandwidth", self.bandwidth)];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)))
    }
}

/// Arguments of `lamina volume adopt`.
#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// The directory; it moves into the data root.
    directory: PathBuf,
    /// The name of the volume [default: the name of the directory].
    name: Option<String>,
}

/// Arguments of `lamina volume undelete`.
#[derive(Debug, Args)]
pub struct UndeleteArgs {
    /// The former name, or the id, of a volume in the trash: lamina volume ls --trash.
    name: String,
    /// The name to give it [default: the former one].
    #[arg(long = "as", value_name = "NAME")]
    to: Option<String>,
}

/// Runs `lamina volume rename`.
///
/// # Errors
/// [`CliError`].
pub(super) fn rename(context: &Context, args: &RenameArgs) -> Result<(), CliError> {
    let to: VolumeName = args.to.parse()?;
    let service = context.service()?;
    service.rename(&args.name.parse()?, &to)?;
    context.show_name(&service.inspect(&to)?)
}

/// Runs `lamina volume label`.
///
/// # Errors
/// [`CliError`].
pub(super) fn label(context: &Context, args: &LabelArgs) -> Result<(), CliError> {
    let mut changes = BTreeMap::new();
    for word in &args.labels {
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value.to_owned())),
            (None, Some(key)) => (key, None),
            (None, None) => (word.as_str(), Some(String::new())),
        };
        if key.is_empty() {
            return Err(CliError::Usage(format!("label {word:?} has no key")));
        }
        changes.insert(key.to_owned(), value);
    }
    let volume = context.service()?.label(&args.name.parse()?, &changes)?;
    if context.json {
        return say_json(&volume);
    }
    say_json(&volume.labels)
}

/// Runs `lamina volume resize`.
///
/// # Errors
/// [`CliError`].
pub(super) fn resize(context: &Context, args: &ResizeArgs) -> Result<(), CliError> {
    let parse =
        |text: &String| size::parse(text).map_err(|error| CliError::Usage(error.to_string()));
    let size_bytes = args.size.as_ref().map(parse).transpose()?;
    let limits = Limits { size_bytes, inodes: args.inodes };
    let volume = context.service()?.resize(&args.name.parse()?, limits)?;
    let shown = volume.size_bytes.map_or_else(|| "no limit".to_owned(), size::shown);
    context.show(&volume, || format!("{}: {shown}\n", volume.name))
}

/// Runs `lamina volume limit`. `none` takes a limit away.
///
/// # Errors
/// [`CliError`].
pub(super) fn limit(context: &Context, args: LimitArgs) -> Result<(), CliError> {
    let changes: BTreeMap<_, _> = args
        .speed
        .pairs()
        .map(|(key, value)| (key, Some(value).filter(|value| value != "none")))
        .collect();
    if changes.is_empty() {
        return Err(CliError::Usage("give a limit: --iops or --bandwidth, or none".to_owned()));
    }
    let volume = context.service()?.throttle(&args.name.parse()?, &changes)?;
    context.show_name(&volume)
}

/// Runs `lamina volume adopt`.
///
/// # Errors
/// [`CliError`].
pub(super) fn adopt(context: &Context, args: &AdoptArgs) -> Result<(), CliError> {
    let last = || args.directory.file_name().map(|name| name.to_string_lossy().into_owned());
    let name: VolumeName = args.name.clone().or_else(last).unwrap_or_default().try_into()?;
    let volume = context.service()?.adopt(&name, &args.directory)?;
    context.show(&volume, || format!("{}\n", volume.mountpoint.display()))
}

/// Runs `lamina volume undelete`.
///
/// # Errors
/// [`CliError`].
pub(super) fn undelete(context: &Context, args: &UndeleteArgs) -> Result<(), CliError> {
    let to = args.to.as_ref().map(|name| name.parse()).transpose()?;
    let volume = context.service()?.undelete(&args.name, to.as_ref())?;
    context.show_name(&volume)
}

/// Runs `lamina volume recover`.
///
/// # Errors
/// [`CliError`].
pub(super) fn recover(context: &Context) -> Result<(), CliError> {
    let found = context.service()?.recover()?;
    for what in &found.skipped {
        warn(&format!("skipped {what}"));
    }
    let count = found.volumes.len();
    let volumes = if count == 1 { "volume" } else { "volumes" };
    context.note(|| format!("{count} {volumes} recovered"));
    context.show(&serde_json::json!({"volumes": found.volumes, "skipped": found.skipped}), || {
        found.volumes.iter().map(|name| format!("{name}\n")).collect()
    })
}

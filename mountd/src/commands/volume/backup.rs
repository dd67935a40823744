//! `lamina volume backup | restore`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use laminafs::service::Refusal;
use laminafs::service::volumes::backup::{
    Key, Manifest, Repository, Site, beyond_last, check, prune,
};
use laminafs::service::volumes::{NewVolume, VolumeService};
use laminafs::types::size;

use super::export::MakeArgs;
use super::pairs;
use crate::commands::bar::with_bar;
use crate::report::{CliError, say, say_json, warn};

/// Arguments of `lamina volume backup`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BackupArgs {
    /// The command, instead of a backup.
    #[command(subcommand)]
    command: Option<BackupCommand>,
    /// A volume, or a snapshot as VOLUME@SNAPSHOT or by id.
    #[arg(required = true)]
    source: Option<String>,
    /// The repository.
    #[command(flatten)]
    at: Option<SiteArgs>,
    /// A label of the backup.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A repository.
#[derive(Debug, Args)]
pub struct SiteArgs {
    /// s3://BUCKET/DIR, gs://BUCKET/DIR, az://CONTAINER/DIR or file:///DIR. Credentials come from
    /// the environment (AWS_*, GOOGLE_*, AZURE_*).
    #[arg(required = true)]
    url: String,
    /// The key file: content and names are encrypted.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Commands of `lamina volume backup`.
#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// List the backups.
    Ls {
        #[command(flatten)]
        at: SiteArgs,
        /// Only those of this volume.
        #[arg(long, value_name = "NAME")]
        volume: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check that all backups are whole.
    Check {
        #[command(flatten)]
        at: SiteArgs,
        /// Also read and verify all data.
        #[arg(long)]
        read_data: bool,
    },
    /// Remove backups; prune frees their space.
    Rm {
        #[command(flatten)]
        at: SiteArgs,
        /// Ids of backups.
        #[arg(required_unless_present = "keep_last")]
        ids: Vec<String>,
        /// Remove all but the last N backups of each volume, instead of ids.
        #[arg(long, value_name = "N", conflicts_with = "ids")]
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        keep_last: Option<u32>,
        /// With --keep-last: only backups of volumes with this name.
        #[arg(long, value_name = "NAME", requires = "keep_last")]
        volume: Option<String>,
        /// With --keep-last: only show what would be removed.
        #[arg(long, requires = "keep_last")]
        dry_run: bool,
    },
    /// Remove data that no backup names.
    Prune {
        #[command(flatten)]
        at: SiteArgs,
        /// Keep what is younger: data of an interrupted backup, which the next one uses.
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
        grace: u64,
        /// Only show what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Make a key file. Without it no backup made with it can be read.
    Key {
        /// The file to make.
        file: PathBuf,
    },
}

/// Arguments of `lamina volume restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The repository.
    #[command(flatten)]
    at: SiteArgs,
    /// The name of the new volume.
    name: String,
    /// The id of the backup [default: the last one of a volume of this name].
    #[arg(long)]
    id: Option<String>,
    /// How the volume is made [default: as it was].
    #[command(flatten)]
    make: MakeArgs,
}

impl SiteArgs {
    fn site(&self) -> Result<Site, CliError> {
        let key = self.key_file.as_deref().map(Key::read).transpose().map_err(Refusal::from)?;
        let prefixes = ["AWS_", "GOOGLE_", "AZURE_"];
        let variables = std::env::vars_os().filter_map(|(key, value)| {
            let (key, value) = (key.into_string().ok()?, value.into_string().ok()?);
            prefixes.iter().any(|prefix| key.starts_with(prefix)).then_some((key, value))
        });
        Ok(Site { url: self.url.clone(), variables: variables.collect(), key })
    }

    fn open(&self) -> Result<Arc<Repository>, CliError> {
        Ok(Arc::new(Repository::open(&self.site()?).map_err(Refusal::from)?))
    }
}

/// Runs `lamina volume backup`.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: BackupArgs) -> Result<(), CliError> {
    match (args.command, args.source, args.at) {
        (Some(command), _, _) => other(command),
        (None, Some(source), Some(at)) => {
            let labels = pairs("label", &args.labels)?;
            make(root, (&source, &at), labels, args.json)
        }
        _ => Err(CliError::Usage("a volume and a repository are missing".to_owned())),
    }
}

fn make(
    root: &Path,
    (source, at): (&str, &SiteArgs),
    labels: std::collections::BTreeMap<String, String>,
    json: bool,
) -> Result<(), CliError> {
    let service = VolumeService::open(root)?;
    let repository = Repository::open_or_create(&at.site()?).map_err(Refusal::from)?;
    let done = with_bar(format!("backup of {source}"), |progress| {
        service.backup(source, &Arc::new(repository), labels, progress)
    })?;
    done.notes.into_lines().iter().for_each(|line| warn(line));
    let manifest = &done.manifest;
    if !manifest.still {
        warn("the driver has no snapshots: what changed during the backup may be in part in it");
    }
    if json {
        return say_json(&serde_json::json!({
            "Id": manifest.id,
            "Entries": manifest.entries,
            "DataBytes": manifest.data_bytes,
            "Still": manifest.still,
            "ReadBytes": done.read_bytes,
            "NewChunks": done.new_chunks,
            "SentBytes": done.traffic.sent_bytes,
            "Puts": done.traffic.puts,
            "Gets": done.traffic.gets,
        }));
    }
    let (all, sent) = (size::shown(manifest.data_bytes), size::shown(done.traffic.sent_bytes));
    say(&format!("{}: {} objects, {all}, {sent} sent\n", manifest.id, manifest.entries))
}

fn other(command: BackupCommand) -> Result<(), CliError> {
    match command {
        BackupCommand::Ls { at, volume, json } => list(&at, volume.as_deref(), json),
        BackupCommand::Check { at, read_data } => {
            let found = check(&*at.open()?, read_data).map_err(Refusal::from)?;
            found.damage.iter().try_for_each(|line| say(&format!("{line}\n")))?;
            say(&format!("{} backups, {} chunks\n", found.backups, found.chunks))?;
            match found.damage.len() {
                0 => Ok(()),
                count => {
                    let error = std::io::Error::other(format!("{count} findings of damage"));
                    Err(CliError::Io { what: at.url, error })
                }
            }
        }
        BackupCommand::Rm { at, ids, keep_last, volume, dry_run } => {
            let repository = at.open()?;
            let ids = match keep_last {
                Some(count) => beyond(&repository, count, volume.as_deref())?,
                None => ids,
            };
            ids.iter().try_for_each(|id| {
                if !dry_run {
                    repository.remove(id).map_err(Refusal::from)?;
                }
                say(&format!("{id}\n"))
            })
        }
        BackupCommand::Prune { at, grace, dry_run } => {
            let grace = std::time::Duration::from_secs(grace);
            let done = prune(&at.open()?, grace, dry_run).map_err(Refusal::from)?;
            let verb = if dry_run { "would be removed" } else { "removed" };
            let (removed, bytes) = (done.removed, size::shown(done.removed_bytes));
            let (kept, young) = (done.kept, done.young);
            say(&format!("{removed} chunks ({bytes}) {verb}, {kept} kept, {young} too young\n"))
        }
        BackupCommand::Key { file } => {
            Key::create(&file).map_err(Refusal::from)?;
            say(&format!("{}\n", file.display()))
        }
    }
}

/// The ids of the backups beyond the last `count` of each volume. One that cannot be read does not
/// count, and stays.
fn beyond(
    repository: &Repository,
    count: u32,
    volume: Option<&str>,
) -> Result<Vec<String>, CliError> {
    let (mut found, bad) = repository.manifests().map_err(Refusal::from)?;
    bad.iter().for_each(|line| warn(line));
    found.retain(|one| volume.is_none_or(|name| one.volume.name == name));
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    Ok(beyond_last(&found, count).into_iter().map(|one| one.id.clone()).collect())
}

fn list(at: &SiteArgs, volume: Option<&str>, json: bool) -> Result<(), CliError> {
    let (mut found, bad) = at.open()?.manifests().map_err(Refusal::from)?;
    bad.iter().for_each(|line| warn(line));
    found.retain(|one| volume.is_none_or(|name| one.volume.name == name));
    if json {
        // The list of chunks means nothing to a reader.
        found.iter_mut().for_each(|one| one.tree.clear());
        return say_json(&found);
    }
    say(&table(&found))
}

fn table(found: &[Manifest]) -> String {
    let name = |one: &Manifest| match &one.volume.snapshot {
        Some(snapshot) => format!("{}@{snapshot}", one.volume.name),
        None => one.volume.name.clone(),
    };
    let width = found.iter().map(|one| name(one).len()).max().unwrap_or(0).max(6);
    let mut text = format!("{:<28}  {:<width$}  {:<7}  OBJECTS\n", "ID", "VOLUME", "SIZE");
    for one in found {
        let size = size::shown(one.data_bytes);
        let line = format!("{:<28}  {:<width$}  {size:<7}  {}\n", one.id, name(one), one.entries);
        text.push_str(&line);
    }
    text
}

/// Runs `lamina volume restore`.
///
/// # Errors
/// [`CliError`].
pub(super) fn restore(root: &Path, args: &RestoreArgs) -> Result<(), CliError> {
    let name = args.name.parse()?;
    let new: NewVolume = args.make.volume(name)?;
    let repository = args.at.open()?;
    let manifest = match &args.id {
        Some(id) => repository.manifest(id),
        None => repository.last(Some(&args.name)),
    };
    let manifest = manifest.map_err(Refusal::from)?;
    let service = VolumeService::open(root)?;
    let (volume, done) = with_bar(format!("restore of {}", args.name), |progress| {
        service.restore(&repository, &manifest, new, progress)
    })?;
    done.notes.into_lines().iter().for_each(|line| warn(line));
    let bytes = size::shown(done.data_bytes);
    say(&format!("{}: {} objects, {bytes}\n", volume.name, done.entries))
}

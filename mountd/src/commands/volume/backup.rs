//! `lamina volume backup | restore`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use laminafs::service::Refusal;
use laminafs::service::volumes::NewVolume;
use laminafs::service::volumes::backup::{
    Key, Manifest, Repository, Site, beyond_last, check, prune,
};
use laminafs::types::size;
use serde::Serialize;
use serde_json::json;

use super::export::MakeArgs;
use super::{Context, pairs};
use crate::commands::bar::{Clock, with_bar};
use crate::commands::table::seconds;
use crate::report::{CliError, warn};
use crate::run;

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
        /// Only show what would be removed.
        #[arg(long)]
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
pub(super) fn run(context: &Context, args: BackupArgs) -> Result<(), CliError> {
    match (args.command, args.source, args.at) {
        (Some(command), _, _) => other(context, command),
        (None, Some(source), Some(at)) => {
            let labels = pairs("label", &args.labels)?;
            make(context, (&source, &at), labels)
        }
        _ => Err(CliError::Usage("a volume and a repository are missing".to_owned())),
    }
}

fn make(
    context: &Context,
    (source, at): (&str, &SiteArgs),
    labels: BTreeMap<String, String>,
) -> Result<(), CliError> {
    let clock = Clock::start();
    let service = context.service()?;
    let site = at.site()?;
    let open = || Repository::open_or_create(&site).map(Arc::new);
    let repository = run::making(open, Repository::leaving).map_err(Refusal::from)?;
    let done = with_bar(format!("backup of {source}"), |progress| {
        service.backup(source, &repository, labels, progress)
    })?;
    done.notes.into_lines().iter().for_each(|line| warn(line));
    let manifest = &done.manifest;
    if !manifest.still {
        warn("the driver has no snapshots: what changed during the backup may be in part in it");
    }
    let (all, sent) = (size::shown(manifest.data_bytes), size::shown(done.traffic.sent_bytes));
    let entries = manifest.entries;
    context
        .note(|| format!("backup of {source}: {entries} objects, {all}, {sent} sent in {clock}"));
    let value = json!({
        "id": manifest.id,
        "entries": entries,
        "data_bytes": manifest.data_bytes,
        "still": manifest.still,
        "read_bytes": done.read_bytes,
        "new_chunks": done.new_chunks,
        "sent_bytes": done.traffic.sent_bytes,
        "puts": done.traffic.puts,
        "gets": done.traffic.gets,
    });
    context.show(&value, || format!("{}\n", manifest.id))
}

fn other(context: &Context, command: BackupCommand) -> Result<(), CliError> {
    match command {
        BackupCommand::Ls { at, volume } => list(context, &at, volume.as_deref()),
        BackupCommand::Check { at, read_data } => verify(context, &at, read_data),
        BackupCommand::Rm { at, ids, keep_last, volume, dry_run } => {
            let repository = at.open()?;
            let ids = match keep_last {
                Some(count) => beyond(&repository, count, volume.as_deref())?,
                None => ids,
            };
            context.show_each(&ids, |id| {
                match dry_run {
                    true => drop(repository.manifest(id).map_err(Refusal::from)?),
                    false => repository.remove(id).map_err(Refusal::from)?,
                }
                Ok(true)
            })
        }
        BackupCommand::Prune { at, grace, dry_run } => {
            let grace = std::time::Duration::from_secs(grace);
            let repository = run::making(|| at.open(), Repository::leaving)?;
            let done = prune(&repository, grace, dry_run).map_err(Refusal::from)?;
            let verb = if dry_run { "would be removed" } else { "removed" };
            let (removed, bytes) = (done.removed, done.removed_bytes);
            let (kept, young) = (done.kept, done.young);
            let value = json!({
                "removed": removed,
                "removed_bytes": bytes,
                "kept": kept,
                "young": young,
                "dry_run": dry_run,
            });
            let bytes = size::shown(bytes);
            context.show(&value, || {
                format!("{removed} chunks ({bytes}) {verb}, {kept} kept, {young} too young\n")
            })
        }
        BackupCommand::Key { file } => {
            Key::create(&file).map_err(Refusal::from)?;
            let file = file.display().to_string();
            context.show(&json!({ "file": file }), || format!("{file}\n"))
        }
    }
}

fn verify(context: &Context, at: &SiteArgs, read_data: bool) -> Result<(), CliError> {
    let clock = Clock::start();
    let found = check(&*at.open()?, read_data).map_err(Refusal::from)?;
    let (backups, chunks) = (found.backups, found.chunks);
    let value = json!({ "backups": backups, "chunks": chunks, "damage": found.damage });
    context.show(&value, || {
        let damage = found.damage.iter().map(|line| format!("{line}\n"));
        damage.chain([format!("{backups} backups, {chunks} chunks\n")]).collect()
    })?;
    context.note(|| format!("checked {} in {clock}", at.url));
    match found.damage.len() {
        0 => Ok(()),
        count => {
            let error = std::io::Error::other(format!("{count} findings of damage"));
            Err(CliError::Io { what: at.url.clone(), error })
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

/// A backup, as JSON shows it.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    volume: ShownVolume<'a>,
    labels: &'a BTreeMap<String, String>,
    started_at: &'a str,
    still: bool,
    entries: u64,
    data_bytes: u64,
}

/// The volume of a backup, as JSON shows it.
#[derive(Serialize)]
struct ShownVolume<'a> {
    id: &'a str,
    name: &'a str,
    snapshot: Option<&'a str>,
    driver: &'a str,
    options: &'a BTreeMap<String, String>,
    labels: &'a BTreeMap<String, String>,
    size_bytes: Option<u64>,
    inodes: Option<u64>,
}

impl<'a> Shown<'a> {
    fn of(one: &'a Manifest) -> Self {
        let volume = ShownVolume {
            id: &one.volume.id,
            name: &one.volume.name,
            snapshot: one.volume.snapshot.as_deref(),
            driver: &one.volume.driver,
            options: &one.volume.options,
            labels: &one.volume.labels,
            size_bytes: one.volume.size_bytes,
            inodes: one.volume.inodes,
        };
        Self {
            id: &one.id,
            volume,
            labels: &one.labels,
            started_at: &one.started,
            still: one.still,
            entries: one.entries,
            data_bytes: one.data_bytes,
        }
    }
}

fn list(context: &Context, at: &SiteArgs, volume: Option<&str>) -> Result<(), CliError> {
    let (mut found, bad) = at.open()?.manifests().map_err(Refusal::from)?;
    bad.iter().for_each(|line| warn(line));
    found.retain(|one| volume.is_none_or(|name| one.volume.name == name));
    let shown: Vec<Shown<'_>> = found.iter().map(Shown::of).collect();
    context.show(&shown, || match context.quiet {
        true => found.iter().map(|one| format!("{}\n", one.id)).collect(),
        false => table(&found),
    })
}

fn table(found: &[Manifest]) -> String {
    let name = |one: &Manifest| match &one.volume.snapshot {
        Some(snapshot) => format!("{}@{snapshot}", one.volume.name),
        None => one.volume.name.clone(),
    };
    let width = found.iter().map(|one| name(one).len()).max().unwrap_or(0).max(6);
    let mut text =
        format!("{:<28}  {:<width$}  {:<7}  {:<20}  OBJECTS\n", "ID", "VOLUME", "SIZE", "CREATED");
    for one in found {
        let (size, name, created) = (size::shown(one.data_bytes), name(one), seconds(&one.started));
        let (id, entries) = (&one.id, one.entries);
        let line = format!("{id:<28}  {name:<width$}  {size:<7}  {created:<20}  {entries}\n");
        text.push_str(&line);
    }
    text
}

/// Runs `lamina volume restore`.
///
/// # Errors
/// [`CliError`].
pub(super) fn restore(context: &Context, args: &RestoreArgs) -> Result<(), CliError> {
    let clock = Clock::start();
    let name = args.name.parse()?;
    let new: NewVolume = args.make.volume(name)?;
    let repository = args.at.open()?;
    let manifest = match &args.id {
        Some(id) => repository.manifest(id),
        None => repository.last(Some(&args.name)),
    };
    let manifest = manifest.map_err(Refusal::from)?;
    let service = context.service()?;
    let made = with_bar(format!("restore of {}", args.name), |progress| {
        service.restore(&repository, &manifest, new, progress)
    });
    let (volume, done) = made.map_err(|error| error.needing(manifest.data_bytes))?;
    done.notes.into_lines().iter().for_each(|line| warn(line));
    let (entries, bytes) = (done.entries, size::shown(done.data_bytes));
    context.note(|| format!("restored {}: {entries} objects, {bytes} in {clock}", volume.name));
    context.show_name(&volume)
}

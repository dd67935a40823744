//! `lamina volume export | import`: volumes as tars.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use laminafs::service::Refusal;
use laminafs::service::volumes::NewVolume;
use laminafs::service::volumes::transfer::{Compression, FileTarget};
use laminafs::types::{VolumeName, size};
use serde_json::json;

use super::{Context, pairs};
use crate::commands::bar::{Clock, Watched, with_bar};
use crate::report::{CliError, warn};
use crate::run;

/// Arguments of `lamina volume export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A volume, or a snapshot as VOLUME@SNAPSHOT or by id.
    source: String,
    /// The file to write; `-` is the standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Compress with gzip.
    #[arg(long, conflicts_with = "zstd")]
    gzip: bool,
    /// Compress with zstd.
    #[arg(long)]
    zstd: bool,
}

/// Arguments of `lamina volume import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A tar, plain or compressed with gzip or zstd; `-` is the standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The name of the new volume.
    name: String,
    /// How the volume is made.
    #[command(flatten)]
    make: MakeArgs,
}

/// How a volume with content is made.
#[derive(Debug, Args)]
pub struct MakeArgs {
    /// The driver of the new volume.
    #[arg(short, long)]
    pub driver: Option<String>,
    /// An option of the driver.
    #[arg(long = "opt", value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// A label of the new volume.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    pub labels: Vec<String>,
    /// The size limit, as 512M or 10G; needs a driver that can hold it.
    #[arg(long, value_name = "SIZE")]
    pub size: Option<String>,
}

impl MakeArgs {
    /// The volume to be made.
    ///
    /// # Errors
    /// [`CliError::Usage`].
    pub fn volume(&self, name: VolumeName) -> Result<NewVolume, CliError> {
        let mut options = pairs("option", &self.options)?;
        options.extend(self.size.iter().map(|size| ("size".to_owned(), size.clone())));
        let labels = pairs("label", &self.labels)?;
        Ok(NewVolume { name, driver: self.driver.clone(), options, labels })
    }
}

/// Runs `lamina volume export`.
///
/// # Errors
/// [`CliError`].
pub(super) fn export(context: &Context, args: &ExportArgs) -> Result<(), CliError> {
    let compression = match (args.gzip, args.zstd) {
        (true, _) => Compression::Gzip,
        (_, true) => Compression::Zstd,
        _ => Compression::None,
    };
    let is_pipe = args.output.as_os_str() == "-";
    let clock = Clock::start();
    let service = context.service()?;
    let mut target = match is_pipe {
        true if std::io::IsTerminal::is_terminal(&std::io::stdout()) => {
            let what = "a tar is not written to a terminal: use --output FILE, or a pipe";
            return Err(CliError::Usage(what.to_owned()));
        }
        true => FileTarget::pipe(Box::new(std::io::stdout()), compression)?,
        false => {
            run::open_umask();
            let make = || FileTarget::new(&args.output, compression);
            let target = run::making(make, FileTarget::leaving)?;
            run::close_umask_again();
            target
        }
    };
    let out: &mut dyn Write = &mut target;
    let done = with_bar(format!("export of {}", args.source), |progress| {
        service.export(&args.source, out, progress)
    })?;
    target.finish()?;
    done.notes.into_lines().iter().for_each(|line| warn(line));
    let (entries, data_bytes) = (done.entries, done.data_bytes);
    let bytes = size::shown(data_bytes);
    context.note(|| format!("exported {}: {entries} objects, {bytes} in {clock}", args.source));
    if is_pipe {
        return Ok(());
    }
    let output = args.output.display().to_string();
    let value = json!({ "file": output, "entries": entries, "data_bytes": data_bytes });
    context.show(&value, || format!("{output}\n"))
}

/// Runs `lamina volume import`.
///
/// # Errors
/// [`CliError`].
pub(super) fn import(context: &Context, args: &ImportArgs) -> Result<(), CliError> {
    let new = args.make.volume(args.name.parse()?)?;
    let clock = Clock::start();
    let service = context.service()?;
    let title = format!("import of {}", args.file.display());
    let mut size = 0;
    let made = if args.file.as_os_str() == "-" {
        service.import(new, Watched::new(std::io::stdin().lock(), size, title))
    } else {
        let wrap = |error| CliError::Io { what: args.file.display().to_string(), error };
        let file = File::open(&args.file).map_err(wrap)?;
        size = file.metadata().map_err(wrap)?.len();
        service.import(new, Watched::new(file, size, title))
    };
    let made = made.map_err(|error| match error {
        Refusal::Transfer(error) => Refusal::Transfer(error.of(&args.file)),
        other => other,
    });
    let (volume, done) = made.map_err(|error| error.needing(size))?;
    done.notes.into_lines().iter().for_each(|line| warn(line));
    let (entries, bytes) = (done.entries, size::shown(done.data_bytes));
    context.note(|| format!("imported {}: {entries} objects, {bytes} in {clock}", volume.name));
    context.show_name(&volume)
}

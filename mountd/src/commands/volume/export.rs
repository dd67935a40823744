//! `lamina volume export | import`: volumes as tars.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use laminafs::service::volumes::transfer::{Compression, FileTarget};
use laminafs::service::volumes::{NewVolume, VolumeService};
use laminafs::types::{VolumeName, size};

use super::pairs;
use crate::commands::bar::with_bar;
use crate::report::{CliError, say, warn};
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
pub(super) fn export(root: &Path, args: &ExportArgs) -> Result<(), CliError> {
    let compression = match (args.gzip, args.zstd) {
        (true, _) => Compression::Gzip,
        (_, true) => Compression::Zstd,
        _ => Compression::None,
    };
    let is_pipe = args.output.as_os_str() == "-";
    let service = VolumeService::open(root)?;
    let mut target = match is_pipe {
        true if std::io::IsTerminal::is_terminal(&std::io::stdout()) => {
            let what = "a tar is not written to a terminal: use --output FILE, or a pipe";
            return Err(CliError::Usage(what.to_owned()));
        }
        true => FileTarget::pipe(Box::new(std::io::stdout()), compression)?,
        false => {
            let ending = run::Ending::hold()?;
            run::open_umask();
            let target = FileTarget::new(&args.output, compression)?;
            run::close_umask_again();
            ending.clean(target.leaving())?;
            target
        }
    };
    let out: &mut dyn Write = &mut target;
    let done = with_bar(format!("export of {}", args.source), |progress| {
        service.export(&args.source, out, progress)
    })?;
    target.finish()?;
    done.notes.into_lines().iter().for_each(|line| warn(line));
    if is_pipe {
        return Ok(());
    }
    let bytes = size::shown(done.data_bytes);
    say(&format!("{}: {} objects, {bytes}\n", args.output.display(), done.entries))
}

/// Runs `lamina volume import`.
///
/// # Errors
/// [`CliError`].
pub(super) fn import(root: &Path, args: &ImportArgs) -> Result<(), CliError> {
    let new = args.make.volume(args.name.parse()?)?;
    let service = VolumeService::open(root)?;
    let (volume, done) = if args.file.as_os_str() == "-" {
        service.import(new, std::io::stdin().lock())?
    } else {
        let wrap = |error| CliError::Io { what: args.file.display().to_string(), error };
        service.import(new, File::open(&args.file).map_err(wrap)?)?
    };
    done.notes.into_lines().iter().for_each(|line| warn(line));
    let bytes = size::shown(done.data_bytes);
    say(&format!("{}: {} objects, {bytes}\n", volume.name, done.entries))
}

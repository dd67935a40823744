//! `lamina image export`, and the forms that it shares with `push`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use laminafs::service::export::{DirTarget, Form, LayerCompression, TarTarget, Target, export};

use laminafs::service::Refusal;
use laminafs::service::pull::TransferError;

use super::Context;
use super::progress::Shown;
use crate::commands::resolved;
use crate::report::CliError;
use crate::run;

/// Arguments of `lamina image export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// `NAME[:TAG]`, or the first digits of an id.
    #[arg(required = true)]
    names: Vec<String>,
    /// The file or directory to write; `-` is the standard output.
    #[arg(short, long, value_name = "FILE|DIR")]
    output: PathBuf,
    /// The form to write.
    #[arg(long, value_enum, default_value_t = ExportForm::DockerArchive)]
    format: ExportForm,
    /// The compression of the layers of an OCI layout.
    #[arg(long, value_enum, default_value_t = ExportCompression::Gzip)]
    compress: ExportCompression,
}

/// Forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportForm {
    /// One file, as `docker save` writes it.
    DockerArchive,
    /// An OCI layout in one file.
    OciArchive,
    /// An OCI layout in a directory.
    OciDir,
}

/// Compressions of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportCompression {
    /// Readable by every engine.
    Gzip,
    /// Faster.
    Zstd,
    /// No compression.
    None,
    /// The form of the store instead of tars, for `lamina image pull --lazy` alone.
    Native,
}

impl From<ExportCompression> for Form {
    fn from(compress: ExportCompression) -> Self {
        match compress {
            ExportCompression::Gzip => Self::Oci(LayerCompression::Gzip),
            ExportCompression::Zstd => Self::Oci(LayerCompression::Zstd),
            ExportCompression::None => Self::Oci(LayerCompression::None),
            ExportCompression::Native => Self::Native,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &ExportArgs) -> Result<(), CliError> {
    run::open_umask();
    let is_pipe = args.output.as_os_str() == "-";
    let target = target(args, is_pipe)?;
    let form = match (args.format, args.compress) {
        (ExportForm::DockerArchive, ExportCompression::Native) => {
            let what = "a docker-archive holds tars: --compress native needs --format oci-archive \
                        or oci-dir";
            return Err(CliError::Usage(what.to_owned()));
        }
        (ExportForm::DockerArchive, _) => Form::Docker,
        (_, compress) => compress.into(),
    };
    args.names.iter().for_each(|name| resolved::show(&context.images, name));
    // The standard output of a pipe is the archive.
    let mut shown = Shown::new(context.json && !is_pipe);
    let ids = shown.run(|progress| {
        export(&context.images, &args.names, form, target, progress).map_err(|error| match error {
            Refusal::Store(error) if !is_pipe => {
                Refusal::Transfer(TransferError::Store(error).of(&args.output))
            }
            Refusal::Transfer(error) if !is_pipe => Refusal::Transfer(error.of(&args.output)),
            other => other,
        })
    })?;
    shown.close(&format!("exported {}", args.names.join(" ")));
    if is_pipe { Ok(()) } else { ids.iter().try_for_each(|id| context.show_id(id)) }
}

fn target(args: &ExportArgs, is_pipe: bool) -> Result<Box<dyn Target>, CliError> {
    if is_pipe {
        return match args.format {
            ExportForm::OciDir => {
                Err(CliError::Usage("--format oci-dir needs a directory as --output".to_owned()))
            }
            _ => Ok(Box::new(TarTarget::pipe(Box::new(std::io::stdout()))?)),
        };
    }
    if args.format == ExportForm::OciDir {
        let target = run::making(|| DirTarget::new(&args.output), DirTarget::leaving)?;
        return Ok(Box::new(target));
    }
    let target = run::making(|| TarTarget::new(&args.output), TarTarget::leaving)?;
    Ok(Box::new(target))
}

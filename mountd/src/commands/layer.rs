//! `lamina layer`: the layers of the images.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::image::{self, ImageArgs, ImageCommand};
use crate::report::CliError;

/// Arguments of `lamina layer`.
#[derive(Debug, Args)]
pub struct LayerArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// The command.
    #[command(subcommand)]
    pub command: LayerCommand,
}

/// Commands of `lamina layer`.
#[derive(Debug, Subcommand)]
pub enum LayerCommand {
    /// List the layers with the images that need them.
    Ls,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: LayerArgs) -> Result<ExitCode, CliError> {
    let LayerArgs { root, json, command: LayerCommand::Ls } = args;
    image::run(ImageArgs { root, json, command: ImageCommand::Layers })
}

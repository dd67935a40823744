//! `lamina volume serve`, which the driver `union` starts.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use laminafs::service::served;
use laminafs::service::spec::MountSpec;
use laminafs::types::{Limits, Rate, Speed};

use crate::report::CliError;
use crate::run;

/// Arguments of `lamina volume serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The directory of the volume.
    directory: PathBuf,
    /// Serve a snapshot, which nobody may write to.
    #[arg(long)]
    read_only: bool,
    /// The size of the volume, in bytes.
    #[arg(long)]
    size_bytes: Option<u64>,
    /// The number of inodes that it may have.
    #[arg(long)]
    inodes: Option<u64>,
    /// Reads a second.
    #[arg(long)]
    read_iops: Option<u64>,
    /// Bytes that are read a second.
    #[arg(long)]
    read_bandwidth: Option<u64>,
    /// Writes a second.
    #[arg(long)]
    write_iops: Option<u64>,
    /// Bytes that are written a second.
    #[arg(long)]
    write_bandwidth: Option<u64>,
}

/// Mounts the content of a volume, and returns when it is served.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &ServeArgs) -> Result<ExitCode, CliError> {
    let limits = Limits { size_bytes: args.size_bytes, inodes: args.inodes };
    let speed = Speed {
        read: Rate { iops: args.read_iops, bandwidth: args.read_bandwidth },
        write: Rate { iops: args.write_iops, bandwidth: args.write_bandwidth },
    };
    let spec = served::spec(&args.directory, args.read_only, (limits, speed))?;
    run::mount(&MountSpec { runtime: run::runtime_dir(), ..spec }, false)
}

//! `lamina container start`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Context;
use super::run::begin;
use crate::commands::mount;
use crate::container::attach::Part;
use crate::options::{Parsed, parse};
use crate::report::{CliError, say};
use crate::run;

/// Arguments of `lamina container start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Options of `lamina mount`.
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<OsString>,
    /// Stay in the foreground.
    #[arg(short, long, conflicts_with = "attach")]
    foreground: bool,
    /// Mount a container that `run` made, and leave its program alone; so does a mount point.
    #[arg(long)]
    pub(super) mount_only: bool,
    /// Stay until the program ends, with its output.
    #[arg(short, long)]
    attach: bool,
    /// The name of the container, or the first digits of its id.
    name: String,
    /// The mount point [default: a directory of the container below the data root].
    mountpoint: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &StartArgs) -> Result<ExitCode, CliError> {
    let found = context.images.container(&args.name, context.runtime.as_deref())?;
    let mounts = args.mount_only || args.mountpoint.is_some() || args.foreground;
    if let Some(program) = found.program.as_ref().filter(|_| !mounts && args.options.is_empty()) {
        let part = Part { input: program.stdin, terminal: program.terminal };
        return begin(context, &found, args.attach.then_some(part));
    }
    if args.attach {
        let text = "a container that create made has no program whose output could be shown";
        return Err(CliError::Usage(text.to_owned()));
    }
    let mut parsed = Parsed { root: Some(context.root.clone()), ..Parsed::default() };
    for list in &args.options {
        parse(&mut parsed, list.as_encoded_bytes())?;
    }
    mount::strict(&parsed)?;
    if parsed.upper.is_some() || parsed.ephemeral {
        return Err(CliError::Usage(
            "a container has its own upper directory: leave out upperdir= and ephemeral".to_owned(),
        ));
    }
    mount::allow(&mut parsed);
    // Device files in the image do not work by default: an engine provides those it wants.
    parsed.flags.vfs.nodev = parsed.flags.dev != Some(true);
    let mut spec = mount::spec(parsed, PathBuf::new())?;
    context.images.mount_container(&args.name, args.mountpoint.clone(), &mut spec)?;
    let target = spec.target.clone();
    let code = run::mount(&spec, args.foreground)?;
    if !args.foreground && code == ExitCode::SUCCESS {
        say(&format!("{}\n", target.display()))?;
    }
    Ok(code)
}

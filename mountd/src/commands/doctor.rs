//! `lamina doctor`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use laminafs::service::doctor::{Finding, examine};

use crate::report::{CliError, FAILED, say, say_json};

/// Arguments of `lamina doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// A directory on the file system to examine for upper directories.
    #[arg(default_value = ".")]
    pub directory: PathBuf,
}

/// Runs the command. It fails if an ability is missing without which no mount is possible.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let found = examine(&args.directory);
    if args.json {
        say_json(&found)?;
    } else {
        say(&found.iter().map(text).collect::<String>())?;
    }
    let fails = found.iter().any(Finding::prevents_mounts);
    Ok(if fails { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn text(finding: &Finding) -> String {
    let mark = match finding.available {
        Some(true) => "yes",
        Some(false) => "off",
        None => "?",
    };
    let needed = if finding.prevents_mounts() { "no mount is possible: " } else { "" };
    let line = format!("{mark:<3}  {:<16} {needed}{}\n", finding.name, finding.detail);
    let remedy = finding.remedy.iter().map(|remedy| format!("{:<22}try: {remedy}\n", ""));
    line + &remedy.collect::<String>()
}

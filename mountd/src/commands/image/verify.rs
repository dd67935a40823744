//! `lamina image verify`.

use std::process::ExitCode;

use clap::Args;
use laminafs::service::images::Finding;

use super::Context;
use super::progress::Shown;
use crate::commands::table::short;
use crate::report::{CliError, FAILED};

/// Arguments of `lamina image verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// One image [default: the whole data root].
    name: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &VerifyArgs) -> Result<ExitCode, CliError> {
    // The result is JSON by itself, without events.
    let mut shown = Shown::new(false);
    let name = args.name.as_deref();
    let found = shown.run(|progress| context.images.verify(name, progress))?;
    context.show(&found, |all| lines(all))?;
    let damage = match found.len() {
        0 => "no damage",
        1 => "1 finding of damage",
        _ => "several findings of damage",
    };
    shown.close(&format!("verified, {damage}"));
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn lines(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        match &finding.layer[..] {
            "" => text.push_str(&format!("{}\n", finding.what)),
            layer => text.push_str(&format!("layer {}: {}\n", short(layer), finding.what)),
        }
        for file in &finding.files {
            text.push_str(&format!("  {file}\n"));
        }
    }
    text
}

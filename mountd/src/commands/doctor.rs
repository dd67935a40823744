//! `lamina doctor`.

use std::path::Path;
use std::process::ExitCode;

use laminafs::service::Failure;
use laminafs::service::doctor::examine;

use crate::report::{Trouble, say, say_json};

/// Runs the command.
///
/// # Errors
/// [`Trouble`].
pub fn run(directory: &Path, json: bool) -> Result<ExitCode, Trouble> {
    let found = examine(directory).map_err(|error| Failure::Path {
        what: "directory",
        path: directory.to_owned(),
        error,
    })?;
    if json {
        say_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let line = |finding: &laminafs::service::doctor::Finding| {
        let mark = if finding.available { "yes" } else { "off" };
        format!("{mark}  {:<16} {}\n", finding.name, finding.detail)
    };
    say(&found.iter().map(line).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

//! `lamina volume df`.

use clap::Args;
use laminafs::service::volumes::{Usage, Volume};
use laminafs::types::size;
use serde::Serialize;

use super::Context;
use crate::report::{CliError, warn};

/// Arguments of `lamina volume df`.
#[derive(Debug, Args)]
pub struct DfArgs {
    /// Names of volumes [default: all].
    names: Vec<String>,
}

/// The space of a volume, as JSON shows it.
#[derive(Serialize)]
struct Row {
    name: String,
    driver: String,
    size_bytes: Option<u64>,
    used_bytes: u64,
    host_bytes: u64,
    inodes: Option<u64>,
    used_inodes: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &DfArgs) -> Result<(), CliError> {
    let service = context.service()?;
    let volumes = if args.names.is_empty() {
        service.list()?
    } else {
        let inspect =
            |name: &String| -> Result<Volume, CliError> { Ok(service.inspect(&name.parse()?)?) };
        args.names.iter().map(inspect).collect::<Result<_, CliError>>()?
    };
    let mut rows = Vec::new();
    for volume in volumes {
        match service.usage(&volume.name) {
            Err(error) if error.is_missing() => {} // removed meanwhile
            Ok(usage) => rows.push(row(volume, usage)),
            Err(error) => warn(&format!("volume {:?}: {error}", volume.name.as_str())),
        }
    }
    context.show(&rows, || table(&rows))
}

fn row(volume: Volume, usage: Usage) -> Row {
    Row {
        name: volume.name.into(),
        driver: volume.driver,
        size_bytes: volume.size_bytes,
        used_bytes: usage.used_bytes,
        host_bytes: usage.host_bytes,
        inodes: volume.inodes,
        used_inodes: usage.used_inodes,
    }
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "{:<width$}  {:<8}  {:>6}  {:>6}  {:>6}  {:>8}\n",
        "NAME", "DRIVER", "SIZE", "USED", "HOST", "INODES"
    );
    for row in rows {
        let limit = row.size_bytes.map_or_else(|| "-".to_owned(), size::shown);
        let inodes = row.used_inodes.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let (used, host) = (size::shown(row.used_bytes), size::shown(row.host_bytes));
        let (name, driver) = (&row.name, &row.driver);
        let line =
            format!("{name:<width$}  {driver:<8}  {limit:>6}  {used:>6}  {host:>6}  {inodes:>8}\n");
        text.push_str(&line);
    }
    text
}

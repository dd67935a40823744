//! `lamina container ls`.

use laminafs::service::containers::ContainerInfo;
use laminafs::types::RunState;

use super::Context;
use crate::args::ListArgs;
use crate::commands::table::short;
use crate::kube::age::since;
use crate::report::{CliError, say, say_json};

/// The longest command that is shown.
const COMMAND: usize = 24;

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &ListArgs) -> Result<(), CliError> {
    let containers = context.images.containers(context.runtime.as_deref())?;
    if args.json { say_json(&containers) } else { say(&table(&containers, args.quiet)) }
}

/// The state of a container, as its user sees it.
fn state(one: &ContainerInfo) -> String {
    match (&one.run, &one.program) {
        (Some(run), _) if run.state == RunState::Running => {
            format!("running {}", since(&run.started))
        }
        (Some(run), _) => {
            let code = run.exit_code.map_or_else(|| "?".to_owned(), |code| code.to_string());
            let ago = run.finished.as_deref().map(since).unwrap_or_default();
            format!("exited ({code}) {ago} ago")
        }
        (None, _) if one.mounted => "mounted".to_owned(),
        (None, Some(_)) => "created".to_owned(),
        (None, None) => "-".to_owned(),
    }
}

fn command(one: &ContainerInfo) -> String {
    let Some(program) = &one.program else { return "-".to_owned() };
    let text: String = program.args.join(" ").escape_debug().collect();
    match text.char_indices().nth(COMMAND) {
        None => text,
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
    }
}

fn table(containers: &[ContainerInfo], quiet: bool) -> String {
    if quiet {
        return containers.iter().map(|one| format!("{}\n", one.name)).collect();
    }
    let on = |one: &ContainerInfo| match (&one.mountpoint, one.mounted) {
        (Some(target), _) => target.display().to_string(),
        (None, true) => "unknown".to_owned(),
        (None, false) => "-".to_owned(),
    };
    let row = |one: &ContainerInfo| {
        let created = since(&one.created);
        [
            one.name.clone(),
            short(&one.id).to_owned(),
            one.image.clone(),
            command(one),
            created,
            state(one),
            on(one),
        ]
    };
    let head = ["NAME", "ID", "IMAGE", "COMMAND", "AGE", "STATE", "MOUNTED ON"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(containers.iter().map(row)).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max()
    };
    let widths: Vec<usize> = (0..7).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 7]| {
        let padded = row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

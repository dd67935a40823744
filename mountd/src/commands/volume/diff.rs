//! `lamina volume diff`.

use std::io::{BufWriter, Write};

use clap::Args;
use laminafs::service::volumes::transfer::{Change, ChangeKind};

use super::Context;
use crate::report::{CliError, say_json};

/// Arguments of `lamina volume diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The old state: a snapshot as VOLUME@SNAPSHOT or by id, or a volume.
    old: String,
    /// The new state [default: the volume of the snapshot].
    new: Option<String>,
    /// Print only the paths of what was added or changed, directories with entries left out, each
    /// ended by a NUL, relative to the content: for restic backup --files-from-raw.
    #[arg(long)]
    print0: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &DiffArgs) -> Result<(), CliError> {
    if context.json && args.print0 {
        return Err(CliError::Usage("--json cannot be used with --print0".to_owned()));
    }
    let new = match (&args.new, args.old.split_once('@')) {
        (Some(new), _) => new.as_str(),
        (None, Some((volume, _))) => volume,
        (None, None) => {
            let what = "the new state is missing: lamina volume diff VOLUME@SNAPSHOT [VOLUME]";
            return Err(CliError::Usage(what.to_owned()));
        }
    };
    let service = context.service()?;
    let mut listed = Vec::new();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut failed = None;
    service.changes(&args.old, new, &mut |change| {
        if context.json {
            listed.push(shown(change));
        } else if failed.is_none()
            && let Some(line) = line(change, args.print0)
        {
            failed = out.write_all(&line).err();
        }
        Ok(())
    })?;
    let written = failed.map_or_else(|| out.flush(), Err);
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            return Err(CliError::Io { what: "standard output".to_owned(), error });
        }
        _ => drop(out),
    }
    if context.json { say_json(&listed) } else { Ok(()) }
}

fn shown(change: &Change<'_>) -> serde_json::Value {
    let path = format!("/{}", String::from_utf8_lossy(change.path));
    serde_json::json!({ "kind": letter(change.kind), "path": path, "is_dir": change.is_dir })
}

const fn letter(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "A",
        ChangeKind::Changed => "C",
        ChangeKind::Deleted => "D",
    }
}

fn line(change: &Change<'_>, print0: bool) -> Option<Vec<u8>> {
    if !print0 {
        return Some([letter(change.kind).as_bytes(), b" /", change.path, b"\n"].concat());
    }
    let is_wanted = change.kind != ChangeKind::Deleted && (!change.is_dir || change.is_empty);
    is_wanted.then(|| [change.path, b"\0"].concat())
}

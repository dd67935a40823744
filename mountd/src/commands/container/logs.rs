//! `lamina container logs`.

use std::time::SystemTime;

use clap::Args;

use super::Context;
use crate::args::time;
use crate::container::logs::{Reader, Wanted, copy};
use crate::container::place::Place;
use crate::report::CliError;

/// Arguments of `lamina container logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on as the program writes more, until it ends.
    #[arg(short, long)]
    follow: bool,
    /// The run before the last one.
    #[arg(short, long)]
    previous: bool,
    /// The last lines alone.
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<u64>,
    /// The output since a time, or of the last minutes: 2026-01-31T12:00:00Z, 10m.
    #[arg(long, value_name = "TIME|AGE", value_parser = time)]
    since: Option<SystemTime>,
    /// Print the time of each line.
    #[arg(short, long)]
    timestamps: bool,
    /// The name of the container, or the first digits of its id.
    name: String,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &LogsArgs) -> Result<(), CliError> {
    let of = context.images.container(&args.name, context.runtime.as_deref())?;
    let place = Place::new(&of, context.runtime.as_deref());
    let failure = |error| {
        let what = format!("the log of container {:?}", args.name);
        CliError::Io { what, error }
    };
    let wanted = Wanted {
        is_previous: args.previous,
        has_times: args.timestamps,
        tail: args.tail,
        since: args.since,
        ..Wanted::default()
    };
    let reader = Reader::open(&place.logs(), wanted).map_err(failure)?;
    let Some(mut reader) = reader else {
        if of.program.is_some() && !args.previous {
            return Ok(());
        }
        let text = format!("container {:?} has no log: its program did not run", args.name);
        return Err(CliError::Container(text));
    };
    copy(&mut reader, || args.follow && place.is_held()).map_err(failure)
}

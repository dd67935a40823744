//! `lamina image history`.

use clap::Args;
use laminafs::service::images::HistoryStep;

use super::Context;
use crate::commands::table::{DIGITS, seconds, short};
use crate::report::CliError;

/// Arguments of `lamina image history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// `NAME[:TAG]`, or the first digits of an id.
    name: String,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &HistoryArgs) -> Result<(), CliError> {
    context.show(&context.images.history(&args.name)?, |all| table(all))
}

fn table(steps: &[HistoryStep]) -> String {
    let mut text = format!("{:<DIGITS$}  {:<20}  CREATED BY\n", "LAYER", "CREATED");
    for step in steps {
        let layer = step.layer.as_deref().map_or("-", short);
        let created = step.created.as_deref().map_or_else(|| "-".to_owned(), seconds);
        let by = step.created_by.as_deref().unwrap_or("");
        text.push_str(&format!("{layer:<DIGITS$}  {created:<20}  {by}\n"));
    }
    text
}

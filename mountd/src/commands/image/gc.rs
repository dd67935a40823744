//! `lamina image gc`.

use super::Context;
use crate::report::CliError;

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context) -> Result<(), CliError> {
    let removed = context.images.collect()?;
    context.show(&removed, |all| all.iter().map(|id| format!("{id}\n")).collect())
}

//! `lamina volume rm`.

use std::path::Path;

use clap::Args;
use laminafs::service::CatalogError;
use laminafs::service::volumes::remove;

use crate::report::{CliError, say};

/// Arguments of `lamina volume rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Succeed if a volume does not exist.
    #[arg(short, long)]
    force: bool,
    /// Names of volumes.
    #[arg(required = true)]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: &RmArgs) -> Result<(), CliError> {
    for name in &args.names {
        match remove(root, &name.parse()?) {
            Err(CatalogError::Missing { .. }) if args.force => {}
            done => {
                done?;
                say(&format!("{name}\n"))?;
            }
        }
    }
    Ok(())
}

//! Arguments of lists.

use clap::Args;

/// Arguments of a command that lists named objects.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print names alone.
    #[arg(short, long)]
    pub quiet: bool,
}

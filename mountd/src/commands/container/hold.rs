//! `lamina container hold`, which `run` and `start` run for each container with a program.

use std::process::ExitCode;

use clap::Args;
use laminafs::service::background::{self, Role};

use super::Context;
use crate::container::attach::hold_signals;
use crate::container::hold::{Holder, Refused, Setup};
use crate::report::CliError;

pub(super) use crate::container::hold::REFUSED;

/// Arguments of `lamina container hold`.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Begin the program when a client is there for its output.
    #[arg(long)]
    attach: bool,
    /// The name of the container, or the first digits of its id.
    name: String,
}

fn refused(name: &str) -> impl Fn(Refused) -> CliError + '_ {
    move |refused| {
        let error = Box::new(CliError::Container(format!("container {name:?}: {}", refused.why)));
        CliError::Program { code: refused.code, error }
    }
}

/// Takes the container, goes to the background, and runs its program to its end.
///
/// # Errors
/// [`CliError`] if the program did not begin.
pub(super) fn run(context: &Context, args: HoldArgs) -> Result<ExitCode, CliError> {
    let ready = match background::split()? {
        Role::Starter(code) => return Ok(ExitCode::from(code)),
        Role::Daemon(ready) => ready,
    };
    let signals = hold_signals(false);
    let signals = signals.map_err(|error| CliError::Io { what: "signals".to_owned(), error })?;
    let setup = Setup {
        root: context.root.clone(),
        runtime: context.runtime.clone(),
        name: args.name.clone(),
        waits: args.attach,
    };
    let holder = Holder::take(setup).map_err(refused(&args.name))?;
    let watched = holder.watch_signals(signals);
    watched.map_err(|error| CliError::Io { what: "starting a thread".to_owned(), error })?;
    let begun = move || {
        crate::log::detach();
        if let Err(failure) = ready.report() {
            tracing::error!(%failure, "going to the background");
        }
    };
    holder.run(Box::new(begun)).map_err(refused(&args.name))?;
    Ok(ExitCode::SUCCESS)
}

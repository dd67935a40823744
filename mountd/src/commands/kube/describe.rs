//! `lamina describe`.

use std::process::ExitCode;

use clap::Args;

use super::Outcome;
use super::host::Host;
use super::names::{Named, Shown, target};
use crate::kube::describe::describe;
use crate::report::{CliError, say};

/// Arguments of `lamina describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    #[command(flatten)]
    shown: Shown,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &DescribeArgs) -> Result<ExitCode, CliError> {
    let shown = &args.shown;
    let named = Named::parse(&shown.words)?;
    let host = Host::read(&shown.place)?;
    let mut outcome = Outcome::default();
    let mut found = Vec::new();
    match named {
        Named::Kinds(kinds) => {
            for kind in kinds {
                let items = shown.selectors.list(&host.store, kind, shown.in_namespace())?;
                found.extend(items.into_iter().map(|object| (kind, object)));
            }
            if found.is_empty() {
                super::note("No resources found");
            }
        }
        Named::Objects(objects) => {
            for (kind, name) in objects {
                match host.store.get(&target(kind, shown.namespace.name(), &name)) {
                    Ok(object) => found.push((kind, object)),
                    Err(failure) => outcome.failed(failure.to_string()),
                }
            }
        }
    }
    let mut texts = Vec::with_capacity(found.len());
    for (kind, object) in found {
        texts.push(describe(&host.store, kind, &object)?);
    }
    say(&texts.join("\n\n"))?;
    Ok(outcome.code())
}

//! `lamina describe`.

use std::process::ExitCode;

use clap::Args;

use super::Outcome;
use super::host::{Host, Namespace, Place};
use super::names::{Named, Selectors, target};
use crate::kube::describe::describe;
use crate::report::{CliError, say};

/// Arguments of `lamina describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// KIND, KIND NAME.., or KIND/NAME.. as of `lamina get`.
    #[arg(value_name = "KIND[/NAME]", required = true)]
    words: Vec<String>,
    #[command(flatten)]
    namespace: Namespace,
    /// The objects of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
    #[command(flatten)]
    selectors: Selectors,
    #[command(flatten)]
    place: Place,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &DescribeArgs) -> Result<ExitCode, CliError> {
    let named = Named::parse(&args.words)?;
    let host = Host::read(&args.place)?;
    let mut outcome = Outcome::default();
    let mut found = Vec::new();
    match named {
        Named::Kinds(kinds) => {
            let namespace = (!args.all_namespaces).then(|| args.namespace.name());
            for kind in kinds {
                let items = args.selectors.list(&host.store, kind, namespace)?;
                found.extend(items.into_iter().map(|object| (kind, object)));
            }
            if found.is_empty() {
                super::note("No resources found");
            }
        }
        Named::Objects(objects) => {
            for (kind, name) in objects {
                match host.store.get(&target(kind, args.namespace.name(), &name)) {
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

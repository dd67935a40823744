//! `lamina get`.

use std::process::ExitCode;

use clap::Args;

use super::Outcome;
use super::host::Host;
use super::names::{Named, Shown, target};
use super::print::{Form, Group, hide_managed, tables, whole};
use crate::report::{CliError, say};

/// Arguments of `lamina get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    #[command(flatten)]
    shown: Shown,
    /// The form of the output [default: a table].
    #[arg(long, short = 'o', value_name = "FORM")]
    output: Option<Form>,
    /// Print JSON: as --output json.
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Keep the managers of fields (managedFields) in JSON and YAML.
    #[arg(long)]
    show_managed_fields: bool,
    /// Names that do not exist are no failure.
    #[arg(long)]
    ignore_not_found: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &GetArgs) -> Result<ExitCode, CliError> {
    let shown = &args.shown;
    let named = Named::parse(&shown.words)?;
    let host = Host::read(&shown.place)?;
    let mut outcome = Outcome::default();
    let namespace = shown.in_namespace();
    let (mut groups, is_single) = match named {
        Named::Kinds(kinds) => {
            let mut groups = Vec::new();
            for kind in kinds {
                let items = shown.selectors.list(&host.store, kind, namespace)?;
                groups.push(Group { kind, items });
            }
            (groups, false)
        }
        Named::Objects(objects) => {
            if shown.all_namespaces || !shown.selectors.is_empty() {
                let text = "names and --all-namespaces or a selector exclude each other";
                return Err(CliError::Usage(text.to_owned()));
            }
            let is_single = objects.len() == 1;
            let mut groups: Vec<Group> = Vec::new();
            for (kind, name) in objects {
                match host.store.get(&target(kind, shown.namespace.name(), &name)) {
                    Ok(object) => match groups.last_mut().filter(|last| last.kind == kind) {
                        Some(last) => last.items.push(object),
                        None => groups.push(Group { kind, items: vec![object] }),
                    },
                    Err(failure) if failure.code == 404 && args.ignore_not_found => {}
                    Err(failure) => outcome.failed(failure.to_string()),
                }
            }
            if groups.is_empty() {
                return Ok(outcome.code());
            }
            (groups, is_single)
        }
    };
    let form = if args.json { Some(Form::Json) } else { args.output };
    match form {
        Some(form @ (Form::Json | Form::Yaml | Form::Name)) => {
            if !args.show_managed_fields {
                groups.iter_mut().flat_map(|group| &mut group.items).for_each(hide_managed);
            }
            say(&whole(form, groups, is_single)?)?;
        }
        _ => {
            if groups.iter().all(|group| group.items.is_empty()) {
                nothing(&groups, namespace);
            }
            say(&tables(&groups, form == Some(Form::Wide), shown.all_namespaces))?;
        }
    }
    Ok(outcome.code())
}

/// Prints on the standard error that nothing was found.
fn nothing(groups: &[Group], namespace: Option<&str>) {
    let is_namespaced = groups.iter().any(|group| group.kind.is_namespaced);
    let text = match namespace.filter(|_| is_namespaced) {
        Some(namespace) => format!("No resources found in {namespace} namespace."),
        None => "No resources found".to_owned(),
    };
    super::note(&text);
}

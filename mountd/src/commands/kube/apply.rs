//! `lamina apply`.

use std::cell::RefCell;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Outcome;
use super::files::Files;
use super::host::{Host, Namespace, Place};
use super::print::{Form, Group, hide_managed, whole};
use crate::kube::configured::{LAST, MANAGER, apply, configuration, was_applied};
use crate::kube::foreign::{adopt, is_foreign};
use crate::kube::kinds::Kind;
use crate::kube::manifest::Manifest;
use crate::kube::meta::{is_ending, set_meta, text};
use crate::kube::objects::{Part, Target, Unknown, WriteOptions, Written};
use crate::kube::seam::{PatchForm, patched};
use crate::kube::status::Answer;
use crate::report::{CliError, say, warn};

/// The manager of fields of a server-side apply for which none is named.
const SERVER_MANAGER: &str = "kubectl";

/// What a dry run leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Everything is stored
    None,
    /// Nothing is stored
    Client,
    /// Nothing is stored
    Server,
}

impl DryRun {
    /// Whether nothing is stored.
    pub fn is_dry(self) -> bool {
        self != Self::None
    }

    /// What is printed behind the result.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

/// Arguments of `lamina apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    namespace: Namespace,
    /// Judge the manifests as if they were applied, and store nothing.
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true,
          default_value = "none", default_missing_value = "server", hide_default_value = true)]
    dry_run: DryRun,
    /// Apply as the server does it, by the managers of fields.
    #[arg(long)]
    server_side: bool,
    /// Take fields from other managers, with --server-side.
    #[arg(long, requires = "server_side")]
    force_conflicts: bool,
    /// The manager of the fields [default: that of kubectl].
    #[arg(long, value_name = "NAME")]
    field_manager: Option<String>,
    /// Print the objects in this form.
    #[arg(long, short = 'o', value_name = "FORM")]
    output: Option<Form>,
    #[command(flatten)]
    place: Place,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &ApplyArgs) -> Result<ExitCode, CliError> {
    if args.files.files.is_empty() {
        return Err(CliError::Usage("name a file with -f".to_owned()));
    }
    let mut outcome = Outcome::default();
    let manifests = args.files.manifests(&mut outcome);
    if manifests.is_empty() && !outcome.has_failed {
        return Err(CliError::Objects("no objects passed to apply".to_owned()));
    }
    let host = Host::write(&args.place)?;
    let mut groups = Vec::new();
    for manifest in manifests {
        let place = manifest.place.clone();
        match one(args, &host, manifest) {
            Ok(group) => groups.push(group),
            Err(why) => outcome.failed(format!("{place}: {why}")),
        }
    }
    if let Some(form) = args.output {
        let is_single = groups.len() == 1;
        say(&whole(form, groups, is_single)?)?;
    }
    if !args.dry_run.is_dry() {
        host.settle()?;
    }
    Ok(outcome.code())
}

/// Where an object goes: its kind, namespace and name.
fn target(args: &ApplyArgs, object: &Value) -> Result<(&'static Kind, String, String), String> {
    let (version, name) = (text(object, "/apiVersion"), text(object, "/kind"));
    if version.is_empty() || name.is_empty() {
        return Err("Object 'Kind' and 'apiVersion' must be set".to_owned());
    }
    let kind = Kind::of_manifest(version, name)
        .ok_or_else(|| format!("no matches for kind {name:?} in version {version:?}"))?;
    for field in ["name", "namespace"] {
        let value = object.pointer(&format!("/metadata/{field}")).filter(|one| !one.is_null());
        if let Some(other) = value.filter(|value| !value.is_string()) {
            return Err(format!("metadata.{field} is {other}, not a text: use quotes"));
        }
    }
    let name = text(object, "/metadata/name");
    if name.is_empty() {
        let why = match text(object, "/metadata/generateName") {
            "" => "resource name may not be empty",
            _ => "cannot use generate name with apply",
        };
        return Err(why.to_owned());
    }
    let own = text(object, "/metadata/namespace");
    let namespace = match (kind.is_namespaced, &args.namespace.namespace) {
        (false, _) => "",
        (true, Some(named)) if !own.is_empty() && own != named => {
            return Err(format!(
                "the namespace from the provided object {own:?} does not match the namespace \
                 {named:?}. You must pass '--namespace={own}' to perform this operation."
            ));
        }
        (true, _) if !own.is_empty() => own,
        (true, _) => args.namespace.name(),
    };
    Ok((kind, namespace.to_owned(), name.to_owned()))
}

/// Applies an object, and prints what became of it.
fn one(args: &ApplyArgs, host: &Host, manifest: Manifest) -> Result<Group, String> {
    let (kind, namespace, name) = target(args, &manifest.object)?;
    let target = Target { kind, namespace: &namespace, name: &name };
    let manager = if args.server_side { SERVER_MANAGER } else { MANAGER };
    let options = WriteOptions {
        is_dry_run: args.dry_run.is_dry(),
        manager: args.field_manager.clone().unwrap_or_else(|| manager.to_owned()),
        is_forced: args.force_conflicts,
        is_applied: args.server_side,
        unknown: Unknown::Refuse,
        duplicates: manifest.duplicates,
    };
    let applied = match args.server_side {
        true => by_server(host, &target, manifest.object, &options),
        false => by_client(host, &target, manifest.object, &options),
    };
    let (written, result) = applied.map_err(|failure| failure.to_string())?;
    written.warnings.iter().for_each(|warning| warn(warning));
    if args.output.is_none() {
        let line = format!("{} {result}{}\n", kind.shown(&name), args.dry_run.suffix());
        say(&line).map_err(|error| error.to_string())?;
    }
    let mut object = written.object;
    hide_managed(&mut object);
    Ok(Group { kind, items: vec![object] })
}

type Applied = Answer<(Written, &'static str)>;

fn by_client(host: &Host, target: &Target<'_>, object: Value, options: &WriteOptions) -> Applied {
    let new = configuration(target.kind, object, target.namespace);
    let before = RefCell::new(None);
    let hint = RefCell::new(None);
    let mut written = host.store.change(target, Part::Main, options, &|current| {
        let mut new = new.clone();
        if is_foreign(&new, current) {
            adopt(target.kind, &mut new);
        }
        let Some(current) = current else {
            // As kubectl does it: the version is that of an object that was.
            set_meta(&mut new, "resourceVersion", None);
            return Ok(new);
        };
        *hint.borrow_mut() = hint_about(target, current);
        *before.borrow_mut() = Some(current.clone());
        apply(target.kind, current, &new)
    })?;
    written.warnings.extend(hint.take());
    // One that is as it was has its version too, also where nothing is stored.
    let is_same = before.take().as_ref() == Some(&written.object);
    let result = match (written.is_new, is_same) {
        (true, _) => "created",
        (false, true) => "unchanged",
        (false, false) => "configured",
    };
    Ok((written, result))
}

/// What the user should know of an object that is applied to.
fn hint_about(target: &Target<'_>, current: &Value) -> Option<String> {
    let shown = format!("{}/{}", target.kind.plural, target.name);
    if is_ending(current) {
        return Some(format!("{shown} is being deleted"));
    }
    if was_applied(current) {
        return None;
    }
    Some(format!(
        "{shown} has no annotation {LAST}: it was made without apply, and what the file leaves out \
         stays. The annotation is added now"
    ))
}

fn by_server(
    host: &Host,
    target: &Target<'_>,
    mut object: Value,
    options: &WriteOptions,
) -> Applied {
    if target.kind.is_namespaced {
        set_meta(&mut object, "namespace", Some(target.namespace.into()));
    }
    let written = host.store.change(target, Part::Main, options, &|current| {
        let mut object = object.clone();
        if is_foreign(&object, current) {
            adopt(target.kind, &mut object);
        }
        patched((target.kind, Part::Main), PatchForm::Apply, current, &object, options)
    })?;
    Ok((written, "serverside-applied"))
}

//! `lamina delete`.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::Outcome;
use super::apply::DryRun;
use super::files::Files;
use super::host::{Host, Namespace, Place};
use super::names::{Named, Selectors, target};
use crate::kube::kinds::Kind;
use crate::kube::meta::{finalizers, text};
use crate::kube::objects::DeleteOptions;
use crate::kube::status::Answer;
use crate::report::{CliError, say};

/// Between two looks whether an object is gone.
const LOOK: Duration = Duration::from_millis(50);
/// After this time it is said what is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of `lamina delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// KIND NAME.., or KIND/NAME.. as of `lamina get`; KIND with --all or --selector.
    #[arg(value_name = "KIND[/NAME]", required_unless_present = "files", conflicts_with = "files")]
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    selectors: Selectors,
    /// All objects of the kind in the namespace.
    #[arg(long)]
    all: bool,
    /// Wait until the objects are gone.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait, such as 30s [default: for ever].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// The seconds that a pod has to end [default: those of the pod].
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u64>,
    /// Names that do not exist are no failure.
    #[arg(long)]
    ignore_not_found: bool,
    /// Delete nothing.
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true,
          default_value = "none", default_missing_value = "server", hide_default_value = true)]
    dry_run: DryRun,
    #[command(flatten)]
    place: Place,
}

/// An object to delete.
struct Doomed {
    kind: &'static Kind,
    namespace: String,
    name: String,
    /// Where it is named, for errors; empty for the command line.
    place: String,
    /// Its id, once its deletion began.
    uid: String,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &DeleteArgs) -> Result<ExitCode, CliError> {
    let mut outcome = Outcome::default();
    let (host, doomed) = match args.words.is_empty() {
        true => {
            let manifests = args.files.manifests(&mut outcome);
            (Host::write(&args.place)?, of_files(args, manifests, &mut outcome))
        }
        false => {
            let named = Named::parse(&args.words)?;
            let host = Host::write(&args.place)?;
            let doomed = of_words(args, &host, named)?;
            (host, doomed)
        }
    };
    if doomed.is_empty() && !outcome.has_failed {
        super::note("No resources found");
    }
    let options = DeleteOptions {
        is_dry_run: args.dry_run.is_dry(),
        grace: args.grace_period,
        ..DeleteOptions::default()
    };
    let mut begun = Vec::new();
    for mut one in doomed {
        match delete(&host, &mut one, &options) {
            Ok(()) => {
                let shown = one.kind.shown("");
                let kind = shown.trim_end_matches('/');
                say(&format!("{kind} {:?} deleted{}\n", one.name, args.dry_run.suffix()))?;
                begun.push(one);
            }
            Err(failure) if failure.code == 404 && (args.ignore_not_found || args.all) => {}
            Err(failure) if one.place.is_empty() => outcome.failed(failure.to_string()),
            Err(failure) => outcome.failed(format!("{}: {failure}", one.place)),
        }
    }
    if !args.dry_run.is_dry() {
        host.settle()?;
        if args.wait {
            wait(args, &host, begun, &mut outcome)?;
        }
    }
    Ok(outcome.code())
}

fn of_files(
    args: &DeleteArgs,
    manifests: Vec<crate::kube::manifest::Manifest>,
    outcome: &mut Outcome,
) -> Vec<Doomed> {
    let mut doomed = Vec::new();
    for manifest in manifests {
        let object = &manifest.object;
        let (version, name) = (text(object, "/apiVersion"), text(object, "/kind"));
        let Some(kind) = Kind::of_manifest(version, name) else {
            let place = manifest.place;
            outcome.failed(format!("{place}: no matches for kind {name:?} in version {version:?}"));
            continue;
        };
        let own = text(object, "/metadata/namespace");
        let namespace = if own.is_empty() { args.namespace.name() } else { own };
        doomed.push(Doomed {
            kind,
            namespace: namespace.to_owned(),
            name: text(object, "/metadata/name").to_owned(),
            uid: String::new(),
            place: manifest.place,
        });
    }
    doomed
}

fn of_words(args: &DeleteArgs, host: &Host, named: Named) -> Result<Vec<Doomed>, CliError> {
    let namespace = args.namespace.name();
    let new = |kind: &'static Kind, name: &str| Doomed {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        place: String::new(),
        uid: String::new(),
    };
    match named {
        Named::Objects(_) if args.all || !args.selectors.is_empty() => {
            Err(CliError::Usage("names and --all or a selector exclude each other".to_owned()))
        }
        Named::Objects(objects) => Ok(objects.iter().map(|(kind, name)| new(kind, name)).collect()),
        Named::Kinds(_) if !args.all && args.selectors.is_empty() => {
            let text = "name the objects, or use --all or --selector";
            Err(CliError::Usage(text.to_owned()))
        }
        Named::Kinds(kinds) => {
            let mut doomed = Vec::new();
            for kind in kinds {
                let items = args.selectors.list(&host.store, kind, Some(namespace))?;
                doomed.extend(items.iter().map(|item| new(kind, text(item, "/metadata/name"))));
            }
            Ok(doomed)
        }
    }
}

fn delete(host: &Host, one: &mut Doomed, options: &DeleteOptions) -> Answer<()> {
    let place = target(one.kind, &one.namespace, &one.name);
    let current = host.store.get(&place)?;
    let uid = text(&current, "/metadata/uid").to_owned();
    // An object of this name that is newer by now is another one.
    let options = DeleteOptions { uid: Some(uid.clone()), ..options.clone() };
    host.store.delete(&place, &options)?;
    one.uid = uid;
    Ok(())
}

/// Waits until objects are gone, and carries out what is due as others change something.
fn wait(
    args: &DeleteArgs,
    host: &Host,
    mut left: Vec<Doomed>,
    outcome: &mut Outcome,
) -> Result<(), CliError> {
    let start = Instant::now();
    let mut version = host.store.version()?;
    let mut is_told = false;
    loop {
        let mut held = Vec::new();
        for one in left {
            if let Some(object) = still(host, &one)? {
                held.push((one, object));
            }
        }
        if held.is_empty() {
            return Ok(());
        }
        if !is_told && start.elapsed() >= PATIENCE {
            is_told = true;
            held.iter().for_each(|(one, object)| super::note(&waiting(one, object)));
        }
        if args.timeout.is_some_and(|most| !most.is_zero() && start.elapsed() >= most) {
            for (one, object) in held {
                outcome.failed(format!("timed out: {}", waiting(&one, &object)));
            }
            return Ok(());
        }
        left = held.into_iter().map(|(one, _)| one).collect();
        sleep(LOOK);
        let now = host.store.version()?;
        if std::mem::replace(&mut version, now) != now {
            host.settle()?;
        }
    }
}

/// An object whose deletion has begun, if it is still there.
fn still(host: &Host, one: &Doomed) -> Answer<Option<Value>> {
    match host.store.get(&target(one.kind, &one.namespace, &one.name)) {
        Err(failure) if failure.code == 404 => Ok(None),
        Err(failure) => Err(failure),
        Ok(now) => Ok(Some(now).filter(|now| text(now, "/metadata/uid") == one.uid)),
    }
}

fn waiting(one: &Doomed, object: &Value) -> String {
    let shown = one.kind.shown(&one.name);
    let holders = finalizers(object);
    match holders.is_empty() {
        true => format!("{shown} is not gone yet"),
        false => format!("{shown} is held by its finalizers: {}", holders.join(", ")),
    }
}

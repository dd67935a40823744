//! `lamina kube export`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use laminafs::service::volumes::{Volume, VolumeService};
use laminafs::service::{CatalogError, Refusal};
use serde_json::{Value, json};

use super::host::{Host, Place};
use super::names::Selectors;
use super::print::{json_text, yaml};
use crate::kube::kinds::Kind;
use crate::kube::meta::{is_ending, text};
use crate::kube::namespace::LASTING;
use crate::kube::status::Failure;
use crate::kube::{backing, export};
use crate::report::{CliError, say};

/// What each namespace of a cluster has by itself.
const OWN_MAP: &str = "kube-root-ca.crt";
const OWN_SECRET: &str = "kubernetes.io/service-account-token";

/// Arguments of `lamina kube export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The claims of this namespace alone [default: of all].
    #[arg(long, short = 'n', value_name = "NAME")]
    namespace: Option<String>,
    /// Print the config maps and secrets of the namespaces too.
    #[arg(long)]
    all: bool,
    /// Print a list in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &ExportArgs) -> Result<ExitCode, CliError> {
    let host = Host::read(&args.place)?;
    let items = manifests(args, &host)?;
    if args.json {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        say(&json_text(&list)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut texts = Vec::with_capacity(items.len());
    for item in &items {
        texts.push(yaml(item)?);
    }
    if texts.is_empty() {
        super::note("no claim is bound");
    }
    say(&texts.join("---\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn all(host: &Host, record: &str, namespace: Option<&str>) -> Result<Vec<Value>, CliError> {
    let kind = Kind::of_record(record);
    let kind = kind.ok_or_else(|| Failure::internal(&format!("no kind {record}")))?;
    Ok(Selectors::default().list(&host.store, kind, namespace)?)
}

/// The bound claims, each with its volume.
fn bound(args: &ExportArgs, host: &Host) -> Result<Vec<(Value, Value)>, CliError> {
    let volumes = all(host, "persistentvolumes", None)?;
    let claims = all(host, "persistentvolumeclaims", args.namespace.as_deref())?;
    let pairs = claims.into_iter().filter_map(|claim| {
        let (name, uid) = (text(&claim, "/spec/volumeName"), text(&claim, "/metadata/uid"));
        let is_it = |volume: &&Value| {
            text(volume, "/metadata/name") == name && text(volume, "/spec/claimRef/uid") == uid
        };
        let is_bound = text(&claim, "/status/phase") == "Bound" && !is_ending(&claim);
        let volume = volumes.iter().find(is_it).filter(|_| is_bound)?.clone();
        Some((claim, volume))
    });
    Ok(pairs.collect())
}

/// The volume of Lamina behind an object.
fn behind(volumes: &VolumeService, object: &Value) -> Result<Option<Volume>, CliError> {
    let Some(name) = backing::volume(volumes, object)? else { return Ok(None) };
    match volumes.inspect(&name) {
        Ok(found) => Ok(Some(found)),
        Err(Refusal::Catalog(CatalogError::Missing { .. })) => {
            let name = text(object, "/metadata/name");
            crate::report::warn(&format!("the content of persistentvolume/{name} is missing"));
            Ok(None)
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// What a cluster needs first comes first.
fn manifests(args: &ExportArgs, host: &Host) -> Result<Vec<Value>, CliError> {
    let pairs = bound(args, host)?;
    let node = host.node()?;
    let service = host.volumes()?;
    let served = host.served();
    let place = |object: &Value| text(object, "/metadata/namespace").to_owned();
    let namespaces: BTreeSet<String> = pairs.iter().map(|(claim, _)| place(claim)).collect();
    let classes: BTreeSet<&str> =
        pairs.iter().map(|(claim, _)| text(claim, "/spec/storageClassName")).collect();
    let is_in = |object: &Value| namespaces.contains(&place(object));
    let mut items = Vec::new();
    for one in all(host, "namespaces", None)? {
        let name = text(&one, "/metadata/name");
        if namespaces.contains(name) && !LASTING.contains(&name) {
            let mut one = export::portable(&one);
            crate::kube::meta::set(&mut one, "spec", None);
            items.push(one);
        }
    }
    for one in all(host, "storageclasses.storage.k8s.io", None)? {
        if classes.contains(text(&one, "/metadata/name")) {
            items.push(export::class(&one, served.contains(text(&one, "/provisioner"))));
        }
    }
    for (_, volume) in &pairs {
        items.push(export::volume(volume, behind(&service, volume)?.as_ref(), &node));
    }
    items.extend(pairs.iter().map(|(claim, _)| export::claim(claim)));
    if args.all {
        let maps = all(host, "configmaps", args.namespace.as_deref())?;
        let maps = maps.iter().filter(|one| text(one, "/metadata/name") != OWN_MAP);
        items.extend(maps.filter(|one| is_in(one)).map(export::portable));
        let secrets = all(host, "secrets", args.namespace.as_deref())?;
        let secrets = secrets.iter().filter(|one| text(one, "/type") != OWN_SECRET);
        items.extend(secrets.filter(|one| is_in(one)).map(export::portable));
    }
    Ok(items)
}

//! What is left of a pod that has ended, and its removal.

use std::path::Path;

use laminafs::service::volumes::VolumeService;
use serde_json::Value;

use super::claims;
use super::fault::Fault;
use super::home::{Held, Home};
use super::runtime::{Engine, Runtime};
use super::source::kind;
use crate::kube::meta::{is_ending, text};
use crate::kube::objects::{DeleteOptions, ListOptions, Store, Target};
use crate::kube::status::Answer;

/// Ends the mounts of a pod without containers, gives its volumes back and removes what is its own.
pub fn end(home: &Home, held: &Held, volumes: &VolumeService, uid: &str) -> Result<(), Fault> {
    home.unmount(false).map_err(failed("ending its mounts"))?;
    claims::release(volumes, home, uid)?;
    home.clear(held).map_err(failed("removing its files"))
}

/// Names what failed of a pod.
fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Fault {
    move |error| Fault::new(format!("{what}: {error}"))
}

/// Ends what is left of a pod without a process. Of one that is being deleted, the object goes too,
/// and with it the directory.
///
/// # Errors
/// Those of the catalogue and of the host.
pub fn conclude(
    store: &Store,
    volumes: &VolumeService,
    (home, held): (&Home, Held),
    pod: &Value,
) -> Result<(), Fault> {
    let uid = text(pod, "/metadata/uid");
    Engine::new(Runtime::Crun, home, uid).remove_all().map_err(failed("ending its containers"))?;
    end(home, &held, volumes, uid)?;
    let name = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    // While a finalizer holds the object, its logs can be read.
    if is_ending(pod) && remove_object(store, name, uid)? {
        home.remove(held).map_err(failed("removing its directory"))?;
    }
    Ok(())
}

/// Removes the object of a deleted pod whose containers have ended. Whether it is gone: a finalizer
/// may hold it.
///
/// # Errors
/// Those of the catalogue.
pub fn remove_object(store: &Store, (namespace, name): (&str, &str), uid: &str) -> Answer<bool> {
    let target = Target { kind: kind("pods")?, namespace, name };
    let options =
        DeleteOptions { grace: Some(0), uid: Some(uid.to_owned()), ..DeleteOptions::default() };
    match store.delete(&target, &options) {
        Err(failure) if !matches!(failure.code, 404 | 409) => return Err(failure),
        _ => {}
    }
    match store.get(&target) {
        Err(failure) if failure.code != 404 => Err(failure),
        found => Ok(!found.is_ok_and(|pod| text(&pod, "/metadata/uid") == uid)),
    }
}

/// Removes what pods left whose objects are gone, and that no process holds.
///
/// # Errors
/// Those of the catalogue and of the host, the first one.
pub fn sweep(
    store: &Store,
    volumes: &VolumeService,
    runtime_dir: Option<&Path>,
) -> Result<(), Fault> {
    let homes = Home::all(volumes.root(), runtime_dir).map_err(failed("listing pods"))?;
    if homes.is_empty() {
        return Ok(());
    }
    let pods =
        || -> Answer<Vec<Value>> { Ok(store.list(kind("pods")?, &ListOptions::default())?.items) };
    let before = pods()?;
    let has = |all: &[Value], uid: &str| all.iter().any(|pod| text(pod, "/metadata/uid") == uid);
    for (uid, home) in homes {
        if has(&before, &uid) {
            continue;
        }
        let Some(held) = home.lock().map_err(failed("locking a pod"))? else { continue };
        // The pod may have been made after the directories were listed: it is looked for now.
        if has(&pods()?, &uid) {
            continue;
        }
        let engine = Engine::new(Runtime::Crun, &home, &uid);
        engine.remove_all().map_err(failed("ending containers"))?;
        end(&home, &held, volumes, &uid)?;
        home.remove(held).map_err(failed("removing the directory of a pod"))?;
    }
    Ok(())
}

//! The mounts of a pod that does not run: the roots of its containers with its volumes in them.

use std::path::{Path, PathBuf};

use laminafs::service::images::Images;
use laminafs::service::volumes::VolumeService;
use serde_json::Value;

use super::ends::end;
use super::fault::Fault;
use super::home::Home;
use super::plan::Plan;
use super::runtime::{Engine, Runtime};
use super::source::pod;
use super::volumes::Site;
use super::{env, mounts};
use crate::kube::meta::{is_ending, text};
use crate::kube::objects::Store;

/// A container that is mounted.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Shown {
    /// The name of the container.
    pub container: String,
    /// Its root.
    pub root: PathBuf,
}

/// The objects, the volumes, and the runtime directory.
type Place<'a> = (&'a Store, &'a VolumeService, Option<&'a Path>);

fn io(error: std::io::Error) -> Fault {
    Fault::new(error.to_string())
}

/// Mounts the containers of a pod, and runs nothing.
///
/// # Errors
/// A pod that runs, or whose volumes or images are missing: then nothing stays mounted.
pub fn mount(
    (store, volumes, runtime_dir): Place<'_>,
    name: (&str, &str),
) -> Result<Vec<Shown>, Fault> {
    let found = pod(store, name)?;
    let uid = text(&found, "/metadata/uid").to_owned();
    let home = Home::new(volumes.root(), runtime_dir, &uid).map_err(io)?;
    let Some(held) = home.lock().map_err(io)? else {
        return Err(Fault::new(format!("pod {:?} runs: its mounts are there already", name.1)));
    };
    let pod = pod(store, name)?;
    if text(&pod, "/metadata/uid") != uid || is_ending(&pod) {
        return Err(Fault::new(format!("pod {:?} is being deleted", name.1)));
    }
    if text(&pod, "/spec/nodeName").is_empty() {
        return Err(Fault::new(format!("pod {:?} has no node yet", name.1)));
    }
    if home.was_started() {
        let text = format!("pod {:?} was started: stop it with lamina pod stop", name.1);
        return Err(Fault::new(text));
    }
    let plan = Plan::of(pod);
    home.unmount(true).map_err(io)?;
    let shown = roots(&Site { store, volumes, home: &home, plan: &plan });
    if shown.is_err() {
        end(&home, &held, volumes, &uid)?;
    }
    shown
}

fn roots(site: &Site<'_>) -> Result<Vec<Shown>, Fault> {
    let ready = site.volumes();
    let ready = ready.map_err(|(name, fault)| Fault::new(format!("volume {name:?}: {fault}")))?;
    let mut shown = Vec::new();
    for container in &site.plan.containers {
        let image = Images::open(site.home.root());
        let image = image.and_then(|images| images.inspect(&container.image));
        let image: Value = image.map_err(|refusal| Fault::new(refusal.to_string()))?.config;
        let root = site.home.container(&container.name);
        let image_word = format!("--image={}", container.image);
        let words = [&image_word[..], "--ephemeral"];
        mounts::lamina(&words, &root, site.home.root()).map_err(io)?;
        let variables = env::variables(site.store, site.plan, container, &image)?;
        for bind in site.binds(&ready, container, &variables)? {
            let done = mounts::within(&root, &bind.target, &bind.source, bind.read_only);
            done.map_err(|error| Fault::new(format!("mounting {}: {error}", bind.target)))?;
        }
        shown.push(Shown { container: container.name.clone(), root });
    }
    Ok(shown)
}

/// Ends the mounts of a pod that does not run. Whether there was anything.
///
/// # Errors
/// A process holds the pod; those of the host.
pub fn unmount(
    (store, volumes, runtime_dir): Place<'_>,
    name: (&str, &str),
) -> Result<bool, Fault> {
    let uid = text(&pod(store, name)?, "/metadata/uid").to_owned();
    let home = Home::new(volumes.root(), runtime_dir, &uid).map_err(io)?;
    if !home.is_used() {
        return Ok(false);
    }
    let Some(held) = home.lock().map_err(io)? else {
        return Err(Fault::new(format!("pod {:?} is held by another process", name.1)));
    };
    Engine::new(Runtime::Crun, &home, &uid).remove_all().map_err(io)?;
    end(&home, &held, volumes, &uid)?;
    if !home.has_logs() {
        home.remove(held).map_err(io)?;
    }
    Ok(true)
}

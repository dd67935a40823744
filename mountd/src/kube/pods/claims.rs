//! The volume behind a claim of a pod.
//!
//! A volume of this host is held by the pod: it has a holder in the catalogue as long as the pod
//! runs, so that its content stays.

use std::fs;
use std::path::PathBuf;

use laminafs::service::volumes::VolumeService;
use laminafs::types::VolumeName;
use serde_json::Value;

use super::fault::Fault;
use super::home::Home;
use super::plan::Plan;
use super::source::object;
use crate::kube::backing;
use crate::kube::meta::text;
use crate::kube::objects::Store;

/// What a claim leads to.
pub enum Backing {
    /// A path of the host, with the type that it must have.
    Path(PathBuf, String),
    /// A volume of this host.
    Volume(VolumeName),
}

/// The holder of the volumes of a pod.
pub fn holder(uid: &str) -> String {
    format!("pod-{uid}")
}

/// The name of the claim that a volume of a pod uses; `None` for another source.
pub fn claim_name(plan: &Plan, volume: &Value) -> Option<String> {
    if let Some(source) = volume.get("persistentVolumeClaim") {
        return Some(text(source, "/claimName").to_owned());
    }
    volume.get("ephemeral").map(|_| format!("{}-{}", plan.name, text(volume, "/name")))
}

/// Finds what a claim of the pod's namespace leads to.
///
/// # Errors
/// A claim that is not bound to a volume which this host mounts.
pub fn backing(
    store: &Store,
    volumes: &VolumeService,
    (namespace, claim): (&str, &str),
) -> Result<Backing, Fault> {
    let missing = |what: &str, name: &str| Fault::new(format!("{what} {name:?} not found"));
    let found = object(store, "persistentvolumeclaims", (namespace, claim))?
        .ok_or_else(|| missing("persistentvolumeclaim", claim))?;
    let name = text(&found, "/spec/volumeName");
    let volume = match name {
        "" => None,
        name => object(store, "persistentvolumes", ("", name))?,
    };
    let uid = text(&found, "/metadata/uid");
    let volume = volume.filter(|volume| text(volume, "/spec/claimRef/uid") == uid);
    let Some(volume) = volume else {
        return Err(Fault::new(format!("persistentvolumeclaim {claim:?} is not bound")));
    };
    if text(&volume, "/spec/volumeMode") == "Block" {
        let text = format!("persistentvolume {name:?} is a block device: this host mounts none");
        return Err(Fault::new(text));
    }
    let own = backing::volume(volumes, &volume);
    if let Some(own) = own.map_err(|refusal| Fault::new(refusal.to_string()))? {
        return Ok(Backing::Volume(own));
    }
    for source in ["hostPath", "local"] {
        let path = text(&volume, &format!("/spec/{source}/path"));
        if path.is_empty() {
            continue;
        }
        let kind = match source {
            "local" => "Directory",
            _ => text(&volume, "/spec/hostPath/type"),
        };
        return Ok(Backing::Path(path.into(), kind.to_owned()));
    }
    let spec = volume.get("spec").and_then(Value::as_object);
    let known = ["nfs", "iscsi", "csi", "cephfs", "rbd", "fc"];
    let source = spec.and_then(|spec| known.into_iter().find(|name| spec.contains_key(*name)));
    let source = source.unwrap_or("another host");
    Err(Fault::new(format!("persistentvolume {name:?}: this host mounts no source {source}")))
}

/// Takes a volume into use for a pod. It is noted first, so that it is given back whatever happens.
///
/// # Errors
/// Those of its driver.
pub fn hold(
    volumes: &VolumeService,
    (home, plan): (&Home, &Plan),
    name: &VolumeName,
) -> Result<PathBuf, Fault> {
    let mut noted = held(home);
    if !noted.contains(name) {
        noted.push(name.clone());
        let lines: String = noted.iter().map(|one| format!("{one}\n")).collect();
        let written = fs::write(home.held(), lines);
        written.map_err(|error| Fault::new(format!("noting volume {name}: {error}")))?;
    }
    volumes.publish(name, &holder(&plan.uid)).map_err(|refusal| Fault::new(refusal.to_string()))
}

/// The volumes of this host that a pod holds.
pub fn held(home: &Home) -> Vec<VolumeName> {
    let text = fs::read_to_string(home.held()).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Gives the volumes of a pod back.
///
/// # Errors
/// Those of the drivers: what is left is given back by a next call.
pub fn release(volumes: &VolumeService, home: &Home, uid: &str) -> Result<(), Fault> {
    for name in held(home) {
        let done = volumes.unpublish(&name, &holder(uid));
        done.map_err(|refusal| Fault::new(format!("volume {name}: {refusal}")))?;
    }
    match fs::remove_file(home.held()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Fault::new(format!("{}: {error}", home.held().display())))
        }
        _ => Ok(()),
    }
}

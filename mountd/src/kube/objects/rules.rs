//! Rules of admission that need other objects: the default class, protection, growth by class.

use laminafs::claim::{Objects, admit};
use serde_json::Value;

use super::{Act, Stored, Target};
use crate::kube::convert;
use crate::kube::kinds::Kind;
use crate::kube::meta::{add_finalizer, map_in, set};
use crate::kube::status::{Answer, Failure};

/// Completes a new object: the default class of a claim, the finalizers that protect.
pub(super) fn complete(act: &Act<'_>, kind: &'static Kind, object: &mut Value) -> Answer<()> {
    match kind.kind {
        "PersistentVolumeClaim" => {
            let mut claim = convert::claim(object);
            let had_class = claim.has_class();
            let objects = if had_class { Objects::default() } else { classes(act)? };
            admit::claim(&objects, &mut claim);
            if let (false, Some(class)) = (had_class, claim.class_name)
                && let Some(spec) = map_in(object, "spec")
            {
                set(spec, "storageClassName", Some(class.into()));
            }
            claim.meta.finalizers.iter().for_each(|one| add_finalizer(object, one));
        }
        "PersistentVolume" => {
            let mut volume = convert::volume(object);
            admit::volume(&mut volume);
            volume.meta.finalizers.iter().for_each(|one| add_finalizer(object, one));
        }
        _ => {}
    }
    Ok(())
}

fn classes(act: &Act<'_>) -> Answer<Objects> {
    let mut objects = Objects::default();
    if let Some(kind) = Kind::of_record("storageclasses.storage.k8s.io") {
        for stored in act.all(kind)? {
            let class = convert::class(&stored.object);
            objects.classes.insert(class.meta.name.clone(), class);
        }
    }
    Ok(objects)
}

/// Refuses a growth of a claim that its class does not allow.
pub(super) fn check_growth(act: &Act<'_>, stored: &Stored, new: &Value) -> Answer<()> {
    if stored.kind.kind != "PersistentVolumeClaim" {
        return Ok(());
    }
    let (old, new) = (convert::claim(&stored.object), convert::claim(new));
    if new.request <= old.request {
        return Ok(());
    }
    let mut objects = Objects::default();
    if let Some(kind) = Kind::of_record("storageclasses.storage.k8s.io")
        && let Some(class) = act.find(&Target { kind, namespace: "", name: old.class() })?
    {
        let class = convert::class(&class.object);
        objects.classes.insert(class.meta.name.clone(), class);
    }
    let name = &stored.key.name;
    admit::growth(&objects, &old, &new).map_err(|why| Failure::forbidden(stored.kind, name, why))
}

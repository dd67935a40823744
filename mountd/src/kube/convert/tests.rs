//! A write of an action to an object has the effect that the decisions expect of it.

use laminafs::claim::object::{
    AccessMode, Claim, ClaimPhase, ClaimRef, ClaimStatus, Id, Key, Volume, VolumePhase,
    VolumeStatus,
};
use laminafs::claim::{Action, Objects, names};
use serde_json::{Value, json};

use super::*;

fn volume_object() -> Value {
    json!({
        "metadata": {"name": "v", "uid": "u", "annotations": {"a": "b"}, "finalizers": ["x/y"]},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/tmp/v", "type": ""},
            "mountOptions": ["noatime"],
            "other": "stays",
        },
    })
}

fn claim_object() -> Value {
    json!({
        "metadata": {"name": "c", "namespace": "default", "uid": "u"},
        "spec": {
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "resources": {"requests": {"storage": "500Mi"}},
            "selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        },
        "status": {"phase": "Pending", "conditions": [{"type": "stays"}]},
    })
}

fn actions() -> Vec<Action> {
    let (volume, claim) = ("v".to_owned(), Id::new("default", "c"));
    let to = ClaimRef { id: claim.clone(), uid: "u".to_owned() };
    let keep = ClaimRef { id: claim.clone(), uid: String::new() };
    let failed = VolumeStatus {
        phase: VolumePhase::Failed,
        reason: "VolumeFailedDelete".to_owned(),
        message: "why".to_owned(),
    };
    let bound = ClaimStatus {
        phase: ClaimPhase::Bound,
        capacity: "1Gi".parse().ok(),
        modes: vec![AccessMode::ReadWriteOnce],
        attributes_class: "gold".to_owned(),
        modifying: "silver".to_owned(),
    };
    let of = |name: &str| volume.replace('v', name);
    let node = (names::SELECTED_NODE, Some("here".to_owned()));
    let object = Key::Claim(claim.clone());
    vec![
        Action::BindVolume { volume: volume.clone(), to, by_controller: true },
        Action::VolumeStatus { volume: volume.clone(), status: failed },
        Action::VolumeStatus { volume: volume.clone(), status: VolumeStatus::default() },
        Action::UnbindVolume { volume: volume.clone(), keep: Some(keep) },
        Action::UnbindVolume { volume: volume.clone(), keep: None },
        Action::VolumeCapacity { volume: volume.clone(), size: "2Gi".parse().unwrap() },
        Action::VolumeAttributesClass { volume: volume.clone(), class: "gold".to_owned() },
        Action::RemoveFinalizer { object: Key::Volume(of("v")), finalizer: "x/y" },
        Action::SetClass { claim: claim.clone(), class: "fast".to_owned() },
        Action::BindClaim { claim: claim.clone(), volume, by_controller: true },
        Action::ClaimStatus { claim: claim.clone(), status: bound },
        Action::ClaimStatus { claim, status: ClaimStatus::default() },
        Action::Annotate { object: object.clone(), annotations: vec![node] },
        Action::Annotate {
            object: object.clone(),
            annotations: vec![(names::SELECTED_NODE, None)],
        },
        Action::AddFinalizer { object, finalizer: names::CLAIM_PROTECTION },
    ]
}

#[test]
fn each_write_has_the_effect_that_decisions_expect() {
    let (mut on_volume, mut on_claim) = (volume_object(), claim_object());
    let mut objects = Objects::default();
    objects.put_volume(volume(&on_volume));
    objects.claims.insert(Id::new("default", "c"), claim(&on_claim));
    for action in actions() {
        let write = target(&action).unwrap();
        objects.apply(&action);
        match write.object {
            Key::Volume(_) => {
                change(&action, &mut on_volume);
                let expected: Option<&Volume> = objects.volume("v");
                assert_eq!(Some(&volume(&on_volume)), expected, "{action:?}");
            }
            _ => {
                change(&action, &mut on_claim);
                let expected: Option<&Claim> = objects.claims.get(&Id::new("default", "c"));
                assert_eq!(Some(&claim(&on_claim)), expected, "{action:?}");
            }
        }
    }
    assert_eq!(on_volume["spec"]["other"], "stays");
    assert_eq!(on_claim["status"]["conditions"][0]["type"], "stays");
}

#[test]
fn a_volume_that_is_made_is_read_as_it_was_ordered() {
    let mut ordered = volume(&volume_object());
    ordered.meta.uid = String::new();
    ordered.class_name = "fast".to_owned();
    let source = ("hostPath", json!({"path": "/tmp/v"}));
    let made = volume(&new_volume(&ordered, source, "here"));
    assert!(made.affinity.is_some());
    assert_eq!(Volume { affinity: None, ..made }, ordered);
}

#[test]
fn a_pod_is_placed_with_its_condition() {
    let mut object = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {}});
    unscheduled(&mut object, "no node");
    assert_eq!(object["status"]["conditions"][0]["reason"], "Unschedulable");
    let placed = Action::PlacePod { pod: Id::new("default", "p"), node: "here".to_owned() };
    change(&placed, &mut object);
    assert_eq!(pod(&object).node, "here");
    let conditions = object["status"]["conditions"].as_array().unwrap();
    assert_eq!((conditions.len(), &conditions[0]["status"]), (1, &json!("True")));
}

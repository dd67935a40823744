//! The walk of a tutorial: a volume, a claim, a pod.

use crate::manifests::{claim, pod, volume};
use crate::place::Place;

#[test]
fn a_claim_is_bound_to_a_larger_volume_and_a_second_apply_changes_nothing() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let manifest = volume("task", &place.directory("task"), "Retain")
        + &claim("task", "500Mi", "storageClassName: manual-task");
    place.apply(&manifest);
    place.until_phase("pvc/task", "Bound");
    assert_eq!(place.field("pvc/task", ".status.capacity.storage"), "1Gi");
    assert_eq!(place.field("pv/task", ".spec.claimRef.name"), "task");
    let again = place.kubectl(&["apply", "-f", "-"], &manifest);
    let again = String::from_utf8(again.stdout).unwrap();
    assert_eq!(again, "persistentvolume/task unchanged\npersistentvolumeclaim/task unchanged\n");
    let diff = place.kubectl(&["diff", "-f", "-"], &manifest);
    assert_eq!((diff.status.code(), &diff.stdout[..]), (Some(0), &b""[..]), "{diff:?}");
    daemon.end();
}

#[test]
fn a_claim_waits_for_a_volume_and_says_so() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(&claim("early", "500Mi", "storageClassName: manual-late"));
    let message = place.event("pvc/early", "ProvisioningFailed");
    assert_eq!(message, "storageclass.storage.k8s.io \"manual-late\" not found");
    place.until_phase("pvc/early", "Pending");
    place.apply(&claim("classless", "500Mi", "storageClassName: \"\""));
    let message = place.event("pvc/classless", "FailedBinding");
    let wanted = "no persistent volumes available for this claim and no storage class is set";
    assert_eq!(message, wanted);
    place.apply(&volume("late", &place.directory("late"), "Retain"));
    place.until_phase("pvc/early", "Bound");
}

#[test]
fn a_claim_under_a_pod_is_terminating_until_the_pod_is_gone() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let claim = claim("used", "500Mi", "storageClassName: manual-used");
    place.apply(&(volume("used", &place.directory("used"), "Retain") + &claim));
    place.apply(&pod("web", "used"));
    place.until_field("pod/web", ".spec.nodeName", "here");
    let condition = ".status.conditions[?(@.type==\"PodScheduled\")].status";
    place.until_field("pod/web", condition, "True");
    assert_eq!(place.field("pod/web", ".status.phase"), "Pending");
    place.good("delete pvc used --wait=false");
    assert!(place.good("get pvc used").contains("Terminating"));
    place.good("delete pod web");
    place.until_gone("pvc/used");
    place.until_phase("pv/used", "Released");
}

#[test]
fn a_pod_without_its_claim_is_not_placed() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    place.apply(&pod("web", "missing"));
    let message = place.event("pod/web", "FailedScheduling");
    assert!(message.contains("persistentvolumeclaim \"missing\" not found"), "{message}");
    let reason = ".status.conditions[?(@.type==\"PodScheduled\")].reason";
    place.until_field("pod/web", reason, "Unschedulable");
    place.good("delete pod web");
}

#[test]
fn wrong_manifests_are_refused_as_kubernetes_words_it() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start();
    let wrong = claim("bad", "500Mi", "accessModez: [a]");
    let said = place.refused("apply -f -", &wrong);
    assert!(said.contains("strict decoding error: unknown field \"spec.accessModez\""), "{said}");
    let output = place.kubectl(&["apply", "--validate=warn", "-f", "-"], &wrong);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("Warning: unknown field"), "{said}");
    let negative = claim("bad2", "-5", "");
    let said = place.refused("apply -f -", &negative);
    let wanted = "spec.resources[storage]: Invalid value: \"-5\": must be greater than zero";
    assert!(said.contains(wanted), "{said}");
}

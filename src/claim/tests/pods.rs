//! What is decided for pods: ephemeral claims, the choice of volumes, placement.

use super::super::object::{Id, Key};
use super::{NS, decides};

fn check(case: &str, wanted: &[&str]) {
    decides(case, &Key::Pod(Id::new(NS, "p")), wanted);
}

/// The event of a pod that no node of one suits.
fn refused(nodes: usize, reason: &str) -> String {
    format!(
        "!FailedScheduling: 0/{nodes} nodes are available: {reason}. preemption: 0/{nodes} nodes \
         are available: {nodes} Preemption is not helpful for scheduling."
    )
}

const PLACED: [&str; 2] = ["place p on n1", "Scheduled: Successfully assigned ns/p to n1"];

#[test]
fn pod_is_placed_where_node_and_volumes_allow() {
    let bound = "pvc c 1Gi RWO volume=a completed has=1Gi";
    let selector = "1 node(s) didn't match Pod's node affinity/selector";
    let cases: [(&str, &[&str]); 13] = [
        ("pod p\nnode n1", &PLACED),
        ("pod p host=n1\nnode n0\nnode n1", &PLACED),
        ("pod p affine=n1\nnode n0\nnode n1", &PLACED),
        ("pod p host=n9\nnode n1", &[&refused(1, selector)]),
        ("pod p\nnode n1 cordoned", &[&refused(1, "1 node(s) were unschedulable")]),
        ("pod p\nnode n0 unready\nnode n1", &PLACED),
        (
            "pod p host=n1\nnode n0\nnode n1 cordoned",
            &[&refused(2, &format!("{selector}, 1 node(s) were unschedulable"))],
        ),
        ("pod p on=n1\nnode n1", &[]),
        ("pod p gated\nnode n1", &[]),
        ("pod p deleting\nnode n1", &[]),
        (&format!("pod p c\nnode n1\n{bound}\npv a 1Gi RWO for=c#u-c node=n1"), &PLACED),
        (
            &format!("pod p c\nnode n1\n{bound}\npv a 1Gi RWO for=c#u-c node=n2"),
            &[&refused(1, "1 node(s) had volume node affinity conflict")],
        ),
        (
            &format!("pod p c\nnode n1\n{bound}"),
            &[&refused(
                1,
                "1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
            )],
        ),
    ];
    for (case, wanted) in cases {
        check(case, wanted);
    }
}

#[test]
fn pod_waits_for_claims_that_no_placement_binds() {
    let rwop = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod \
                access mode";
    let once = "pvc c 1Gi RWOP volume=a completed has=1Gi\npv a 1Gi RWOP for=c#u-c";
    let cases: [(&str, &str); 6] = [
        ("", "persistentvolumeclaim \"c\" not found"),
        ("pvc c 1Gi RWO", "pod has unbound immediate PersistentVolumeClaims"),
        (
            "pvc c 1Gi RWO volume=a completed lost",
            "persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"a\"",
        ),
        ("pvc c 1Gi RWO deleting", "persistentvolumeclaim \"c\" is being deleted"),
        (&format!("{once}\npod q c on=n1"), rwop),
        (
            "sc w lamina delayed\npvc c 1Gi RWO class=w volume=a",
            "pod has unbound immediate PersistentVolumeClaims",
        ),
    ];
    for (case, reason) in cases {
        check(&format!("pod p c\nnode n1\n{case}"), &[&refused(1, reason)]);
    }
    check(&format!("pod p c\nnode n1\n{once}\npod q c on=n1 ended"), &PLACED);
}

#[test]
fn placement_chooses_volumes_for_all_claims_or_for_none() {
    let none = "1 node(s) didn't find available persistent volumes to bind";
    let base = "pod p c d\nnode n1\nsc w kubernetes.io/no-provisioner delayed\n\
                pvc c 2Gi RWO class=w\npvc d 1Gi RWO class=w";
    let cases: [(&str, &[&str]); 6] = [
        ("", &[&refused(1, none)]),
        ("pv a 5Gi RWO class=w", &[&refused(1, none)]),
        // The smaller claim chooses first.
        ("pv a 2Gi RWO class=w\npv b 3Gi RWO class=w", &["ref a=d#u-d ours", "ref b=c#u-c ours"]),
        ("pv a 2Gi RWO class=w for=d#u-d ours\npv b 3Gi RWO class=w", &["ref b=c#u-c ours"]),
        ("pv a 2Gi RWO class=w for=d#u-d\npv b 3Gi RWO class=w for=c#u-c", &[]),
        ("pv a 2Gi RWO class=w node=n2\npv b 3Gi RWO class=w", &[&refused(1, none)]),
    ];
    for (case, wanted) in cases {
        check(&format!("{base}\n{case}"), wanted);
    }
}

#[test]
fn placement_marks_claims_to_be_provisioned() {
    let none = "1 node(s) didn't find available persistent volumes to bind";
    let base = "pod p c\nnode n1\npvc c 1Gi RWO class=w";
    let cases: [(&str, &[&str]); 7] = [
        ("sc w lamina delayed", &["c selected-node=n1"]),
        ("sc w disks delayed", &["c selected-node=n1"]),
        ("sc w lamina delayed only=n1", &["c selected-node=n1"]),
        ("sc w lamina delayed only=n2", &[&refused(1, none)]),
        ("sc w lamina delayed\npv a 1Gi RWO class=w", &["ref a=c#u-c ours"]),
        ("sc w lamina", &[&refused(1, "pod has unbound immediate PersistentVolumeClaims")]),
        ("", &[&refused(1, "pod has unbound immediate PersistentVolumeClaims")]),
    ];
    for (case, wanted) in cases {
        check(&format!("{base}\n{case}"), wanted);
    }
    let chosen = "pod p c\nnode n1\nsc w lamina delayed\npvc c 1Gi RWO class=w chosen";
    check(&format!("{chosen}=n1"), &[]);
    check(&format!("{chosen}=n2"), &[&refused(1, none)]);
}

#[test]
fn ephemeral_claims_are_made_and_foreign_ones_refused() {
    let foreign = "PVC ns/p-data was not created for pod ns/p (pod is not owner)";
    let cases: [(&str, &[&str]); 5] = [
        ("pod p new=data\nnode n1", &["create p-data"]),
        ("pod p new=data new=more\nnode n1\npvc p-data 1Gi RWO owner=u-p", &["create p-more"]),
        ("pod p new=data deleting\nnode n1", &[]),
        ("pod p new=data\nnode n1\npvc p-data 1Gi RWO", &[&refused(1, foreign)]),
        (
            "pod p new=data\nnode n1\npvc p-data 1Gi RWO owner=u-p volume=a completed\n\
             pv a 1Gi RWO",
            &PLACED,
        ),
    ];
    for (case, wanted) in cases {
        check(case, wanted);
    }
}

#[test]
fn pod_is_decided_again_with_a_foreign_claim_of_its_name() {
    let all = super::objects("pod p new=data\npvc p-data 1Gi RWO");
    let keys = super::super::touched(&all, &Key::Claim(Id::new(NS, "p-data")));
    assert!(keys.contains(&Key::Pod(Id::new(NS, "p"))), "{keys:?}");
}

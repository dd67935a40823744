//! Which volume a claim gets, rule by rule.

use std::collections::BTreeSet;

use super::super::matching::{check_named, immediate, on_node};
use super::{claim, node, objects, volume};

/// Claim, volumes, and the one that it gets at once.
const ROWS: [(&str, &str, &str); 47] = [
    // Capacity.
    ("c 1Gi RWO", "", "-"),
    ("c 1Gi RWO", "a 1Gi RWO", "a"),
    ("c 1Gi RWO", "a 1023Mi RWO", "-"),
    ("c 1Gi RWO", "a 1G RWO", "-"),
    ("c 1G RWO", "a 1Gi RWO", "a"),
    ("c 500Mi RWO", "a 10Gi RWO; b 1Gi RWO; c 5Gi RWO", "b"),
    ("c 500Mi RWO", "b 1Gi RWO; a 1024Mi RWO", "a"),
    ("c 1.5 RWO", "a 1 RWO; b 2 RWO", "b"),
    // Access modes: sets with fewer modes come first.
    ("c 1Gi RWX", "a 1Gi RWO", "-"),
    ("c 1Gi RWO", "a 1Gi RWX", "-"),
    ("c 1Gi RWO", "a 1Gi RWX,RWO", "a"),
    ("c 1Gi RWO,RWX", "a 1Gi RWO; b 1Gi RWX", "-"),
    ("c 1Gi RWO", "a 1Gi RWO,ROX; b 100Gi RWO", "b"),
    ("c 1Gi RWO", "a 2Gi RWO,ROX; b 1Gi RWO,ROX,RWX", "a"),
    ("c 1Gi RWO", "a 1Gi RWO,ROX for=c; b 2Gi RWO", "b"),
    ("c 1Gi RWO", "a 1Gi RWO for=c; b 1Gi RWO,ROX", "a"),
    ("c 1Gi RWOP", "a 1Gi RWO", "-"),
    ("c 1Gi RWOP", "a 1Gi RWOP", "a"),
    // Reservations.
    ("c 1Gi RWO", "a 1Gi RWO for=d", "-"),
    ("c 1Gi RWO", "a 1Gi RWO for=c", "a"),
    ("c 1Gi RWO", "a 1Gi RWO for=other/c", "-"),
    ("c 1Gi RWO", "a 1Gi RWO for=c#u-c", "a"),
    ("c 1Gi RWO", "a 1Gi RWO for=c#u-old", "-"),
    ("c 1Gi RWO", "a 1Gi RWO; z 50Gi RWO for=c", "z"),
    ("c 1Gi RWO", "a 1Mi RWO for=c; b 1Gi RWO", "b"),
    ("c 1Gi RWO class=x", "a 1Gi RWO for=c class=y", "a"),
    ("c 1Gi RWO select=k=v", "a 1Gi RWO for=c", "a"),
    ("c 1Gi RWO", "a 1Gi RWO for=c phase=Released", "a"),
    // Phase and deletion.
    ("c 1Gi RWO", "a 1Gi RWO phase=Pending", "-"),
    ("c 1Gi RWO", "a 1Gi RWO phase=Released", "-"),
    ("c 1Gi RWO", "a 1Gi RWO phase=Failed", "-"),
    ("c 1Gi RWO", "a 1Gi RWO deleting", "-"),
    ("c 1Gi RWO", "a 1Gi RWO for=c deleting", "-"),
    // Volume mode, class, attributes class.
    ("c 1Gi RWO block", "a 1Gi RWO", "-"),
    ("c 1Gi RWO block", "a 1Gi RWO block", "a"),
    ("c 1Gi RWO", "a 1Gi RWO block for=c", "-"),
    ("c 1Gi RWO class=x", "a 1Gi RWO", "-"),
    ("c 1Gi RWO", "a 1Gi RWO class=x", "-"),
    ("c 1Gi RWO class=", "a 1Gi RWO", "a"),
    ("c 1Gi RWO class=x", "a 1Gi RWO class=y old=x", "a"),
    ("c 1Gi RWO class=y old=x", "a 1Gi RWO class=x", "a"),
    ("c 1Gi RWO vac=gold", "a 1Gi RWO; b 2Gi RWO vac=gold", "b"),
    ("c 1Gi RWO", "a 1Gi RWO vac=gold", "-"),
    // Selector, which the empty one passes; node affinity does not matter without a node.
    ("c 1Gi RWO select", "a 1Gi RWO", "a"),
    ("c 1Gi RWO select=k=v|w", "a 1Gi RWO; b 2Gi RWO label=k=w", "b"),
    ("c 1Gi RWO select=k!=v", "a 1Gi RWO label=k=v; b 2Gi RWO", "b"),
    ("c 1Gi RWO", "a 1Gi RWO node=n1", "a"),
];

fn world(volumes: &str) -> super::Objects {
    let lines: Vec<String> =
        volumes.split("; ").filter(|one| !one.is_empty()).map(|one| format!("pv {one}")).collect();
    objects(&lines.join("\n"))
}

#[test]
fn claim_that_is_bound_at_once_gets_the_volume_of_the_rules() {
    for (wanted, volumes, name) in ROWS {
        let objects = world(volumes);
        let found = immediate(&objects, &claim(wanted), false);
        let found = found.map_or("-", |volume| &volume.meta.name);
        assert_eq!(found, name, "{wanted} of {volumes}");
    }
}

#[test]
fn claim_that_waits_gets_only_what_is_reserved_for_it() {
    let rows = [("a 1Gi RWO", "-"), ("a 1Gi RWO for=c", "a"), ("a 1Gi RWO for=c#u-c", "a")];
    for (volumes, name) in rows {
        let objects = world(volumes);
        let found = immediate(&objects, &claim("c 1Gi RWO"), true);
        assert_eq!(found.map_or("-", |volume| &volume.meta.name), name, "{volumes}");
    }
}

#[test]
fn claim_of_a_pod_gets_the_smallest_volume_that_the_node_reaches() {
    let rows = [
        ("c 1Gi RWO", "a 2Gi RWO node=n1; b 1Gi RWO node=n2", "a"),
        ("c 1Gi RWO", "a 2Gi RWO; b 1Gi RWO node=n2", "a"),
        ("c 1Gi RWO", "a 2Gi RWO; b 1Gi RWO,ROX,RWX", "b"),
        ("c 1Gi RWX", "a 2Gi RWO", "-"),
        ("c 1Gi RWO", "a 1Gi RWO for=c node=n1; b 1Gi RWO", "a"),
        ("c 1Gi RWO", "a 1Gi RWO for=c node=n2; b 1Gi RWO", "-"),
        ("c 1Gi RWO", "a 1Gi RWX for=c", "a"),
        ("c 1Gi RWO", "skipped 1Gi RWO; b 3Gi RWO", "b"),
        ("c 1Gi RWO", "skipped 1Gi RWO", "-"),
    ];
    let excluded = BTreeSet::from(["skipped".to_owned()]);
    for (wanted, volumes, name) in rows {
        let objects = world(volumes);
        let found = on_node(&objects, &claim(wanted), &node("n1"), &excluded);
        assert_eq!(found.map_or("-", |volume| &volume.meta.name), name, "{wanted} of {volumes}");
    }
}

#[test]
fn volume_that_a_claim_names_is_checked_without_selector_and_affinity() {
    let rows = [
        ("c 1Gi RWO volume=a", "a 1Gi RWO", ""),
        ("c 1Gi RWO volume=a select=k=v", "a 1Gi RWO", ""),
        ("c 1Gi RWO volume=a", "a 1Gi RWO node=nowhere", ""),
        ("c 1Gi RWO volume=a", "a 1Gi RWO phase=Released", ""),
        ("c 2Gi RWO volume=a", "a 1Gi RWO", "requested PV is too small"),
        ("c 1Gi RWO volume=a class=x", "a 1Gi RWO", "storageClassName does not match"),
        ("c 1Gi RWO volume=a vac=x", "a 1Gi RWO", "volumeAttributesClassName does not match"),
        ("c 1Gi RWO volume=a block", "a 1Gi RWO", "incompatible volumeMode"),
        ("c 1Gi RWX volume=a", "a 1Gi RWO", "incompatible accessMode"),
        ("c 2Gi RWX volume=a class=x block", "a 1Gi RWO", "requested PV is too small"),
        ("c 1Gi RWO volume=a", "a 1Gi RWO deleting", "the volume is marked for deletion \"a\""),
    ];
    for (wanted, offered, reason) in rows {
        let found = check_named(&claim(wanted), &volume(offered)).err().unwrap_or_default();
        assert_eq!(found, reason, "{wanted} of {offered}");
    }
}

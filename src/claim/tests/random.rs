//! Matching compared with a reference that was written from the rules, not from the code: it sorts
//! and filters whole lists instead of keeping a best one.

use std::collections::BTreeSet;

use super::super::matching;
use super::super::object::{
    AccessMode, Claim, ClaimRef, Id, LabelSelector, Node, Volume, VolumeMode, VolumePhase,
};
use super::super::selector::{Operator, Requirement};
use super::super::state::Objects;
use super::{NS, claim, node, on_node, volume};

const CASES: u64 = 20_000;

/// A generator of reproducible numbers (splitmix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn modes(&mut self) -> Vec<AccessMode> {
        let all = [AccessMode::ReadWriteOnce, AccessMode::ReadOnlyMany, AccessMode::ReadWriteMany];
        let mut modes: Vec<AccessMode> = all.into_iter().filter(|_| self.one_in(2)).collect();
        if modes.is_empty() {
            modes.push(AccessMode::ReadWriteOnce);
        }
        modes
    }

    fn volume(&mut self, number: u64) -> Volume {
        let mut volume = volume(&format!("v{number} {}Gi", 1 + self.roll(5)));
        volume.modes = self.modes();
        if self.one_in(3) {
            volume.meta.labels.insert("k".to_owned(), format!("v{}", self.roll(2)));
        }
        if self.one_in(8) {
            volume.volume_mode = VolumeMode::Block;
        }
        if self.one_in(8) {
            volume.class_name = "x".to_owned();
        }
        if self.one_in(12) {
            volume.attributes_class = "gold".to_owned();
        }
        if self.one_in(4) {
            let name = if self.one_in(2) { "c" } else { "d" };
            let uid = ["", "u-c", "u-old"][usize::try_from(self.roll(3)).unwrap()];
            volume.claim_ref = Some(ClaimRef { id: Id::new(NS, name), uid: uid.to_owned() });
        }
        if self.one_in(3) {
            volume.affinity = Some(on_node(if self.one_in(2) { "n1" } else { "n2" }));
        }
        volume.meta.deleting = self.one_in(12);
        if self.one_in(6) {
            volume.status.phase = VolumePhase::Released;
        }
        volume
    }

    fn claim(&mut self) -> Claim {
        let mut claim = claim(&format!("c {}Gi", 1 + self.roll(4)));
        claim.modes = self.modes();
        claim.modes.truncate(1 + usize::try_from(self.roll(2)).unwrap());
        if self.one_in(4) {
            let operator = if self.one_in(2) { Operator::In } else { Operator::NotIn };
            let values = vec!["v0".to_owned()];
            let expressions = vec![Requirement { key: "k".to_owned(), operator, values }];
            claim.selector = Some(LabelSelector { expressions, ..LabelSelector::default() });
        }
        if self.one_in(8) {
            claim.volume_mode = VolumeMode::Block;
        }
        if self.one_in(8) {
            claim.class_name = Some("x".to_owned());
        }
        claim
    }
}

fn has_all(volume: &Volume, claim: &Claim) -> bool {
    let offered: BTreeSet<_> = volume.modes.iter().collect();
    claim.modes.iter().collect::<BTreeSet<_>>().is_subset(&offered)
}

/// Whether the claimRef is this claim's, anybody else's, or unset.
fn whose(volume: &Volume) -> &'static str {
    match &volume.claim_ref {
        None => "nobody",
        Some(to) if to.id.name == "c" && to.uid != "u-old" => "claim",
        Some(_) => "other",
    }
}

fn is_near(volume: &Volume, node: &Node) -> bool {
    let terms = volume.affinity.iter().flat_map(|affinity| &affinity.terms);
    let names: Vec<&String> =
        terms.flat_map(|term| &term.expressions).flat_map(|one| &one.values).collect();
    names.is_empty() || names.contains(&&node.meta.name)
}

/// The best of volumes in order, by the rules of FindMatchingVolume one after the other.
fn reference(claim: &Claim, volumes: &[&Volume], node: Option<&Node>, delayed: bool) -> String {
    let possible: Vec<&&Volume> = volumes
        .iter()
        .filter(|one| whose(one) != "other")
        .filter(|one| one.capacity.bytes() >= claim.request.bytes())
        .filter(|one| one.volume_mode == claim.volume_mode)
        .filter(|one| one.attributes_class.is_empty() && !one.meta.deleting)
        .collect();
    if let Some(own) = possible.iter().find(|one| whose(one) == "claim") {
        let is_near = node.is_none_or(|node| is_near(own, node));
        return if is_near { own.meta.name.clone() } else { "-".to_owned() };
    }
    if delayed && node.is_none() {
        return "-".to_owned();
    }
    let wanted = claim.selector.as_ref().and_then(|selector| selector.expressions.first());
    let mut free: Vec<&&Volume> = possible
        .into_iter()
        .filter(|one| one.status.phase == VolumePhase::Available)
        .filter(|one| {
            let is_v0 = one.meta.labels.get("k").is_some_and(|value| value == "v0");
            wanted.is_none_or(|wanted| (wanted.operator == Operator::In) == is_v0)
        })
        .filter(|one| one.class_name == claim.class_name.clone().unwrap_or_default())
        .filter(|one| node.is_none_or(|node| is_near(one, node) && has_all(one, claim)))
        .collect();
    free.sort_by_key(|one| one.capacity.bytes());
    free.first().map_or("-".to_owned(), |one| one.meta.name.clone())
}

/// The immediate path: all distinct sets of modes that hold the wanted ones, by their size.
fn reference_immediate(claim: &Claim, volumes: &[&Volume], delayed: bool) -> String {
    let mut sets: Vec<Vec<AccessMode>> =
        volumes.iter().filter(|one| has_all(one, claim)).map(|one| one.modes.clone()).collect();
    sets.sort();
    sets.dedup();
    sets.sort_by_key(Vec::len);
    for set in sets {
        let of_set: Vec<&Volume> = volumes.iter().copied().filter(|one| one.modes == set).collect();
        let found = reference(claim, &of_set, None, delayed);
        if found != "-" {
            return found;
        }
    }
    "-".to_owned()
}

#[test]
fn matching_equals_the_reference() {
    let mut dice = Dice(12);
    let mut found = [0_u64; 2];
    for number in 0..CASES {
        let (claim, mut objects) = (dice.claim(), Objects::default());
        let count = dice.roll(10);
        for number in 0..count {
            objects.put_volume(dice.volume(number));
        }
        let volumes: Vec<&Volume> = objects.volumes().collect();
        let delayed = dice.one_in(3);
        let name = |volume: Option<&Volume>| volume.map_or("-".to_owned(), |v| v.meta.name.clone());
        let ours = name(matching::immediate(&objects, &claim, delayed));
        let wanted = reference_immediate(&claim, &volumes, delayed);
        assert_eq!(ours, wanted, "case {number}: {claim:?} of {volumes:#?}");
        let node = node("n1");
        let near = name(matching::on_node(&objects, &claim, &node, &BTreeSet::new()));
        let wanted = reference(&claim, &volumes, Some(&node), true);
        assert_eq!(near, wanted, "case {number} on a node: {claim:?} of {volumes:#?}");
        found[0] += u64::from(ours != "-");
        found[1] += u64::from(near != "-");
    }
    assert!(found.iter().all(|count| *count > CASES / 5), "{found:?} matches are too few");
}

#[test]
fn a_thousand_claims_get_a_thousand_volumes() {
    let mut objects = Objects::default();
    for number in 0..1000 {
        objects.put_volume(volume(&format!("v{number} {}Mi RWO", 1 + number)));
        let claim = claim(&format!("c{number} {}Mi RWO", 1 + (number * 7) % 1000));
        objects.claims.insert(claim.meta.id(), claim);
    }
    for _ in 0..2 {
        for key in objects.keys() {
            for action in super::super::decide(&objects, &key) {
                objects.apply(&action);
            }
        }
    }
    let bound = objects.claims.values().filter(|claim| {
        claim.status.phase == super::ClaimPhase::Bound && claim.status.capacity.is_some()
    });
    assert!(bound.count() > 500, "too few claims were bound");
}

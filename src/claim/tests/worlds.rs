//! Random worlds with random changes and random stops: each settles, and then holds what
//! Kubernetes promises.

use std::collections::BTreeSet;

use super::super::matching;
use super::super::names::BIND_COMPLETED;
use super::super::object::{ClaimPhase, Id, Key, VolumePhase};
use super::super::state::Objects;
use super::super::{Action, decide};
use super::random::Dice;
use super::{NS, claim, class, node, pod, volume};

const WORLDS: u64 = 1500;
const ROUNDS: usize = 60;

fn words(dice: &mut Dice, all: &[&str]) -> String {
    let chosen = all.iter().filter(|_| dice.one_in(3));
    chosen.map(|word| format!(" {word}")).collect()
}

fn world(dice: &mut Dice) -> Objects {
    let mut objects = Objects::default();
    objects.host.serves.insert("lamina".to_owned());
    for text in ["fast lamina", "late lamina delayed", "local kubernetes.io/no-provisioner delayed"]
    {
        let class = class(text);
        objects.classes.insert(class.meta.name.clone(), class);
    }
    objects.nodes.insert("n1".to_owned(), node("n1"));
    for number in 0..dice.roll(8) {
        add_volume(&mut objects, dice, number);
    }
    for number in 0..dice.roll(8) {
        add_claim(&mut objects, dice, number);
    }
    for number in 0..dice.roll(4) {
        let pod = pod(&format!("p{number} c{} c{}", dice.roll(8), dice.roll(8)));
        objects.pods.insert(pod.meta.id(), pod);
    }
    objects
}

fn class_name(dice: &mut Dice) -> &'static str {
    ["", "fast", "late", "local"][usize::try_from(dice.roll(4)).unwrap()]
}

fn add_volume(objects: &mut Objects, dice: &mut Dice, number: u64) {
    let policy = ["Retain", "Delete", "Recycle"][usize::try_from(dice.roll(3)).unwrap()];
    let more = words(dice, &["node=n1", "host=/tmp/x", "block"]);
    let reserved = if dice.one_in(4) { format!(" for=c{}", dice.roll(8)) } else { String::new() };
    let (size, class) = (1 + dice.roll(4), class_name(dice));
    objects.put_volume(volume(&format!(
        "v{number} {size}Gi RWO phase=Pending policy={policy} class={class}{more}{reserved}"
    )));
}

fn add_claim(objects: &mut Objects, dice: &mut Dice, number: u64) {
    let more = words(dice, &["block"]);
    let named = if dice.one_in(6) { format!(" volume=v{}", dice.roll(8)) } else { String::new() };
    let (size, class) = (1 + dice.roll(3), class_name(dice));
    let mut claim = claim(&format!("c{number} {size}Gi RWO class={class}{more}{named}"));
    claim.meta.uid = format!("u{number}-{}", dice.roll(1 << 30));
    objects.claims.entry(claim.meta.id()).or_insert(claim);
}

/// Something that a user does.
fn change(objects: &mut Objects, dice: &mut Dice) {
    let number = dice.roll(8);
    match dice.roll(5) {
        0 => objects.delete(&Key::Claim(Id::new(NS, &format!("c{number}")))),
        1 => objects.delete(&Key::Volume(format!("v{number}"))),
        2 => objects.delete(&Key::Pod(Id::new(NS, &format!("p{}", number % 4)))),
        3 => add_claim(objects, dice, number),
        _ => {
            if let Some(mut volume) = objects.remove_volume(&format!("v{number}")) {
                // What an administrator does to use a released volume again.
                if volume.status.phase == VolumePhase::Released {
                    volume.claim_ref = None;
                }
                objects.put_volume(volume);
            }
        }
    }
}

/// Decides until nothing changes; while `stops` holds, decisions end early at random.
fn settle(objects: &mut Objects, dice: &mut Dice) {
    for round in 0..ROUNDS {
        let before = objects.clone();
        let mut is_whole = true;
        for key in objects.keys() {
            for action in decide(objects, &key).iter().filter(|action| !action.is_event()) {
                objects.apply(action);
                check_owners(objects);
                // The process dies: the rest of this decision is lost.
                if round < ROUNDS / 2 && dice.one_in(4) {
                    is_whole = false;
                    break;
                }
            }
        }
        if *objects == before && is_whole {
            return;
        }
    }
    panic!("not settled: {objects:#?}");
}

/// At no time do two claims have one volume.
fn check_owners(objects: &Objects) {
    let bound = objects.claims.values().filter(|one| one.status.phase == ClaimPhase::Bound);
    let mut seen = BTreeSet::new();
    for claim in bound {
        assert!(seen.insert(&claim.volume_name), "{} has two owners", claim.volume_name);
    }
}

/// What holds when nothing is left to do.
fn check_settled(objects: &Objects) {
    for claim in objects.claims.values() {
        if claim.status.phase == ClaimPhase::Bound {
            let volume = objects.volume(&claim.volume_name).expect("a bound claim has its volume");
            let to = volume.claim_ref.as_ref().expect("the volume names its claim");
            assert_eq!((&to.id, &to.uid), (&claim.meta.id(), &claim.meta.uid));
            assert_eq!(volume.status.phase, VolumePhase::Bound);
            assert!(claim.meta.has_annotation(BIND_COMPLETED));
        } else if claim.status.phase == ClaimPhase::Pending && claim.volume_name.is_empty() {
            let is_delayed = super::super::claims::is_delayed(objects, claim);
            let free = matching::immediate(objects, claim, is_delayed);
            assert_eq!(free, None, "{claim:?} could be bound");
        }
        assert!(!claim.meta.deleting || objects.pods_of(&claim.meta).count() > 0, "{claim:?}");
    }
    for volume in objects.volumes() {
        assert_ne!(volume.status.phase, VolumePhase::Pending, "{volume:?}");
        let owner = volume.claim_ref.as_ref().and_then(|to| objects.claims.get(&to.id));
        if volume.status.phase == VolumePhase::Bound {
            assert_eq!(owner.map(|claim| &claim.volume_name), Some(&volume.meta.name));
        }
        assert!(!volume.meta.deleting || volume.status.phase == VolumePhase::Bound, "{volume:?}");
    }
    for pod in objects.pods.values().filter(|pod| !pod.node.is_empty()) {
        let names = pod.volumes.iter().map(|one| pod.claim_name(one));
        for name in names {
            let phase = objects.claims.get(&Id::new(NS, &name)).map(|claim| claim.status.phase);
            assert!(phase.is_some_and(|phase| phase != ClaimPhase::Pending), "{pod:?} {phase:?}");
        }
    }
}

#[test]
fn random_worlds_settle_and_hold_their_promises() {
    let mut bound = 0;
    for number in 0..WORLDS {
        let mut dice = Dice(number);
        let mut objects = world(&mut dice);
        settle(&mut objects, &mut dice);
        check_settled(&objects);
        for _ in 0..6 {
            change(&mut objects, &mut dice);
            settle(&mut objects, &mut dice);
            check_settled(&objects);
        }
        bound += objects.claims.values().filter(|one| one.status.capacity.is_some()).count();
    }
    assert!(bound > 1000, "{bound} claims were bound");
}

#[test]
fn what_waits_is_listed() {
    let mut dice = Dice(7);
    let mut objects = world(&mut dice);
    let all = objects.claims.len() + objects.pods.len();
    assert_eq!(objects.waiting().len(), all);
    settle(&mut objects, &mut dice);
    for key in objects.waiting() {
        let actions = decide(&objects, &key);
        assert!(actions.iter().all(Action::is_event), "{key:?} {actions:?}");
        let tied = super::super::touched(&objects, &key);
        assert_eq!(tied.first(), Some(&key));
    }
}

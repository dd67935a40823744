//! Random snapshots, contents, claims of them, changes and stops: each world settles, and then
//! holds what the snapshot controller promises.

use super::super::names;
use super::super::object::{ClaimPhase, Id, Key};
use super::super::snapshot::SnapshotSource;
use super::super::state::Objects;
use super::super::{Action, decide};
use super::random::Dice;
use super::{NS, claim, objects};

const WORLDS: u64 = 1000;
const ROUNDS: usize = 60;

fn world(dice: &mut Dice) -> Objects {
    let mut all = objects("sc f lamina\nvsclass x lamina default\nvsclass y lamina policy=Retain");
    for _ in 0..6 {
        add(&mut all, dice);
    }
    all
}

/// Something that a user makes.
fn add(all: &mut Objects, dice: &mut Dice) {
    let (number, other) = (dice.roll(4), dice.roll(4));
    match dice.roll(4) {
        0 => {
            let from = match dice.roll(3) {
                0 => String::new(),
                1 => format!(" from=VolumeSnapshot/s{other}"),
                _ => format!(" from=PersistentVolumeClaim/c{other}"),
            };
            let mut claim = claim(&format!("c{number} {}Gi RWO class=f{from}", 1 + dice.roll(2)));
            claim.meta.uid = format!("u{number}-{}", dice.roll(1 << 30));
            all.claims.entry(claim.meta.id()).or_insert(claim);
        }
        1 => {
            let prepared = format!("vsc k{number} for=s{other} handle=h{number}");
            let policy = if dice.one_in(2) { "Retain" } else { "Delete" };
            if !all.contents.contains_key(&format!("k{number}")) {
                super::snapshots::put(all, "vsc", &format!("{} policy={policy}", &prepared[4..]));
            }
        }
        _ => {
            let source = match dice.roll(3) {
                0 => format!("content=k{other}"),
                _ => format!("claim=c{other}"),
            };
            let class = ["", " class=y", " class=none"][usize::try_from(dice.roll(3)).unwrap()];
            let id = Id::new(NS, &format!("s{number}"));
            if !all.snapshots.contains_key(&id) {
                super::snapshots::put(all, "vs", &format!("s{number} {source}{class} free"));
                let uid = format!("u{number}-{}", dice.roll(1 << 30));
                all.snapshots.get_mut(&id).unwrap().meta.uid = uid;
            }
        }
    }
}

fn remove(all: &mut Objects, dice: &mut Dice) {
    let number = dice.roll(4);
    match dice.roll(4) {
        0 => all.delete(&Key::Claim(Id::new(NS, &format!("c{number}")))),
        1 => all.delete(&Key::Content(format!("k{number}"))),
        2 => {
            let name = all.contents.keys().next().cloned();
            name.into_iter().for_each(|name| all.delete(&Key::Content(name)));
        }
        _ => all.delete(&Key::Snapshot(Id::new(NS, &format!("s{number}")))),
    }
}

/// Decides until nothing changes; for some time, decisions end early at random.
fn settle(all: &mut Objects, dice: &mut Dice) {
    for round in 0..ROUNDS {
        let before = all.clone();
        let mut is_whole = true;
        for key in all.keys() {
            for action in decide(all, &key).iter().filter(|action| !action.is_event()) {
                all.apply(action);
                check_owners(all);
                if round < ROUNDS / 2 && dice.one_in(4) {
                    is_whole = false;
                    break;
                }
            }
        }
        if *all == before && is_whole {
            return;
        }
    }
    panic!("not settled: {all:#?}");
}

/// At no time are two snapshots ready with one content.
fn check_owners(all: &Objects) {
    for content in all.contents.values() {
        let owners = all.snapshots.values().filter(|one| {
            one.is_ready()
                && one.status.content == content.meta.name
                && content.belongs_to(&one.meta)
        });
        assert!(owners.count() <= 1, "{}", content.meta.name);
    }
}

fn check_settled(all: &Objects) -> usize {
    let mut ready = 0;
    for one in all.snapshots.values() {
        let content = all.contents.get(&one.status.content);
        if one.is_ready() {
            let content = content.expect("a ready snapshot has its content");
            assert!(content.belongs_to(&one.meta), "{one:?} {content:?}");
            ready += 1;
        } else if !one.meta.deleting {
            assert!(one.status.error.is_some(), "{one:?} says nothing");
        }
        if one.meta.deleting {
            let waits = |claim: &super::Claim| {
                claim.status.phase == ClaimPhase::Pending
                    && claim.data_source.as_ref().is_some_and(|from| from.name == one.meta.name)
            };
            assert!(all.claims.values().any(waits), "{one:?} stays for nothing");
        }
    }
    for content in all.contents.values().filter(|one| one.meta.deleting) {
        let owner = all.snapshots.get(&content.to.id);
        assert!(owner.is_some_and(|one| content.belongs_to(&one.meta)), "{content:?}");
    }
    for claim in all.claims.values() {
        let is_source = |one: &super::super::snapshot::Snapshot| {
            matches!(&one.source, SnapshotSource::Claim(name) if *name == claim.meta.name)
                && !one.is_created()
        };
        let is_held = claim.meta.has_finalizer(names::CLAIM_SOURCE);
        assert!(!is_held || all.snapshots.values().any(is_source), "{claim:?}");
        assert!(!claim.meta.deleting || is_held, "{claim:?}");
    }
    ready
}

#[test]
fn random_snapshots_settle_and_hold_their_promises() {
    let (mut ready, mut restored) = (0, 0);
    for number in 0..WORLDS {
        let mut dice = Dice(number);
        let mut all = world(&mut dice);
        settle(&mut all, &mut dice);
        ready += check_settled(&all);
        for _ in 0..6 {
            if dice.one_in(2) {
                add(&mut all, &mut dice);
            } else {
                remove(&mut all, &mut dice);
            }
            settle(&mut all, &mut dice);
            ready += check_settled(&all);
        }
        let is_restored = |claim: &&super::Claim| {
            claim.data_source.is_some() && claim.status.phase == ClaimPhase::Bound
        };
        restored += all.claims.values().filter(is_restored).count();
    }
    assert!(ready > 1000 && restored > 50, "{ready} ready snapshots, {restored} restored claims");
    // What is settled stays so: only events are left.
    let mut dice = Dice(3);
    let mut all = world(&mut dice);
    settle(&mut all, &mut dice);
    for key in all.keys() {
        let actions = decide(&all, &key);
        assert!(actions.iter().all(Action::is_event), "{key:?} {actions:?}");
    }
}

//! Whole lives of objects: the actions are applied until nothing changes, and the same again with
//! a stop after every single write.

use super::super::action::Action;
use super::super::decide;
use super::super::object::{Id, Key};
use super::super::state::Objects;
use super::{NS, objects};

/// The limit of rounds: a state that is not settled then never will be.
const ROUNDS: usize = 100;

/// Carries out one action, and gives created claims their identity, as a store does.
fn write(objects: &mut Objects, action: &Action) {
    objects.apply(action);
    if let Action::CreateClaim(claim) = action
        && let Some(claim) = objects.claims.get_mut(&claim.meta.id())
    {
        claim.meta.uid = format!("u-{}", claim.meta.name);
    }
}

/// Whether the action is an order to a driver that leaves no trace in the objects: the write after
/// it does.
fn is_traceless(action: &Action) -> bool {
    matches!(
        action,
        Action::DeleteBacking { .. }
            | Action::Recycle { .. }
            | Action::Expand { .. }
            | Action::Modify { .. }
            | Action::StandIn { .. }
    )
}

/// Decides for all objects until only events are left. With a limit, the process ends after that
/// many writes of objects in each decision. Returns the number of writes and orders.
fn settle(objects: &mut Objects, limit: Option<usize>) -> usize {
    let mut count = 0;
    for _ in 0..ROUNDS {
        let before = objects.clone();
        for key in objects.keys() {
            let actions = decide(objects, &key);
            let mut left = limit.unwrap_or(usize::MAX);
            for action in actions.iter().filter(|action| !action.is_event()) {
                write(objects, action);
                check_promises(objects);
                count += 1;
                left -= usize::from(!is_traceless(action));
                if left == 0 {
                    break;
                }
            }
        }
        if *objects == before {
            return count;
        }
    }
    panic!("not settled: {objects:#?}");
}

/// What holds between any two writes: no two claims have one volume.
fn check_promises(objects: &Objects) {
    for volume in objects.volumes() {
        let owners = objects.claims.values().filter(|claim| {
            claim.volume_name == volume.meta.name && claim.status.phase == super::ClaimPhase::Bound
        });
        assert!(owners.count() <= 1, "{}", volume.meta.name);
    }
}

/// One line an object: what a user sees.
fn shown(objects: &Objects) -> Vec<String> {
    let volumes = objects.volumes().map(|volume| {
        let to = volume.claim_ref.as_ref();
        let to = to.map(|to| format!(" {}#{}", to.id.name, to.uid)).unwrap_or_default();
        let deleting = if volume.meta.deleting { " deleting" } else { "" };
        format!("{} {} {:?}{to}{deleting}", volume.meta.name, volume.capacity, volume.status.phase)
    });
    let claims = objects.claims.values().map(|claim| {
        let size = claim.status.capacity.map(|size| format!(" {size}")).unwrap_or_default();
        let name = if claim.volume_name.is_empty() { "-" } else { &claim.volume_name };
        let deleting = if claim.meta.deleting { " deleting" } else { "" };
        format!("{} {:?} {name}{size}{deleting}", claim.meta.name, claim.status.phase)
    });
    let pods = objects.pods.values().map(|pod| format!("{} on {}", pod.meta.name, pod.node));
    volumes.chain(claims).chain(pods).collect()
}

type Step = fn(&mut Objects);

/// Objects, what a user does to them step by step, and what is there in the end.
type Life = (&'static str, &'static [Step], &'static [&'static str]);

fn delete_claim(objects: &mut Objects) {
    objects.delete(&Key::Claim(Id::new(NS, "c")));
}

fn delete_pod(objects: &mut Objects) {
    objects.delete(&Key::Pod(Id::new(NS, "p")));
}

fn delete_volume(objects: &mut Objects) {
    objects.delete(&Key::Volume("a".to_owned()));
}

fn clear_reference(objects: &mut Objects) {
    let mut volume = objects.remove_volume("a").unwrap();
    volume.claim_ref = None;
    objects.put_volume(volume);
}

fn clear_uid(objects: &mut Objects) {
    let mut volume = objects.remove_volume("a").unwrap();
    volume.claim_ref.as_mut().unwrap().uid.clear();
    objects.put_volume(volume);
}

fn new_claim(objects: &mut Objects) {
    let claim = super::claim("c 1Gi RWO class= uid=u-new");
    objects.claims.insert(claim.meta.id(), claim);
}

fn grow(objects: &mut Objects) {
    let claim = objects.claims.get_mut(&Id::new(NS, "c")).unwrap();
    claim.request = "3Gi".parse().unwrap();
}

fn add_volume(objects: &mut Objects) {
    objects.put_volume(super::volume("z 1Gi RWO phase=Pending"));
}

fn add_default(objects: &mut Objects) {
    objects.classes.insert("std".to_owned(), super::class("std lamina default"));
}

fn vanish(objects: &mut Objects) {
    objects.remove_volume("a");
}

const STATIC: &str = "pv a 1Gi RWO phase=Pending\npvc c 500Mi RWO class=";
const DYNAMIC: &str = "sc f lamina policy=Delete expand\npvc c 1Gi RWO class=f";
const DELAYED: &str = "node n1\nsc f lamina policy=Delete delayed\npvc c 1Gi RWO class=f";

const LIVES: [Life; 28] = [
    (STATIC, &[], &["a 1Gi Bound c#u-c", "c Bound a 1Gi"]),
    (STATIC, &[delete_claim], &["a 1Gi Released c#u-c"]),
    (STATIC, &[delete_claim, new_claim], &["a 1Gi Released c#u-c", "c Pending -"]),
    (STATIC, &[delete_claim, clear_reference], &["a 1Gi Available"]),
    (
        STATIC,
        &[delete_claim, new_claim, clear_reference],
        &["a 1Gi Bound c#u-new", "c Bound a 1Gi"],
    ),
    (STATIC, &[delete_claim, clear_uid], &["a 1Gi Available c#"]),
    (STATIC, &[delete_claim, clear_uid, new_claim], &["a 1Gi Bound c#u-new", "c Bound a 1Gi"]),
    (STATIC, &[delete_volume], &["a 1Gi Bound c#u-c deleting", "c Bound a 1Gi"]),
    (STATIC, &[delete_volume, delete_claim], &[]),
    (STATIC, &[vanish], &["c Lost a"]),
    (STATIC, &[vanish, add_volume], &["z 1Gi Available", "c Lost a"]),
    ("pvc c 1Gi RWO", &[], &["c Pending -"]),
    ("pvc c 1Gi RWO", &[add_volume], &["z 1Gi Bound c#u-c", "c Bound z 1Gi"]),
    ("pvc c 1Gi RWO", &[add_default], &["pvc-u-c 1Gi Bound c#u-c", "c Bound pvc-u-c 1Gi"]),
    ("pvc c 1Gi RWO class=", &[add_default], &["c Pending -"]),
    (DYNAMIC, &[], &["pvc-u-c 1Gi Bound c#u-c", "c Bound pvc-u-c 1Gi"]),
    (DYNAMIC, &[grow], &["pvc-u-c 3Gi Bound c#u-c", "c Bound pvc-u-c 3Gi"]),
    (DYNAMIC, &[delete_claim], &[]),
    (DELAYED, &[], &["c Pending -"]),
    (
        "pod p c on=n1\npv a 1Gi RWO phase=Pending\npvc c 500Mi RWO class=",
        &[delete_claim],
        &["a 1Gi Bound c#u-c", "c Bound a 1Gi deleting", "p on n1"],
    ),
    (
        "pod p c on=n1\npv a 1Gi RWO phase=Pending policy=Recycle\npvc c 1Gi RWO class=",
        &[delete_claim, delete_pod],
        &["a 1Gi Available"],
    ),
    (
        "pv a 1Gi RWO phase=Pending policy=Recycle for=c\npvc c 1Gi RWO",
        &[delete_claim],
        &["a 1Gi Available c#"],
    ),
    ("pv a 1Gi RWO policy=Delete host=/tmp/x\npvc c 1Gi RWO", &[delete_claim], &[]),
    ("pv a 1Gi RWO policy=Delete\npvc c 1Gi RWO", &[delete_claim], &["a 1Gi Failed c#u-c"]),
    ("pv a 1Gi RWO policy=Delete csi=cloud\npvc c 1Gi RWO", &[delete_claim], &[]),
    ("pv a 1Gi RWO policy=Recycle csi=cloud\npvc c 1Gi RWO", &[delete_claim], &["a 1Gi Available"]),
    (
        "node n1\npod p c d\nsc f lamina delayed\npvc c 1Gi RWO class=f\npvc d 2Gi RWO class=f\n\
         pv a 2Gi RWO class=f node=n1",
        &[],
        &[
            "a 2Gi Bound c#u-c",
            "pvc-u-d 2Gi Bound d#u-d",
            "c Bound a 2Gi",
            "d Bound pvc-u-d 2Gi",
            "p on n1",
        ],
    ),
    (
        "node n1\npod p new=data\nsc fast lamina delayed",
        &[],
        &["pvc-u-p-data 1Gi Bound p-data#u-p-data", "p-data Bound pvc-u-p-data 1Gi", "p on n1"],
    ),
];

/// Runs a life; returns its end and the number of writes.
fn live(life: &Life, limit: Option<usize>) -> (Objects, usize) {
    let mut objects = objects(life.0);
    let mut count = settle(&mut objects, limit);
    for step in life.1 {
        step(&mut objects);
        count += settle(&mut objects, limit);
    }
    (objects, count)
}

#[test]
fn lives_end_as_they_do_in_kubernetes() {
    for life in &LIVES {
        let (end, _) = live(life, None);
        assert_eq!(shown(&end), life.2, "{} with {} steps", life.0, life.1.len());
    }
}

#[test]
fn lives_that_are_cut_after_every_write_end_alike() {
    for life in &LIVES {
        let (end, _) = live(life, None);
        let (cut, _) = live(life, Some(1));
        assert_eq!(cut, end, "{} with {} steps", life.0, life.1.len());
    }
}

/// Settles with one stop: after the write of a number the rest of that decision is lost.
fn settle_with_stop(objects: &mut Objects, stop: &mut Option<usize>) {
    for _ in 0..ROUNDS {
        let (before, was_open) = (objects.clone(), stop.is_some());
        for key in objects.keys() {
            for action in decide(objects, &key).iter().filter(|action| !action.is_event()) {
                write(objects, action);
                match stop {
                    Some(0) => {
                        *stop = None;
                        break;
                    }
                    Some(left) => *left -= 1,
                    None => {}
                }
            }
        }
        let stopped = was_open && stop.is_none();
        if *objects == before && !stopped {
            return;
        }
    }
    panic!("not settled: {objects:#?}");
}

#[test]
fn lives_with_one_stop_at_any_write_end_alike() {
    let mut stops = 0;
    for life in &LIVES {
        let (end, count) = live(life, None);
        for at in 0..count {
            let mut objects = objects(life.0);
            let mut stop = Some(at);
            settle_with_stop(&mut objects, &mut stop);
            for step in life.1 {
                step(&mut objects);
                settle_with_stop(&mut objects, &mut stop);
            }
            assert_eq!(objects, end, "{} with a stop after write {at}", life.0);
            stops += 1;
        }
    }
    assert!(stops > 150, "{stops} stops");
}

#[test]
fn every_action_twice_in_a_row_is_as_once() {
    for life in &LIVES {
        let mut objects = objects(life.0);
        settle(&mut objects, None);
        for step in life.1 {
            step(&mut objects);
            for key in objects.keys() {
                for action in decide(&objects, &key) {
                    write(&mut objects, &action);
                    let once = objects.clone();
                    write(&mut objects, &action);
                    assert_eq!(objects, once, "{action:?}");
                }
            }
        }
    }
}

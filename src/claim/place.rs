//! Placing a pod on a node, and with it choosing the volumes of claims that wait for their first
//! pod.
//!
//! All claims of a pod are decided together or not at all. The claims are taken by size; each gets
//! the best free volume that the node reaches, or is marked for provisioning there. The pod itself
//! is placed once all of its claims are bound. Of several nodes that suit, that of this host is
//! taken before the first by name.

use std::collections::{BTreeMap, BTreeSet};

use super::action::Action;
use super::bind::{bind_volume, key};
use super::object::{
    AccessMode, Claim, ClaimPhase, Id, Key, Node, Pod, PodPhase, PodVolume, Volume,
};
use super::state::Objects;
use super::{claims, ephemeral, matching, names};

/// The actions for a pod, in order: its ephemeral claims, then its placement.
#[must_use]
pub fn decide(objects: &Objects, pod: &Pod) -> Vec<Action> {
    let mut actions = ephemeral::claims(objects, pod);
    let is_open = pod.node.is_empty() && pod.phase == PodPhase::Pending;
    if !is_open || pod.is_gated || pod.meta.deleting || !actions.is_empty() {
        return actions;
    }
    match place(objects, pod) {
        Ok(writes) => actions.extend(writes),
        Err(reason) => {
            let help = match objects.nodes.len() {
                0 => "0/0 nodes are available: no nodes available to schedule pods".to_owned(),
                all => format!(
                    "0/{all} nodes are available: {reason}. preemption: 0/{all} nodes are \
                     available: {all} Preemption is not helpful for scheduling."
                ),
            };
            actions.push(Action::warning(Key::Pod(pod.meta.id()), "FailedScheduling", help));
        }
    }
    actions
}

/// The claims of a pod by what is still to be done for them.
struct Needs<'a> {
    bound: Vec<&'a Claim>,
    delayed: Vec<&'a Claim>,
}

/// What is done on a node that suits the pod.
struct Plan<'a> {
    node: &'a Node,
    volumes: Vec<(&'a Claim, &'a Volume)>,
    provisions: Vec<&'a Claim>,
}

fn place(objects: &Objects, pod: &Pod) -> Result<Vec<Action>, String> {
    let needs = needs(objects, pod)?;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let host = objects.nodes.get(&objects.host.node);
    let others = objects.nodes.values().filter(|node| node.meta.name != objects.host.node);
    for node in host.into_iter().chain(others) {
        match plan(objects, pod, &needs, node) {
            Ok(plan) => return Ok(carry_out(pod, &plan)),
            Err(reason) => *reasons.entry(reason).or_default() += 1,
        }
    }
    let mut listed: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    listed.sort();
    Err(listed.join(", "))
}

/// The claims of the pod, or why no node can help.
fn needs<'a>(objects: &'a Objects, pod: &Pod) -> Result<Needs<'a>, String> {
    let mut found = Needs { bound: Vec::new(), delayed: Vec::new() };
    for volume in &pod.volumes {
        let id = Id::new(&pod.meta.namespace, &pod.claim_name(volume));
        let Some(claim) = objects.claims.get(&id) else {
            return Err(format!("persistentvolumeclaim {:?} not found", id.name));
        };
        if matches!(volume, PodVolume::Ephemeral { .. }) && !pod.owns(&claim.meta) {
            return Err(ephemeral::foreign(pod, claim));
        }
        if claim.status.phase == ClaimPhase::Lost {
            let (name, lost) = (&id.name, &claim.volume_name);
            return Err(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {lost:?}"
            ));
        }
        if claim.meta.deleting {
            return Err(format!("persistentvolumeclaim {:?} is being deleted", id.name));
        }
        if is_taken(objects, pod, claim) {
            return Err("node has pod using PersistentVolumeClaim with the same name and \
                        ReadWriteOncePod access mode"
                .to_owned());
        }
        let is_waiting = claims::is_delayed(objects, claim) && claim.volume_name.is_empty();
        if is_bound(claim) {
            found.bound.push(claim);
        } else if is_waiting {
            found.delayed.push(claim);
        } else {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
    }
    found.delayed.sort_by_key(|claim| claim.request);
    found.delayed.dedup_by(|a, b| a.meta.name == b.meta.name);
    Ok(found)
}

fn is_bound(claim: &Claim) -> bool {
    !claim.volume_name.is_empty() && claim.meta.has_annotation(names::BIND_COMPLETED)
}

/// Whether the claim is for one pod and another pod has it.
fn is_taken(objects: &Objects, pod: &Pod, claim: &Claim) -> bool {
    claim.modes.contains(&AccessMode::ReadWriteOncePod)
        && objects.pods_of(&claim.meta).any(|other| {
            other.meta.name != pod.meta.name && !other.node.is_empty() && !other.is_finished()
        })
}

/// What is to be done to run the pod on the node, or why it cannot run there.
fn plan<'a>(
    objects: &'a Objects,
    pod: &Pod,
    needs: &Needs<'a>,
    node: &'a Node,
) -> Result<Plan<'a>, String> {
    check_node(pod, node)?;
    for claim in &needs.bound {
        let Some(volume) = objects.volume(&claim.volume_name) else {
            return Err(
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
                    .to_owned(),
            );
        };
        if !matching::reaches(volume, node) {
            return Err("node(s) had volume node affinity conflict".to_owned());
        }
    }
    let mut plan = Plan { node, volumes: Vec::new(), provisions: Vec::new() };
    let mut excluded: BTreeSet<String> = BTreeSet::new();
    for claim in &needs.delayed {
        let chosen = claim.meta.annotation(names::SELECTED_NODE);
        let volume = match chosen {
            Some(chosen) if chosen != node.meta.name => return Err(no_volume()),
            Some(_) => None,
            None => matching::on_node(objects, claim, node, &excluded),
        };
        match volume {
            Some(volume) => {
                excluded.insert(volume.meta.name.clone());
                plan.volumes.push((claim, volume));
            }
            None if can_provision(objects, claim, node) => plan.provisions.push(claim),
            None => return Err(no_volume()),
        }
    }
    Ok(plan)
}

fn no_volume() -> String {
    "node(s) didn't find available persistent volumes to bind".to_owned()
}

fn check_node(pod: &Pod, node: &Node) -> Result<(), String> {
    if node.is_cordoned {
        return Err("node(s) were unschedulable".to_owned());
    }
    if !node.is_ready {
        return Err("node(s) had untolerated taint {node.kubernetes.io/not-ready: }".to_owned());
    }
    let labels = &node.meta.labels;
    let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    let affinity = pod.affinity.as_ref();
    let is_wanted = affinity.is_none_or(|affinity| affinity.selects(&node.meta.name, labels));
    if pod.node_selector.iter().all(has) && is_wanted {
        return Ok(());
    }
    Err("node(s) didn't match Pod's node affinity/selector".to_owned())
}

/// Whether a volume can be made for the claim on the node.
fn can_provision(objects: &Objects, claim: &Claim, node: &Node) -> bool {
    let Some(class) = objects.classes.get(claim.class()) else { return false };
    let is_allowed = class.topologies.as_ref();
    class.provisioner != names::NO_PROVISIONER
        && is_allowed.is_none_or(|allowed| allowed.selects(&node.meta.name, &node.meta.labels))
}

/// The choices for the claims; once there is nothing to choose or to wait for, the placement.
fn carry_out(pod: &Pod, plan: &Plan<'_>) -> Vec<Action> {
    let node = &plan.node.meta.name;
    let id = pod.meta.id();
    if plan.volumes.is_empty() && plan.provisions.is_empty() {
        let message = format!("Successfully assigned {id} to {node}");
        let event = Action::normal(Key::Pod(id.clone()), "Scheduled", message);
        return vec![Action::PlacePod { pod: id, node: node.clone() }, event];
    }
    let chosen = plan.volumes.iter().filter_map(|(claim, volume)| bind_volume(volume, claim));
    let open = plan
        .provisions
        .iter()
        .filter(|claim| claim.meta.annotation(names::SELECTED_NODE) != Some(node));
    let marks = open.map(|claim| Action::Annotate {
        object: key(claim),
        annotations: vec![(names::SELECTED_NODE, Some(node.clone()))],
    });
    chosen.chain(marks).collect()
}

//! Tests of the decisions: tables of cases, whole lives of objects cut after every write, and a
//! random comparison with a reference.
//!
//! Objects are written as words: `c 500Mi RWO class=slow volume=a`.

mod claims;
mod lives;
mod matching;
mod pods;
mod random;
mod selector;
mod snapshot_worlds;
mod snapshots;
mod volumes;
mod worlds;

use super::action::Action;
use super::names;
use super::object::*;
use super::selector::{NodeTerm, Operator, Requirement};
use super::state::Objects;

/// The namespace of all claims and pods, unless a case needs another one.
pub(super) const NS: &str = "ns";

fn modes(text: &str) -> Vec<AccessMode> {
    let one = |short: &str| match short {
        "RWO" => AccessMode::ReadWriteOnce,
        "ROX" => AccessMode::ReadOnlyMany,
        "RWX" => AccessMode::ReadWriteMany,
        "RWOP" => AccessMode::ReadWriteOncePod,
        other => panic!("mode {other}"),
    };
    text.split(',').map(one).collect()
}

fn is_modes(word: &str) -> bool {
    word.starts_with("RW") || word.starts_with("ROX")
}

/// `key=value` as In, `key!=value` as NotIn.
fn requirement(text: &str) -> Requirement {
    let (key, operator, value) = match text.split_once("!=") {
        Some((key, value)) => (key, Operator::NotIn, value),
        None => {
            let (key, value) = text.split_once('=').unwrap();
            (key, Operator::In, value)
        }
    };
    let values = value.split('|').map(str::to_owned).collect();
    Requirement { key: key.to_owned(), operator, values }
}

fn on_node(name: &str) -> NodeSelector {
    let key = "host".to_owned();
    let values = vec![name.to_owned()];
    let expressions = vec![Requirement { key, operator: Operator::In, values }];
    NodeSelector { terms: vec![NodeTerm { expressions, fields: Vec::new() }] }
}

/// What stands behind `word=` in a list of words.
fn behind<'a>(word: &'a str, key: &str) -> Option<&'a str> {
    word.strip_prefix(key)?.strip_prefix('=')
}

/// The word of a meta, if it is one.
fn meta_word(meta: &mut Meta, word: &str) -> bool {
    let mut annotate = |key: &str, value: &str| {
        meta.annotations.insert(key.to_owned(), value.to_owned());
    };
    match word.split_once('=').unwrap_or((word, "")) {
        ("completed", _) => annotate(names::BIND_COMPLETED, "yes"),
        ("ours", _) => annotate(names::BOUND_BY_CONTROLLER, "yes"),
        ("by", by) => annotate(names::PROVISIONED_BY, by),
        ("content", name) => annotate(names::STAND_IN, name),
        ("chosen", node) => annotate(names::SELECTED_NODE, node),
        ("old", class) => annotate(names::OLD_CLASS, class),
        ("wait", by) => {
            annotate(names::PROVISIONER, by);
            annotate(names::OLD_PROVISIONER, by);
        }
        ("deleting", _) => meta.deleting = true,
        ("bare", _) => meta.finalizers.clear(),
        ("kept", _) => meta.finalizers.push(names::PROVISIONER_FINALIZER.to_owned()),
        ("label", label) => {
            let (key, value) = label.split_once('=').unwrap();
            meta.labels.insert(key.to_owned(), value.to_owned());
        }
        ("uid", uid) => uid.clone_into(&mut meta.uid),
        ("owner", uid) => meta.controllers.push(uid.to_owned()),
        _ => return false,
    }
    true
}

/// A volume: `a 1Gi RWO class=slow for=c#uid phase=Bound node=n1 block vac=gold policy=Delete`.
pub(super) fn volume(text: &str) -> Volume {
    let mut words = text.split(' ');
    let mut volume = Volume::default();
    volume.meta.name = words.next().unwrap().to_owned();
    volume.meta.finalizers = vec![names::VOLUME_PROTECTION.to_owned()];
    volume.capacity = words.next().unwrap().parse().unwrap();
    volume.status.phase = VolumePhase::Available;
    volume.source = Source::HostPath("/data".to_owned());
    for word in words {
        if is_modes(word) {
            volume.modes = modes(word);
        } else if word == "block" {
            volume.volume_mode = VolumeMode::Block;
        } else if let Some(name) = behind(word, "class") {
            name.clone_into(&mut volume.class_name);
        } else if let Some(to) = behind(word, "for") {
            let (name, uid) = to.split_once('#').unwrap_or((to, ""));
            let (namespace, name) = name.split_once('/').unwrap_or((NS, name));
            let id = Id::new(namespace, name);
            volume.claim_ref = Some(ClaimRef { id, uid: uid.to_owned() });
        } else if let Some(name) = behind(word, "phase") {
            volume.status.phase = match name {
                "Pending" => VolumePhase::Pending,
                "Bound" => VolumePhase::Bound,
                "Released" => VolumePhase::Released,
                "Failed" => VolumePhase::Failed,
                other => panic!("phase {other}"),
            };
        } else if let Some(node) = behind(word, "node") {
            volume.affinity = Some(on_node(node));
        } else if let Some(class) = behind(word, "vac") {
            class.clone_into(&mut volume.attributes_class);
        } else if let Some(policy) = behind(word, "policy") {
            volume.reclaim = policy_of(policy);
        } else if let Some(path) = behind(word, "host") {
            volume.source = Source::HostPath(path.to_owned());
        } else if let Some(driver) = behind(word, "csi") {
            volume.source = Source::Csi(driver.to_owned());
            volume.handle = format!("h-{}", volume.meta.name);
        } else {
            assert!(meta_word(&mut volume.meta, word), "{word}");
        }
    }
    volume
}

fn policy_of(text: &str) -> ReclaimPolicy {
    match text {
        "Retain" => ReclaimPolicy::Retain,
        "Delete" => ReclaimPolicy::Delete,
        "Recycle" => ReclaimPolicy::Recycle,
        other => panic!("policy {other}"),
    }
}

/// A claim: `c 500Mi RWO class=slow select=k=v volume=a block vac=gold`; `class=` is the empty
/// class, `has=1Gi` a bound status.
pub(super) fn claim(text: &str) -> Claim {
    let mut words = text.split(' ');
    let mut claim = Claim::default();
    let name = words.next().unwrap();
    let (namespace, name) = name.split_once('/').unwrap_or((NS, name));
    claim.meta.namespace = namespace.to_owned();
    claim.meta.name = name.to_owned();
    claim.meta.uid = format!("u-{name}");
    claim.meta.finalizers = vec![names::CLAIM_PROTECTION.to_owned()];
    claim.request = words.next().unwrap().parse().unwrap();
    for word in words {
        if is_modes(word) {
            claim.modes = modes(word);
        } else if word == "block" {
            claim.volume_mode = VolumeMode::Block;
        } else if word == "select" {
            claim.selector = Some(LabelSelector::default());
        } else if let Some(class) = behind(word, "class") {
            claim.class_name = Some(class.to_owned());
        } else if let Some(text) = behind(word, "select") {
            let selector = claim.selector.get_or_insert_default();
            selector.expressions.push(requirement(text));
        } else if let Some(name) = behind(word, "volume") {
            name.clone_into(&mut claim.volume_name);
        } else if let Some(class) = behind(word, "vac") {
            class.clone_into(&mut claim.attributes_class);
        } else if let Some(size) = behind(word, "has") {
            claim.status.phase = ClaimPhase::Bound;
            claim.status.capacity = Some(size.parse().unwrap());
            claim.status.modes = claim.modes.clone();
        } else if word == "lost" {
            claim.status.phase = ClaimPhase::Lost;
        } else if let Some(text) = behind(word, "from") {
            let (kind, name) = text.split_once('/').unwrap();
            let group = if kind == "VolumeSnapshot" { "snapshot.storage.k8s.io" } else { "" };
            let (group, kind, name) = (group.to_owned(), kind.to_owned(), name.to_owned());
            claim.data_source = Some(DataSource { group, kind, name });
        } else {
            assert!(meta_word(&mut claim.meta, word), "{word}");
        }
    }
    claim
}

/// A class: `fast lamina delayed policy=Delete default expand created=5 only=n1`.
pub(super) fn class(text: &str) -> Class {
    let mut words = text.split(' ');
    let mut class = Class { reclaim: ReclaimPolicy::Delete, ..Class::default() };
    class.meta.name = words.next().unwrap().to_owned();
    class.provisioner = words.next().unwrap().to_owned();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("delayed", _) => class.binding = BindingMode::WaitForFirstConsumer,
            ("policy", policy) => class.reclaim = policy_of(policy),
            ("default", _) => {
                class.meta.annotations.insert(names::DEFAULT_CLASS.to_owned(), "true".to_owned());
            }
            ("expand", _) => class.may_expand = true,
            ("created", time) => class.meta.created = time.parse().unwrap(),
            ("only", node) => class.topologies = Some(on_node(node)),
            ("option", option) => class.mount_options.push(option.to_owned()),
            other => panic!("{other:?}"),
        }
    }
    class
}

/// A pod: `p c d on=n1 host=n1 ended gated new=data`; words without a mark are claims.
pub(super) fn pod(text: &str) -> Pod {
    let mut words = text.split(' ');
    let mut pod = Pod::default();
    pod.meta.name = words.next().unwrap().to_owned();
    pod.meta.namespace = NS.to_owned();
    pod.meta.uid = format!("u-{}", pod.meta.name);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("on", node) => node.clone_into(&mut pod.node),
            ("host", node) => {
                pod.node_selector.insert("host".to_owned(), node.to_owned());
            }
            ("affine", node) => pod.affinity = Some(on_node(node)),
            ("ended", _) => pod.phase = PodPhase::Succeeded,
            ("gated", _) => pod.is_gated = true,
            ("deleting", _) => pod.meta.deleting = true,
            ("new", volume) => {
                let template = Box::new(claim("t 1Gi RWO class=fast"));
                pod.volumes.push(PodVolume::Ephemeral { volume: volume.to_owned(), template });
            }
            (name, _) => pod.volumes.push(PodVolume::Claim(name.to_owned())),
        }
    }
    pod
}

/// A node, whose label `host` is its name: `n1 cordoned unready`. That of this host is `here`.
pub(super) fn node(text: &str) -> Node {
    let mut words = text.split(' ');
    let mut node = Node { is_ready: true, ..Node::default() };
    node.meta.name = words.next().unwrap().to_owned();
    node.meta.labels.insert("host".to_owned(), node.meta.name.clone());
    for word in words {
        match word {
            "cordoned" => node.is_cordoned = true,
            "unready" => node.is_ready = false,
            "here" => {}
            other => panic!("{other}"),
        }
    }
    node
}

/// Objects, one to a line: `pv`, `pvc`, `sc`, `vac`, `pod`, `node`, or one of snapshots, and its
/// words. The host serves the provisioner `lamina`, and stands in for the CSI driver `cloud`.
pub(super) fn objects(text: &str) -> Objects {
    let mut objects = Objects::default();
    objects.host.serves.insert("lamina".to_owned());
    objects.host.sources.insert("csi:cloud".to_owned());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (kind, words) = line.split_once(' ').unwrap();
        match kind {
            "pv" => objects.put_volume(volume(words)),
            "pvc" => {
                let claim = claim(words);
                objects.claims.insert(claim.meta.id(), claim);
            }
            "sc" => {
                let class = class(words);
                objects.classes.insert(class.meta.name.clone(), class);
            }
            "vac" => {
                let mut class = AttributesClass::default();
                words.clone_into(&mut class.meta.name);
                class.driver = "lamina".to_owned();
                objects.attributes_classes.insert(words.to_owned(), class);
            }
            "pod" => {
                let pod = pod(words);
                objects.pods.insert(pod.meta.id(), pod);
            }
            "node" => {
                let node = node(words);
                if words.split(' ').any(|word| word == "here") {
                    objects.host.node.clone_from(&node.meta.name);
                }
                objects.nodes.insert(node.meta.name.clone(), node);
            }
            other => snapshots::put(&mut objects, other, words),
        }
    }
    objects
}

/// An action in a few words: the write and its object, or the event's reason and message.
pub(super) fn shown(action: &Action) -> String {
    match action {
        Action::BindVolume { volume, to, by_controller } => {
            let by = if *by_controller { " ours" } else { "" };
            format!("ref {volume}={}#{}{by}", to.id.name, to.uid)
        }
        Action::UnbindVolume { volume, keep: None } => format!("unref {volume}"),
        Action::UnbindVolume { volume, keep: Some(to) } => {
            format!("unref {volume}={}#{}", to.id.name, to.uid)
        }
        Action::VolumeStatus { volume, status } => format!("{volume} {:?}", status.phase),
        Action::BindClaim { claim, volume, by_controller } => {
            let by = if *by_controller { " ours" } else { "" };
            format!("name {}={volume}{by}", claim.name)
        }
        Action::ClaimStatus { claim, status } => {
            let size = status.capacity.map(|size| format!(" {size}")).unwrap_or_default();
            let class = match (&status.attributes_class[..], &status.modifying[..]) {
                ("", "") => String::new(),
                (current, "") => format!(" vac={current}"),
                (current, to) => format!(" vac={current}>{to}"),
            };
            format!("{} {:?}{size}{class}", claim.name, status.phase)
        }
        Action::SetClass { claim, class } => format!("class {}={class}", claim.name),
        Action::Annotate { object, annotations } => {
            let value = annotations.last().unwrap();
            let key = value.0.rsplit_once('/').unwrap().1;
            format!("{} {key}={}", short(object), value.1.as_deref().unwrap_or("-"))
        }
        Action::AddFinalizer { object, finalizer } => format!("{} +{finalizer}", short(object)),
        Action::RemoveFinalizer { object, finalizer } => format!("{} -{finalizer}", short(object)),
        Action::CreateClaim(claim) => format!("create {}", claim.meta.name),
        Action::PlacePod { pod, node } => format!("place {} on {node}", pod.name),
        Action::Event(event) => {
            let mark = if event.is_warning { "!" } else { "" };
            format!("{mark}{}: {}", event.reason, event.message)
        }
        Action::Provision(order) => format!("provision {}", order.volume.meta.name),
        Action::DeleteBacking { volume } => format!("wipe {volume}"),
        Action::DeleteVolume { volume } => format!("delete {volume}"),
        Action::Recycle { volume } => format!("recycle {volume}"),
        Action::Expand { volume, size } => format!("expand {volume} {size}"),
        Action::VolumeCapacity { volume, size } => format!("size {volume} {size}"),
        Action::Modify { volume, .. } => format!("modify {volume}"),
        Action::StandIn { volume } => format!("stand in {volume}"),
        Action::VolumeAttributesClass { volume, class } => format!("vac {volume}={class}"),
        other => snapshots::shown(other),
    }
}

fn short(key: &Key) -> &str {
    match key {
        Key::Volume(name) | Key::Content(name) => name,
        Key::Claim(id) | Key::Pod(id) | Key::Snapshot(id) => &id.name,
    }
}

/// Checks what is decided for a key: the objects, and the actions line by line.
pub(super) fn decides(case: &str, key: &Key, wanted: &[&str]) {
    let objects = objects(case);
    let actions = super::decide(&objects, key);
    let found: Vec<String> = actions.iter().map(shown).collect();
    assert_eq!(found, wanted, "\n{case}");
}

#[test]
fn node_of_this_host_is_preferred_and_one_that_is_not_ready_is_left_out() {
    let claim = "pod p c\nsc w lamina delayed\npvc c 1Gi RWO class=w";
    let pod = Key::Pod(Id::new(NS, "p"));
    let cases = [
        ("node n0\nnode n1 here", "c selected-node=n1"),
        ("node n0\nnode n1 here cordoned", "c selected-node=n0"),
        ("node n0 unready\nnode n1", "c selected-node=n1"),
        ("node n0\nnode n1 here unready", "c selected-node=n0"),
    ];
    for (nodes, wanted) in cases {
        decides(&format!("{claim}\n{nodes}"), &pod, &[wanted]);
    }
}

//! What is decided for snapshots, their contents, and claims that are made of them.

use super::super::contents;
use super::super::failure::{self, Failure};
use super::super::names;
use super::super::object::{Id, Key};
use super::super::snapshot::*;
use super::super::snapshots::taken_name;
use super::super::{Action, Objects, Origin, decide, touched};
use super::{NS, decides, objects};

fn policy(text: &str) -> DeletionPolicy {
    match text {
        "Delete" => DeletionPolicy::Delete,
        "Retain" => DeletionPolicy::Retain,
        other => panic!("policy {other}"),
    }
}

fn reference(text: &str) -> SnapshotRef {
    let (name, uid) = text.split_once('#').unwrap_or((text, ""));
    let (namespace, name) = name.split_once('/').unwrap_or((NS, name));
    SnapshotRef { id: Id::new(namespace, name), uid: uid.to_owned() }
}

/// A snapshot: `s claim=c class=x bound=snapcontent-u-s ready created=1 size=1Gi free`. It has its
/// first finalizer unless it is `free`; `held` adds the second.
fn snapshot(text: &str) -> Snapshot {
    let mut words = text.split(' ');
    let mut one = Snapshot::default();
    one.meta.namespace = NS.to_owned();
    one.meta.name = words.next().unwrap().to_owned();
    one.meta.uid = format!("u-{}", one.meta.name);
    one.meta.finalizers = vec![names::SNAPSHOT_SOURCE.to_owned()];
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("claim", name) => one.source = SnapshotSource::Claim(name.to_owned()),
            ("content", name) => one.source = SnapshotSource::Content(name.to_owned()),
            ("class", name) => name.clone_into(&mut one.class_name),
            ("bound", name) => name.clone_into(&mut one.status.content),
            ("ready", _) => one.status.ready = Some(true),
            ("unready", _) => one.status.ready = Some(false),
            ("error", _) => one.status.error = Some("no".to_owned()),
            ("created", time) => one.status.created = Some(time.parse().unwrap()),
            ("size", size) => one.status.restore_size = Some(size.parse().unwrap()),
            ("free", _) => one.meta.finalizers.clear(),
            ("held", _) => one.meta.finalizers.push(names::SNAPSHOT_BOUND.to_owned()),
            ("deleting", _) => one.meta.deleting = true,
            other => panic!("{other:?}"),
        }
    }
    one
}

/// A content: `k driver=lamina for=s#u-s policy=Delete vol=h handle=h class=x taken ready`.
fn content(text: &str) -> Content {
    let mut words = text.split(' ');
    let mut one = Content {
        meta: super::Meta::default(),
        driver: "lamina".to_owned(),
        policy: DeletionPolicy::Delete,
        source: ContentSource::default(),
        to: reference("s#u-s"),
        class_name: String::new(),
        mode: None,
        status: ContentStatus::default(),
    };
    one.meta.name = words.next().unwrap().to_owned();
    one.meta.finalizers = vec![names::CONTENT_BOUND.to_owned()];
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("driver", driver) => driver.clone_into(&mut one.driver),
            ("for", to) => one.to = reference(to),
            ("policy", text) => one.policy = policy(text),
            ("vol", handle) => one.source = ContentSource::Volume(handle.to_owned()),
            ("handle", handle) => one.source = ContentSource::Snapshot(handle.to_owned()),
            ("class", name) => name.clone_into(&mut one.class_name),
            ("taken", handle) => {
                handle.clone_into(&mut one.status.handle);
                one.status.created_nanos = Some(7_900_000_000);
                one.status.restore_bytes = Some(1 << 30);
            }
            ("ready", _) => one.status.ready = Some(true),
            ("error", text) => one.status.error = Some(text.to_owned()),
            ("block", _) => one.mode = Some(super::VolumeMode::Block),
            ("change", _) => {
                one.meta.annotations.insert(names::MODE_CHANGE.to_owned(), "true".to_owned());
            }
            ("ending", _) => {
                let key = names::SNAPSHOT_BEING_DELETED.to_owned();
                one.meta.annotations.insert(key, "yes".to_owned());
            }
            ("free", _) => one.meta.finalizers.clear(),
            ("deleting", _) => one.meta.deleting = true,
            other => panic!("{other:?}"),
        }
    }
    one
}

/// A line of objects: `vs`, `vsc`, or `vsclass x lamina default policy=Retain`.
pub(super) fn put(objects: &mut Objects, kind: &str, words: &str) {
    match kind {
        "vs" => {
            let one = snapshot(words);
            objects.snapshots.insert(one.meta.id(), one);
        }
        "vsc" => {
            let one = content(words);
            objects.contents.insert(one.meta.name.clone(), one);
        }
        "vsclass" => {
            let mut words = words.split(' ');
            let mut one = SnapshotClass { policy: DeletionPolicy::Delete, ..Default::default() };
            one.meta.name = words.next().unwrap().to_owned();
            one.driver = words.next().unwrap().to_owned();
            for word in words {
                match word.split_once('=') {
                    Some(("policy", text)) => one.policy = policy(text),
                    _ => {
                        let key = names::DEFAULT_SNAPSHOT_CLASS.to_owned();
                        one.meta.annotations.insert(key, "true".to_owned());
                    }
                }
            }
            objects.snapshot_classes.insert(one.meta.name.clone(), one);
        }
        other => panic!("{other}"),
    }
}

/// An action about snapshots in a few words.
pub(super) fn shown(action: &Action) -> String {
    match action {
        Action::SetSnapshotClass { snapshot, class } => format!("class {}={class}", snapshot.name),
        Action::SnapshotStatus { snapshot, status } => {
            let mut text = format!("{} bound={}", snapshot.name, status.content);
            text += match status.ready {
                Some(true) => " ready",
                Some(false) => " unready",
                None => "",
            };
            text += &status.created.map(|time| format!(" created={time}")).unwrap_or_default();
            text += &status.restore_size.map(|size| format!(" {size}")).unwrap_or_default();
            text + if status.error.is_some() { " error" } else { "" }
        }
        Action::CreateContent(content) => format!("create {}", content.meta.name),
        Action::BindContent { content, uid, class } => format!("bind {content}=#{uid} {class}"),
        Action::ContentStatus { content, status } => {
            format!("{content} {}", status.error.as_deref().unwrap_or("-"))
        }
        Action::DeleteContent { content } => format!("delete {content}"),
        Action::TakeSnapshot { name, volume, .. } => format!("take {name} of {volume}"),
        Action::FindSnapshot { handle, .. } => format!("find {handle}"),
        Action::DeleteSnapshot { handle, name, .. } => format!("wipe {handle}/{name}"),
        other => panic!("{other:?}"),
    }
}

fn check(case: &str, wanted: &[&str]) {
    decides(case, &Key::Snapshot(Id::new(NS, "s")), wanted);
}

fn check_content(case: &str, wanted: &[&str]) {
    decides(case, &Key::Content("k".to_owned()), wanted);
}

fn check_claim(case: &str, wanted: &[&str]) {
    decides(case, &Key::Claim(Id::new(NS, "c")), wanted);
}

const VOLUME: &str = "pv a 1Gi RWO for=d#u-d phase=Bound csi=lamina\n\
                      pvc d 1Gi RWO volume=a completed has=1Gi\n";
const SOURCE: &str = "s +snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
const BOUND: &str = "s +snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
const MISSING: &str = "!SnapshotContentMissing: VolumeSnapshotContent is missing";

#[test]
fn a_snapshot_without_class_gets_the_default_one_of_its_driver() {
    let (vs, none) = ("vs s claim=d free\n", "s bound= error");
    let failed = |why: &str| {
        format!(
            "!SetDefaultSnapshotClassFailed: Failed to set default snapshot class with error {why}"
        )
    };
    let cases = [
        ("vsclass x lamina default", "class s=x", ""),
        ("vsclass x lamina default\nvsclass y other default\nvsclass z lamina", "class s=x", ""),
        ("vsclass x lamina", none, "cannot find default snapshot class"),
        ("vsclass x other default", none, "cannot find default snapshot class"),
        (
            "vsclass x lamina default\nvsclass y lamina default",
            none,
            "2 default snapshot classes were found",
        ),
    ];
    for (classes, write, why) in cases {
        let event = failed(why);
        let wanted = if why.is_empty() { vec![write] } else { vec![write, &event[..]] };
        check(&format!("{VOLUME}{vs}{classes}"), &wanted);
    }
    let why = "the PVC d is not yet bound to a PV, will not attempt to take a snapshot";
    let class = "vsclass x lamina default";
    check(&format!("pvc d 1Gi RWO\n{vs}{class}"), &[none, &failed(why)]);
    let volume = VOLUME.replace("csi=lamina", "host=/tmp/x");
    check(&format!("{volume}{vs}{class}"), &[none, &failed("snapshot PV source not CSI")]);
    let missing = "!GetSnapshotClassFailed: failed to get snapshot class with error \
                   volumesnapshotclass.snapshot.storage.k8s.io \"gone\" not found";
    check(&format!("{VOLUME}vs s claim=d class=gone"), &[none, missing]);
}

#[test]
fn a_snapshot_of_a_claim_makes_a_content_and_protects_the_claim() {
    let class = "vsclass x lamina\n";
    let event = "CreatingSnapshot: Waiting for a snapshot ns/s to be created by the CSI driver.";
    let protect = "d +snapshot.storage.kubernetes.io/pvc-as-source-protection";
    let create = "create snapcontent-u-s";
    let vs = "vs s claim=d class=x";
    check(&format!("{VOLUME}{class}{vs} free"), &[SOURCE, protect, event, create]);
    check(&format!("{VOLUME}{class}{vs}"), &[protect, event, create]);
    check(&format!("{VOLUME}{class}{vs} error"), &["s bound=", protect, event, create]);
    let failed = |why: &str| {
        format!(
            "!SnapshotContentCreationFailed: Failed to create snapshot content with error {why}"
        )
    };
    let cases = [
        (
            String::new(),
            "failed to retrieve PVC d from the lister: persistentvolumeclaim \"d\" not found",
        ),
        (
            VOLUME.replace("completed", "completed deleting"),
            "cannot add finalizer on claim [ns/d] for snapshot [ns/s]: claim is being deleted",
        ),
        (VOLUME.replace("#u-d", "#u-e"), "claim in dataSource not bound or invalid"),
        (
            VOLUME.replace("csi=lamina", "host=/tmp/x"),
            "cannot find CSI PersistentVolumeSource for volume a",
        ),
        (
            VOLUME.replace("csi=lamina", "csi=other"),
            "snapshot class x has the driver lamina, but volume a has the driver other",
        ),
    ];
    for (volume, why) in cases {
        check(&format!("{volume}{class}{vs}"), &["s bound= unready error", &failed(why)]);
    }
}

#[test]
fn a_content_takes_its_snapshot_and_the_snapshot_its_status() {
    let vs = "vs s claim=d class=x\nvsclass x lamina\n";
    let vsc = "vsc snapcontent-u-s vol=h-a class=x";
    check(&format!("{vs}{vsc}"), &[BOUND, "s bound=snapcontent-u-s unready"]);
    check(&format!("{vs}{vsc} policy=Retain"), &["s bound=snapcontent-u-s unready"]);
    let content = Key::Content("snapcontent-u-s".to_owned());
    decides(&format!("{vs}{vsc}"), &content, &["take snapshot-u-s of h-a"]);
    decides(&format!("{vs}{vsc} driver=other"), &content, &[]);
    decides(&format!("{vs}{vsc} taken=id ready"), &content, &[]);
    check(
        &format!("{vs}{vsc} policy=Retain taken=id ready"),
        &[
            "s bound=snapcontent-u-s ready created=7 1Gi",
            "SnapshotCreated: Snapshot ns/s was successfully created by the CSI driver.",
            "SnapshotReady: Snapshot ns/s is ready to use.",
        ],
    );
    check(&format!("{vs}{vsc} policy=Retain error=no"), &["s bound=snapcontent-u-s unready error"]);
    let done = "vs s claim=d class=x bound=snapcontent-u-s ready created=7 size=1Gi held\n";
    check(&format!("{done}{vsc} taken=id ready"), &[]);
    check(done, &["s bound=snapcontent-u-s unready created=7 1Gi error", MISSING]);
    // It never gets another content: that would have later data.
    let lost = done.replace("ready", "unready");
    let wanted = ["s bound=snapcontent-u-s unready created=7 1Gi error", MISSING];
    check(&format!("{VOLUME}vsclass x lamina\n{lost}"), &wanted);
    let misbound = "!SnapshotMisbound: VolumeSnapshotContent is not bound to the VolumeSnapshot \
                    correctly";
    check(
        &format!("{done}{vsc} for=s#other taken=id ready"),
        &["s bound=snapcontent-u-s unready created=7 1Gi error", misbound],
    );
}

#[test]
fn a_prepared_content_and_its_snapshot_bind_one_to_one() {
    let vs = "vs s content=k\n";
    check(vs, &["s bound= unready error", MISSING]);
    check(&format!("{vs}vsc k handle=h for=s"), &["bind k=#u-s ", "s bound=k unready"]);
    check(
        "vs s content=k class=x\nvsclass x lamina\nvsc k handle=h for=s policy=Retain",
        &["bind k=#u-s x", "s bound=k unready"],
    );
    check(&format!("{vs}vsc k handle=h"), &[BOUND, "s bound=k unready"]);
    check_content(&format!("{vs}vsc k handle=h for=s free"), &["find h"]);
    check_content(
        &format!("{vs}vsc k handle=h free"),
        &["k +snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection", "find h"],
    );
    let misbound =
        "!SnapshotContentMisbound: VolumeSnapshotContent [k] is bound to a different snapshot";
    for other in ["for=t", "for=other/s", "for=s#u-t"] {
        let case = format!("{vs}vsc k handle=h {other}");
        check(&case, &["s bound= unready error", misbound]);
    }
    let (first, second) = ("dynamically provisioned", "pre-provisioned");
    let mismatch = |is: &str, wanted: &str| {
        let a = if wanted == second { "a pre-provisioned" } else { "a dynamically provisioned" };
        format!("!SnapshotContentMismatch: VolumeSnapshotContent is {is} while expecting {a} one")
    };
    let wanted = ["s bound= unready error".to_owned(), mismatch(first, second)];
    check(&format!("{vs}vsc k vol=h policy=Retain"), &wanted.each_ref().map(|one| &one[..]));
    let wanted = [BOUND.to_owned(), "s bound= unready error".to_owned(), mismatch(second, first)];
    let case = "vs s claim=d class=x\nvsclass x lamina\nvsc snapcontent-u-s handle=h";
    check(case, &wanted.each_ref().map(|one| &one[..]));
}

#[test]
fn a_deleted_snapshot_takes_its_content_along_or_leaves_it() {
    let minus = |text: &str| text.replace('+', "-");
    let (source, bound) = (minus(SOURCE), minus(BOUND));
    let vs = "vs s claim=d class=x bound=snapcontent-u-s ready created=7 held deleting\n";
    let vsc = "vsc snapcontent-u-s vol=h-a class=x taken=id ready";
    let mark = "snapcontent-u-s volumesnapshot-being-deleted=yes";
    let delete = "delete snapcontent-u-s";
    check(&format!("{vs}{vsc}"), &[mark, delete, &source]);
    check(&format!("{vs}{vsc} ending deleting"), &[&source]);
    check(&format!("{vs}{vsc} policy=Retain"), &[mark, &source, &bound]);
    check(vs, &[&source, &bound]);
    check(&format!("{vs}{vsc} for=s#other"), &[&source, &bound]);
    let pending = "!SnapshotDeletePending: Snapshot is being used to restore a PVC";
    let claim = "pvc c 1Gi RWO class=f from=VolumeSnapshot/s\n";
    check(&format!("{claim}{vs}{vsc}"), &[pending]);
    check(&format!("{claim}{vs}{vsc}").replace("class=f", "has=1Gi"), &[mark, delete, &source]);
    let last = "k -snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
    let wipe = "wipe id/snapshot-u-s";
    let cases: [(&str, &[&str]); 7] = [
        ("vs s claim=d\nvsc k vol=h taken=id deleting", &[]),
        ("vs s claim=d\nvsc k vol=h taken=id deleting ending", &[wipe, last]),
        ("vsc k vol=h taken=id deleting", &[wipe, last]),
        ("vsc k vol=h taken=id deleting policy=Retain", &[last]),
        ("vsc k vol=h deleting", &["wipe /snapshot-u-s", last]),
        ("vsc k handle=x for=s deleting", &["wipe x/snapshot-", last]),
        ("vsc k vol=h taken=id deleting driver=other", &[]),
    ];
    for (case, wanted) in cases {
        check_content(case, wanted);
    }
}

#[test]
fn a_claim_is_protected_while_a_snapshot_is_taken_of_it() {
    let release = "d -snapshot.storage.kubernetes.io/pvc-as-source-protection";
    for (snapshots, is_released) in [
        ("", true),
        ("vs s claim=d", false),
        ("vs s claim=d created=1", true),
        ("vs s claim=e", true),
        ("vs s claim=d created=1\nvs t claim=d", false),
        ("vs s claim=d error", true),
        ("vs s claim=d error\nvsc snapcontent-u-s vol=h", false),
    ] {
        let mut all = objects(&format!("{VOLUME}{snapshots}"));
        let id = Id::new(NS, "d");
        let claim = all.claims.get_mut(&id).unwrap();
        claim.meta.finalizers.push(names::CLAIM_SOURCE.to_owned());
        let found: Vec<String> = decide(&all, &Key::Claim(id)).iter().map(super::shown).collect();
        assert_eq!(found == [release], is_released, "{snapshots}: {found:?}");
    }
}

#[test]
fn a_failed_order_is_shown_by_content_and_snapshot() {
    let all = objects("vs s claim=d class=x\nvsclass x lamina\nvsc k vol=h\nvsc l handle=x");
    let failure = Failure { message: "full".to_owned(), is_in_use: false };
    let orders = [
        (
            Action::TakeSnapshot { content: "k".into(), name: "n".into(), volume: "h".into() },
            "SnapshotCreationFailed",
            "Failed to create snapshot: failed to take snapshot of the volume h: full",
        ),
        (
            Action::FindSnapshot { content: "k".into(), handle: "h".into() },
            "SnapshotContentCheckandUpdateFailed",
            "Failed to check and update snapshot content: full",
        ),
        (
            Action::DeleteSnapshot { content: "k".into(), handle: "h".into(), name: "n".into() },
            "SnapshotDeleteError",
            "Failed to delete snapshot: full",
        ),
    ];
    for (order, reason, message) in orders {
        let found: Vec<String> =
            failure::after(&all, &order, &failure).iter().map(super::shown).collect();
        assert_eq!(found, [format!("k {message}"), format!("!{reason}: {message}")]);
    }
    let first = contents::failed(&all.contents["k"], "SnapshotCreationFailed", "x".to_owned());
    let mut all = all;
    first.iter().for_each(|action| all.apply(action));
    let again = contents::failed(&all.contents["k"], "SnapshotCreationFailed", "x".to_owned());
    assert!(again.iter().all(Action::is_event), "{again:?}");
}

/// The message of the event with which a claim waits.
fn waits(case: &str) -> String {
    let all = objects(case);
    let actions = decide(&all, &Key::Claim(Id::new(NS, "c")));
    let found: Vec<String> = actions.iter().map(super::shown).collect();
    let mark = "!ProvisioningFailed: failed to provision volume with StorageClass \"f\": ";
    let event = found.iter().find_map(|one| one.strip_prefix(mark));
    event.unwrap_or_else(|| panic!("{case}: {found:?}")).to_owned()
}

const RESTORE: &str = "sc f lamina\npvc c 2Gi RWO class=f wait=lamina from=VolumeSnapshot/s\n";
const READY: &str = "vs s claim=d class=x bound=k ready created=7 size=1Gi\n";
const FULL: &str = "vsc k vol=h taken=id ready\n";

#[test]
fn a_claim_waits_for_a_snapshot_that_is_ready_and_not_larger() {
    let all = objects(&format!("{RESTORE}{READY}{FULL}"));
    let order = decide(&all, &Key::Claim(Id::new(NS, "c"))).into_iter().find_map(|one| match one {
        Action::Provision(order) => order.origin,
        _ => None,
    });
    assert_eq!(order, Some(Origin::Snapshot("id".to_owned())));
    let missing = "error getting snapshot s from api server: \
                   volumesnapshots.snapshot.storage.k8s.io \"s\" not found";
    let mode = "requested volume ns/c modifies the mode of the source volume but does not have \
                permission to do so. snapshot.storage.kubernetes.io/allow-volume-mode-change \
                annotation is not present on snapshotcontent k";
    let too_small = "requested volume size 2147483648 is less than the size 3221225472 for the \
                     source snapshot s";
    let cases = [
        (String::new(), missing),
        (
            format!("{READY}{FULL}").replace("7 ", "7 deleting "),
            "snapshot s is currently being deleted",
        ),
        (READY.to_owned(), "snapshot s not bound"),
        (format!("{READY}{FULL}").replace("vol=h", "vol=h for=s#other"), "snapshot s not bound"),
        (format!("{READY}{FULL}").replace("vol=h", "vol=h driver=other"), "snapshot s not bound"),
        (READY.replace("bound=k ", "") + FULL, "snapshot s not bound"),
        (READY.replace(" ready", " unready") + FULL, "snapshot s is not Ready"),
        (READY.replace("1Gi", "3Gi") + FULL, too_small),
        (format!("{READY}{FULL}").replace("vol=h", "vol=h block"), mode),
    ];
    for (snapshot, wanted) in cases {
        assert_eq!(waits(&format!("{RESTORE}{snapshot}")), wanted);
    }
    let allowed = format!("{RESTORE}{READY}{FULL}").replace("vol=h", "vol=h block change");
    let provisions = |one: &Action| matches!(one, Action::Provision(_));
    assert!(decide(&objects(&allowed), &Key::Claim(Id::new(NS, "c"))).iter().any(provisions));
}

#[test]
fn a_claim_waits_for_another_one_of_its_driver_and_mode() {
    let clone = "sc f lamina\npvc c 2Gi RWO class=f wait=lamina from=PersistentVolumeClaim/d\n";
    let broken = "claim in dataSource not bound or invalid";
    let cases = [
        (VOLUME.replace("csi=lamina", "csi=other"), broken),
        (VOLUME.replace("#u-d", "#u-e"), broken),
        (VOLUME.replace("phase=Bound", "phase=Released"), broken),
        (
            VOLUME.replace("completed", "completed deleting"),
            "the PVC DataSource d is currently being deleted",
        ),
        ("pvc d 1Gi RWO\n".to_owned(), "the PVC DataSource d is not bound, source is not ready"),
        (
            VOLUME.replace("completed", "completed block"),
            "the source PVC and destination PVCs must have the same volume mode for cloning.  \
             Source is Block, but new PVC requested Filesystem",
        ),
    ];
    for (volume, wanted) in cases {
        assert_eq!(waits(&format!("{clone}{volume}")), wanted);
    }
}

#[test]
fn a_source_of_an_unknown_kind_is_left_to_a_populator() {
    let external = "ExternalProvisioning: Waiting for a volume to be created either by the \
                    external provisioner 'lamina' or manually by the system administrator. If \
                    volume creation is delayed, please verify that the provisioner is running and \
                    correctly registered.";
    check_claim(
        "sc f lamina\npvc c 1Gi RWO class=f wait=lamina from=Recipe/r",
        &[
            external,
            "Provisioning: Assuming an external populator will provision the volume",
            "!UnrecognizedDataSourceKind: The datasource for this PVC does not match any \
             registered VolumePopulator",
        ],
    );
}

/// Decides until nothing changes; the process ends after that many writes of each decision.
fn settle(objects: &mut Objects, limit: usize) {
    for _ in 0..50 {
        let before = objects.clone();
        for key in objects.keys() {
            let actions = decide(objects, &key);
            // An order to delete leaves no trace in the objects: the write after it does.
            let is_write = |one: &&Action| {
                let is_traceless =
                    matches!(one, Action::DeleteSnapshot { .. } | Action::DeleteBacking { .. });
                !one.is_event() && !is_traceless
            };
            for action in actions.iter().filter(is_write).take(limit) {
                objects.apply(action);
            }
        }
        if *objects == before {
            return;
        }
    }
    panic!("not settled: {objects:#?}");
}

fn lines(objects: &Objects) -> Vec<String> {
    let snapshots = objects.snapshots.values().map(|one| {
        let status = Action::SnapshotStatus { snapshot: one.meta.id(), status: one.status.clone() };
        format!("{} {}", shown(&status), one.meta.finalizers.len())
    });
    let contents = objects.contents.values().map(|one| {
        let finalizers = one.meta.finalizers.len();
        format!("{} {:?} {} {finalizers}", one.meta.name, one.status.ready, one.to.uid)
    });
    let claims = objects.claims.values().map(|one| {
        format!("{} {:?} {}", one.meta.name, one.status.phase, one.meta.finalizers.len())
    });
    snapshots.chain(contents).chain(claims).collect()
}

#[test]
fn a_life_of_a_snapshot_ends_alike_wherever_it_is_cut() {
    let case = "sc f lamina\nvsclass x lamina default\npvc d 1Gi RWO class=f\nvs s claim=d free\n\
                pvc c 1Gi RWO class=f from=VolumeSnapshot/s";
    for limit in [usize::MAX, 1, 2, 3] {
        let mut all = objects(case);
        // Volumes of this host have its CSI driver as their source.
        settle(&mut all, limit);
        let wanted = [
            "s bound=snapcontent-u-s ready created=1 1Gi 2",
            "snapcontent-u-s Some(true) u-s 1",
            "c Bound 1",
            "d Bound 1",
        ];
        assert_eq!(lines(&all), wanted, "limit {limit}");
        // The source goes first: the snapshot stays.
        all.delete(&Key::Claim(Id::new(NS, "d")));
        settle(&mut all, limit);
        assert_eq!(lines(&all), wanted[..3], "limit {limit}");
        all.delete(&Key::Snapshot(Id::new(NS, "s")));
        settle(&mut all, limit);
        assert_eq!(lines(&all), wanted[2..3], "limit {limit}");
    }
}

#[test]
fn what_a_snapshot_is_tied_to_is_decided_again_with_it() {
    let all = objects(&format!("{VOLUME}vs s claim=d\nvsc snapcontent-u-s vol=h"));
    let (claim, snapshot) = (Key::Claim(Id::new(NS, "d")), Key::Snapshot(Id::new(NS, "s")));
    let content = Key::Content("snapcontent-u-s".to_owned());
    assert!(touched(&all, &claim).contains(&snapshot));
    let of_snapshot = touched(&all, &snapshot);
    assert!(of_snapshot.contains(&claim) && of_snapshot.contains(&content), "{of_snapshot:?}");
    assert!(touched(&all, &content).contains(&snapshot));
    assert!(all.waiting().contains(&snapshot));
    assert_eq!(taken_name(&all.contents["snapcontent-u-s"]), "snapshot-u-s");
}

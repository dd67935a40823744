//! What is decided for claims: binding, pre-binding, default classes, provisioning, loss, growth.

use super::super::names::{CLAIM_PROTECTION, PROVISIONER_FINALIZER};
use super::super::object::{ClaimPhase, Id, Key};
use super::super::{Action, admit, decide};
use super::{NS, claim, decides, objects};

const FAILED: &str = "FailedBinding: no persistent volumes available for this claim and no storage \
                      class is set";
const EXTERNAL: &str = "ExternalProvisioning: Waiting for a volume to be created either by the \
                        external provisioner 'disks' or manually by the system administrator. If \
                        volume creation is delayed, please verify that the provisioner is running \
                        and correctly registered.";
const MIGRATED: &str = "ExternalProvisioning: Waiting for a volume to be created either by the \
                        external provisioner 'pd.csi.storage.gke.io' or manually by the system \
                        administrator. If volume creation is delayed, please verify that the \
                        provisioner is running and correctly registered.";

const GONE: &str =
    "!ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!";

fn check(case: &str, wanted: &[&str]) {
    decides(case, &Key::Claim(Id::new(NS, "c")), wanted);
}

#[test]
fn binding_is_four_writes_and_continues_where_it_ended() {
    let all = ["ref a=c#u-c ours", "a Bound", "name c=a ours", "c Bound 2Gi"];
    check("pvc c 1Gi RWO\npv a 2Gi RWO", &all);
    check("pvc c 1Gi RWO\npv a 2Gi RWO for=c#u-c ours", &all[1..]);
    check("pvc c 1Gi RWO\npv a 2Gi RWO for=c#u-c ours phase=Bound", &all[2..]);
    let third = "pvc c 1Gi RWO volume=a completed ours\npv a 2Gi RWO for=c#u-c ours phase=Bound";
    check(third, &all[3..]);
    let last = "pvc c 1Gi RWO volume=a completed ours has=2Gi\n\
                pv a 2Gi RWO for=c#u-c ours phase=Bound";
    check(last, &[]);
    // Of a claim with modes of its own, the status shows those of the volume.
    check("pvc c 1Gi RWO\npv a 2Gi RWO,ROX for=c", &["ref a=c#u-c", "a Bound", all[2], all[3]]);
}

#[test]
fn claim_without_volume_waits_with_an_event() {
    let cases: [(&str, &[&str]); 9] = [
        ("pvc c 1Gi RWO", &[FAILED]),
        ("pvc c 1Gi RWO class=", &[FAILED]),
        ("pvc c 1Gi RWO class=\nsc std lamina default", &[FAILED]),
        ("pvc c 1Gi RWO lost", &[FAILED, "c Pending"]),
        (
            "pvc c 1Gi RWO class=none",
            &["!ProvisioningFailed: storageclass.storage.k8s.io \"none\" not found"],
        ),
        ("pvc c 1Gi RWO class=x wait=disks\nsc x disks", &[EXTERNAL]),
        ("pvc c 1Gi RWO class=x\nsc x disks", &["c storage-provisioner=disks", EXTERNAL]),
        (
            "pvc c 1Gi RWO class=pd\nsc pd kubernetes.io/gce-pd",
            &["c storage-provisioner=pd.csi.storage.gke.io", MIGRATED],
        ),
        (
            "pvc c 1Gi RWO class=local\nsc local kubernetes.io/no-provisioner",
            &["!ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner"],
        ),
    ];
    for (case, wanted) in cases {
        check(case, wanted);
    }
}

#[test]
fn claim_gets_the_default_class_also_later() {
    let cases: [(&str, &[&str]); 8] = [
        ("pvc c 1Gi RWO\nsc std lamina default", &["class c=std"]),
        ("pvc c 1Gi RWO\nsc std lamina", &[FAILED]),
        // The newest of several, then the first by name.
        ("pvc c 1Gi RWO\nsc a x default created=1\nsc b x default created=2", &["class c=b"]),
        ("pvc c 1Gi RWO\nsc a x default created=2\nsc b x default created=2", &["class c=a"]),
        (
            "pvc c 1Gi RWO old=z\nsc z disks\nsc std lamina default",
            &["c storage-provisioner=disks", EXTERNAL],
        ),
        // A volume without class is preferred to the default class.
        (
            "pvc c 1Gi RWO\nsc std lamina default\npv a 1Gi RWO for=c#u-c phase=Bound",
            &["name c=a ours", "c Bound 1Gi"],
        ),
        ("pvc c 1Gi RWO volume=a\nsc std lamina default", &[]),
        ("pvc c 1Gi RWO volume=a completed has=1Gi\nsc std lamina default", &["c Lost", GONE]),
    ];
    for (case, wanted) in cases {
        check(case, wanted);
    }
}

#[test]
fn claim_that_names_its_volume_gets_that_one_or_waits() {
    let bound = ["ref a=c#u-c ours", "a Bound", "name c=a", "c Bound 1Gi"];
    let cases: [(&str, &[&str]); 10] = [
        ("pvc c 1Gi RWO volume=a", &[]),
        ("pvc c 1Gi RWO volume=a\npv b 1Gi RWO", &[]),
        ("pvc c 1Gi RWO volume=a\npv a 1Gi RWO", &bound),
        ("pvc c 1Gi RWO volume=a select=k=v\npv a 1Gi RWO node=nowhere", &bound),
        // The class waits for a pod, the name does not.
        ("pvc c 1Gi RWO volume=a class=w\nsc w lamina delayed\npv a 1Gi RWO class=w", &bound),
        // A volume that is reserved for the claim is not checked at all.
        (
            "pvc c 5Gi RWX volume=a class=x\npv a 1Gi RWO for=c",
            &["ref a=c#u-c", "a Bound", "name c=a", "c Bound 1Gi"],
        ),
        (
            "pvc c 1Gi RWO volume=a\npv a 1Gi RWO for=d",
            &["!FailedBinding: volume \"a\" already bound to a different claim."],
        ),
        (
            "pvc c 1Gi RWO volume=a\npv a 1Gi RWO for=c#u-old\npv b 1Gi RWO",
            &["!FailedBinding: volume \"a\" already bound to a different claim."],
        ),
        (
            "pvc c 2Gi RWO volume=a\npv a 1Gi RWO\npv b 2Gi RWO",
            &["!VolumeMismatch: Cannot bind to requested volume \"a\": requested PV is too small"],
        ),
        (
            "pvc c 1Gi RWX volume=a\npv a 1Gi RWO",
            &["!VolumeMismatch: Cannot bind to requested volume \"a\": incompatible accessMode"],
        ),
    ];
    for (case, wanted) in cases {
        check(case, wanted);
    }
}

#[test]
fn bound_claim_that_lost_its_volume_is_lost_for_ever() {
    let cases: [(&str, &[&str]); 8] = [
        ("pvc c 1Gi RWO volume=a completed has=1Gi", &["c Lost", GONE]),
        ("pvc c 1Gi RWO volume=a completed lost", &[]),
        ("pvc c 1Gi RWO volume=a completed lost\npv b 1Gi RWO", &[]),
        (
            "pvc c 1Gi RWO completed has=1Gi",
            &[
                "c Lost",
                "!ClaimLost: Bound claim has lost reference to PersistentVolume. Data on the \
                 volume is lost!",
            ],
        ),
        (
            "pvc c 1Gi RWO volume=a completed has=1Gi\npv a 1Gi RWO for=d#u-d",
            &[
                "c Lost",
                "!ClaimMisbound: Two claims are bound to the same volume, this one is bound \
             incorrectly",
            ],
        ),
        (
            "pvc c 1Gi RWO volume=a completed has=1Gi\npv a 1Gi RWO for=c#u-old",
            &[
                "c Lost",
                "!ClaimMisbound: Two claims are bound to the same volume, this one is bound \
             incorrectly",
            ],
        ),
        // Somebody removed the claimRef: the binding is made again.
        (
            "pvc c 1Gi RWO volume=a completed has=1Gi\npv a 1Gi RWO",
            &["ref a=c#u-c ours", "a Bound"],
        ),
        // A lost claim whose volume is back is bound again.
        (
            "pvc c 1Gi RWO volume=a completed lost\npv a 1Gi RWO for=c#u-c phase=Bound",
            &["c Bound 1Gi"],
        ),
    ];
    for (case, wanted) in cases {
        check(case, wanted);
    }
}

#[test]
fn claim_that_waits_for_a_pod_says_for_which() {
    let class = "sc w lamina delayed";
    let first = "WaitForFirstConsumer: waiting for first consumer to be created before binding";
    let one = "WaitForPodScheduled: waiting for pod p to be scheduled";
    let two = "WaitForPodScheduled: waiting for pods p,q to be scheduled";
    let cases: [(&str, &[&str]); 5] = [
        ("pv a 1Gi RWO class=w", &[first]),
        ("pod p c", &[one]),
        ("pod p c\npod q c", &[two]),
        ("pod p c on=n1\npod q other", &[first]),
        ("pv a 1Gi RWO class=w for=c", &["ref a=c#u-c", "a Bound", "name c=a ours", "c Bound 1Gi"]),
    ];
    for (case, wanted) in cases {
        check(&format!("pvc c 1Gi RWO class=w\n{class}\n{case}"), wanted);
    }
}

#[test]
fn provisioning_orders_a_volume_of_the_class() {
    let making = "Provisioning: External provisioner is provisioning volume for claim \"ns/c\"";
    let made = "ProvisioningSucceeded: Successfully provisioned volume pvc-u-c";
    let mark = "c storage-provisioner=lamina";
    let wait = "pvc c 1Gi RWO class=f wait=lamina";
    let class = "sc f lamina policy=Delete option=ro";
    let order = ["provision pvc-u-c", made];
    check(&format!("pvc c 1Gi RWO class=f\n{class}"), &[mark, making, order[0], made]);
    check(&format!("{wait}\n{class}"), &[making, order[0], made]);
    check(
        &format!("{wait}\n{class}\npv a 1Gi RWO class=f"),
        &["ref a=c#u-c ours", "a Bound", "name c=a ours", "c Bound 1Gi"],
    );
    check(
        &format!("{wait}\n{class}\npv pvc-u-c 1Gi RWO class=f for=c#u-c phase=Pending"),
        &["pvc-u-c Bound", "name c=pvc-u-c ours", "c Bound 1Gi"],
    );
    check(&format!("{wait} deleting\npod p c on=n1\n{class}"), &[]);
    check(&format!("{wait} chosen=n1\n{class} delayed"), &[making, order[0], made]);
    let failed = "!ProvisioningFailed: failed to provision volume with StorageClass \"f\": ";
    let fails = |more: &str, reason: &str| {
        check(&format!("{wait} {more}\n{class}"), &[&format!("{failed}{reason}")]);
    };
    fails("select=k=v", "claim Selector is not supported");
    fails("vac=gold", "volumeattributesclass.storage.k8s.io \"gold\" not found");
    fails(
        "from=PersistentVolumeClaim/d",
        "error getting PVC d (d) from namespace ns: persistentvolumeclaim \"d\" not found",
    );
    check(
        &format!("{wait} from=PersistentVolumeClaim/d\npvc d 2Gi RWO has=2Gi\n{class}"),
        &[&format!(
            "{failed}error, new PVC request must be greater than or equal in size to the specified \
             PVC data source, requested 1073741824 but source is 2147483648"
        )],
    );
}

#[test]
fn provisioned_volume_has_what_class_and_claim_say() {
    let objects = objects(
        "pvc c 1500Mi RWO,ROX class=f vac=gold chosen=n1 block\n\
         sc f lamina policy=Delete option=ro delayed\nvac gold",
    );
    let actions = decide(&objects, &Key::Claim(Id::new(NS, "c")));
    let order = actions.iter().find_map(|action| match action {
        Action::Provision(order) => Some(order),
        _ => None,
    });
    let order = order.unwrap();
    let mut wanted = super::volume(
        "pvc-u-c 1500Mi RWO,ROX class=f vac=gold block for=c#u-c policy=Delete csi=lamina \
         by=lamina phase=Pending kept",
    );
    "pvc-u-c".clone_into(&mut wanted.handle);
    let mut volume = order.volume.clone();
    assert_eq!(std::mem::take(&mut volume.mount_options), ["ro"]);
    assert_eq!(volume, wanted);
    assert_eq!(order.node.as_deref(), Some("n1"));
    assert_eq!(wanted.meta.finalizers[1], PROVISIONER_FINALIZER);
}

#[test]
fn growth_is_first_of_the_content_and_last_in_the_status() {
    let bound = "volume=a completed ours has=1Gi";
    let made = "RWO for=c#u-c phase=Bound by=lamina";
    let all = [
        "Resizing: External resizer is resizing volume a",
        "expand a 2Gi",
        "size a 2Gi",
        "c Bound 2Gi",
        "VolumeResizeSuccessful: Resize volume succeeded",
    ];
    check(&format!("pvc c 2Gi RWO {bound}\npv a 1Gi {made}"), &all);
    check(&format!("pvc c 2Gi RWO {bound}\npv a 2Gi {made}"), &all[3..]);
    check(&format!("pvc c 2Gi RWO {bound}\npv a 1Gi RWO for=c#u-c phase=Bound csi=lamina"), &all);
    check(&format!("pvc c 1Gi RWO {bound}\npv a 1Gi {made}"), &[]);
    check(&format!("pvc c 500Mi RWO {bound}\npv a 1Gi {made}"), &[]);
    check(
        &format!("pvc c 2Gi RWO {bound}\npv a 1Gi RWO for=c#u-c phase=Bound by=disks"),
        &["ExternalExpanding: waiting for an external controller to expand this PVC"],
    );
}

#[test]
fn attributes_class_is_changed_through_the_driver() {
    let bound = "volume=a completed ours has=1Gi vac=gold";
    let made = "pv a 1Gi RWO for=c#u-c phase=Bound by=lamina";
    check(
        &format!("pvc c 1Gi RWO {bound}\nvac gold\n{made}"),
        &[
            "c Bound 1Gi vac=>gold",
            "VolumeModify: external resizer is modifying volume a with vac gold",
            "modify a",
            "vac a=gold",
            "c Bound 1Gi vac=gold",
            "VolumeModifySuccessful: external resizer modified volume a with vac gold successfully",
        ],
    );
    check(
        &format!("pvc c 1Gi RWO {bound}\n{made}"),
        &["c Bound 1Gi vac=>gold", "!VolumeModifyFailed: VAC gold does not exist"],
    );
}

#[test]
fn claim_is_protected_while_placed_pods_have_it() {
    let bound = "pvc c 1Gi RWO volume=a completed ours has=1Gi";
    let made = "pv a 1Gi RWO for=c#u-c phase=Bound";
    let gone = [&format!("c -{CLAIM_PROTECTION}")[..]];
    let cases: [(&str, &str, &[&str]); 8] = [
        ("bare", "", &[&format!("c +{CLAIM_PROTECTION}")]),
        ("deleting", "", &gone),
        ("deleting", "pod p c on=n1", &[]),
        ("deleting", "pod p c", &gone),
        ("deleting", "pod p c on=n1 ended", &[]),
        ("deleting", "pod p other on=n1", &gone),
        ("", "pod p c on=n1", &[]),
        ("deleting bare", "", &[]),
    ];
    check("pvc c 1Gi RWO deleting\npv a 1Gi RWO", &gone);
    for (words, pods, wanted) in cases {
        check(&format!("{} {words}\n{made}\n{pods}", bound).replace(" \n", "\n"), wanted);
    }
}

#[test]
fn admission_completes_claims_and_allows_growth_by_class() {
    let world = objects("sc std lamina default expand\nsc fixed lamina");
    let mut new = claim("c 1Gi RWO bare");
    admit::claim(&world, &mut new);
    assert_eq!(new.class_name.as_deref(), Some("std"));
    assert_eq!(new.meta.finalizers, [CLAIM_PROTECTION]);
    let mut none = claim("c 1Gi RWO class=");
    admit::claim(&world, &mut none);
    assert_eq!(none.class_name.as_deref(), Some(""));
    let refusal = "only dynamically provisioned pvc can be resized and the storageclass that \
                   provisions the pvc must support resize";
    let rows = [
        ("c 1Gi RWO class=std has=1Gi", "2Gi", None),
        ("c 1Gi RWO class=std has=1Gi", "1Gi", None),
        ("c 1Gi RWO class=fixed has=1Gi", "2Gi", Some(refusal)),
        ("c 1Gi RWO class=fixed has=1Gi", "1Gi", None),
        ("c 1Gi RWO class=gone has=1Gi", "2Gi", Some(refusal)),
        ("c 1Gi RWO class= has=1Gi", "2Gi", Some(refusal)),
        ("c 1Gi RWO class=std", "2Gi", Some("Only bound persistent volume claims can be expanded")),
    ];
    for (text, size, wanted) in rows {
        let old = claim(text);
        let new = super::Claim { request: size.parse().unwrap(), ..old.clone() };
        assert_eq!(admit::growth(&world, &old, &new).err(), wanted, "{text} to {size}");
    }
    assert_eq!(claim("c 1Gi RWO lost").status.phase, ClaimPhase::Lost);
}

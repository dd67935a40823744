//! What is decided for volumes: phases, release, the three policies, protection, failures.

use super::super::Action;
use super::super::failure::{self, Failure};
use super::super::names::{PROVISIONER_FINALIZER, VOLUME_PROTECTION};
use super::super::object::{Id, Key};
use super::{NS, decides, objects, shown};

fn check(case: &str, wanted: &[&str]) {
    decides(case, &Key::Volume("a".to_owned()), wanted);
}

#[test]
fn phases_follow_the_claim() {
    let cases: [(&str, &[&str]); 13] = [
        ("pv a 1Gi RWO phase=Pending", &["a Available"]),
        ("pv a 1Gi RWO", &[]),
        ("pv a 1Gi RWO phase=Pending for=c", &["a Available"]),
        ("pv a 1Gi RWO phase=Released", &["a Available"]),
        ("pv a 1Gi RWO phase=Released for=c", &["a Available"]),
        ("pv a 1Gi RWO phase=Failed", &["a Available"]),
        ("pv a 1Gi RWO phase=Pending for=c#u-c\npvc c 1Gi RWO volume=a", &["a Bound"]),
        ("pv a 1Gi RWO phase=Released for=c#u-c\npvc c 1Gi RWO volume=a", &["a Bound"]),
        // The claim has not answered yet: its own loop goes on.
        ("pv a 1Gi RWO for=c#u-c ours\npvc c 1Gi RWO", &[]),
        ("pv a 1Gi RWO phase=Bound for=c#u-c", &["a Released"]),
        ("pv a 1Gi RWO phase=Bound for=c#u-old\npvc c 1Gi RWO volume=a", &["a Released"]),
        ("pv a 1Gi RWO phase=Failed for=c#u-c", &[]),
        (
            "pv a 1Gi RWO block for=c#u-c\npvc c 1Gi RWO",
            &[
                "!VolumeMismatch: Cannot bind PersistentVolume to requested PersistentVolumeClaim \
             \"c\" due to incompatible volumeMode.",
                "!VolumeMismatch: Cannot bind PersistentVolume \"a\" to requested \
             PersistentVolumeClaim due to incompatible volumeMode.",
            ],
        ),
    ];
    for (case, wanted) in cases {
        check(case, wanted);
    }
}

#[test]
fn volume_of_a_claim_that_is_bound_elsewhere_is_given_back() {
    let claim = "pvc c 1Gi RWO volume=b completed";
    let cases: [(&str, &[&str]); 4] = [
        ("ours", &["unref a", "a Available"]),
        ("", &["unref a=c#", "a Available"]),
        (
            "by=lamina policy=Delete kept",
            &[
                "a Released",
                "wipe a",
                "delete a",
                &format!("a -{PROVISIONER_FINALIZER}"),
                &format!("a -{VOLUME_PROTECTION}"),
            ],
        ),
        ("by=lamina policy=Retain", &["unref a=c#", "a Available"]),
    ];
    for (words, wanted) in cases {
        let volume = format!("pv a 1Gi RWO for=c#u-c phase=Bound {words}");
        check(&format!("{}\n{claim}", volume.trim_end()), wanted);
    }
}

#[test]
fn released_volume_is_retained_deleted_or_recycled() {
    let host = "!VolumeFailedDelete: host_path deleter only supports /tmp/.+ but received \
                provided /data";
    let other = "!VolumeFailedDelete: error getting deleter volume plugin for volume \"a\": no \
                 deletable volume plugin matched";
    let protection = format!("a -{VOLUME_PROTECTION}");
    let finalizer = format!("a -{PROVISIONER_FINALIZER}");
    let recycled = "VolumeRecycled: Volume recycled";
    let pod = "VolumeFailedRecycle: Volume is used by pods: ns/p";
    let cases: [(&str, &[&str]); 15] = [
        ("policy=Retain", &[]),
        ("policy=Delete", &["a Failed", host]),
        ("policy=Delete host=/tmp/", &["a Failed", &host.replace("/data", "/tmp/")]),
        ("policy=Delete host=/tmp/x", &["wipe a", "delete a", &protection]),
        ("policy=Delete csi=lamina", &["a Failed", other]),
        ("policy=Delete csi=disks by=disks", &[]),
        (
            "policy=Delete csi=lamina by=lamina kept",
            &["wipe a", "delete a", &finalizer, &protection],
        ),
        ("policy=Delete csi=lamina by=lamina kept deleting bare kept", &["wipe a", &finalizer]),
        ("policy=Delete csi=lamina by=lamina deleting", &[&protection]),
        ("policy=Recycle", &["recycle a", recycled, "unref a=c#", "a Available"]),
        ("policy=Recycle ours", &["recycle a", recycled, "unref a", "a Available"]),
        (
            "policy=Recycle csi=x",
            &["a Failed", "!VolumeFailedRecycle: No recycler plugin found for the volume!"],
        ),
        ("policy=Recycle\npod p c on=n1", &[pod]),
        (
            "policy=Recycle ours\npod p c on=n1 ended",
            &["recycle a", recycled, "unref a", "a Available"],
        ),
        ("policy=Recycle\npod p c", &[pod]),
    ];
    for (words, wanted) in cases {
        check(&format!("pv a 1Gi RWO for=c#u-c phase=Released {words}"), wanted);
    }
}

#[test]
fn volume_of_a_cluster_gets_content_with_its_first_claim() {
    let claim = "pvc c 1Gi RWO volume=a completed";
    let bound = format!("for=c#u-c phase=Bound\n{claim}");
    let made = "ProvisioningSucceeded: volume pv-u-a of this host stands in for csi:cloud";
    let protection = format!("a -{VOLUME_PROTECTION}");
    let recycled = "VolumeRecycled: Volume recycled";
    let cases: [(&str, &[&str]); 10] = [
        ("", &["a Available"]),
        (&bound, &["stand in a", "a volume=pv-u-a", made]),
        (&format!("content=x {bound}"), &[]),
        (&format!("by=cloud {bound}"), &["stand in a", "a volume=pv-u-a", made]),
        (&format!("deleting {bound}"), &[]),
        ("content=x policy=Retain for=c#u-c phase=Released", &[]),
        ("content=x policy=Delete for=c#u-c phase=Released", &["wipe a", "delete a", &protection]),
        ("policy=Delete for=c#u-c phase=Released", &["wipe a", "delete a", &protection]),
        (
            "policy=Recycle ours for=c#u-c phase=Released",
            &["recycle a", recycled, "unref a", "a Available"],
        ),
        (
            "content=x policy=Recycle ours for=c#u-c phase=Released",
            &["recycle a", recycled, "a volume=-", "unref a", "a Available"],
        ),
    ];
    for (words, wanted) in cases {
        let phase = if words.contains("phase") { "" } else { " phase=Pending" };
        check(format!("pv a 1Gi RWO csi=cloud uid=u-a{phase} {words}").trim_end(), wanted);
    }
}

#[test]
fn volume_is_protected_while_bound_and_while_it_has_content() {
    let bound = "phase=Bound for=c#u-c\npvc c 1Gi RWO volume=a completed";
    let cases: [(&str, String, &[&str]); 8] = [
        ("bare", String::new(), &[&format!("a +{VOLUME_PROTECTION}")]),
        ("deleting", String::new(), &[&format!("a -{VOLUME_PROTECTION}")]),
        ("deleting", bound.to_owned(), &[]),
        ("by=lamina policy=Delete", bound.to_owned(), &[&format!("a +{PROVISIONER_FINALIZER}")]),
        ("by=lamina policy=Delete kept", bound.to_owned(), &[]),
        (
            "by=lamina policy=Retain kept",
            bound.to_owned(),
            &[&format!("a -{PROVISIONER_FINALIZER}")],
        ),
        ("by=disks policy=Delete", bound.to_owned(), &[]),
        (
            "by=lamina policy=Delete kept deleting",
            String::new(),
            &[
                &format!("a -{VOLUME_PROTECTION}"),
                "wipe a",
                &format!("a -{PROVISIONER_FINALIZER}"),
                &format!("a -{VOLUME_PROTECTION}"),
            ],
        ),
    ];
    for (words, more, wanted) in cases {
        check(format!("pv a 1Gi RWO {words} {more}").trim_end(), wanted);
    }
}

#[test]
fn failure_of_a_driver_is_recorded() {
    let world = objects(
        "pv a 1Gi RWO for=c#u-c phase=Released policy=Delete by=lamina\n\
         pvc c 2Gi RWO class=f chosen=n1\n\
         sc f lamina delayed",
    );
    let name = || "a".to_owned();
    let orders = super::super::decide(&world, &Key::Claim(Id::new(NS, "c")));
    let is_order = |one: &&Action| matches!(one, Action::Provision(_));
    let provision = orders.iter().find(is_order).unwrap().clone();
    let size = "2Gi".parse().unwrap();
    let content = "!ProvisioningFailed: failed to make the content of volume \"a\": broken";
    let rows: [(Action, bool, &[&str]); 8] = [
        (Action::StandIn { volume: name() }, false, &[content, content]),
        (Action::DeleteBacking { volume: name() }, true, &["VolumeDelete: broken"]),
        (
            Action::DeleteBacking { volume: name() },
            false,
            &["a Failed", "!VolumeFailedDelete: broken"],
        ),
        (
            Action::Recycle { volume: name() },
            false,
            &["a Failed", "!VolumeFailedRecycle: Recycle failed: broken"],
        ),
        (
            Action::Expand { volume: name(), size },
            false,
            &["!VolumeResizeFailed: resize volume \"a\" by resizer \"lamina\" failed: broken"],
        ),
        (
            Action::Modify { volume: name(), parameters: no_labels() },
            false,
            &["!VolumeModifyFailed: modify volume \"a\" failed: broken"],
        ),
        (
            provision,
            false,
            &[
                "!ProvisioningFailed: failed to provision volume with StorageClass \"f\": broken",
                "c selected-node=-",
            ],
        ),
        (Action::DeleteVolume { volume: name() }, false, &[]),
    ];
    for (order, is_in_use, wanted) in rows {
        let failure = Failure { message: "broken".to_owned(), is_in_use };
        let found: Vec<String> =
            failure::after(&world, &order, &failure).iter().map(shown).collect();
        assert_eq!(found, wanted, "{order:?}");
    }
}

fn no_labels() -> super::Labels {
    super::Labels::new()
}

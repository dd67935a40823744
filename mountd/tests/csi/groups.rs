//! What a mount shows by itself: groups of pods. And volumes that live as long as a pod.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use tonic::Code;

use crate::client::refused;
use crate::host::Host;
use crate::kinds::{Disk, Kind, for_each_kind, map, target};
use crate::wire::*;

for_each_kind! {
    two_pods_have_their_own_groups_on_one_volume => two_groups: Local Ext4 Union;
}

/// Whether a user with one group can write a file.
fn can_write(path: &Path, group: u32) -> bool {
    let text = format!("echo x >> '{}'", path.display());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &text]).uid(54321).gid(group);
    shell.output().unwrap().status.success()
}

fn group(path: &Path) -> u32 {
    path.metadata().unwrap().gid()
}

fn two_groups(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::by_hand(&host, kind, "shared");
    disk.stage(&host, &client);
    let plain = disk.publish(&host, &client, "plain");
    fs::write(plain.join("file"), "of root").unwrap();
    fs::set_permissions(plain.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(plain.join("dir")).unwrap();
    let change = fs::metadata(plain.join("file")).unwrap().ctime_nsec();
    // All above the volume must let other users pass.
    for path in host.at("kubelet").ancestors().take(2) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let pods = [2000, 3000].map(|gid| {
        let disk = disk.for_group(gid);
        let at = disk.publish(&host, &client, &format!("group-{gid}"));
        disk.publish(&host, &client, &format!("group-{gid}"));
        (at, gid)
    });
    for (at, gid) in &pods {
        assert_eq!((group(at), group(&at.join("file"))), (*gid, *gid));
        assert!(can_write(&at.join("file"), *gid), "{gid} cannot write");
        assert!(can_write(&at.join(format!("dir/new-{gid}")), *gid), "{gid} cannot make");
        assert!(!can_write(&at.join("file"), gid + 1), "others can write");
    }
    for (at, gid) in &pods {
        for name in ["dir/new-2000", "dir/new-3000"] {
            assert_eq!(group(&at.join(name)), *gid, "{name}");
        }
    }
    let meta = fs::metadata(plain.join("file")).unwrap();
    assert_eq!((meta.gid(), meta.mode() & 0o777), (0, 0o600), "the volume itself was changed");
    assert_ne!(meta.ctime_nsec(), change, "the pods wrote nothing");
    host.restart();
    let client = host.client();
    for (at, gid) in &pods {
        assert_eq!(group(&at.join("file")), *gid, "after a kill of the driver");
        disk.unpublish(&client, at);
    }
    disk.unpublish(&client, &plain);
    disk.unstage(&host, &client);
    host.until_nothing();
}

#[test]
fn an_inline_volume_lives_as_long_as_its_pod() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let listed = || {
        let done = host.lamina(&["volume", "ls", "--json"]).output().unwrap();
        serde_json::from_slice::<Vec<serde_json::Value>>(&done.stdout).unwrap().len()
    };
    for (kind, number) in [(Kind::Local, 1), (Kind::Union, 2)] {
        let mut context = kind.parameters();
        context.extend(map(&[
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/pod.name", "pod"),
            ("csi.storage.k8s.io/pod.namespace", "default"),
        ]));
        let volume_id = format!("csi-{number:064}");
        let volume = Volume { volume_id, volume_context: context, ..Volume::default() };
        let disk = Disk::new(kind, volume);
        let at = target(&host, &format!("pod-{number}"));
        let request = NodePublishVolumeRequest {
            staging_target_path: String::new(),
            ..disk.publish_request(&host, &at)
        };
        client.node_publish_volume(request.clone()).unwrap();
        client.node_publish_volume(request.clone()).unwrap();
        fs::write(at.join("file"), "data").unwrap();
        assert_eq!(listed(), 1);
        host.restart();
        let client = host.client();
        client.node_publish_volume(request.clone()).unwrap();
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "data");
        disk.unpublish(&client, &at);
        disk.unpublish(&client, &at);
        assert_eq!(listed(), 0, "the volume stays");
        let mut bad = request;
        bad.volume_context.insert("no such option".to_owned(), "x".to_owned());
        refused(Code::InvalidArgument, client.node_publish_volume(bad));
        assert!(!at.exists() && listed() == 0, "a refused call made something");
    }
    host.until_nothing();
}

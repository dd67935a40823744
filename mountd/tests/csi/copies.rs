//! Copies that differ from their source, what is left when there is no space for one, and what was
//! not made by this driver.

use std::time::Duration;

use tonic::Code;

use crate::client::{Client, refused};
use crate::content;
use crate::host::{Host, MIB, NODE_KEY};
use crate::kinds::{
    ALL, Disk, Kind, at_least, delete_snapshot, from_snapshot, from_volume, map, target,
};
use crate::wire::volume_capability::access_mode::Mode;
use crate::wire::*;

/// What `lamina volume inspect` says of a volume with an id.
fn inspected(host: &Host, id: &str) -> serde_json::Value {
    let all = host.lamina(&["volume", "ls", "--json"]).output().unwrap();
    let all: Vec<serde_json::Value> = serde_json::from_slice(&all.stdout).unwrap();
    let found = all.into_iter().find(|one| one["Id"] == id);
    found.unwrap_or_else(|| panic!("no volume {id}"))
}

fn listed(client: &Client) -> usize {
    client.list_volumes(ListVolumesRequest::default()).unwrap().entries.len()
}

#[test]
fn a_copy_has_the_limits_of_its_own_request() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let source = CreateVolumeRequest {
        mutable_parameters: map(&[("iops", "100")]),
        ..Kind::Union.request("source")
    };
    let source = client.create_volume(source).unwrap().volume.unwrap();
    assert_eq!(inspected(&host, &source.volume_id)["Options"]["iops"], "100");
    let request = |name: &str, mutable: &[(&str, &str)]| CreateVolumeRequest {
        volume_content_source: from_volume(&source.volume_id),
        mutable_parameters: map(mutable),
        ..Kind::Union.request(name)
    };
    let plain = client.create_volume(request("plain", &[])).unwrap().volume.unwrap();
    assert_eq!(inspected(&host, &plain.volume_id)["Options"]["iops"], serde_json::Value::Null);
    let own = client.create_volume(request("own", &[("iops", "7"), ("bandwidth", "1M")]));
    let own = inspected(&host, &own.unwrap().volume.unwrap().volume_id);
    assert_eq!(
        (&own["Options"]["iops"], &own["Options"]["bandwidth"]),
        (&"7".into(), &"1M".into())
    );
    refused(Code::InvalidArgument, client.create_volume(request("bad", &[("iops", "many")])));
    let mut image = request("image", &[]);
    image.parameters.insert("from".to_owned(), "busybox".to_owned());
    refused(Code::InvalidArgument, client.create_volume(image));
    assert_eq!(listed(&client), 3);
}

#[test]
fn a_copy_without_space_is_refused_and_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for kind in ALL {
        let source = Disk::created(&client, kind, &format!("{kind:?}"));
        let snapshot = source.snapshot(&client, &format!("of {kind:?}"));
        let before = listed(&client);
        let request = CreateVolumeRequest {
            capacity_range: at_least(1 << 50),
            volume_content_source: from_snapshot(&snapshot.snapshot_id),
            ..kind.request("large")
        };
        refused(Code::ResourceExhausted, client.create_volume(request.clone()));
        assert_eq!(listed(&client), before, "{kind:?}");
        // So the name is free for a request that there is space for.
        let request =
            CreateVolumeRequest { capacity_range: at_least(kind.size() + MIB), ..request };
        let made = client.create_volume(request).unwrap().volume.unwrap();
        assert_eq!(u64::try_from(made.capacity_bytes).unwrap(), kind.size() + MIB);
        Disk::new(kind, made).delete(&client).unwrap();
    }
    host.until_nothing();
}

#[test]
fn a_copy_is_promised_its_size() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let capacity = || client.get_capacity(GetCapacityRequest::default()).unwrap();
    let before = capacity().available_capacity;
    // Two of them are more than there is.
    let most = u64::try_from(before).unwrap() / 5 * 3;
    let most = most - most % MIB;
    for kind in [Kind::Union, Kind::Block] {
        let request =
            CreateVolumeRequest { capacity_range: at_least(most), ..kind.request("first") };
        let first = Disk::new(kind, client.create_volume(request).unwrap().volume.unwrap());
        let copy = CreateVolumeRequest {
            capacity_range: at_least(most),
            volume_content_source: from_volume(&first.id),
            ..kind.request("second")
        };
        refused(Code::ResourceExhausted, client.create_volume(copy));
        assert_eq!(listed(&client), 1, "{kind:?}");
        first.delete(&client).unwrap();
    }
    let back = capacity().available_capacity;
    assert!((before - back).unsigned_abs() < 64 * MIB, "{before} before, {back} after");
}

#[test]
fn a_copy_has_the_file_system_of_its_source() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let source = Disk::created(&client, Kind::Ext4, "source");
    let request = CreateVolumeRequest {
        capacity_range: at_least(Kind::Xfs.size()),
        volume_content_source: from_volume(&source.id),
        ..Kind::Xfs.request("other")
    };
    refused(Code::InvalidArgument, client.create_volume(request));
    // A class that names none takes what the source has.
    let request = CreateVolumeRequest {
        parameters: map(&[]),
        volume_capabilities: vec![Kind::Union.capability(Mode::SingleNodeWriter)],
        volume_content_source: from_volume(&source.id),
        ..Kind::Ext4.request("same")
    };
    let made = client.create_volume(request).unwrap().volume.unwrap();
    let made = Disk::new(Kind::Ext4, made);
    made.stage(&host, &client);
    let at = made.publish(&host, &client, "pod");
    content::write(Kind::Ext4, &at, 1);
    made.unpublish(&client, &at);
    made.unstage(&host, &client);
}

#[test]
fn capacity_is_that_of_the_parameters() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let ask = |kind: Kind, more: &[(&str, &str)]| {
        let mut parameters = kind.parameters();
        parameters.extend(map(more));
        client.get_capacity(GetCapacityRequest {
            volume_capabilities: vec![kind.capability(Mode::SingleNodeWriter)],
            parameters,
            accessible_topology: Some(Topology { segments: map(&[(NODE_KEY, "here")]) }),
        })
    };
    for kind in ALL {
        let least = ask(kind, &[]).unwrap().minimum_volume_size.unwrap();
        let request = CreateVolumeRequest {
            capacity_range: Some(CapacityRange { required_bytes: least, limit_bytes: least }),
            ..kind.request(&format!("least {kind:?}"))
        };
        let made = client.create_volume(request).unwrap().volume.unwrap();
        assert_eq!(made.capacity_bytes, least, "{kind:?}");
        refused(Code::InvalidArgument, ask(kind, &[("unknown", "x")]));
    }
    let half = ask(Kind::Union, &[]).unwrap().available_capacity / 2;
    let large = CreateVolumeRequest {
        capacity_range: at_least(u64::try_from(half).unwrap()),
        ..Kind::Union.request("half")
    };
    client.create_volume(large).unwrap();
    let left = ask(Kind::Union, &[]).unwrap().available_capacity;
    let beyond = ask(Kind::Union, &[("overcommit", "true")]).unwrap().available_capacity;
    assert!(left <= half && beyond > half, "{left} are left, {beyond} with overcommit");
}

#[test]
fn what_was_made_by_hand_is_not_deleted() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let hand = Disk::by_hand(&host, Kind::Union, "hand");
    let words = ["volume", "snapshot", "create", "hand", "kept"];
    let done = host.lamina(&words).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let list = host.lamina(&["volume", "snapshot", "ls", "--json"]).output().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let id = list[0]["Id"].as_str().unwrap().to_owned();
    refused(Code::FailedPrecondition, hand.delete(&client));
    refused(Code::FailedPrecondition, delete_snapshot(&client, &id));
    let get = GetSnapshotRequest { snapshot_id: id.clone(), ..Default::default() };
    assert!(client.get_snapshot(get).is_ok(), "it is gone");
    // It may be the source of a volume.
    hand.of(&client, "copy", from_snapshot(&id));
}

#[test]
fn a_group_has_an_id_of_its_own_each_time() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Union, "one");
    let create = || {
        let request = CreateVolumeGroupSnapshotRequest {
            name: "group".to_owned(),
            source_volume_ids: vec![disk.id.clone()],
            ..Default::default()
        };
        client.create_volume_group_snapshot(request).unwrap().group_snapshot.unwrap()
    };
    let delete = |id: &str| {
        let request = DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: id.to_owned(),
            ..Default::default()
        };
        client.delete_volume_group_snapshot(request).unwrap()
    };
    let first = create().group_snapshot_id;
    assert_eq!(create().group_snapshot_id, first);
    delete(&first);
    let second = create().group_snapshot_id;
    assert_ne!(first, second);
    // A deletion that comes late does not meet the new one.
    delete(&first);
    assert_eq!(create().group_snapshot_id, second);
    delete(&second);
}

#[test]
fn a_client_that_does_not_read_stops_nobody() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let size = 128 * MIB;
    let request =
        CreateVolumeRequest { capacity_range: at_least(size), ..Kind::Block.request("device") };
    let disk = Disk::new(Kind::Block, client.create_volume(request).unwrap().volume.unwrap());
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "pod");
    // Every second block: more ranges than a connection holds that nobody reads from.
    let device = std::fs::OpenOptions::new().write(true).open(&at).unwrap();
    for block in (0..size / 4096).step_by(2) {
        std::os::unix::fs::FileExt::write_all_at(&device, &[1; 4096], block * 4096).unwrap();
    }
    device.sync_all().unwrap();
    drop(device);
    let id = disk.snapshot(&client, "snapshot").snapshot_id;
    let request = GetMetadataAllocatedRequest {
        snapshot_id: id.clone(),
        max_results: 1,
        ..Default::default()
    };
    // More than there are threads for calls.
    let unread: Vec<_> = (0..80).map(|_| client.unread(request.clone())).collect();
    let probe = client.within(Duration::from_secs(10)).probe(ProbeRequest {});
    assert!(probe.is_ok(), "{probe:?}");
    let path = target(&host, "second");
    let publish = client.node_publish_volume(disk.publish_request(&host, &path));
    assert!(publish.is_ok(), "{publish:?}");
    drop(unread);
    let answers = client.get_metadata_allocated(request).unwrap();
    let ranges: usize = answers.iter().map(|one| one.block_metadata.len()).sum();
    assert!(ranges > 1000, "{ranges} ranges");
    disk.unpublish(&client, &path);
    disk.unpublish(&client, &at);
    disk.unstage(&host, &client);
    host.until_nothing();
}

//! Copies that differ from their source, what is left when there is no space for one, and what was
//! not made by this driver.

use std::time::Duration;

use tonic::Code;

use crate::client::{Client, refused};
use crate::content;
use crate::host::{Chance, Host, MIB, NODE_KEY};
use crate::kinds::{ALL, Disk, Kind, at_least, delete_snapshot, from_snapshot, from_volume, map};
use crate::wire::volume_capability::access_mode::Mode;
use crate::wire::*;

/// What `lamina volume inspect` says of a volume with an id.
fn inspected(host: &Host, id: &str) -> serde_json::Value {
    let all = host.lamina(&["volume", "ls", "--json"]).output().unwrap();
    let all: Vec<serde_json::Value> = serde_json::from_slice(&all.stdout).unwrap();
    let found = all.into_iter().find(|one| one["id"] == id);
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
    assert_eq!(inspected(&host, &source.volume_id)["options"]["iops"], "100");
    let request = |name: &str, mutable: &[(&str, &str)]| CreateVolumeRequest {
        volume_content_source: from_volume(&source.volume_id),
        mutable_parameters: map(mutable),
        ..Kind::Union.request(name)
    };
    let plain = client.create_volume(request("plain", &[])).unwrap().volume.unwrap();
    assert_eq!(inspected(&host, &plain.volume_id)["options"]["iops"], serde_json::Value::Null);
    let own = client.create_volume(request("own", &[("iops", "7"), ("bandwidth", "1M")]));
    let own = inspected(&host, &own.unwrap().volume.unwrap().volume_id);
    assert_eq!(
        (&own["options"]["iops"], &own["options"]["bandwidth"]),
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
    // Other tests take and give back space of the same file system meanwhile.
    assert!(beyond - left > half / 2, "{left} are left, {beyond} with overcommit");
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
    let id = list[0]["id"].as_str().unwrap().to_owned();
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

/// A copy that is larger than its source, of each of these in turn.
fn larger(kind: Kind, source: &Disk, round: u64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        capacity_range: at_least(kind.size() + 4 * MIB),
        volume_content_source: from_volume(&source.id),
        ..kind.request(&format!("copy {round}"))
    }
}

#[test]
fn a_copy_is_whole_or_not_there_when_the_driver_is_killed() {
    let Some(host) = Host::new() else { return };
    let kinds = [Kind::Union, Kind::Ext4, Kind::Block, Kind::Local];
    let sources = kinds.map(|kind| Disk::created(&host.client(), kind, &format!("{kind:?}")));
    let mut chance = Chance::of_run();
    let mut made = 0;
    for round in 0..24 {
        let index = usize::try_from(round % 4).unwrap();
        let request = larger(kinds[index], &sources[index], round);
        std::thread::scope(|scope| {
            let client = host.client();
            // Nobody repeats it.
            scope.spawn(move || client.create_volume(request).is_ok());
            std::thread::sleep(Duration::from_micros(chance.below(50_000)));
            host.restart();
        });
        let client = host.client();
        let size = i64::try_from(kinds[index].size() + 4 * MIB).unwrap();
        let entries = client.list_volumes(ListVolumesRequest::default()).unwrap().entries;
        let volumes: Vec<_> = entries.into_iter().filter_map(|entry| entry.volume).collect();
        let known: Vec<&str> = sources.iter().map(|source| source.id.as_str()).collect();
        for copy in volumes.iter().filter(|one| !known.contains(&one.volume_id.as_str())) {
            assert_eq!(copy.capacity_bytes, size, "{:?}", kinds[index]);
            Disk::new(kinds[index], copy.clone()).delete(&client).unwrap();
            made += 1;
        }
    }
    eprintln!("{made} of 24 copies were made");
    let client = host.client();
    for source in &sources {
        source.delete(&client).unwrap();
    }
    let done = host.lamina(&["volume", "prune"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let left = std::fs::read_dir(host.at("root/volumes")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let left: Vec<_> = left.iter().filter_map(|name| name.to_str()).collect();
    let left: Vec<_> = left.into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(left, Vec::<&str>::new());
    host.until_nothing();
}

#[test]
fn a_controller_of_its_own_does_not_delete_what_a_node_takes_into_use() {
    let Some(host) = Host::with_role("node") else { return };
    let socket = host.at("controller.sock");
    let address = format!("unix://{}", socket.display());
    let mut command = host.lamina(&["serve", "--csi", &address, "--csi-role", "controller"]);
    command.args(["--node", "here", "--root"]).arg(host.at("root"));
    let log = std::fs::File::create(host.at("controller.log")).unwrap();
    command.arg("--config").arg(host.at("lamina.toml")).stderr(log);
    let mut controller = command.spawn().unwrap();
    let client = host.client_of(&socket);
    crate::until::until("the start", || client.probe(ProbeRequest {}).is_ok());
    let node = host.client();
    let (mut deleted, mut kept) = (0, 0);
    for round in 0..40 {
        let kind = [Kind::Union, Kind::Local, Kind::Block][round % 3];
        let disk = Disk::created(&client, kind, &format!("raced {round}"));
        let stage = disk.stage_request(&host);
        let (staged, gone) = std::thread::scope(|scope| {
            let staged = scope.spawn(|| node.node_stage_volume(stage));
            let gone = disk.delete(&client);
            (staged.join().unwrap(), gone)
        });
        match (staged, gone) {
            (Ok(_), gone) => {
                refused(Code::FailedPrecondition, gone);
                let at = disk.publish(&host, &node, "pod");
                content::write(kind, &at, 1);
                disk.unpublish(&node, &at);
                disk.unstage(&host, &node);
                disk.delete(&client).unwrap();
                kept += 1;
            }
            (Err(status), gone) => {
                assert_eq!(status.code(), Code::NotFound, "{status}");
                gone.unwrap();
                deleted += 1;
            }
        }
    }
    eprintln!("{deleted} were deleted, {kept} were in use");
    assert_eq!(listed(&client), 0);
    controller.kill().unwrap();
    controller.wait().unwrap();
    host.until_nothing();
}

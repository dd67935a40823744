//! Each error of the service Controller.

use std::collections::BTreeSet;

use tonic::Code;

use crate::client::{Answer, Client, refused};
use crate::host::{Host, MIB, NODE_KEY};
use crate::kinds::{ALL, Disk, Kind, at_least, delete_snapshot, from_snapshot, from_volume, map};
use crate::wire::volume_capability::AccessType;
use crate::wire::volume_capability::access_mode::Mode;
use crate::wire::*;

fn create(client: &Client, request: &CreateVolumeRequest) -> Answer<CreateVolumeResponse> {
    client.create_volume(request.clone())
}

fn at_node(node: &str) -> TopologyRequirement {
    let here = Topology { segments: map(&[(NODE_KEY, node)]) };
    TopologyRequirement { requisite: vec![here.clone()], preferred: vec![here] }
}

fn range(required_bytes: i64, limit_bytes: i64) -> Option<CapacityRange> {
    Some(CapacityRange { required_bytes, limit_bytes })
}

/// Requests for a volume that are refused, each with its code.
fn wrong_requests() -> Vec<(Code, CreateVolumeRequest)> {
    use Code::{InvalidArgument, NotFound, OutOfRange, ResourceExhausted};
    let good = Kind::Union.request("wrong");
    let capable = |change: &dyn Fn(&mut VolumeCapability)| {
        let mut request = good.clone();
        change(&mut request.volume_capabilities[0]);
        (InvalidArgument, request)
    };
    let with = |code, change: &dyn Fn(&mut CreateVolumeRequest)| {
        let mut request = good.clone();
        change(&mut request);
        (code, request)
    };
    let mode = |mode: Mode| capable(&|one| one.access_mode.as_mut().unwrap().mode = mode.into());
    vec![
        with(InvalidArgument, &|one| one.name.clear()),
        with(InvalidArgument, &|one| one.name = "x".repeat(129)),
        with(InvalidArgument, &|one| one.name = "bell\u{7}".to_owned()),
        with(InvalidArgument, &|one| one.volume_capabilities.clear()),
        capable(&|one| one.access_type = None),
        capable(&|one| one.access_mode = None),
        mode(Mode::Unknown),
        capable(&|one| one.access_mode.as_mut().unwrap().mode = 99),
        with(InvalidArgument, &|one| one.parameters = map(&[("driver", "no such driver")])),
        with(InvalidArgument, &|one| {
            one.parameters.insert("unknown".to_owned(), "x".to_owned());
        }),
        with(InvalidArgument, &|one| one.mutable_parameters = map(&[("unknown", "x")])),
        with(InvalidArgument, &|one| one.mutable_parameters = map(&[("iops", "many")])),
        with(InvalidArgument, &|one| one.volume_content_source = Some(Default::default())),
        with(InvalidArgument, &|one| one.capacity_range = range(-1, 0)),
        with(InvalidArgument, &|one| one.capacity_range = range(0, -1)),
        with(OutOfRange, &|one| one.capacity_range = range(2 << 20, 1 << 20)),
        with(OutOfRange, &|one| {
            one.volume_capabilities = vec![Kind::Xfs.capability(Mode::SingleNodeWriter)];
            one.parameters = Kind::Xfs.parameters();
            one.capacity_range = range(1 << 20, 2 << 20);
        }),
        with(NotFound, &|one| one.volume_content_source = from_snapshot("no such snapshot")),
        with(NotFound, &|one| one.volume_content_source = from_volume("../../etc")),
        with(ResourceExhausted, &|one| {
            one.accessibility_requirements = Some(at_node("elsewhere"));
        }),
    ]
}

#[test]
fn a_wrong_request_for_a_volume_has_its_code_and_makes_nothing() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for (code, request) in wrong_requests() {
        let answer = create(&client, &request);
        let found = answer.as_ref().err().map(tonic::Status::code);
        assert_eq!(found, Some(code), "{request:#?}: {answer:?}");
        refused(code, answer);
    }
    assert_eq!(client.list_volumes(ListVolumesRequest::default()).unwrap().entries, vec![]);
    let mut near = Kind::Union.request("near");
    near.accessibility_requirements = Some(at_node("here"));
    create(&client, &near).unwrap();
}

#[test]
fn a_name_that_exists_is_the_same_volume_or_an_error() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let source = Disk::created(&client, Kind::Union, "source");
    let snapshot = source.snapshot(&client, "snapshot");
    let good = Kind::Union.request("name");
    let id = create(&client, &good).unwrap().volume.unwrap().volume_id;
    let again = create(&client, &good).unwrap().volume.unwrap();
    assert_eq!(again.volume_id, id);
    // A range in which the volume lies is compatible.
    for capacity_range in [None, range(1, 0), range(1 << 20, 1 << 30)] {
        let request = CreateVolumeRequest { capacity_range, ..good.clone() };
        assert_eq!(create(&client, &request).unwrap().volume.unwrap().volume_id, id);
    }
    let others: [&dyn Fn(&mut CreateVolumeRequest); 7] = [
        &|one| one.capacity_range = at_least(Kind::Union.size() * 2),
        &|one| one.capacity_range = range(1 << 20, 2 << 20),
        &|one| one.parameters = Kind::Local.parameters(),
        &|one| {
            one.parameters = Kind::Block.parameters();
            one.volume_capabilities = vec![Kind::Block.capability(Mode::SingleNodeWriter)];
        },
        &|one| one.volume_content_source = from_snapshot(&snapshot.snapshot_id),
        &|one| one.volume_content_source = from_volume(&source.id),
        &|one| one.mutable_parameters = map(&[("iops", "100")]),
    ];
    for change in others {
        let mut request = good.clone();
        change(&mut request);
        let answer = create(&client, &request);
        let code = answer.as_ref().err().map(tonic::Status::code);
        assert_eq!(code, Some(Code::AlreadyExists), "{request:#?}: {answer:?}");
    }
    let copy = CreateVolumeRequest {
        volume_content_source: from_volume(&source.id),
        ..Kind::Union.request("copy")
    };
    let id = create(&client, &copy).unwrap().volume.unwrap();
    assert!(id.content_source.is_some(), "{id:?}");
    let again = create(&client, &copy).unwrap().volume.unwrap();
    assert_eq!(again.volume_id, id.volume_id);
    refused(Code::AlreadyExists, create(&client, &Kind::Union.request("copy")));
    let other =
        CreateVolumeRequest { volume_content_source: from_snapshot(&snapshot.snapshot_id), ..copy };
    refused(Code::AlreadyExists, create(&client, &other));
}

#[test]
fn a_copy_is_not_smaller_than_its_source_and_of_its_kind() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for kind in ALL {
        let source = Disk::created(&client, kind, &format!("{kind:?}"));
        let snapshot = source.snapshot(&client, &format!("of {kind:?}"));
        let small = CreateVolumeRequest {
            capacity_range: range(1 << 20, i64::try_from(kind.size()).unwrap() / 2),
            volume_content_source: from_snapshot(&snapshot.snapshot_id),
            ..kind.request("small")
        };
        refused(Code::OutOfRange, create(&client, &small));
        let other = if kind.is_block() { Kind::Ext4 } else { Kind::Block };
        let request = CreateVolumeRequest {
            capacity_range: at_least(kind.size()),
            volume_content_source: from_snapshot(&snapshot.snapshot_id),
            ..other.request("other")
        };
        refused(Code::InvalidArgument, create(&client, &request));
    }
}

#[test]
fn calls_for_one_volume_have_their_codes() {
    use Code::{InvalidArgument, NotFound, OutOfRange};
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Union, "one");
    let delete = |id: &str| {
        client.delete_volume(DeleteVolumeRequest { volume_id: id.to_owned(), ..Default::default() })
    };
    refused(InvalidArgument, delete(""));
    delete("no such volume").unwrap();
    let get = |id: &str| {
        client.controller_get_volume(ControllerGetVolumeRequest { volume_id: id.to_owned() })
    };
    refused(InvalidArgument, get(""));
    refused(NotFound, get("unknown"));
    let found = get(&disk.id).unwrap();
    assert_eq!(found.volume.unwrap().volume_id, disk.id);
    assert!(!found.status.unwrap().volume_condition.unwrap().abnormal);
    let expand = |id: &str, capacity_range| {
        client.controller_expand_volume(ControllerExpandVolumeRequest {
            volume_id: id.to_owned(),
            capacity_range,
            ..Default::default()
        })
    };
    refused(InvalidArgument, expand("", at_least(MIB)));
    refused(InvalidArgument, expand(&disk.id, None));
    refused(NotFound, expand("unknown", at_least(MIB)));
    refused(OutOfRange, expand(&disk.id, range(64 << 20, 48 << 20)));
    refused(OutOfRange, expand(&disk.id, range(0, 1 << 20)));
    refused(InvalidArgument, expand(&disk.id, range(-5, 0)));
    let modify = |id: &str, parameters: &[(&str, &str)]| {
        client.controller_modify_volume(ControllerModifyVolumeRequest {
            volume_id: id.to_owned(),
            mutable_parameters: map(parameters),
            ..Default::default()
        })
    };
    refused(InvalidArgument, modify("", &[("iops", "100")]));
    refused(NotFound, modify("unknown", &[("iops", "100")]));
    refused(InvalidArgument, modify(&disk.id, &[("iops", "100"), ("unknown", "1")]));
    refused(InvalidArgument, modify(&disk.id, &[("iops", "-1")]));
    modify(&disk.id, &[("iops", "100")]).unwrap();
    modify(&disk.id, &[("iops", "100"), ("bandwidth", "10M")]).unwrap();
}

#[test]
fn capabilities_are_confirmed_or_not_with_a_reason() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for kind in ALL {
        let disk = Disk::created(&client, kind, &format!("{kind:?}"));
        let validate = |id: &str, capabilities: Vec<VolumeCapability>| {
            client.validate_volume_capabilities(ValidateVolumeCapabilitiesRequest {
                volume_id: id.to_owned(),
                volume_capabilities: capabilities,
                volume_context: disk.context.clone(),
                parameters: kind.parameters(),
                ..Default::default()
            })
        };
        let modes = [Mode::SingleNodeWriter, Mode::SingleNodeReaderOnly];
        let good: Vec<_> = modes.into_iter().map(|mode| kind.capability(mode)).collect();
        let answer = validate(&disk.id, good.clone()).unwrap();
        assert_eq!(answer.confirmed.unwrap().volume_capabilities, good);
        refused(Code::InvalidArgument, validate("", good.clone()));
        refused(Code::InvalidArgument, validate(&disk.id, vec![]));
        refused(Code::NotFound, validate("unknown", good));
        let other = if kind.is_block() { Kind::Ext4 } else { Kind::Block };
        let answer = validate(&disk.id, vec![other.capability(Mode::SingleNodeWriter)]).unwrap();
        assert!(answer.confirmed.is_none() && !answer.message.is_empty(), "{answer:?}");
        let mut bad = kind.capability(Mode::SingleNodeWriter);
        if let Some(AccessType::Mount(mount)) = &mut bad.access_type {
            mount.fs_type = "zfs".to_owned();
            let answer = validate(&disk.id, vec![bad]).unwrap();
            assert!(answer.confirmed.is_none() && !answer.message.is_empty(), "{answer:?}");
        }
    }
}

#[test]
fn snapshots_have_their_codes() {
    use Code::{AlreadyExists, InvalidArgument, NotFound};
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let [one, two] = ["one", "two"].map(|name| Disk::created(&client, Kind::Union, name));
    let create = |source: &str, name: &str| {
        client.create_snapshot(CreateSnapshotRequest {
            source_volume_id: source.to_owned(),
            name: name.to_owned(),
            ..Default::default()
        })
    };
    refused(InvalidArgument, create("", "snapshot"));
    refused(InvalidArgument, create(&one.id, ""));
    refused(InvalidArgument, create(&one.id, &"x".repeat(129)));
    refused(NotFound, create("unknown", "snapshot"));
    let made = create(&one.id, "snapshot").unwrap().snapshot.unwrap();
    assert_eq!(create(&one.id, "snapshot").unwrap().snapshot.unwrap(), made);
    refused(AlreadyExists, create(&two.id, "snapshot"));
    refused(InvalidArgument, delete_snapshot(&client, ""));
    delete_snapshot(&client, "unknown").unwrap();
    let get = |id: &str| {
        client.get_snapshot(GetSnapshotRequest { snapshot_id: id.to_owned(), ..Default::default() })
    };
    refused(InvalidArgument, get(""));
    refused(NotFound, get("unknown"));
    assert_eq!(get(&made.snapshot_id).unwrap().snapshot.unwrap(), made);
    let list = |source: &str, id: &str| {
        let request = ListSnapshotsRequest {
            source_volume_id: source.to_owned(),
            snapshot_id: id.to_owned(),
            ..Default::default()
        };
        client.list_snapshots(request).unwrap().entries.len()
    };
    assert_eq!((list("", ""), list(&one.id, ""), list(&two.id, "")), (1, 1, 0));
    assert_eq!((list("", &made.snapshot_id), list("", "unknown"), list("unknown", "")), (1, 0, 0));
    // It outlives its volume, and is still found by it.
    one.delete(&client).unwrap();
    assert_eq!(list(&one.id, ""), 1);
    assert_eq!(get(&made.snapshot_id).unwrap().snapshot.unwrap().source_volume_id, one.id);
    delete_snapshot(&client, &made.snapshot_id).unwrap();
    refused(NotFound, get(&made.snapshot_id));
}

#[test]
fn what_the_controller_says_it_can_is_what_it_can() {
    use controller_service_capability::{Type, rpc};
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let answer = client.controller_get_capabilities(ControllerGetCapabilitiesRequest {}).unwrap();
    let found: BTreeSet<rpc::Type> = answer
        .capabilities
        .into_iter()
        .filter_map(|one| one.r#type.map(|Type::Rpc(rpc)| rpc.r#type()))
        .collect();
    use rpc::Type as Can;
    for wanted in [
        Can::CreateDeleteVolume,
        Can::ListVolumes,
        Can::GetCapacity,
        Can::CreateDeleteSnapshot,
        Can::ListSnapshots,
        Can::CloneVolume,
        Can::ExpandVolume,
        Can::GetVolume,
        Can::VolumeCondition,
        Can::SingleNodeMultiWriter,
        Can::ModifyVolume,
        Can::GetSnapshot,
    ] {
        assert!(found.contains(&wanted), "{wanted:?} of {found:?}");
    }
    let disk = Disk::created(&client, Kind::Local, "published");
    let publish = client.controller_publish_volume(ControllerPublishVolumeRequest {
        volume_id: disk.id.clone(),
        node_id: "here".to_owned(),
        volume_capability: Some(disk.capability.clone()),
        ..Default::default()
    });
    let unpublish = client.controller_unpublish_volume(ControllerUnpublishVolumeRequest {
        volume_id: disk.id,
        node_id: "here".to_owned(),
        ..Default::default()
    });
    if found.contains(&Can::PublishUnpublishVolume) {
        publish.unwrap();
        unpublish.unwrap();
    } else {
        refused(Code::Unimplemented, publish);
        refused(Code::Unimplemented, unpublish);
    }
}

#[test]
fn capacity_is_what_can_be_written_here() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let capacity = |kind: Kind, node: &str| {
        let request = GetCapacityRequest {
            volume_capabilities: vec![kind.capability(Mode::SingleNodeWriter)],
            parameters: kind.parameters(),
            accessible_topology: Some(Topology { segments: map(&[(NODE_KEY, node)]) }),
        };
        client.get_capacity(request).unwrap()
    };
    for kind in ALL {
        let here = capacity(kind, "here");
        let available = u64::try_from(here.available_capacity).unwrap();
        // Other tests write to the file system meanwhile.
        let stat = rustix::fs::statvfs(host.at("root")).unwrap();
        assert!(available > 0 && available <= stat.f_blocks * stat.f_frsize, "{here:?}");
        assert_eq!(capacity(kind, "elsewhere").available_capacity, 0);
        let most = here.maximum_volume_size.unwrap_or(here.available_capacity);
        let request = CreateVolumeRequest {
            capacity_range: Some(CapacityRange {
                required_bytes: most.saturating_mul(2),
                limit_bytes: 0,
            }),
            ..kind.request("too large")
        };
        let answer = create(&client, &request);
        let code = answer.as_ref().err().map(tonic::Status::code);
        let codes = [Some(Code::ResourceExhausted), Some(Code::OutOfRange)];
        assert!(codes.contains(&code), "{kind:?}: {answer:?}");
    }
}

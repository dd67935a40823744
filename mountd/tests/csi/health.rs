//! The alpha calls of CSI 1.13: what is wrong with volumes and with the storage of a node.

use std::fs;
use std::path::Path;

use tonic::Code;

use crate::client::refused;
use crate::host::{Host, NODE, NODE_KEY};
use crate::kinds::{Disk, Kind, for_each_kind, map, target};
use crate::wire::controller_service_capability::rpc::Type as Controller;
use crate::wire::node_service_capability::rpc::Type as Node;
use crate::wire::*;

/// A host whose driver offers the alpha calls.
fn with_alpha() -> Option<Host> {
    let host = Host::new()?;
    host.write_config("[csi]\nalpha = true\n");
    host.restart();
    Some(host)
}

fn offers(host: &Host) -> (Vec<Controller>, Vec<Node>) {
    use controller_service_capability::Type as Of;
    let request = ControllerGetCapabilitiesRequest {};
    let all = host.client().controller_get_capabilities(request).unwrap().capabilities;
    let controller = all.into_iter().filter_map(|one| one.r#type.map(|Of::Rpc(rpc)| rpc.r#type()));
    use node_service_capability::Type as OfNode;
    let all = host.client().node_get_capabilities(NodeGetCapabilitiesRequest {}).unwrap();
    let node = all
        .capabilities
        .into_iter()
        .filter_map(|one| one.r#type.map(|OfNode::Rpc(rpc)| rpc.r#type()));
    (controller.collect(), node.collect())
}

/// What is wrong with a volume, for the controller.
#[track_caller]
fn health(host: &Host, disk: &Disk) -> Vec<(i32, String)> {
    let volume_id = disk.id.clone();
    let request = ControllerGetVolumeHealthRequest { volume_id, ..Default::default() };
    told(host.client().controller_get_volume_health(request).unwrap().volume_health, disk)
}

#[track_caller]
fn told(health: Option<VolumeHealth>, disk: &Disk) -> Vec<(i32, String)> {
    let health = health.unwrap();
    assert_eq!(health.volume_id, disk.id);
    let entries = health.health_statuses.into_iter();
    entries.map(|one| (one.status, one.reason)).collect()
}

#[track_caller]
fn on_node(host: &Host, disk: &Disk, path: &Path) -> Vec<(i32, String)> {
    let request = NodeGetVolumeHealthRequest {
        volume_id: disk.id.clone(),
        volume_publish_path: path.to_str().unwrap().to_owned(),
        ..Default::default()
    };
    told(host.client().node_get_volume_health(request).unwrap().volume_health, disk)
}

#[test]
fn health_takes_the_place_of_conditions_where_it_is_asked_for() {
    let Some(host) = Host::new() else { return };
    let (controller, node) = offers(&host);
    assert!(controller.contains(&Controller::VolumeCondition), "{controller:?}");
    assert!(node.contains(&Node::VolumeCondition), "{node:?}");
    assert!(!controller.contains(&Controller::GetVolumeHealth), "{controller:?}");
    let request = NodeGetStorageHealthRequest::default();
    let said = refused(Code::Unimplemented, host.client().node_get_storage_health(request));
    assert!(said.contains("--csi-alpha"), "{said}");
    host.write_config("[csi]\nalpha = true\n");
    host.restart();
    let (controller, node) = offers(&host);
    for one in [Controller::ListVolumeHealth, Controller::GetVolumeHealth] {
        assert!(controller.contains(&one), "{controller:?}");
    }
    assert!(!controller.contains(&Controller::VolumeCondition), "{controller:?}");
    assert!(node.contains(&Node::GetVolumeHealth) && node.contains(&Node::StorageHealth));
    assert!(!node.contains(&Node::VolumeCondition), "{node:?}");
}

for_each_kind! {
    what_is_mounted_is_well_and_nothing_else_is => in_use: Local Ext4 Xfs Union Block;
}

fn in_use(kind: Kind) {
    let Some(host) = with_alpha() else { return };
    let client = host.client();
    let disk = Disk::created(&client, kind, "volume");
    assert_eq!(health(&host, &disk), []);
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "pod");
    assert_eq!(on_node(&host, &disk, &at), []);
    let none = (VolumeHealthErrorType::Inaccessible as i32, "NotMounted".to_owned());
    assert_eq!(on_node(&host, &disk, &target(&host, "other")), std::slice::from_ref(&none));
    disk.unpublish(&client, &at);
    assert_eq!(on_node(&host, &disk, &at), [none]);
    disk.unstage(&host, &client);
    disk.delete(&client).unwrap();
}

#[test]
fn lost_data_is_listed() {
    let Some(host) = with_alpha() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Local, "lost");
    let whole = Disk::created(&client, Kind::Local, "whole");
    let list = |token: &str| {
        let starting_token = token.to_owned();
        let request = ControllerListVolumeHealthRequest { starting_token, ..Default::default() };
        client.controller_list_volume_health(request)
    };
    assert_eq!(list("").unwrap().entries, []);
    let lost = host.at("root/volumes/lost");
    assert!(lost.is_dir(), "{lost:?}");
    fs::rename(&lost, host.at("aside")).unwrap();
    let wanted = (VolumeHealthErrorType::DataLoss as i32, "DirectoryMissing".to_owned());
    assert_eq!(health(&host, &disk), [wanted]);
    let entries = list("").unwrap().entries;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0].volume_id, disk.id);
    refused(Code::Aborted, list("x"));
    fs::rename(host.at("aside"), &lost).unwrap();
    assert_eq!(health(&host, &disk), []);
    assert_eq!(health(&host, &whole), []);
    let request = ControllerGetVolumeHealthRequest::default();
    refused(Code::InvalidArgument, client.controller_get_volume_health(request));
    let volume_id = "none".to_owned();
    let request = ControllerGetVolumeHealthRequest { volume_id, ..Default::default() };
    refused(Code::NotFound, client.controller_get_volume_health(request));
    let storage = client.node_get_storage_health(NodeGetStorageHealthRequest::default()).unwrap();
    assert_eq!(storage.backend_health, []);
}

#[test]
fn snapshots_are_on_their_node() {
    let Some(host) = with_alpha() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Union, "volume");
    let taken = disk.snapshot(&client, "snapshot");
    let here = Topology { segments: map(&[(NODE_KEY, NODE)]) };
    assert_eq!(taken.accessible_topology, [here]);
    let elsewhere = Topology { segments: map(&[(NODE_KEY, "elsewhere")]) };
    let request = CreateSnapshotRequest {
        source_volume_id: disk.id,
        name: "other".to_owned(),
        accessibility_requirements: Some(TopologyRequirement {
            requisite: vec![elsewhere],
            preferred: Vec::new(),
        }),
        ..CreateSnapshotRequest::default()
    };
    refused(Code::ResourceExhausted, client.create_snapshot(request));
}

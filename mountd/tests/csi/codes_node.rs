//! Each error of the service Node.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use tonic::Code;

use crate::client::{Client, refused};
use crate::host::Host;
use crate::kinds::{Disk, Kind, at_least, for_each_kind, target};
use crate::wire::volume_capability::access_mode::Mode;
use crate::wire::*;

for_each_kind! {
    a_second_target_depends_on_the_mode => second_target: Union Block;
}

#[test]
fn what_the_node_says_it_can_is_all_of_it() {
    use node_service_capability::{Type, rpc};
    let Some(host) = Host::new() else { return };
    let answer = host.client().node_get_capabilities(NodeGetCapabilitiesRequest {}).unwrap();
    let found: BTreeSet<rpc::Type> = answer
        .capabilities
        .into_iter()
        .filter_map(|one| one.r#type.map(|Type::Rpc(rpc)| rpc.r#type()))
        .collect();
    for wanted in [
        rpc::Type::StageUnstageVolume,
        rpc::Type::GetVolumeStats,
        rpc::Type::ExpandVolume,
        rpc::Type::VolumeCondition,
        rpc::Type::SingleNodeMultiWriter,
        rpc::Type::VolumeMountGroup,
    ] {
        assert!(found.contains(&wanted), "{wanted:?} of {found:?}");
    }
}

#[test]
fn a_limit_of_volumes_is_that_of_the_configuration() {
    let Some(host) = Host::new() else { return };
    let most = || host.client().node_get_info(NodeGetInfoRequest {}).unwrap().max_volumes_per_node;
    assert_eq!(most(), 0);
    host.end();
    host.write_config("[csi]\nmax_volumes = 12\n");
    host.start();
    assert_eq!(most(), 12);
}

#[test]
fn staging_has_its_codes() {
    use Code::{AlreadyExists, InvalidArgument, NotFound};
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::by_hand(&host, Kind::Ext4, "staged");
    let good = disk.stage_request(&host);
    let with = |code, change: &dyn Fn(&mut NodeStageVolumeRequest)| {
        let mut request = good.clone();
        change(&mut request);
        let answer = client.node_stage_volume(request.clone());
        let found = answer.as_ref().err().map(tonic::Status::code);
        assert_eq!(found, Some(code), "{request:?}: {answer:?}");
    };
    with(InvalidArgument, &|one| one.volume_id.clear());
    with(InvalidArgument, &|one| one.staging_target_path.clear());
    with(InvalidArgument, &|one| one.staging_target_path = "relative".to_owned());
    with(InvalidArgument, &|one| one.volume_capability = None);
    with(InvalidArgument, &|one| one.volume_capability.as_mut().unwrap().access_type = None);
    with(InvalidArgument, &|one| one.volume_capability.as_mut().unwrap().access_mode = None);
    with(NotFound, &|one| one.volume_id = "unknown".to_owned());
    client.node_stage_volume(good.clone()).unwrap();
    client.node_stage_volume(good.clone()).unwrap();
    let other = disk.in_mode(Mode::SingleNodeReaderOnly);
    with(AlreadyExists, &|one| one.volume_capability = Some(other.capability.clone()));
    let unstage = |id: &str, path: &str| {
        client.node_unstage_volume(NodeUnstageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: path.to_owned(),
        })
    };
    refused(InvalidArgument, unstage("", &good.staging_target_path));
    refused(InvalidArgument, unstage(&disk.id, ""));
    unstage(&disk.id, host.directory("kubelet/other").to_str().unwrap()).unwrap();
    unstage(&disk.id, &good.staging_target_path).unwrap();
    unstage(&disk.id, &good.staging_target_path).unwrap();
    assert!(Path::new(&good.staging_target_path).is_dir(), "it belongs to the orchestrator");
    host.until_nothing();
}

#[test]
fn publishing_has_its_codes() {
    use Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::by_hand(&host, Kind::Local, "published");
    let path = target(&host, "pod");
    let good = disk.publish_request(&host, &path);
    refused(FailedPrecondition, client.node_publish_volume(good.clone()));
    assert!(!path.exists());
    disk.stage(&host, &client);
    let with = |code, change: &dyn Fn(&mut NodePublishVolumeRequest)| {
        let mut request = good.clone();
        change(&mut request);
        let answer = client.node_publish_volume(request.clone());
        let found = answer.as_ref().err().map(tonic::Status::code);
        assert_eq!(found, Some(code), "{request:?}: {answer:?}");
    };
    with(InvalidArgument, &|one| one.volume_id.clear());
    with(InvalidArgument, &|one| one.target_path.clear());
    with(InvalidArgument, &|one| one.target_path = "a/relative/path".to_owned());
    with(InvalidArgument, &|one| one.volume_capability = None);
    with(InvalidArgument, &|one| one.volume_capability.as_mut().unwrap().access_mode = None);
    with(FailedPrecondition, &|one| one.staging_target_path.clear());
    with(NotFound, &|one| one.volume_id = "unknown".to_owned());
    assert!(!path.exists(), "a refused call made something");
    client.node_publish_volume(good.clone()).unwrap();
    client.node_publish_volume(good.clone()).unwrap();
    with(AlreadyExists, &|one| one.readonly = true);
    let unpublish = |id: &str, path: &Path| {
        client.node_unpublish_volume(NodeUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            target_path: path.to_str().unwrap().to_owned(),
        })
    };
    refused(InvalidArgument, unpublish("", &path));
    refused(InvalidArgument, unpublish(&disk.id, Path::new("")));
    let other = Disk::by_hand(&host, Kind::Local, "other");
    assert!(unpublish(&other.id, &path).is_err() || host.is_mounted(&path));
    assert!(host.is_mounted(&path), "the target of another volume was unmounted");
    unpublish(&disk.id, &path).unwrap();
    assert!(!path.exists());
    unpublish(&disk.id, &path).unwrap();
    disk.unstage(&host, &client);
    host.until_nothing();
}

fn second_target(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for (mode, is_shared) in [
        (Mode::SingleNodeWriter, false),
        (Mode::SingleNodeSingleWriter, false),
        (Mode::SingleNodeReaderOnly, false),
        (Mode::SingleNodeMultiWriter, true),
    ] {
        let disk = Disk::by_hand(&host, kind, &format!("{mode:?}")).in_mode(mode);
        disk.stage(&host, &client);
        let first = disk.publish(&host, &client, &format!("{mode:?} first"));
        disk.publish(&host, &client, &format!("{mode:?} first"));
        let second = target(&host, &format!("{mode:?} second"));
        let answer = client.node_publish_volume(disk.publish_request(&host, &second));
        if is_shared {
            answer.unwrap();
            disk.unpublish(&client, &second);
        } else {
            refused(Code::FailedPrecondition, answer);
            assert!(!second.exists());
        }
        disk.unpublish(&client, &first);
        let next = disk.publish(&host, &client, "next");
        disk.unpublish(&client, &next);
        disk.unstage(&host, &client);
    }
    host.until_nothing();
}

#[test]
fn statistics_and_growth_have_their_codes() {
    use Code::{InvalidArgument, NotFound};
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::by_hand(&host, Kind::Union, "measured");
    disk.stage(&host, &client);
    let path = disk.publish(&host, &client, "pod");
    let stats = |id: &str, path: &Path| {
        client.node_get_volume_stats(NodeGetVolumeStatsRequest {
            volume_id: id.to_owned(),
            volume_path: path.to_str().unwrap().to_owned(),
            ..Default::default()
        })
    };
    stats(&disk.id, &path).unwrap();
    stats(&disk.id, &disk.staging(&host)).unwrap();
    refused(InvalidArgument, stats("", &path));
    refused(InvalidArgument, stats(&disk.id, Path::new("")));
    refused(NotFound, stats("unknown", &path));
    refused(NotFound, stats(&disk.id, &host.at("kubelet")));
    let expand = |id: &str, path: &Path| {
        client.node_expand_volume(NodeExpandVolumeRequest {
            volume_id: id.to_owned(),
            volume_path: path.to_str().unwrap().to_owned(),
            capacity_range: at_least(1),
            volume_capability: Some(disk.capability.clone()),
            ..Default::default()
        })
    };
    expand(&disk.id, &path).unwrap();
    refused(InvalidArgument, expand("", &path));
    refused(InvalidArgument, expand(&disk.id, Path::new("")));
    refused(NotFound, expand("unknown", &path));
    refused(NotFound, expand(&disk.id, &host.at("kubelet")));
    disk.unpublish(&client, &path);
    refused(NotFound, stats(&disk.id, &path));
    disk.unstage(&host, &client);
    host.until_nothing();
}

fn mount(words: &[&str]) {
    let output = Command::new("mount").args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn try_unpublish(client: &Client, disk: &Disk, path: &Path) -> bool {
    client.node_unpublish_volume(disk.unpublish_request(path)).is_ok()
}

#[test]
fn what_others_put_at_a_target_is_neither_used_nor_removed() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::by_hand(&host, Kind::Local, "mine");
    disk.stage(&host, &client);
    // Files where the target should be.
    let path = target(&host, "files");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("precious"), "data").unwrap();
    try_unpublish(&client, &disk, &path);
    assert_eq!(fs::read_to_string(path.join("precious")).unwrap(), "data");
    // A mount of somebody else.
    let path = target(&host, "foreign");
    fs::create_dir(&path).unwrap();
    mount(&["-t", "tmpfs", "tmpfs", path.to_str().unwrap()]);
    fs::write(path.join("precious"), "data").unwrap();
    let answer = client.node_publish_volume(disk.publish_request(&host, &path));
    assert!(answer.is_err(), "a volume was published over a foreign mount");
    try_unpublish(&client, &disk, &path);
    assert_eq!(fs::read_to_string(path.join("precious")).unwrap(), "data");
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty()).unwrap();
    // One over the volume.
    let path = disk.publish(&host, &client, "stacked");
    mount(&["--bind", path.to_str().unwrap(), path.to_str().unwrap()]);
    let is_done = try_unpublish(&client, &disk, &path);
    assert_eq!(is_done, !host.is_mounted(&path), "it says one thing and does another");
    while host.is_mounted(&path) {
        rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty()).unwrap();
    }
    disk.unpublish(&client, &path);
    disk.unstage(&host, &client);
    host.until_nothing();
}

#[test]
fn a_busy_target_stays_until_it_is_not() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::by_hand(&host, Kind::Union, "busy");
    disk.stage(&host, &client);
    let path = disk.publish(&host, &client, "pod");
    let file = fs::File::create(path.join("open")).unwrap();
    let is_done = try_unpublish(&client, &disk, &path);
    // A bind mount may go while a file of it is open; either way the answer is the truth.
    assert_eq!(is_done, !host.is_mounted(&path));
    drop(file);
    disk.unpublish(&client, &path);
    disk.unstage(&host, &client);
    host.until_nothing();
}
